"""The queue's worker: it thinks about queries as they come in, until it is stopped.

A query is taken under a lease and leaves the queue when its thought is kept, so a worker that dies at any point loses
nothing: the lease ends and somebody takes the query again. Several workers may share a queue.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from onesearch.understanding import stopping
from onesearch.understanding.driver import BATCH, ROUNDS, BulkProducer
from onesearch.understanding.llm_producer import BudgetSpent, LLMError, LLMUnavailableError
from onesearch.understanding.stopping import stopped_by
from onesearch.understanding.thought import Producer, Thought, ThoughtError
from onesearch.understanding.thought_cache import CacheError, ThoughtCache

log = logging.getLogger("onesearch")
_T = TypeVar("_T")
WATCH_LEASE: Final = 900.0
"""Longer than a language model's slowest answer with all attempts and the repair, so that none is asked for twice."""
_SECONDS_BETWEEN_LINES: Final = 60.0


@dataclass(frozen=True)
class Pauses:
    """Seconds: ``idle`` between looks into an empty queue; ``first``, doubling up to ``longest``, in an outage."""

    idle: float = 1.0
    first: float = 1.0
    longest: float = 60.0


@dataclass
class WatchSummary:
    """What became of the queries that were taken.

    Attributes:
        cached: had a thought already. answered: thought about and kept. set_aside: no usable answer.
        outages: how often the producer was found to be down. stopped: why the work ended.
    """

    cached: int = 0
    answered: int = 0
    set_aside: int = 0
    outages: int = 0
    stopped: str = ""

    def text(self) -> str:
        """The figures in one line."""
        return (
            f"{self.answered:,} answered, {self.cached:,} cached before, {self.set_aside:,} set aside, "
            f"{self.outages:,} outages; ended: {self.stopped}"
        )


def run_watch(
    producer: Producer,
    cache: ThoughtCache,
    concurrency: int = 16,
    lease: float = WATCH_LEASE,
    pauses: Pauses | None = None,
) -> WatchSummary:
    """:func:`watch` from ordinary code, until SIGTERM or Ctrl-C."""

    async def main() -> WatchSummary:
        stop = asyncio.Event()
        try:
            with stopped_by(stop, signal.SIGINT, signal.SIGTERM):
                return await watch(producer, cache, stop, concurrency, lease, pauses)
        finally:
            close = getattr(producer, "close", None)
            if close is not None:
                await close()

    return asyncio.run(main())


async def watch(
    producer: Producer,
    cache: ThoughtCache,
    stop: asyncio.Event,
    concurrency: int = 16,
    lease: float = WATCH_LEASE,
    pauses: Pauses | None = None,
) -> WatchSummary:
    """Take queries from the queue and keep what the producer thinks of them, until ``stop`` is set.

    A producer or a cache that is down is waited for. A producer with a ``think_all`` gets many queries at once, and
    its thoughts without keywords are kept as well: nothing would be gained by asking it again.

    Args:
        producer: whoever thinks.
        cache: has the queue and gets the thoughts.
        stop: once set, nothing more is taken; what is under way gets :data:`~stopping.GRACE` seconds.
        concurrency: queries in work at once.
        lease: seconds after which somebody else may take a query that this worker took.
        pauses: how long to wait when there is nothing to do or nobody answers.

    Raises:
        LLMError: the server refuses before it ever answered, which no waiting changes.
    """
    return await _Watch(producer, cache, stop, max(concurrency, 1), lease, pauses or Pauses()).run()


