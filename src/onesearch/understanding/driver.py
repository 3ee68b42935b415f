"""Thinking about many queries: what is cached is skipped, every answer is kept as it arrives, nothing is lost."""

import asyncio
import json
import logging
import signal
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from onesearch.understanding import stopping
from onesearch.understanding.llm_producer import BudgetSpent, LLMUnavailableError, Usage
from onesearch.understanding.stopping import stopped_by
from onesearch.understanding.summary import Summary
from onesearch.understanding.thought import Producer, Thought, ThoughtError
from onesearch.understanding.thought_cache import ThoughtCache, cache_key

__all__ = ["BulkProducer", "Summary", "run_understand", "understand"]
log = logging.getLogger("onesearch")
BATCH: Final = 500
ROUNDS: Final = 4
"""How often a query is brought before a server that does not answer; each round has the producer's own retries."""
_SECONDS_BETWEEN_LINES: Final = 15.0


@runtime_checkable
class BulkProducer(Protocol):
    """A producer that is fast on many queries at once; without an answer it gives a thought without keywords."""

    def think_all(self, queries: Sequence[str]) -> list[Thought]:
        """Thoughts of the queries, in order."""
        ...


async def understand(
    queries: Iterable[str],
    producer: Producer,
    cache: ThoughtCache,
    rejects: Path | None = None,
    concurrency: int = 16,
    batch: int = BATCH,
    patience: float = 120.0,
    stop: asyncio.Event | None = None,
) -> Summary:
    """Have a producer think about the queries that are not in the cache.

    Each worker keeps its answer before it asks for the next, so a kill loses the calls in flight at most. A query
    without a usable answer is noted in ``rejects`` and, unless the producer has a ``think_all``, as failed in the
    cache; another run asks it again.

    Args:
        queries: as typed; the same ones after normalisation count once.
        producer: whoever thinks; with a ``think_all`` it gets ``batch`` queries at once.
        cache: gets the thoughts.
        rejects: a JSON-lines file that grows, never replaced.
        concurrency: queries in work at once.
        batch: queries looked up in the cache, or given to ``think_all``, at once.
        patience: seconds without any answer after which a server that is down is given up.
        stop: once set, no further query is begun.

    Raises:
        CacheError, LLMError, OSError: nothing can be asked or kept. What was answered until then is kept.
    """
    return await _Drive(producer, cache, rejects, max(batch, 1), patience, stop or asyncio.Event()).run(
        queries, concurrency
    )


def run_understand(
    queries: Iterable[str],
    producer: Producer,
    cache: ThoughtCache,
    rejects: Path | None = None,
    concurrency: int = 16,
    batch: int = BATCH,
    patience: float = 120.0,
) -> Summary:
    """:func:`understand` from ordinary code. Ctrl-C stops it cleanly, a second one at once."""

    async def main() -> Summary:
        stop = asyncio.Event()
        try:
            with stopped_by(stop, signal.SIGINT):
                return await understand(queries, producer, cache, rejects, concurrency, batch, patience, stop)
        finally:
            close = getattr(producer, "close", None)
            if close is not None:
                await close()

    return asyncio.run(main())


