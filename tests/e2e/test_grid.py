"""The grid of docs/results/v2_distillation.md at a size whose figures mean nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onesearch.common.artefact import read_json


@pytest.mark.slow
def test_cells_are_trained_measured_compared_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from benchmarks import v2_distillation as study

    grid = study.Grid(tmp_path / "runs", study.SMOKE, tmp_path / "v2_distillation")
    for cell in ("v1", "full", "v1-time"):
        grid.run(f"market-1/{cell}")
    report = read_json(tmp_path / "v2_distillation" / "market-1-full.json")
    assert set(report["methods"]) == {"student", "keywords", "engine"}
    assert {"complexity", "query type", "query frequency"} <= set(report["slices"])
    assert 0 <= report["valid_sid_share"] <= 1 and report["log"]["search/kl"] > 0
    longer = read_json(tmp_path / "v2_distillation" / "market-1-v1-time.json")
    assert longer["epochs"] != report["epochs"]

    study.Grid(tmp_path / "gone", reports=tmp_path / "v2_distillation").compare()  # the runs are not needed
    tests = read_json(tmp_path / "v2_distillation" / "comparisons.json")
    found = tests["market: full/student - v1/student"]
    assert found["seeds"] == [1] and any(one["slice"] == ["complexity", "complex"] for one in found["tests"])

    same = [one["slice"] for one in found["tests"] if one["metric"] == "click/HR@10"]
    assert len(same) == len({str(one) for one in same}) and None in same

    capsys.readouterr()
    grid.run("market-1/full")
    assert capsys.readouterr().out == ""

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
    monkeypatch.setattr(v2, "FOLDER", tmp_path / "v2")
    aligned = v2.AlignmentGrid(tmp_path / "runs", study.SMOKE, v2.FOLDER, {"market": small}, "v2")
    aligned.run("market-1")
    assert {"cot", "distill", "grpo"} == set(read_json(v2.FOLDER / "market-1-tpma.json")["training_seconds"])
    assert read_json(v2.FOLDER / "market-1-long-clicks.json")["epochs"] == longer["epochs"]
    assert (tmp_path / "v2_distillation" / "market-1-sd-long.json").is_file()
    aligned.compare()
    tests = read_json(v2.FOLDER / "comparisons.json")
    assert {"market: tpma/student - before/student", "market: tpma/engine - v1/engine"} <= set(tests)
    v2.FOLDER.with_suffix(".head.md").write_text("# Head\n")
    v2.render()
    page = v2.FOLDER.with_suffix(".md").read_text()
    assert "## market: the steps" in page and "## market: after a long training" in page

    # So do the rounds with other rewards.
    from benchmarks import balance

    monkeypatch.setattr(balance, "FOLDER", tmp_path / "balance")
    for cell in ("grpo-boost-4", balance.CONTROL):
        balance.run(tmp_path / "runs", cell, (*study.SMOKE, "grpo.steps=2", "grpo.prompts=8"), 200, 20)
    found = read_json(balance.FOLDER / "grpo-boost-4.0.json")
    assert set(found["over the control"]["paired"]) == set(found["engines"]["paired"]) == set(found["paired"])
    assert set(found[balance.EMERGING]) == {"exposure", "item CTR", "orders"} and found["minutes_to_a_new_version"] > 0
    balance.FOLDER.with_suffix(".head.md").write_text("# Head\n")
    balance.render()
    assert "emerging sellers times 4" in balance.FOLDER.with_suffix(".md").read_text()

    # And the A/B test.
    from benchmarks import abtest

    monkeypatch.setattr(abtest, "FOLDER", tmp_path / "abtest")
    tests = {
        name: replace(test, b="aligned/tpma:v2", names=("one", "two"), page_views=200, newcomers=20)
        for name, test in abtest.TESTS.items()
    }
    assert set(tests) == {"v2", "split"}
    monkeypatch.setattr(abtest, "TESTS", tests)
    abtest.run(tmp_path / "runs")
    abtest.FOLDER.with_suffix(".head.md").write_text("# Head\n")
    abtest.render()
    text = abtest.FOLDER.with_suffix(".md").read_text()
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