class _Backoff:
    """Pauses that double from failure to failure."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self.failures = 0

    def next(self) -> float:
        self.failures += 1
        return min(self._pauses.first * 2.0 ** min(self.failures - 1, 30), self._pauses.longest)


class _Watch:
    def __init__(
        self,
        producer: Producer,
        cache: ThoughtCache,
        stop: asyncio.Event,
        concurrency: int,
        lease: float,
        pauses: Pauses,
    ) -> None:
        self.producer, self.cache, self.stop, self.lease, self.pauses = producer, cache, stop, lease, pauses
        self.bulk = producer if isinstance(producer, BulkProducer) else None
        self.slots, self.size = (1, BATCH) if self.bulk else (concurrency, 1)
        self.summary = WatchSummary()
        self.outage = _Backoff(pauses)
        self.down = False
        self.fault: LLMError | None = None
        self.grace: float | None = stopping.GRACE
        self.mine: set[str] = set()
        self.unanswered: dict[str, tuple[int, int]] = {}
        self.last_line = time.monotonic()

    async def run(self) -> WatchSummary:
        running: set[asyncio.Task[None]] = set()
        try:
            while not self.stop.is_set():
                if self.down:
                    running = await self._sit_out(running)
                running = await self._turn(running)
        except CacheError as error:
            if not self.stop.is_set():
                raise
            log.warning("%s", error)
        finally:
            await self._leave(running)
        if self.fault is not None:
            raise self.fault
        self.summary.stopped = self.summary.stopped or "stopped by a signal"
        return self.summary

    async def _turn(self, running: "set[asyncio.Task[None]]") -> "set[asyncio.Task[None]]":
        """Fill the free slots, then wait until one is free again, or a while if the queue is empty."""
        slots = 1 if self.outage.failures else self.slots  # after an outage one query tries the ground
        free = slots - len(running)
        taken = await self._patiently(self.cache.take, free * self.size, self.lease) if free > 0 else []
        self.mine.update(taken)
        for begin in range(0, len(taken), self.size):
            running.add(asyncio.create_task(self._work(taken[begin : begin + self.size])))
        self._tell()
        return await self._wait(running, self.pauses.idle if len(running) < slots else None)

    async def _wait(self, running: "set[asyncio.Task[None]]", seconds: float | None) -> "set[asyncio.Task[None]]":
        """Until a task ends, ``stop`` is set or the time is over; the tasks that still run."""
        stopped = asyncio.create_task(self.stop.wait())
        try:
            done, _ = await asyncio.wait({*running, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        for task in done - {stopped}:
            task.result()
        return running - done

    async def _sit_out(self, running: "set[asyncio.Task[None]]") -> "set[asyncio.Task[None]]":
        """Let what is under way end, then pause, the longer the more often in a row nobody answered."""
        while running and not self.stop.is_set():
            running = await self._wait(running, None)
        if self.down and not self.stop.is_set():
            self.summary.outages += not self.outage.failures
            pause = self.outage.next()
            log.warning("understanding: no answer, trying again in %.0f s; the queries wait in the queue", pause)
            await self._wait(running, pause)
        self.down = False
        return running

    async def _work(self, queries: Sequence[str]) -> None:
        """Bring taken queries to an end: kept, set aside, or back in the queue."""
        try:
            known = await self._patiently(self.cache.get_many, queries, self.producer.name, self.producer.version)
            if known:
                await self._off_the_queue(list(known))
                self.summary.cached += len(known)
            if open_queries := [query for query in queries if query not in known]:
                await (self._in_bulk(self.bulk, open_queries) if self.bulk else self._one(open_queries[0]))
        except CacheError as error:  # only when stopping: the leases end by themselves
            log.warning("%s; %s queries stay in the queue", error, f"{len(queries):,}")

    async def _one(self, query: str) -> None:
        try:
            thought = await self.producer.think(query)
        except ThoughtError as error:
            self._up()
            await self._set_aside(query, str(error))
        except LLMUnavailableError as error:
            await self._nobody_answered(query, error)
        except BudgetSpent as error:
            self.grace = None  # calls in flight are paid for
            self._end(str(error))
        except LLMError as error:
            # A server that answered before is set up rightly; something before it, like a proxy, speaks for it now.
            if self.summary.answered:
                await self._nobody_answered(query, error)
            else:
                self.fault = self.fault or error
                self._end(str(error))
        except Exception as error:
            log.exception("understanding: %r is set aside", query)  # else it would stop every worker that takes it
            await self._set_aside(query, f"internal error: {type(error).__name__}")
        else:
            await self._keep([thought], [query])

    async def _in_bulk(self, producer: BulkProducer, queries: list[str]) -> None:
        try:
            thoughts = await asyncio.to_thread(producer.think_all, queries)
        except Exception as error:
            if len(queries) > 1:  # one query must not cost its neighbours their thoughts
                for query in queries:
                    await self._in_bulk(producer, [query])
                return
            log.exception("understanding: %r is set aside", queries[0])
            await self._set_aside(queries[0], f"internal error: {type(error).__name__}")
        else:
            await self._keep(thoughts, queries)

    async def _keep(self, thoughts: Sequence[Thought], queries: Sequence[str]) -> None:
        await self._patiently(self.cache.put, thoughts)
        self.summary.answered += len(thoughts)
        self._up()
        for query in queries:
            self.unanswered.pop(query, None)
        await self._off_the_queue(queries)

    async def _nobody_answered(self, query: str, error: Exception) -> None:
        """Back into the queue; but a query that fails again and again while others are answered is set aside."""
        turns, answered = self.unanswered.get(query, (0, -1))
        turns += self.summary.answered > answered
        if turns > ROUNDS:
            await self._set_aside(query, f"no answer in {turns} rounds, while others got one: {error}")
            return
        self.unanswered[query] = (turns, self.summary.answered)
        self.down = True
        log.debug("understanding: %s", error)
        await self._patiently(self.cache.release, [query])
        self.mine.discard(query)

    async def _set_aside(self, query: str, reason: str) -> None:
        await self._patiently(self.cache.failed, query, reason)
        self.summary.set_aside += 1
        self.unanswered.pop(query, None)
        self.mine.discard(query)

    async def _off_the_queue(self, queries: Sequence[str]) -> None:
        await self._patiently(self.cache.done, queries)
        self.mine.difference_update(queries)

    async def _patiently(self, call: Callable[..., _T], *arguments: object) -> _T:
        """A call of the cache, again and again while it is down.

        Raises:
            CacheError: it is down and the work is to stop.
        """
        backoff = _Backoff(self.pauses)
        while True:
            try:
                return await asyncio.to_thread(call, *arguments)
            except CacheError as error:
                if self.stop.is_set():
                    raise
                pause = backoff.next()
                log.warning("understanding: %s; trying again in %.0f s", error, pause)
                await self._wait(set(), pause)

    async def _leave(self, running: "set[asyncio.Task[None]]") -> None:
        """Give what is under way its time, then give back what was not finished."""
        if running:
            await asyncio.wait(running, timeout=self.grace)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self.mine:
            try:
                await asyncio.to_thread(self.cache.release, sorted(self.mine))
            except CacheError as error:
                log.warning("%s; %s queries wait until their leases end", error, f"{len(self.mine):,}")

    def _up(self) -> None:
        self.outage.failures, self.down = 0, False

    def _end(self, reason: str) -> None:
        self.summary.stopped = self.summary.stopped or reason
        self.stop.set()

    def _tell(self) -> None:
        now, s = time.monotonic(), self.summary
        if now - self.last_line < _SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        log.info("understanding: %s answered, %s set aside so far", f"{s.answered:,}", f"{s.set_aside:,}")
