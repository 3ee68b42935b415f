"""One loop that has a producer think: over a list of queries, or over the cache's queue for as long as it is wanted.

What differs between the two is what the promises of `understand` and `watch` ask for:

=========================  ======================================  ==================================================
what happens               a list (`understand`)                   the queue (`watch`)
=========================  ======================================  ==================================================
nobody answers a query     it comes again at the end, four times   it comes again; five times while others get an
                           in all, then it is unfinished           answer, then it is set aside
nobody answers any query   ends after ``patience`` seconds         pauses of 1, 2, 4, ... 60 seconds
the cache does not answer  ends                                    an answer is held until the cache takes it
a producer has a bug       ends                                    the query is set aside
thoughts without keywords  set aside; other producers may have     kept; the same producer has no others
=========================  ======================================  ==================================================
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from onesearch.understanding.llm_producer import BudgetSpent, LLMError, LLMUnavailableError
from onesearch.understanding.stop_signals import GRACE
from onesearch.understanding.thought import BulkProducer, Producer, Thought, ThoughtError
from onesearch.understanding.thought_cache import CacheError, ThoughtCache, cache_key
from onesearch.understanding.work_summary import Summary, UsageMeter, note_reject

log = logging.getLogger("onesearch")
_T = TypeVar("_T")
BATCH: Final = 500
"""Queries looked up in the cache at once, or given to a producer of many."""
ROUNDS: Final = 4
"""How often a query is brought before a server that does not answer; each round has the producer's own retries."""
LEASE: Final = 900.0
"""Longer than a language model's slowest answer with all attempts and the repair, so that none is asked for twice."""
_SECONDS_BETWEEN_LINES: Final = 15.0


