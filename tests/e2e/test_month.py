"""A month of three days on the tiny run: cells go on after a kill, and the page shows what they found."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.month import Study, render, run
from benchmarks.month_cell import STATES, Cell, MonthCell, Worker
from benchmarks.month_page import by_shopper, load_days, mean_by_shopper
from benchmarks.result_files import ResultFiles

from onesearch.common.artefact import read_json
from onesearch.market.later_days import LaterDays, LaterSettings
from onesearch.market.world_files import load_config
from onesearch.pipeline.run_data import RunData
from onesearch.search.distilled_queries import distilled_queries
from onesearch.serving.keyword_coverage import coverage_by_span
from onesearch.serving.sqlite_store import SqliteStore

CELLS = (
    Cell("frozen", "frozen", clicks=False),
    Cell("learning", "clicks"),
    Cell("full", "all of it", epochs=0.2, steps=2, always=True),
    Cell("explore-10", "drawn", explore=0.1),
)


@pytest.fixture(scope="module", autouse=True)
def rounds_of_few() -> Iterator[None]:
    """A night has fewer clicks than a round of a shop needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onesearch.pipeline.update_round.LEAST", 25)
        yield


@pytest.fixture(scope="module")
def study(tiny_config: Path, tiny_run: Path) -> Study:
    later = LaterSettings(days=3, page_views=330, drift=0.5, new_items=0.1, new_needs=0.2, repeated=0.6)
    return Study(tiny_config, (), later, Worker(thoughts=40, turns=2), "dpo", CELLS, reuse=(tiny_run,))


@pytest.fixture(scope="module")
def made(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ResultFiles]:
    runs = tmp_path_factory.mktemp("month")
    files = ResultFiles("month", runs / "results")
    files.folder.mkdir()
    (files.folder / "month.head.md").write_text("# A month\n")
    run(runs, "", study, files)
    return runs / "month", files


def values(made, cell):
    return load_days(made[0] / cell, 3)


@pytest.mark.long
def test_all_cells_meet_the_same_shoppers_and_frozen_learns_nothing(made):
    days = {cell.name: values(made, cell.name) for cell in CELLS}
    for other in days.values():
        for one, day in zip(days["frozen"], other, strict=True):
            assert (one["user"] == day["user"]).all() and (one["new words"] == day["new words"]).all()
    shown = [[day["regret"].mean() for day in days[name]] for name in ("frozen", "learning", "explore-10")]
    assert np.isfinite(shown).all() and (np.array(shown) > 0).all()
    assert shown[0] != shown[1] and shown[1] != shown[2]
    most = [np.concatenate([day["regret"] + day["expected clicks"] for day in one]) for one in days.values()]
    assert all(np.allclose(one, most[0], atol=1e-5) for one in most), "the best page is the same for all"


@pytest.mark.long
def test_what_was_known_of_queries_is_in_the_store_as_in_the_figures(made):
    store = SqliteStore(next((made[0] / "full").glob("morning-*")) / "store.sqlite3")
    rows = coverage_by_span(store.coverage(10**9))
    total = sum((row.states for row in rows[1:]), rows[0].states)
    counted = np.bincount(np.concatenate([day["state"] for day in values(made, "full")]), minlength=5)
    assert [total[state] for state in STATES] == counted.tolist() and counted[[0, 3, 4]].min() > 0
    store.close()


@pytest.mark.long
def test_coverage_rises_by_what_the_worker_thinks_and_rounds_distil(made):
    figures = made[1].figures()["cells"]
    for name in ("frozen", "full"):
        shares = np.array(figures[name]["coverage"]["all"])
        covered = shares[:, 3:].sum(1)
        assert shares.sum(1) == pytest.approx([1, 1, 1], abs=1e-3) and covered[-1] > covered[0]
    assert len(set(figures["frozen"]["distilled queries"])) == 1 and figures["frozen"]["rounds"] == []
    rounds = figures["full"]["rounds"]
    assert len(rounds) == 3 and rounds[0]["distilled"] > 0
    found = figures["full"]["distilled queries"]
    for one, before, after in zip(rounds, found, found[1:], strict=False):
        assert one["served"] and after - before == one["distilled"]
    new = figures["full"]["newly covered"]
    assert new["page views"] > 0
    assert len(new["new"]["clicks@10"]["by round"]) <= 2, "after the last night there is no day"
    assert set(new["old"]) <= {"clicks@10", "ndcg@10"}
    # What the worker thought of late is learnt from the page views of earlier days as well.
    versions = sorted((made[0] / "full" / "run" / "versions").glob("*/page_views.parquet"))
    files = [pl.read_parquet(path) for path in versions]
    assert [len(one) >= 330 for one in files] == [True] * 3 and len(files[2]) > 330


@pytest.mark.long
def test_exploration_and_new_items_are_counted(made):
    figures = made[1].figures()["cells"]
    assert figures["learning"]["explored"]["share"] == 0
    assert figures["explore-10"]["explored"]["share"] == pytest.approx(0.1, abs=0.01)
    new = figures["learning"]["new items"]
    assert new["listed"] == 40 and 0 <= new["clicked"] <= 40
    shown = np.concatenate([day["new shown"] for day in values(made, "learning")])
    assert shown.sum() > 0, "items that were listed since are found"
    assert figures["learning"]["against"]["frozen"]["regret"]["interval"][0] < 0.2


