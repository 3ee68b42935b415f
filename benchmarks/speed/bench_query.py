"""``python -m benchmarks.speed query``: time from an uncached query text to its semantic ID."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import torch

from onesearch.encoding.sid_quality import measure_query_encoding
from onesearch.search.run_parts import RunParts, need

WARM_UP = 20


def bench_query(run: Path, queries: int = 500) -> dict[str, Any]:
    """Encode distinct test queries of a run one at a time, nothing cached.

    Args:
        run: folder of a run that has its ``khqe`` stage.
        queries: measured at most; fewer where the test part has fewer distinct ones.

    Keys: ``query_p50_ms``, ``query_p95_ms``, ``query_p99_ms``, the mean of each step, ``queries`` measured, and
    ``threads`` of torch beside ``cpus`` of the machine.

    Raises:
        FileNotFoundError: a stage of the run is missing or unfinished.
        ValueError: the test part has too few queries to measure.
    """
    parts = RunParts(run)
    texts = distinct_queries(run, queries + WARM_UP)
    featurizer = parts.featurizer
    warm_up = min(WARM_UP, len(texts) // 4)
    found = measure_query_encoding(
        featurizer.encoder, featurizer.khqe, texts, featurizer.lexicon, featurizer.keyword_vectors, warm_up
    )
    rounded = {name: round(value, 4) for name, value in found.items()}
    return {
        **rounded,
        "queries": int(found["queries"]),
        "run": run.name,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }


def distinct_queries(run: Path, most: int) -> list[str]:
    """At most ``most`` distinct, non-empty queries of the run's test page views, in order of appearance."""
    column = pl.read_parquet(need(run, "data") / "test.parquet", columns=["query"])["query"].drop_nulls()
    return [text for text in column.unique(maintain_order=True).to_list() if text.strip()][:most]
