"""The grid of docs/results/v2_distillation.md at a size whose figures mean nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.result_files import ResultFiles

from onesearch.common.artefact import read_json


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_cells_are_trained_measured_compared_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from benchmarks import grid as study

    files = ResultFiles("v2_distillation", tmp_path / "results")
    grid = study.Grid(tmp_path / "runs", study.SMOKE, files)
    for cell in ("v1", "full", "v1-time"):
        grid.run(f"market-1/{cell}")
    report = read_json(tmp_path / "runs" / "market-1" / "full" / "cell.json")
    assert set(report["methods"]) == {"student", "keywords", "engine"}
    assert {"complexity", "query type", "query frequency"} <= set(report["slices"])
    assert 0 <= report["valid_sid_share"] <= 1 and report["log"]["search/kl"] > 0
    longer = read_json(tmp_path / "runs" / "market-1" / "v1-time" / "cell.json")
    assert longer["epochs"] != report["epochs"]

    earlier = {"cells": {"market-1/v1": {}, "market-3/v1": {"seed": 3}}, "tests": {"market: a/student - b/student": {}}}
    files.write_figures(earlier)
    grid.save()
    kept = files.figures()
    assert set(kept["cells"]) == {"market-1/v1", "market-1/full", "market-1/v1-time", "market-3/v1"}
    assert kept["cells"]["market-1/v1"]["seed"] == 1 and kept["cells"]["market-3/v1"] == {"seed": 3}
    assert "market: a/student - b/student" in kept["tests"]
    full = kept["cells"]["market-1/full"]
    assert full["methods"]["student"]["ehr@10"]["low"] == pytest.approx(report["methods"]["student"]["ehr@10"]["low"])
    assert set(full["slices"]) == set(report["slices"])
    found = kept["tests"]["market: full/student - v1/student"]
    assert found["seeds"] == [1] and any(one["slice"] == ["complexity", "complex"] for one in found["tests"])

    same = [one["slice"] for one in found["tests"] if one["metric"] == "click/HR@10"]
    assert len(same) == len({str(one) for one in same}) and None in same

    capsys.readouterr()
    grid.run("market-1/full")
    assert capsys.readouterr().out == ""

    def head(name: str) -> None:
        (tmp_path / "results" / f"{name}.head.md").write_text("# Head\n")

    # The study of alignment goes on from the cells of this one.
    from benchmarks import v2

    short = ("grpo.steps=2", "grpo.prompts=8")
    cells = (
        v2.V1,
        v2.MAIN[0],
        study.Cell("tpma", "TPMA", short, stage="grpo", measured=v2.BOTH),
        study.Cell("long-clicks", "after a longer training", (*study.PLAIN_CE, *short), stage="grpo"),
    )
    small = study.DataSet("configs/market-v2.yaml", cells)
    monkeypatch.setattr(v2, "FILES", ResultFiles("v2", tmp_path / "results"))
    aligned = v2.AlignmentGrid(tmp_path / "runs", study.SMOKE, v2.FILES, {"market": small})
    aligned.run("market-1")
    assert (tmp_path / "runs" / "market-1" / "sd-long" / "cell.json").is_file()
    aligned.save()
    cells, tests = v2.FILES.figures()["cells"], v2.FILES.figures()["tests"]
    assert {"cot", "distill", "grpo"} == set(cells["market-1/tpma"]["training_seconds"])
    assert cells["market-1/long-clicks"]["epochs"] == longer["epochs"]
    assert cells["market-1/before"] == {**full, "cell": "before", "what": v2.MAIN[0].what}
    assert {"market: tpma/student - before/student", "market: tpma/engine - v1/engine"} <= set(tests)
    files.write_figures({})  # the page of the other study's cells is made without them
    head("v2")
    v2.render()
    page = v2.FILES.page.read_text()
    assert "## market: the steps" in page and "## market: after a long training" in page

    # So do the rounds with other rewards.
    from benchmarks import balance

    monkeypatch.setattr(balance, "FILES", ResultFiles("balance", tmp_path / "results"))
    monkeypatch.setattr(balance, "DATA", "market")
    monkeypatch.setattr(balance, "SEED", 1)
    festival = replace(next(one for one in balance.ROUNDS if one.name == "grpo-boost-4.0"), order=(1.0,))
    monkeypatch.setattr(balance, "ROUNDS", (festival, *(one for one in balance.ROUNDS if one.name != festival.name)))
    for cell in ("grpo-boost-4", balance.CONTROL):
        balance.run(tmp_path / "runs", cell, (*study.SMOKE, "grpo.steps=2", "grpo.prompts=8"), 200, 20)
    found = balance.FILES.figures()["grpo-boost-4.0"]
    assert set(found["over the control"]["paired"]) == set(found["engines"]["paired"]) == set(found["paired"])
    raised = [found[key][balance.EMERGING]["exposure"]["lift"] for key in ("engines", "engines, search.boost 1")]
    assert raised[1] > raised[0]
    assert set(found[balance.EMERGING]) == {"exposure", "item CTR", "orders"} and found["minutes_to_a_new_version"] > 0
    head("balance")
    balance.render()
    assert "emerging sellers times 4" in balance.FILES.page.read_text()

    # And the A/B test.
    from benchmarks import abtest

    monkeypatch.setattr(abtest, "FILES", ResultFiles("abtest", tmp_path / "results"))
    tests = {
        name: replace(
            test,
            data="market",
            seed=1,
            a="v1:v1",
            b="aligned/tpma:v2",
            names=("one", "two"),
            page_views=200,
            newcomers=20,
        )
        for name, test in abtest.TESTS.items()
    }
    assert set(tests) == {"v2", "split"}
    monkeypatch.setattr(abtest, "TESTS", tests)
    abtest.run(tmp_path / "runs")
    head("abtest")
    abtest.render()
    text = abtest.FILES.page.read_text()
    assert "abtest/v2/ctr.png" in text and (tmp_path / "results" / "abtest" / "v2" / "ctr.png").is_file()
    assert "## two against one, engines, paired" in text and "## two against one, engines, split" in text
    assert "A/A" in text and str(tmp_path) not in text


def test_values_of_requests_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from benchmarks.request_values import load_values, save_values

    hits, true = np.array([0, 1, np.nan]), np.array([0.123456, 0.5, 1.0])
    groups = np.array(["", "16+", ""], object)
    save_values(tmp_path / "new" / "a.npz", {"student": {"click/HR@10": hits, "ehr@10": true}}, {"frequency": groups})
    values, labels = load_values(tmp_path / "new" / "a.npz")
    np.testing.assert_array_equal(values["student"]["click/HR@10"], hits)
    np.testing.assert_allclose(values["student"]["ehr@10"], true, rtol=5e-4)
    assert labels["frequency"].tolist() == groups.tolist() and set(labels) == {"frequency"}


def test_the_cells_that_were_never_measured_run(tiny_config: Path, tiny_run: Path, tmp_path: Path):
    """Two steps of each; they stand last in the grid, and no study had time for them: no fault of theirs was found."""
    from benchmarks import grid as study
    from onesearch.pipeline.config_files import load_settings
    from onesearch.pipeline.run_settings import RunSettings
    from onesearch.pipeline.stage_runner import execute
    from onesearch.pipeline.stages import stages_of

    cells = {cell.name: cell for cell in study.MARKET}
    wanted = ("data", "encoder", "khqe", "index", "sft1", "sft2", "understanding", "cot", "distill")
    first = {}
    for name in ("sd", "inject", "personal", "no-teacher-ce"):
        config = load_settings(RunSettings, tiny_config, (*cells[name].sets, "sft3.epochs=0.3", "distill.cot=0"))
        stages = [stage for stage in stages_of(config) if stage.name in wanted]
        found = execute(stages, tmp_path / name, config.seed, reuse=[tiny_run])
        assert [one.outcome for one in found] == ["reused"] * 8 + ["built"] and found[-1].metrics["steps"] == 2
        log = (tmp_path / name / "distill" / "log.jsonl").read_text().splitlines()
        first[name] = json.loads(log[0])
        assert all(np.isfinite(value) for value in first[name].values())
    # What cells differ by: the clicked item's words tell of it, and the teacher learns nothing of its own. The few
    # keywords that calibration changes in so small a run are looked at in test_v2.py.
    assert first["inject"]["search/teacher_ce"] < 0.9 * first["sd"]["search/teacher_ce"]
    assert "search/teacher_ce" not in first["no-teacher-ce"] and first["no-teacher-ce"]["search/kl"] > 0
