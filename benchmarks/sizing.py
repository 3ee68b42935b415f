"""What catalogues of some sizes need in serving: memory, and processor time of a search. Prints one JSON object.

    python -m benchmarks.sizing runs/demo                    # with 10,000, 100,000 and a million items
    python -m benchmarks.sizing runs/demo --items 20000      # with as many

The catalogue is the run's own with items of other ids and reordered titles on top; the model stays that of the run.
Each size has a process of its own. ``memory_mib`` is that of the process after the searches, ``peak_mib`` what it held
at most while the items came in; ``search_cpu_ms`` is processor time of single searches of the log's newest queries,
``batch_cpu_ms`` of one of 32 that are answered together; torch works on one thread.
"""

import itertools
import json
import multiprocessing
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import torch
import typer

from benchmarks.varied_items import varied_items
from onesearch.common.memory import peak_mib, resident_mib
from onesearch.data.dataset import Dataset
from onesearch.search.engine import SearchRequest, load_engine

_AT_ONCE = 5000  # items of one change
_BATCH = 32


def main(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    items: Annotated[list[int] | None, typer.Option(help="A size of the catalogue, repeatable.")] = None,
    requests: Annotated[int, typer.Option(help="Searches measured at each size.")] = 64,
) -> None:
    """Measure and print."""
    found = {}
    for size in items or (10_000, 100_000, 1_000_000):
        with multiprocessing.get_context("spawn").Pool(1) as fresh:  # nothing of the size before is in its memory
            found[str(size)] = fresh.apply(measure, (run, size, requests))
    print(json.dumps({"run": run.name, "requests": requests, "by_items": found}))


def measure(run: Path, size: int, requests: int) -> dict[str, float]:
    """Bring the catalogue of a run up to ``size`` items, search in it, and say what both took."""
    torch.set_num_threads(1)
    engine = load_engine(run)
    loaded = resident_mib()
    # Items come in as they would in a service; merges run beside it.
    dataset = Dataset.load(run / "data")
    missing = itertools.islice(varied_items(dataset, "more"), size - len(engine))
    start = time.process_time()
    while some := list(itertools.islice(missing, _AT_ONCE)):
        engine.upsert(some)
    while engine.current.merging:
        time.sleep(0.1)
    came = time.process_time() - start
    # Single searches, then the same in batches, as a busy service answers them.
    asked = searches(dataset, requests)
    engine.search_batch(asked[:_BATCH])
    single = []
    for request in asked:
        start = time.process_time()
        engine.search_batch([request])
        single.append(1e3 * (time.process_time() - start))
    start = time.process_time()
    for begin in range(0, len(asked), _BATCH):
        engine.search_batch(asked[begin : begin + _BATCH])
    batched = 1e3 * (time.process_time() - start) / len(asked)
    return {
        "items": len(engine),
        "loaded_mib": round(loaded),
        "memory_mib": round(resident_mib()),
        "peak_mib": round(peak_mib()),
        "upsert_cpu_ms_per_1000": round(1e6 * came / max(size - len(dataset.items), 1), 1),
        "search_cpu_ms": round(float(np.median(single)), 1),
        "search_cpu_ms_p95": round(float(np.percentile(single, 95)), 1),
        "batch_cpu_ms": round(batched, 1),
    }


def searches(dataset: Dataset, number: int) -> list[SearchRequest]:
    """Searches of the log's newest page views."""
    rows = dataset.page_views.filter(pl.col("query") != "").tail(number).select("query", "user_id")
    return [SearchRequest(query, user) for query, user in rows.iter_rows()]


if __name__ == "__main__":
    typer.run(main)
