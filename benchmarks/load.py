"""The service under load: throughput and latency by connections, memory, searches while items come in.

    python -m benchmarks.load runs/demo                    # as the catalogue is
    python -m benchmarks.load runs/demo --items 100000     # brought up to so many items
    python -m benchmarks.load runs/demo --quick            # a smoke test; its figures mean nothing

Prints one JSON object. The service is a process of its own, with its own store; the callers are one more on the same
machine, so that the figures are lower bounds. Every connection sends its next search as soon as the last is answered,
also after a 503, as no well-behaved caller would. Queries and shoppers are those of the log. The larger catalogue is
the run's own with items of other ids and reordered titles on top, brought in over HTTP.

Per number of connections: ``per_second`` answered searches; ``p50``, ``p95``, ``p99`` of their milliseconds;
``refused`` 503 with ``Retry-After``; ``errors`` everything else. ``kept`` is the throughput at the most connections
over the best one, ``recovered`` the same right after at 16. ``memory_growth`` is that of the second half of the soak,
as a share. ``p95_ratio`` is p95 while 1,000 items a second are sent in, in calls of 100, over p95 without.
"""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer

from benchmarks.http_client import Answer, Connection, Server, serving
from benchmarks.varied_items import varied_items
from onesearch.data.dataset import Dataset
from onesearch.data.records import Item
from onesearch.serving.http_bodies import ItemBody
from onesearch.serving.serving_settings import ServingSettings

CONNECTIONS = (1, 4, 16, 64, 256)
CALL, CALLS_PER_SECOND = 100, 10
_AT_ONCE = 4  # connections of soak and changes: busy, not overloaded


def main(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    items: Annotated[int, typer.Option(help="Bring the catalogue up to so many; 0 leaves it as it is.")] = 0,
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 20.0,
    requests: Annotated[int, typer.Option(help="Length of the soak.")] = 20_000,
    quick: Annotated[bool, typer.Option(help="A smoke test.")] = False,
) -> None:
    """Measure and print."""
    seconds, requests = (1.0, 60) if quick else (seconds, requests)
    dataset = Dataset.load(run / "data")
    with tempfile.TemporaryDirectory() as place, serving(run, Path(place), ("--api-only",)) as server:
        if items:
            _fill(server, dataset, items)
        found = asyncio.run(_measure(server, dataset, seconds, requests))
    found = {"run": str(run), "seconds": seconds, "requests": requests, **found}
    print(json.dumps(found))


