"""The final engine of the tiny run: what it is made of, who takes it, and that nobody measures it."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from onesearch.common.artefact import read_json
from onesearch.evaluation.evaluate import rank_all
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.pipeline import evaluate_run, run_config, status_of
from onesearch.pipeline.abtest_runs import open_arm
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.update_round import update
from onesearch.search.engine import SearchEngine, load_engines
from onesearch.search.served_versions import published, roll_back
from onesearch.search.version_follower import VersionFollower

SETS = ("final=true",)


@pytest.fixture(scope="module")
def made(tiny_run: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("final") / "run"
    results = run_config(tiny_config, folder, SETS, reuse=(tiny_run,))
    assert [result.name for result in results if result.outcome == "built"] == ["final"]
    return folder


def test_it_is_made_of_all_page_views(made: Path):
    whole, own = RunData(made, "final"), RunData(made)
    log = own.dataset.page_views
    assert whole.statistics.clicked.sum() == log["clicked"].list.n_unique().sum() > own.statistics.clicked.sum()
    # SIDs and trie stay, and so does the text in head rows; their numbers are those of the whole log.
    np.testing.assert_array_equal(whole.sids, own.sids)
    text = own.item_head_rows.shape[1] - own.head_row_projection.features
    torch.testing.assert_close(whole.item_head_rows[:, :text], own.item_head_rows[:, :text])
    assert not torch.allclose(whole.item_head_rows[:, text:], own.item_head_rows[:, text:])
    assert len(whole.index) == len(own.index) and whole.index.size(0) == own.index.size(0)
    metrics = read_json(made / "final" / "manifest.json")["metrics"]
    assert metrics["page_views"] == len(log) and metrics["steps"] > 0 and "hr10" not in metrics


def test_it_is_what_is_taken_and_the_measured_one_can_be_asked_for(made: Path):
    final, measured = SearchEngine.load(made), SearchEngine.load(made, measured=True)
    assert final.name == "run/v2@final" and measured.name == "run/v2"
    assert final.weights == measured.weights and final.config == measured.config
    assert final.snapshot.popularity.flat().sum() > measured.snapshot.popularity.flat().sum()
    pairs = zip(final.generator.parameters(), measured.generator.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    arms = ("", ":v2", ":v1", ":measured", ":v2:measured", ":v1:measured")
    names = ["run/v2@final", "run/v2@final", "run/v1", "run/v2", "run/v2", "run/v1"]
    assert [open_arm(f"{made}{arm}").name for arm in arms] == names
    # Two models of a run, one with the counts of the whole log.
    v1, v2 = load_engines(made, ["v1", "v2"])
    assert (
        v1.snapshot.popularity.flat().sum() == measured.snapshot.popularity.flat().sum() and v2.name == "run/v2@final"
    )
    assert len(v2.search("boots")) > 0


@pytest.mark.long
def test_nothing_that_measures_reads_it(made: Path, tiny_config: Path, tiny_run: Path, tmp_path: Path):
    assert read_json(made / "report" / "report.json") == read_json(tiny_run / "report" / "report.json")
    evaluate_run(made, tmp_path / "with", "test", 40)
    evaluate_run(tiny_run, tmp_path / "without", "test", 40)
    with_it, without = (read_json(tmp_path / name / "report.json")["methods"] for name in ("with", "without"))
    assert with_it["V2 engine"]["click/HR@10"] == without["V2 engine"]["click/HR@10"]
    assert with_it["engine"]["click/MRR@10"] == without["engine"]["click/MRR@10"]
    # Another report makes no other final engine, and without it all else is up to date.
    found = status_of(tiny_config, made, [*SETS, "evaluation.test_requests=50"])
    assert {name for name, state in found.items() if state != "finished"} == {"report"}
    assert set(status_of(tiny_config, made).values()) == {"finished"}


def test_updates_start_from_it(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    laboratory = Laboratory(made / "data", 900, newcomers=50)
    pages, _ = rank_all(open_arm(str(made)), laboratory.requests(), 10)
    events = tmp_path / "new.parquet"
    laboratory.exposures(pages).write_parquet(events)
    numbers = itertools.count()
    monkeypatch.setattr(
        "onesearch.pipeline.preference_stages.validator",
        lambda *_, **__: lambda _: {"hr10": float(next(numbers)), "mrr10": 0.0},
    )
    monkeypatch.setattr("onesearch.pipeline.version_judge.Judgement.better", True)
    engine = SearchEngine.load(made)
    follower = VersionFollower(made, engine)
    done = update(made, events, "dpo", 2, ("dpo.loop.learning_rate=1e-3",), epochs=None)
    about = read_json(made / done.version / "manifest.json")
    assert done.published and about["started_from"] == "final"
    # The version is searched with the counts of the whole log, by a service that runs and by one that starts.
    again = SearchEngine.load(made)
    assert (
        again.name == "run/v2@0001"
        and again.snapshot.popularity.flat().sum() == engine.snapshot.popularity.flat().sum()
    )
    assert follower.look() and engine.name == again.name and follower.problem() is None
    assert [one.item_id for one in engine.search("boots")] == [one.item_id for one in again.search("boots")]
    assert SearchEngine.load(made, measured=True).name == "run/v2"
    assert roll_back(made) is None and published(made) is None and SearchEngine.load(made).name == "run/v2@final"
    assert follower.look() and engine.name == "run/v2@final"


def test_it_learns_that_what_it_left_out_was_clicked(made: Path):
    """Items first clicked after the training part have no clicks in the measured engine, and some in the final one."""
    own, whole = RunData(made), RunData(made, "final")
    later = pl.concat([own.split.valid, own.split.test])
    clicked = np.unique(own.targets(later).clicked.values)
    new = clicked[own.statistics.clicked[clicked] == 0]
    assert len(new) > 0 and (whole.statistics.clicked[new] > 0).all()
