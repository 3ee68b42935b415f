"""`python -m benchmarks.speed` prints one JSON object; the figures of these tiny runs mean nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmarks.speed.__main__ import app
from benchmarks.speed.bench_zero_cost import compared
from typer.testing import CliRunner

from onesearch.search.engine import load_engines
from onesearch.search.run_parts import STAGE_OF


def bench(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json", "--quick"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_query(tiny_run: Path):
    found = bench("query", str(tiny_run))
    assert 0 < found["query_p50_ms"] <= found["query_p95_ms"] <= found["query_p99_ms"]
    assert found["threads"] >= 1 and found["queries"] > 0


def test_search_with_plot(tiny_run: Path, tmp_path: Path):
    plot = tmp_path / "docs" / "width.png"
    found = bench("search", str(tiny_run), "--plot", str(plot), "--threads", "1")
    for name in ("4", "8", "cascade"):
        assert 0 < found[f"p50_ms_{name}"] <= found[f"p95_ms_{name}"] <= found[f"p99_ms_{name}"]
        assert found[f"queries_per_second_{name}"] > 0
    curve = found["hr10_over_width"]
    assert curve["widths"] == [4, 8]
    assert all(
        len(curve[name]) == 2 and all(0 <= v <= 1 for v in curve[name]) for name in ("generator alone", "engine")
    )
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_training():
    found = bench("training", "--threads", "1", "--precision", "no")
    assert found["precision"] == "no" and found["threads"] == 1
    rates = (found["onesearch_samples_per_second"], found["trainer_samples_per_second"])
    assert abs(found["ratio_vs_trainer"] - rates[0] / rates[1]) < 0.01
    assert all(found[name] > 0 for name in ("v2_step_over_sft_step", "v2_step_over_sft_step_all", "v2_step_ms"))
    assert 0.1 < found["v2_taught_share"] < 0.6


@pytest.mark.long
def test_compiled():
    found = bench("compiled", "--threads", "1")["tiny"]
    assert found["first_s"] > 0 and found["difference"] < 1e-4
    assert abs(found["ratio"] - found["compiled_ms"] / found["ms"]) < 0.1


def test_unknown_precision_is_refused():
    assert CliRunner().invoke(app, ["training", "--precision", "fp8"]).exit_code == 2


def test_a_missing_run_is_named(tmp_path: Path):
    for command in ("query", "search", "zero-cost"):
        result = CliRunner().invoke(app, [command, str(tmp_path / "none")])
        assert result.exit_code == 1 and result.output.startswith("error: ") and "none" in result.output


def test_zero_cost(tiny_run: Path):
    found = bench("zero-cost", str(tiny_run))
    assert found["latency_v2_over_v1_low"] <= found["latency_v2_over_v1"] <= found["latency_v2_over_v1_high"]
    assert 0.3 < found["latency_v2_over_v1"] < 3
    assert found["size_v2_over_v1"] == found["tokens_v2_over_v1"] == 1.0
    assert found["bytes_v1"] == found["bytes_v2"] > 100_000 and found["tokens_v1"] > 20
    assert found["requests"] == 4


def test_zero_cost_refuses_an_engine_that_reads_keywords(tiny_run: Path):
    first, second = load_engines(tiny_run, ["v1", "v2"])
    second.keywords = lambda queries: [["steel"] for _ in queries]
    with pytest.raises(ValueError, match="the v2 engine reads keywords for the query 'red boots'"):
        compared({"v1": first, "v2": second}, [("red boots", None)], 2)


def test_zero_cost_refuses_engines_of_different_settings(tiny_run: Path):
    first, second = load_engines(tiny_run, ["v1", "v2"])
    second.config = second.config.updated(width=8)
    with pytest.raises(ValueError, match="different search settings"):
        compared({"v1": first, "v2": second}, [("red boots", None)], 2)


def test_zero_cost_of_a_run_without_v2_says_what_is_missing(tiny_run: Path, tmp_path: Path):
    for stage in tiny_run.iterdir():
        if stage.name != STAGE_OF["v2"]:
            shutil.copytree(stage, tmp_path / stage.name) if stage.is_dir() else shutil.copy(stage, tmp_path)
    result = CliRunner().invoke(app, ["zero-cost", str(tmp_path)])
    assert result.exit_code != 0 and "has no V2" in result.output + str(result.exception)
