"""Thinking about many queries: a list of them, or those of the cache's queue for as long as it is wanted."""

import asyncio
import signal
from collections.abc import Iterable
from pathlib import Path

from onesearch.understanding.stop_signals import run_until_stopped
from onesearch.understanding.thought import Producer
from onesearch.understanding.thought_cache import ThoughtCache
from onesearch.understanding.work_summary import Summary
from onesearch.understanding.worker import BATCH, LEASE, Pauses, Worker


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

    Each answer is kept before its slot asks for the next, so a kill loses the calls in flight at most. A query
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
        stop: once set, no further query is begun; calls in flight get
            :data:`~onesearch.understanding.stop_signals.GRACE` seconds.

    Raises:
        CacheError, LLMError, OSError: nothing can be asked or kept. What was answered until then is kept.
    """
    stop = stop or asyncio.Event()
    return await Worker(producer, cache, stop, concurrency, batch, rejects, patience).run(queries)


async def watch(
    producer: Producer,
    cache: ThoughtCache,
    stop: asyncio.Event,
    concurrency: int = 16,
    lease: float = LEASE,
    pauses: Pauses | None = None,
) -> Summary:
    """Take queries from the queue and keep what the producer thinks of them, until ``stop`` is set.

    A query is taken under a lease and leaves the queue when its thought is kept, so a worker that dies at any point
    loses nothing: the lease ends and somebody takes the query again. Several workers may share a queue. A producer or
    a cache that is down is waited for.

    Args:
        producer: whoever thinks; with a ``think_all`` it gets many queries at once.
        cache: has the queue and gets the thoughts.
        stop: once set, nothing more is taken; calls in flight get
            :data:`~onesearch.understanding.stop_signals.GRACE` seconds.
        concurrency: queries in work at once.
        lease: seconds after which somebody else may take a query that this worker took.
        pauses: how long to wait when there is nothing to do or nobody answers.

    Raises:
        LLMError: the server refuses before it ever answered, which no waiting changes.
    """
    return await Worker(producer, cache, stop, concurrency, live=True, lease=lease, pauses=pauses or Pauses()).run()


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
    return run_until_stopped(
        lambda stop: understand(queries, producer, cache, rejects, concurrency, batch, patience, stop),
        producer,
        signal.SIGINT,
    )


def run_watch(producer: Producer, cache: ThoughtCache, concurrency: int = 16, lease: float = LEASE) -> Summary:
    """:func:`watch` from ordinary code, until SIGTERM or Ctrl-C."""
    return run_until_stopped(
        lambda stop: watch(producer, cache, stop, concurrency, lease), producer, signal.SIGINT, signal.SIGTERM
    )
