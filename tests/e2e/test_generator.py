"""The grid of docs/results/generator.md at a size whose figures mean nothing."""

from pathlib import Path

import pytest
from benchmarks.result_files import ResultFiles

from onesearch.common.artefact import read_json


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_flagships_and_trials_are_run_measured_saved_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from benchmarks.generator_page import render
    from benchmarks.grid import SMOKE, DataSet

    from benchmarks import generator_grid as study

    files = ResultFiles("generator", tmp_path / "results")
    small = (*SMOKE, "sft3.epochs=0.2", "evaluation.test_requests=80", "evaluation.fit_requests=80")
    small += ("evaluation.measures.resamples=20", "evaluation.cascade.trees=5", "model.prompt.evidence.clicked=3")
    trials = [cell for cell in study.TRIALS if cell.name in ("short", "paper", "no-evidence", "whole-softmax")]
    sets = {"market": DataSet("configs/market.yaml", (study.FLAGSHIP, *trials), seeds=(1, 2), same_requests=False)}
    grid = study.GeneratorGrid(tmp_path / "runs", small, files, sets)
    grid.run("market-1")
    capsys.readouterr()
    grid.run("market-1/paper")
    assert capsys.readouterr().out == ""  # finished

    runs = tmp_path / "runs" / "market-1"
    flagship, short, paper = (read_json(runs / name / "cell.json") for name in ("flagship", "short", "paper"))
    methods = set(flagship["methods"])
    assert {"cascade", "BM25 x popularity", "generator alone", "one model", "engine without generator"} <= methods
    assert flagship["seconds"]["sft3"] > 0 and flagship["curve"] and flagship["samples"] > 0
    # Trained in less time than a trial has: the same run, and all of it is taken over.
    assert set(short["seconds"].values()) == {0.0} and set(short["methods"]) == set(study.TRIED)
    assert all(flagship["methods"][method] == row for method, row in short["methods"].items())
    assert paper["seconds"]["data"] == paper["seconds"]["khqe"] == 0 < paper["seconds"]["sft3"]
    assert paper["valid_sid_share"] >= 0 and "model.anchored=false" in paper["sets"]

    grid.save()
    figures = files.figures()
    assert set(figures["open"]) == {"market-2/flagship"} and figures["pooled"]["market"]["seeds"] == [1]
    assert {one["metric"] for one in figures["tests"]["market: flagship/engine - flagship/cascade"]["tests"]} >= {
        "click/HR@10",
        "ndcg@10",
    }
    assert "market: paper/generator alone - short/generator alone" in figures["tests"]
    files.folder.joinpath("generator.head.md").write_text("# Head\n")
    render(files)
    page = files.page.read_text()
    assert "## The simulated market" in page and "- `market-2/flagship`" in page and str(tmp_path) not in page
    assert (files.charts / "market.png").is_file()
