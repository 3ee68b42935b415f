import polars as pl
import pytest
from benchmarks.speed.bench_query import distinct_queries

from onesearch.common.artefact import write_manifest


def test_queries_are_distinct_and_not_empty(tmp_path):
    (tmp_path / "data").mkdir()
    pl.DataFrame({"query": ["b", "a", "", None, "b", " ", "c"]}).write_parquet(tmp_path / "data" / "test.parquet")
    with pytest.raises(FileNotFoundError, match="not a finished stage"):
        distinct_queries(tmp_path, 9)
    write_manifest(tmp_path / "data", {})
    assert distinct_queries(tmp_path, 9) == ["b", "a", "c"]
    assert distinct_queries(tmp_path, 2) == ["b", "a"]
