"""Speed and size of the index: build, changes, look-ups and filters. Prints one JSON object.

The catalogue is made up: skewed codes on the first two levels, even ones below, as a quantizer with a balanced last
layer gives. Figures are the best of the repetitions, in wall clock; those of changes are medians of CPU time.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import polars as pl
import torch

from onesearch.index.changed_index import ChangedIndex
from onesearch.index.item_filters import ItemFilters
from onesearch.index.sid_index import SidIndex

CODEBOOKS = (4096, 1024, 512, 256, 256)


def seconds(step: Callable[[], object], repeats: int) -> float:
    """Best wall clock of a step."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def sids_of(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random SIDs int32 [n, 5]: Zipf-like first two codes, uniform others."""
    columns = [(rng.zipf(1.3, n) - 1) % size for size in CODEBOOKS[:2]]
    columns += [rng.integers(0, size, n) for size in CODEBOOKS[2:]]
    return np.stack(columns, 1).astype(np.int32)


def cpu_milliseconds(calls: Sequence[Callable[[], object]]) -> float:
    """Median CPU time of a call."""
    times = []
    for call in calls:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return round(1e3 * float(np.median(times)), 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--batch", type=int, default=10_000, help="items per add and remove")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "int8"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    n, batch, repeats = options.items, options.batch, options.repeats
    sids, more = sids_of(rng, n), sids_of(rng, batch)
    vectors = rng.standard_normal((n, options.dimension), dtype=np.float32)
    popularity = rng.random(n, dtype=np.float32)
    rows = np.arange(n, n + batch)
    made: list[SidIndex] = []

    def build() -> None:
        made[:] = [SidIndex.build(sids, vectors, CODEBOOKS, popularity, precision=options.precision)]

    cpu = time.process_time()
    build_seconds = seconds(build, repeats)
    cpu_seconds = (time.process_time() - cpu) / repeats
    index = made[0]
    gone = rng.choice(n, batch, replace=False)
    figures: dict[str, object] = {
        "items": n,
        "dimension": options.dimension,
        "precision": options.precision,
        "threads": options.threads,
        "nodes": [index.size(level) for level in range(index.levels)],
        "build_items_per_second": round(n / build_seconds),
        "build_items_per_cpu_second": round(n / cpu_seconds),
        "bytes_per_item_besides_vectors": round(index.nbytes.structure / n, 2),
        "bytes_per_item_vectors": round(index.nbytes.vectors / n, 2),
        "batch": batch,
    }
    # Changes on top of it, each on the version that the one before left.
    living = [ChangedIndex.over(index)]

    def add(begin: int, end: int) -> None:
        living[0] = living[0].add(more[begin:end], vectors[begin:end], rows[begin:end])

    def remove(gone: np.ndarray) -> None:
        living[0] = living[0].remove(gone)

    figures |= {
        "add_one_cpu_ms": cpu_milliseconds([partial(add, i, i + 1) for i in range(50)]),
        "add_batch_cpu_ms": cpu_milliseconds([partial(add, 50, batch)]),
        "remove_batch_cpu_ms": cpu_milliseconds([partial(remove, gone)]),
        "remove_one_after_that_cpu_ms": cpu_milliseconds([partial(remove, rows[i : i + 1]) for i in range(50)]),
        "merge_cpu_ms": cpu_milliseconds([living[0].merged]),
    }
    beams = torch.from_numpy(rng.integers(0, index.size(1), 512))
    nodes = torch.from_numpy(rng.integers(0, index.size(2), 100_000))
    items = pl.DataFrame(
        {
            "category": pl.Series([["All", f"Shelf {i % 300}"] for i in range(300)])[rng.integers(0, 300, n)],
            "brand": pl.Series([f"brand {i}" for i in range(5000)])[rng.integers(0, 5000, n)],
            "seller": pl.Series([f"seller {i}" for i in range(20_000)])[rng.integers(0, 20_000, n)],
            "price": rng.random(n) * 100,
            "in_stock": rng.random(n) > 0.2,
        }
    )
    start = time.perf_counter()
    filters = ItemFilters.build(items, index)
    built = time.perf_counter()
    mask = filters.mask({"price": [10, 20], "in_stock": True})
    first_use = time.perf_counter() - built
    figures |= {
        "children_of_512_ms": round(1e3 * seconds(lambda: index.children(2, beams), 50), 3),
        "vectors_of_100k_nodes_ms": round(1e3 * seconds(lambda: index.vectors(2, nodes), 20), 2),
        "path_of_512_items_ms": round(1e3 * seconds(lambda: index.path(beams), 50), 3),
        "filters_build_seconds": round(built - start, 3),
        "filter_first_use_ms": round(1e3 * first_use, 2),
        "filter_cached_ms": round(1e3 * seconds(lambda: filters.mask({"price": [10, 20], "in_stock": True}), 50), 4),
        "filter_100k_nodes_ms": round(1e3 * seconds(lambda: mask.allowed(2, nodes), 20), 2),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