@dataclass(frozen=True)
class Pauses:
    """Seconds: ``idle`` between looks into an empty queue; ``first``, doubling up to ``longest``, in an outage."""

    idle: float = 1.0
    first: float = 1.0
    longest: float = 60.0

    def after(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return min(self.first * 2.0 ** min(failures - 1, 30), self.longest)


@dataclass
class Worker:
    """One producer and one cache.

    Repeat until stopped, the list is empty or the budget is spent::

        take as many queries as slots are free (one after an outage) and leave out those with a thought in the cache
        ask the producer, each query in a slot of its own, or a batch of them if it can think about many at once
        keep each answer at once; set a query without a usable answer aside, with the reason
        nobody answers: give the query back and try again later
    then let calls in flight end, for at most ten seconds, and give back what is not finished

    Attributes:
        live: work on the cache's queue; else on the list that :meth:`run` gets. The others: see there.
    """

    producer: Producer
    cache: ThoughtCache
    stop: asyncio.Event
    concurrency: int = 16
    batch: int = BATCH
    rejects: Path | None = None
    patience: float = 120.0
    live: bool = False
    lease: float = LEASE
    pauses: Pauses = Pauses()

    def __post_init__(self) -> None:
        self.bulk = self.producer if isinstance(self.producer, BulkProducer) else None
        self.batch = max(self.batch, 1)
        self.slots, self.size = (1, self.batch) if self.bulk else (max(self.concurrency, 1), 1)
        self.todo: deque[str] = deque()  # of a list
        self.leased: set[str] = set()  # from the queue
        # Of each query that nobody answered: rounds so far, and how many others had an answer at the last one.
        self.rounds: dict[str, tuple[int, int]] = {}
        self.keeping: set[asyncio.Task[None]] = set()
        self.failures, self.down = 0, False  # rounds in a row in which nobody answered; this one too
        self.grace: float | None = GRACE
        self.summary = Summary()
        self.start = self.last_answer = self.last_line = time.monotonic()
        self.meter = UsageMeter(self.producer)

    async def run(self, queries: Iterable[str] = ()) -> Summary:
        """Work until there is nothing to do or ``stop`` is set. Raises as `understand` and `watch` say."""
        running: set[asyncio.Task[None]] = set()
        try:
            await self._look_up(queries)
            while not self.stop.is_set() and (self.live or self.todo or running):
                if self.down:
                    running = await self._sit_out(running)
                # Fill the free slots.
                slots = 1 if self.failures else self.slots  # after an outage one query tries the ground
                taken = await self._take((slots - len(running)) * self.size)
                for begin in range(0, len(taken), self.size):
                    running.add(asyncio.create_task(self._work(taken[begin : begin + self.size])))
                self._tell()
                # Wait until a slot is free again, or a while if the queue is empty.
                running = await self._wait(running, self.pauses.idle if self.live and len(running) < slots else None)
            if running:  # stopped: calls in flight get their time
                ended, running = await asyncio.wait(running, timeout=self.grace)
                for task in ended:
                    task.result()
        except CacheError as error:
            if not (self.live and self.stop.is_set()):
                raise
            log.warning("%s", error)
        finally:
            await self._leave(running)
        return self._summed_up()

    async def _look_up(self, queries: Iterable[str]) -> None:
        """Put the distinct queries of a list that have no thought yet on the list of work."""
        keys = [cache_key(query) for query in queries]
        distinct = [key for key in dict.fromkeys(keys) if key]
        self.summary.given, self.summary.asked = len(keys), len(distinct)
        for begin in range(0, len(distinct), self.batch):
            part = distinct[begin : begin + self.batch]
            known = await asyncio.to_thread(self.cache.get_many, part, self.producer.name, self.producer.version)
            self.summary.cached += len(known)
            self.todo.extend(query for query in part if query not in known)

    async def _take(self, n: int) -> list[str]:
        """Up to ``n`` queries without a thought; fewer only when there are no more now."""
        if not self.live:
            return [self.todo.popleft() for _ in range(min(n, len(self.todo)))]
        found: list[str] = []
        while len(found) < n and not self.stop.is_set():
            taken = await self._patiently(self.cache.take, n - len(found), self.lease)
            if not taken:
                break
            self.leased.update(taken)
            known = await self._patiently(self.cache.get_many, taken, self.producer.name, self.producer.version)
            if known:
                await self._off_the_queue(list(known))
                self.summary.cached += len(known)
            found += [query for query in taken if query not in known]
        return found

    async def _wait(self, running: "set[asyncio.Task[None]]", seconds: float | None) -> "set[asyncio.Task[None]]":
        """Until a task ends, ``stop`` is set or the time is over; the tasks that still run. An error ends the whole."""
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
            self.summary.outages += not self.failures
            self.failures += 1
            pause = self.pauses.after(self.failures)
            log.warning("understanding: no answer, trying again in %.0f s; the queries wait in the queue", pause)
            await self._wait(running, pause)
        self.down = False
        return running

    async def _work(self, queries: list[str]) -> None:
        """Bring queries to an end: kept, set aside, or given back."""
        try:
            await (self._in_bulk(self.bulk, queries) if self.bulk else self._one(queries[0]))
        except CacheError as error:
            if not self.live:
                raise
            log.warning("%s; %s queries stay in the queue", error, f"{len(queries):,}")  # their leases end

    async def _one(self, query: str) -> None:
        try:
            thought = await self.producer.think(query)
        except ThoughtError as error:
            self._answers()
            await self._whole(self._set_aside(query, str(error)))
        except LLMUnavailableError as error:  # after all of the producer's own attempts
            await self._give_back(query, error)
        except BudgetSpent as error:
            self.grace = None  # calls in flight are paid for
            self._end(str(error))
        except LLMError as error:
            # A server that answered before is set up rightly; something before it, like a proxy, speaks for it now.
            if not (self.live and self.summary.answered):
                raise
            await self._give_back(query, error)
        except Exception as error:  # noqa: BLE001 - a bug of the producer
            await self._faulty(query, error)
        else:
            await self._whole(self._keep([thought], [query]))

    async def _in_bulk(self, producer: BulkProducer, queries: list[str]) -> None:
        try:
            thoughts = await asyncio.to_thread(producer.think_all, queries)
        except Exception as error:  # noqa: BLE001 - a bug of the producer
            if len(queries) == 1 or not self.live:
                await self._faulty(queries[0], error)
            else:
                for query in queries:  # one query must not cost its neighbours their thoughts
                    await self._in_bulk(producer, [query])
            return
        # What rules over the log cannot answer may still wait in the queue for a language model.
        answers = dict(zip(queries, thoughts, strict=True))
        wanting = [q for q, t in answers.items() if not t.keywords and t.analysis.intent == "merchandise"]
        without = {} if self.live else {query: answers.pop(query) for query in wanting}
        await self._whole(self._keep(list(answers.values()), list(answers)))
        for query in without:
            await self._whole(self._set_aside(query, "no keywords", for_good=False))

    async def _faulty(self, query: str, error: Exception) -> None:
        """The producer has a bug: the end of a list, but not of a worker, as every other one would take the query."""
        if not self.live:
            raise error
        log.error("understanding: %r is set aside", query, exc_info=error)
        await self._whole(self._set_aside(query, f"internal error: {type(error).__name__}"))

    async def _keep(self, thoughts: Sequence[Thought], queries: Sequence[str]) -> None:
        await self._patiently(self.cache.put, thoughts)
        self.summary.answered += len(thoughts)
        self._answers()
        for query in queries:
            self.rounds.pop(query, None)
        if self.live:
            await self._off_the_queue(queries)

    async def _set_aside(self, query: str, reason: str, for_good: bool = True) -> None:
        if self.rejects is not None:
            who = self.producer.name, self.producer.version
            await asyncio.to_thread(note_reject, self.rejects, *who, query, reason)
        if for_good:
            await self._patiently(self.cache.failed, query, reason)
        self.summary.set_aside += 1
        self.summary.reasons[reason.split(": ", 1)[0]] += 1
        self.rounds.pop(query, None)
        self.leased.discard(query)

    async def _give_back(self, query: str, error: Exception) -> None:
        """Nobody answered. In an outage no query is to blame, but one that fails while others are answered is."""
        rounds, answered = self.rounds.get(query, (0, -1))
        rounds += not self.live or self.summary.answered > answered
        self.rounds[query] = (rounds, self.summary.answered)
        if not self.live:
            if rounds < ROUNDS:  # after the others, when the server may be back
                self.todo.append(query)
            if time.monotonic() - self.last_answer > self.patience:
                self._end(f"{error} (for {self.patience:.0f} s nothing was answered)")
        elif rounds > ROUNDS:
            await self._set_aside(query, f"no answer in {rounds} rounds, while others got one: {error}")
        else:
            self.down = True
            log.debug("understanding: %s", error)
            await self._patiently(self.cache.release, [query])
            self.leased.discard(query)

    async def _off_the_queue(self, queries: Sequence[str]) -> None:
        await self._patiently(self.cache.done, queries)
        self.leased.difference_update(queries)

    async def _whole(self, keeping: Coroutine[Any, Any, None]) -> None:
        """Wait for what a stop must not cut in two: the answer is there and paid for."""
        task = asyncio.create_task(keeping)
        self.keeping.add(task)
        task.add_done_callback(self.keeping.discard)
        await asyncio.shield(task)

    async def _patiently(self, call: Callable[..., _T], *arguments: object) -> _T:
        """A call of the cache; in work on the queue again and again while it is down.

        Raises:
            CacheError: it is down, and this is work on a list or is to stop.
        """
        failures = 0
        while True:
            try:
                return await asyncio.to_thread(call, *arguments)
            except CacheError as error:
                if not self.live or self.stop.is_set():
                    raise
                failures += 1
                pause = self.pauses.after(failures)
                log.warning("understanding: %s; trying again in %.0f s", error, pause)
                await self._wait(set(), pause)

    async def _leave(self, running: "set[asyncio.Task[None]]") -> None:
        """Cut off what still runs, but for answers that are there, and end the leases of what was not finished."""
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*self.keeping, return_exceptions=True)
        if self.leased:
            try:
                await asyncio.to_thread(self.cache.release, sorted(self.leased))
            except CacheError as error:
                log.warning("%s; %s queries wait until their leases end", error, f"{len(self.leased):,}")

    def _answers(self) -> None:
        """Note that the producer is not down."""
        self.failures, self.down, self.last_answer = 0, False, time.monotonic()

    def _end(self, reason: str) -> None:
        self.summary.stopped = self.summary.stopped or reason
        self.stop.set()

    def _open(self) -> int:
        s = self.summary
        return s.asked - s.cached - s.answered - s.set_aside

    def _tell(self) -> None:
        now, s = time.monotonic(), self.summary
        if now - self.last_line < _SECONDS_BETWEEN_LINES * (4 if self.live else 1):
            return
        self.last_line = now
        done, used = s.answered + s.set_aside, self.meter.used()
        rate = done / max(now - self.start, 1e-9)
        # A budget of calls may end before the list; most queries take one call.
        allowed: int | None = getattr(self.producer, "calls_left", None)
        more = self._open() if allowed is None else min(self._open(), allowed)
        left = "" if self.live or not rate else f", {more / rate:,.0f} s left"
        of = "" if self.live else f" of {s.asked - s.cached:,}"
        spent = f"{used['calls']:,} calls, cost {used['cost']:.4g}"
        log.info("understanding: %s, %.1f/s, %s", f"{done:,}{of}", rate, spent + left)

    def _summed_up(self) -> Summary:
        s = self.summary
        if self.live:
            s.stopped = s.stopped or "stopped by a signal"
        else:
            s.unfinished = self._open()
            if self.stop.is_set() and s.unfinished:
                s.stopped = s.stopped or "interrupted"
        for name, value in self.meter.used().items():
            setattr(s, name, value)
        s.seconds = time.monotonic() - self.start
        return s