async def _measure(server: Server, dataset: Dataset, seconds: float, requests: int) -> dict[str, Any]:
    bodies = _searches(dataset)
    await _load(server, bodies, _AT_ONCE, seconds=min(seconds, 3.0))  # warm
    by_connections = {str(n): summary(await _load(server, bodies, n, seconds), seconds) for n in CONNECTIONS}
    after = summary(await _load(server, bodies, 16, seconds), seconds)
    best = max(one["per_second"] for one in by_connections.values())
    # The same load in two halves, with the memory after each.
    memory = [server.memory]
    for _ in range(2):
        soak = await _load(server, bodies, _AT_ONCE, requests=requests // 2)
        memory.append(server.memory)
    calm = summary(await _load(server, bodies, _AT_ONCE, seconds), seconds)
    # Items come in at a fixed rate beside the same load; their calls are written before, so that the callers answer.
    fresh, calls = varied_items(dataset, "change"), int(seconds * CALLS_PER_SECOND)
    changes = [json.dumps(_upsert(itertools.islice(fresh, CALL))).encode() for _ in range(calls)]
    changing = asyncio.create_task(_change(server, changes))
    busy = summary(await _load(server, bodies, _AT_ONCE, seconds), seconds)
    return {
        "items": server.get("/healthz")["items"],
        "connections": by_connections,
        "kept": round(by_connections[str(CONNECTIONS[-1])]["per_second"] / best, 3),
        "recovered": round(after["per_second"] / best, 3),
        "soak_errors": sum(answer.status != 200 for answer in soak),
        "memory_mib": [round(one / 2**20, 1) for one in memory],
        "memory_growth": round(memory[2] / memory[1] - 1, 4),
        "calm": calm,
        "while_items_come_in": busy | await changing,
        "p95_ratio": round(busy["p95"] / calm["p95"], 2) if calm["p95"] else None,
    }


def summary(answers: Sequence[Answer], seconds: float) -> dict[str, float]:
    """Throughput, latency in milliseconds of what was answered, refusals, errors."""
    served = [answer.seconds * 1e3 for answer in answers if answer.status == 200]
    refused = sum(answer.status == 503 and answer.retry for answer in answers)
    quantiles = np.percentile(served or [0.0], (50, 95, 99)).round(1).tolist()
    return {
        "per_second": round(len(served) / seconds, 1),
        **dict(zip(("p50", "p95", "p99"), quantiles, strict=True)),
        "refused": refused,
        "errors": len(answers) - len(served) - refused,
    }


async def _load(
    server: Server, bodies: Iterator[bytes], connections: int, seconds: float = 3600.0, requests: int | None = None
) -> list[Answer]:
    """The answers of so many callers, each of whom asks again at once, for so long or so many requests."""
    answers: list[Answer] = []
    left = itertools.count() if requests is None else iter(range(requests))
    end = time.monotonic() + seconds

    async def call() -> None:
        connection = Connection(server.port)
        for _ in left:
            answer = await connection.post("/search", next(bodies))
            if time.monotonic() > end:  # it came too late to count
                break
            answers.append(answer)
        connection.close()

    await asyncio.gather(*(call() for _ in range(connections)))
    return answers


async def _change(server: Server, calls: Sequence[bytes]) -> dict[str, float]:
    """Send items at a fixed rate; how many calls were not answered, and how many items a second came in."""
    answers: list[Answer] = []
    start = time.monotonic()
    due = iter(enumerate(calls))

    async def send() -> None:
        connection = Connection(server.port)
        for number, call in due:
            await asyncio.sleep(max(0.0, start + number / CALLS_PER_SECOND - time.monotonic()))
            if time.monotonic() > start + len(calls) / CALLS_PER_SECOND:
                break
            answers.append(await connection.post("/items", call))
        connection.close()

    # A call that is late does not hold up the next ones; the service takes no more at once than it says.
    await asyncio.gather(*(send() for _ in range(ServingSettings().max_changes)))
    done = sum(answer.status == 200 for answer in answers)
    took = time.monotonic() - start
    return {"items_per_second": round(done * CALL / took, 1), "failed_calls": len(answers) - done}


def _fill(server: Server, dataset: Dataset, most: int) -> None:
    """Bring the catalogue up to ``most`` items."""
    missing = most - int(server.get("/healthz")["items"])
    more = itertools.islice(varied_items(dataset, "more"), max(missing, 0))
    while items := list(itertools.islice(more, 1000)):
        status, _ = server.call("POST", "/items", _upsert(items))
        if status != 200:
            raise RuntimeError(f"POST /items answered {status}")


def _upsert(items: Iterable[Item]) -> dict[str, Any]:
    """The body of a call that brings items in."""
    return {"upsert": [ItemBody.from_item(item).model_dump(mode="json") for item in items]}


def _searches(dataset: Dataset) -> Iterator[bytes]:
    """Searches of the log's newest page views, over and over."""
    page_views = dataset.page_views.filter(pl.col("query") != "").tail(5000).sample(fraction=1.0, shuffle=True, seed=0)
    rows = page_views.select("query", pl.col("user_id").alias("user")).iter_rows(named=True)
    return itertools.cycle([json.dumps({**row, "query": row["query"][:200]}).encode() for row in rows])


if __name__ == "__main__":
    typer.run(main)
