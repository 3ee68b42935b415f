"""Shards beside one engine, at a smoke scale; how pages are compared, by hand."""

import pytest
from benchmarks.shards import agreement, measure


@pytest.mark.long
def test_two_shards_of_a_tiny_run(tiny_run):
    found = measure(tiny_run, [2], 6)
    assert found["items"] == 400 and found["searches"] == 6
    two = found["2 shards"]
    assert sum(two["items"]) == 400 and two["index_mib"] < found["one engine"]["index_mib"]
    for kind in ("plain", "filtered"):
        assert two[kind]["searches"] == 3 and two[kind]["other"] == 0 and two[kind]["score off"] < 1e-4
    assert two["exchanges"] > 6 and two["bytes"] > 0 < two["largest_cpu_ms"] <= two["cpu_ms"]


def test_pages_are_compared_by_hand():
    page = [["a", 1.0], ["b", 0.5]]
    pairs = [
        (page, page),
        ([["b", 1.0], ["a", 0.50001]], page),
        ([["a", 1.0], ["c", 0.4]], page),
        ([["a", 1.0]], page),
    ]
    assert agreement(pairs) == {"same": 0.25, "by ties alone": 1, "other": 2, "score off": float("inf")}
    assert agreement([]) == {"same": 0.0, "by ties alone": 0, "other": 0, "score off": 0}
