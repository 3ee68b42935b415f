"""The sizing guide: its table by hand, and what the page holds."""

from pathlib import Path

import pytest
from benchmarks.speed_page import FILES

from benchmarks import sizing, sizing_table

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"


def test_the_page_has_the_table_of_the_saved_figures():
    page = PAGE.read_text(encoding="utf-8")
    assert sizing_table.filled(page) == page, "run python -m benchmarks.sizing_table"
    measured = FILES.figures()["sizing"]["figures"]["by_items"]
    assert "*extrapolated*" in page and all(f"{int(size):,} items |" in page for size in measured)


def test_the_table_by_hand():
    """Memory on a line over the items, searches on one over their logarithm, all else in proportion.

    What is not measured is in italics.
    """

    def serving(mib, ms, upsert=360.0):
        cpu = {"search_cpu_ms": ms, "batch_cpu_ms": ms / 4, "upsert_cpu_ms_per_1000": upsert}
        return {"memory_mib": mib, "peak_mib": 2 * mib, **cpu}

    of = {"100000": serving(1024 + 9 * 1024, 100.0), "10000": serving(1024, 50.0, 180.0)}
    training = {"onesearch_samples_per_second": 100.0, "v2_step_over_sft_step": 3.6, "batch_size": 128, "items": 20_000}
    figures = {
        "sizing": {"by_items": of},
        "training": {**training, "mean_prompt_tokens": 74.1, "layer_parameters": 900_000},
        "quantizer": {"fit_seconds": 100.0, "sample": 50_000, "encode_seconds": 20.0, "vectors": 1_000_000},
    }
    made = {"provenance": {"machine": "2 cores"}}
    table = sizing_table.table({name: {"figures": one, **made} for name, one in figures.items()})
    head, _, *lines = table.splitlines()
    assert head == (
        "|  | 10,000 items | 100,000 items | 1,000,000 items, *extrapolated* | 10,000,000 items, *extrapolated* |"
    )
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines}
    assert rows["memory of a server"] == ["1.0 GiB", "10.0 GiB", "*100.0 GiB*", "*1000.0 GiB*"]
    assert rows["processor time of a search, ms"] == ["50", "100", "*150*", "*200*"]
    assert rows["searches a second and core, one by one"] == ["20", "10", "*7*", "*5*"]
    assert rows["… in batches of 32, under load"] == ["80", "40", "*27*", "*20*"]
    assert rows["processor time to bring all items in"] == ["1.8 s", "36 s", "*6.0 min*", "*1.0 h*"]
    assert rows["semantic IDs of all items"] == ["*20 s*", "*1.7 min*", "2.0 min", "*5.0 min*"]
    assert rows["V1: a pass of stage 3 over 10 page views an item"] == ["*17 min*", "*2.8 h*", "*28 h*", "*278 h*"]
    assert rows["V2: a pass of distillation over them"] == ["*1.0 h*", "*10 h*", "*100 h*", "*1,000 h*"]
    assert "A further item takes 107.4 kB" in table and table.endswith("on 2 cores.")


@pytest.mark.slow
def test_a_catalogue_is_brought_up_to_size_and_searched(tiny_run):
    found = sizing.measure(tiny_run, 450, 4)
    assert found["items"] == 450 and found["loaded_mib"] > 0 and found["memory_mib"] <= found["peak_mib"]
    assert found["search_cpu_ms_p95"] >= found["search_cpu_ms"] > 0 and found["batch_cpu_ms"] > 0