@pytest.mark.long
def test_a_cell_that_was_killed_goes_on_with_its_day_and_comes_to_the_same(made, study, tmp_path, monkeypatch):
    """Killed in the second night, after its round was published and before the day was written."""
    runs = tmp_path / "month"
    shutil.copytree(made[0] / "base", runs / "base")
    one = replace(study, cells=(CELLS[2],))
    files = ResultFiles("month", tmp_path / "results")
    write, nights = MonthCell._write, []

    def killed(self, day, *arguments):
        nights.append(day)
        if nights == [0, 1]:
            raise KeyboardInterrupt
        write(self, day, *arguments)

    monkeypatch.setattr(MonthCell, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "", one, files)
    assert not (runs / "full" / "days" / "001.npz").exists()
    run(tmp_path, "", one, files)
    assert nights == [0, 1, 1, 2]
    for here, there in zip(load_days(runs / "full", 3), values(made, "full"), strict=True):
        assert all(np.array_equal(here[name], there[name], equal_nan=here[name].dtype.kind == "f") for name in there)
    again = read_json(next((runs / "full").glob("morning-*")) / "state.json")
    before = read_json(next((made[0] / "full").glob("morning-*")) / "state.json")
    assert again["versions"] == before["versions"] and again["first_click"] == before["first_click"]


@pytest.mark.long
def test_everything_is_made_anew_of_log_days_items_and_thoughts(made, study, tmp_path):
    # As in the study itself: with rewards, both alignments, and an engine that learns from all page views in the end.
    short = ("sft1.steps=2", "sft2.steps=2", "sft3.epochs=0.1", "cot.steps=2", "evaluation.baselines=false")
    aligned = ("final=true", "dpo.steps=2", "grpo.steps=2", "grpo.prompts=8", "grpo.rollouts=4")
    one = replace(study, sets=aligned, cells=(Cell("retrained", "anew", retrain=2),), retrained=short)
    run(tmp_path, "", one, ResultFiles("month", tmp_path / "results"))
    assert read_json(tmp_path / "month" / "base" / "final" / "engine.json")["model"] == "final"
    place = tmp_path / "month" / "retrained"
    base, anew = RunData(place / "run"), RunData(place / "run-002")
    days = LaterDays(load_config(made[0] / "base" / "data" / "market"), study.later)
    listed = sum(len(days.new_items(day)) for day in (0, 1))
    assert len(anew.dataset.items) == len(base.dataset.items) + listed
    assert len(anew.dataset.page_views) == len(base.dataset.page_views) + 2 * 330
    known = set(base.thoughts.table["query"])
    more = set(anew.thoughts.table["query"]) - known
    assert 0 < len(more) <= 80, "what the worker thought of in two days, and nobody else is asked"
    # The third day is served by it; what it was taught counts as distilled.
    assert read_json(next(place.glob("morning-*")) / "state.json")["run"] == "run-002"
    taught = [read_json(place / "days" / f"{day:03d}.json")["distilled"] for day in range(3)]
    assert taught[0] == taught[1] != taught[2] == len(distilled_queries(place / "run-002", "final"))


@pytest.mark.long
def test_a_finished_study_is_not_made_again_and_its_page_is_written(made, study):
    before = (made[0] / "frozen" / "days" / "000.npz").stat().st_mtime_ns
    run(made[0].parent, "", study, made[1])
    assert (made[0] / "frozen" / "days" / "000.npz").stat().st_mtime_ns == before
    render(study, made[1])
    text = made[1].page.read_text()
    assert text.startswith("# A month\n") and "## Regret" in text and "| all of it | 3, " in text
    assert {path.name for path in made[1].charts.glob("*.png")} == {"regret.png", "new.png", "coverage.png"}
    assert json.loads((made[1].folder / "month.json").read_text())["study"]["thoughts a day"] == 40


def test_a_page_without_figures_says_so(study, tmp_path):
    files = ResultFiles("month", tmp_path)
    (tmp_path / "month.head.md").write_text("# A month\n")
    render(study, files)
    assert "Not measured yet" in files.page.read_text()


def test_intervals_are_over_shoppers():
    user = np.array([1, 1, 2, 3, 3, 3])
    value = np.array([1.0, 2.0, 6.0, np.nan, 0.0, 3.0])
    assert by_shopper(value, user) == pytest.approx(np.array([3.0, 6.0, 3.0]) * 3 / 5)
    mean, low, high = mean_by_shopper(value, user)
    assert mean == pytest.approx(2.4) and high - mean == pytest.approx(mean - low)
    # A shopper's sum less the mean of 2.4 for each of their page views that is known, by 3 shoppers of 5 page views.
    around = np.array([3.0 - 2 * 2.4, 6.0 - 2.4, 3.0 - 2 * 2.4]) * 3 / 5
    assert high - mean == pytest.approx(1.96 * np.std(around, ddof=1) / 3**0.5, abs=1e-4)
    # Whoever comes more often is no source of error where all page views are alike.
    assert mean_by_shopper(np.full(6, 2.0), user) == [2.0, 2.0, 2.0]
