"""Speed and size of the index: build, changes, look-ups and filters. Prints one JSON object.

The catalogue is made up: skewed codes on the first two levels, even ones below, as a quantizer with a balanced last
layer gives. Figures are the best of the repetitions, in wall clock; those of changes and of filters that no search has
asked for yet are medians of CPU time. Every change stands on the version that the one before left.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

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


def cpu_milliseconds(step: Callable[[Any], object], values: Iterable[Any]) -> float:
    """Median CPU time of a step over values."""
    times = []
    for value in values:
        start = time.process_time()
        step(value)
        times.append(time.process_time() - start)
    return round(1e3 * float(np.median(times)), 2)


def changes(
    index: SidIndex, vectors: np.ndarray, batch: int, repeats: int, rng: np.random.Generator
) -> dict[str, float]:
    """CPU time of changes of one item and of ``batch`` items, and of the merge of all of them."""
    living, n = ChangedIndex.over(index), len(index)
    sids = sids_of(rng, repeats * (batch + 1))
    gone = rng.permutation(n)[: repeats * batch]

    def upsert(places: range) -> None:
        nonlocal living
        at = np.array(places)
        living = living.upsert(sids[at], vectors[at], n + at)

    def delete(places: range) -> None:
        nonlocal living
        living = living.remove(gone[places.start : places.stop])

    batches = [range(begin, begin + batch) for begin in range(0, repeats * batch, batch)]
    return {
        "upsert_one_cpu_ms": cpu_milliseconds(upsert, [range(i, i + 1) for i in range(len(sids) - repeats, len(sids))]),
        "upsert_batch_cpu_ms": cpu_milliseconds(upsert, batches),
        "delete_batch_cpu_ms": cpu_milliseconds(delete, batches),
        "merge_cpu_ms": cpu_milliseconds(lambda _: living.merged(), range(3)),
    }


def catalogue(n: int, rng: np.random.Generator) -> pl.DataFrame:
    """What filters read: 6,000 category paths, 5,000 brands, 20,000 sellers, 10,000 values of 10 attributes."""
    paths = [["All", f"Department {i % 20}", f"Shelf {i % 300}", f"Class {i}"] for i in range(6000)]
    values = [{"type": f"Type {i % 10}", "value": f"{i // 10} cm"} for i in range(10_000)]
    several = [rng.choice(values, 3).tolist() for _ in range(5000)]
    return pl.DataFrame(
        {
            "category": pl.Series(paths)[rng.integers(0, len(paths), n)],
            "brand": pl.Series([f"brand {i}" for i in range(5000)])[rng.integers(0, 5000, n)],
            "seller": pl.Series([f"seller {i}" for i in range(20_000)])[rng.integers(0, 20_000, n)],
            "price": rng.random(n) * 100,
            "in_stock": rng.random(n) > 0.2,
            "attributes": pl.Series(several)[rng.integers(0, len(several), n)],
            "listed_at": pl.Series([datetime(2026, 1, 1, tzinfo=UTC)]).new_from_index(0, n),
        }
    )


def cold_filters(filters: ItemFilters) -> dict[str, float]:
    """CPU time of the first use of each of 20 filters of a kind."""
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "price": lambda i: {"price": [i, i + 10]},
        "price_and_stock": lambda i: {"price": [i, i + 20], "in_stock": True},
        "brand": lambda i: {"brand": f"brand {i}"},
        "category": lambda i: {"category": f"shelf {i}"},
        "category_path": lambda i: {"category": f"All > Department {i}"},
        "attribute": lambda i: {"attributes": {"Type 1": f"{i} cm"}},
        "attribute_range": lambda i: {"attributes": {"Type 2": {"min": i, "max": i + 50}}},
    }
    return {
        name: cpu_milliseconds(lambda i, asked=asked: filters.mask(asked(i)), range(20))
        for name, asked in kinds.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1000, help="items per upsert and delete")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "int8"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    n, batch, repeats = options.items, options.batch, options.repeats
    sids = sids_of(rng, n)
    vectors = rng.standard_normal((n, options.dimension), dtype=np.float32)
    popularity = rng.random(n, dtype=np.float32)
    made: list[SidIndex] = []

    def build() -> None:
        made[:] = [SidIndex.build(sids, vectors, CODEBOOKS, popularity, precision=options.precision)]

    cpu = time.process_time()
    build_seconds = seconds(build, repeats)
    cpu_seconds = (time.process_time() - cpu) / repeats
    index = made[0]
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
    figures |= changes(index, vectors, batch, 9, rng)
    beams = torch.from_numpy(rng.integers(0, index.size(1), 512))
    nodes = torch.from_numpy(rng.integers(0, index.size(2), 100_000))
    items = catalogue(n, rng)
    start = time.perf_counter()
    filters = ItemFilters.build(items, index)
    built = time.perf_counter()
    cold = cold_filters(filters)
    mask = filters.mask({"price": [10, 20], "in_stock": True})
    figures |= {
        "children_of_512_ms": round(1e3 * seconds(lambda: index.children(2, beams), 50), 3),
        "vectors_of_100k_nodes_ms": round(1e3 * seconds(lambda: index.vectors(2, nodes), 20), 2),
        "path_of_512_items_ms": round(1e3 * seconds(lambda: index.path(beams), 50), 3),
        "filters_build_seconds": round(built - start, 3),
        "cold_filter_cpu_ms": cold,
        "filter_cached_ms": round(1e3 * seconds(lambda: filters.mask({"price": [10, 20], "in_stock": True}), 50), 4),
        "filter_100k_nodes_ms": round(1e3 * seconds(lambda: mask.allowed(2, nodes), 20), 2),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