class _Drive:
    def __init__(
        self,
        producer: Producer,
        cache: ThoughtCache,
        rejects: Path | None,
        batch: int,
        patience: float,
        stop: asyncio.Event,
    ) -> None:
        self.producer, self.cache, self.rejects, self.batch, self.patience = producer, cache, rejects, batch, patience
        self.stop = stop
        self.grace: float | None = stopping.GRACE
        self.keeping: set[asyncio.Task[None]] = set()
        self.summary = Summary()
        self.todo: deque[tuple[str, int]] = deque()
        self.start = self.last_answer = self.last_line = time.monotonic()
        self.before = Usage(**vars(self._usage()))

    async def run(self, queries: Iterable[str], concurrency: int) -> Summary:
        await self._look_up(queries)
        try:
            if isinstance(self.producer, BulkProducer):
                await self._in_bulk(self.producer)
            else:
                await self._with_workers(min(max(concurrency, 1), max(len(self.todo), 1)))
        finally:
            self._finish()
        return self.summary

    async def _look_up(self, queries: Iterable[str]) -> None:
        distinct: dict[str, None] = {}
        for query in queries:
            self.summary.given += 1
            if key := cache_key(query):
                distinct[key] = None
        wanted = list(distinct)
        self.summary.asked = len(wanted)
        for begin in range(0, len(wanted), self.batch):
            part = wanted[begin : begin + self.batch]
            found = await asyncio.to_thread(self.cache.get_many, part, self.producer.name, self.producer.version)
            self.summary.cached += len(found)
            self.todo.extend((query, 1) for query in part if query not in found)

    async def _in_bulk(self, producer: BulkProducer) -> None:
        while self.todo and not self.stop.is_set():
            part = [self.todo.popleft()[0] for _ in range(min(self.batch, len(self.todo)))]
            thoughts = await asyncio.to_thread(producer.think_all, part)
            usable = [t for t in thoughts if t.keywords or t.analysis.intent != "merchandise"]
            await asyncio.to_thread(self.cache.put, usable)
            self.summary.answered += len(usable)
            kept = {id(thought) for thought in usable}
            for query, thought in zip(part, thoughts, strict=True):
                if id(thought) not in kept:
                    await self._set_aside(query, "no keywords", for_good=False)
            self._tell()
        if self.todo:
            self.summary.stopped = self.summary.stopped or "interrupted"

    async def _with_workers(self, concurrency: int) -> None:
        workers = [asyncio.create_task(self._work()) for _ in range(concurrency)]
        stopped = asyncio.create_task(self.stop.wait())
        try:
            running = set(workers)
            while running:
                done, _ = await asyncio.wait({*running, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopped}:
                    task.result()  # an unexpected error ends the whole
                running -= done
                if stopped in done:
                    if running:
                        await asyncio.wait(running, timeout=self.grace)
                    for task in running:
                        if task.done():
                            task.result()
                    break
        finally:
            for task in (*workers, stopped):
                task.cancel()
            await asyncio.gather(*workers, stopped, return_exceptions=True)
            await asyncio.gather(*self.keeping, return_exceptions=True)
        if self.stop.is_set() and not self.summary.stopped and self._open():
            self.summary.stopped = "interrupted"

    async def _work(self) -> None:
        while self.todo and not self.stop.is_set():
            query, turn = self.todo.popleft()
            try:
                thought = await self.producer.think(query)
            except ThoughtError as error:
                self.last_answer = time.monotonic()
                await self._whole(self._set_aside(query, str(error)))
            except LLMUnavailableError as error:
                if turn < ROUNDS:
                    self.todo.append((query, turn + 1))
                if time.monotonic() - self.last_answer > self.patience:
                    self._end(f"{error} (for {self.patience:.0f} s nothing was answered)")
            except BudgetSpent as error:
                self.grace = None  # calls in flight are paid for
                self._end(str(error))
            else:
                self.last_answer = time.monotonic()
                await self._whole(self._keep(thought))
            self._tell()

    async def _whole(self, keeping: Coroutine[Any, Any, None]) -> None:
        """Wait for what a stop must not cut in two: the answer is there and paid for."""
        task = asyncio.create_task(keeping)
        self.keeping.add(task)
        task.add_done_callback(self.keeping.discard)
        await asyncio.shield(task)

    async def _keep(self, thought: Thought) -> None:
        await asyncio.to_thread(self.cache.put, [thought])
        self.summary.answered += 1

    async def _set_aside(self, query: str, reason: str, for_good: bool = True) -> None:
        await asyncio.to_thread(self._note, query, reason, for_good)
        self.summary.set_aside += 1
        self.summary.reasons[reason.split(": ", 1)[0]] += 1

    def _note(self, query: str, reason: str, for_good: bool) -> None:
        if self.rejects is not None:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "producer": self.producer.name,
                "version": self.producer.version,
                "query": query,
                "reason": reason,
            }
            self.rejects.parent.mkdir(parents=True, exist_ok=True)
            # One write in append mode: lines of several workers or processes do not mix.
            with self.rejects.open("ab", buffering=0) as file:
                file.write(json.dumps(line).encode() + b"\n")
        # What rules over the log cannot answer may still wait in the queue for a language model.
        if for_good:
            self.cache.failed(query, reason)

    def _end(self, reason: str) -> None:
        self.summary.stopped = self.summary.stopped or reason
        self.stop.set()

    def _open(self) -> int:
        s = self.summary
        return s.asked - s.cached - s.answered - s.set_aside

    def _usage(self) -> Usage:
        usage: Any = getattr(self.producer, "usage", None)
        return usage if isinstance(usage, Usage) else Usage()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self.last_line < _SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        s, usage = self.summary, self._usage()
        rate = (s.answered + s.set_aside) / max(now - self.start, 1e-9)
        log.info(
            "understanding: %s of %s, %.1f/s, %s calls, cost %.4g, %s s left",
            f"{s.answered + s.set_aside:,}",
            f"{s.asked - s.cached:,}",
            rate,
            f"{usage.calls - self.before.calls:,}",
            usage.cost - self.before.cost,
            f"{self._open() / rate:,.0f}" if rate else "?",
        )

    def _finish(self) -> None:
        s, now, before = self.summary, self._usage(), self.before
        s.unfinished = self._open()
        s.calls, s.retries = now.calls - before.calls, now.retries - before.retries
        s.repaired, s.dropped = now.repaired - before.repaired, now.dropped - before.dropped
        s.tokens_in, s.tokens_out = now.tokens_in - before.tokens_in, now.tokens_out - before.tokens_out
        s.cost = now.cost - before.cost
        s.seconds = time.monotonic() - self.start
