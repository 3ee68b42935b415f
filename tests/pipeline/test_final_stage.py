"""The final stage counts and learns from the whole log, and keeps the measured engine's weights."""

from pathlib import Path

import numpy as np
import pytest

from onesearch.common.artefact import read_json, write_json, write_manifest
from onesearch.data.item_pairs import ItemPairs
from onesearch.pipeline import final_stage
from onesearch.pipeline.final_stage import FinalData, run_final
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.update_round import UpdateData
from onesearch.search.engine_file import load_about
from onesearch.training.sft_settings import FinalSettings, PersonalisationSettings
from onesearch.understanding.thought_table import Thoughts

from .conftest import TEST, TRAIN, VALID

MEASURED = {
    "model": "sft3",
    "search": {"width": 8},
    "weights": {"log_prob": 2.0},
    "controls": {},
    "reads_keywords": None,
}


@pytest.fixture
def built(run_data: RunData, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the stage passes on to training and to the head rows, and its metrics."""
    seen: dict = {}
    run_data.head_row_projection = run_data.index = type("Parts", (), {"precision": "int8"})()
    monkeypatch.setattr(final_stage, "save_head_rows", lambda *given: seen.update(head_rows=given))

    def train(whole, context, before, settings, width, seed, distill, cot, pseudo):
        seen.update(whole=whole, before=before, settings=settings, seed=seed, context=context)
        return {"steps": 3}

    monkeypatch.setattr(final_stage, "run_personalisation", train)
    write_manifest(run_data.run / "engine", {})
    write_json(run_data.run / "engine" / "engine.json", MEASURED)
    folder = run_data.run / "final"
    folder.mkdir(exist_ok=True)
    loop = {"learning_rate": 1e-3, "best": "hr10", "warmup": 0.2}
    sft3 = PersonalisationSettings(epochs=4, batch_size=16, loop=loop)
    final = FinalSettings(epochs=0.5, learning_rate_factor=0.25)
    context = StageContext("final", folder, {}, seed=5)
    seen["metrics"] = run_final(run_data, context, "engine", "sft3", final, sft3, run_seed=0)
    return seen


def test_all_page_views_are_counted(run_data: RunData, built: dict):
    whole = RunData(run_data.run, "final")
    assert sorted(whole.statistics.queries) == ["test", "train 0", "train 1", "valid"]
    assert whole.statistics.clicked.tolist() == [20] * 4 + [0] * 7 + [TEST]
    assert run_data.statistics.clicked.tolist() == [10] * 4 + [0] * 8, "the run's own counts stay"
    pairs = ItemPairs.from_page_views(run_data.dataset.page_views, run_data.dataset.items)
    np.testing.assert_array_equal(whole.item_pairs.shoppers, pairs.shoppers)
    assert pairs.shoppers[11] == 3 and run_data.item_pairs.shoppers[11] == 0
    # Head rows are made of the same counts, at the run's precision.
    _, statistics, _, precision, folder = built["head_rows"]
    assert statistics.clicked.tolist() == whole.statistics.clicked.tolist()
    assert precision == "int8" and folder == run_data.run / "final"


def test_what_was_never_learnt_is_learnt_with_as_many_other_page_views(run_data: RunData, built: dict):
    split = built["whole"].split
    learnt = split.train["query"].to_list()
    assert learnt.count("valid") == VALID and learnt.count("test") == TEST and len(learnt) == 2 * (VALID + TEST)
    assert split.train["page_view_id"].n_unique() == len(split.train) and built["metrics"]["learnt"] == len(split.train)
    assert len(split.valid) == len(split.test) == 0, "nothing that is learnt may choose among weights"
    # Every page view that is learnt is counted, so that its own clicks are left out.
    assert built["whole"].counted and built["whole"].counts == "final"
    other = FinalData(run_data.run, 1).split.train
    assert other["page_view_id"].to_list() != split.train["page_view_id"].to_list()


def test_a_small_training_part_is_learnt_once(run_data: RunData, built: dict, monkeypatch: pytest.MonkeyPatch):
    parts = run_data.split
    few = type(parts)(parts.train[:7], parts.valid, parts.test, parts.by)
    monkeypatch.setattr(RunData, "split", few)
    assert len(FinalData(run_data.run, 0).split.train) == 7 + VALID + TEST


def test_training_goes_on_from_the_measured_model_as_stage_3_does(built: dict):
    settings = built["settings"]
    assert built["before"] == "sft3" and built["seed"] == 0 and built["context"].seed == 5
    assert settings.epochs == 0.5 and settings.batch_size == 16
    assert settings.loop.learning_rate == 2.5e-4 and settings.loop.warmup == 0.2 and settings.loop.best == ""


def test_the_measured_engines_weights_stay(run_data: RunData, built: dict):
    about = read_json(run_data.run / "final" / "engine.json")
    assert about == {**MEASURED, "model": "final", "counts": "final"}
    assert read_json(run_data.run / "engine" / "engine.json") == MEASURED
    assert built["metrics"] == {"page_views": TRAIN + VALID + TEST, "learnt": 40, "steps": 3}


def test_an_update_searches_with_the_counts_of_the_engine_that_it_starts_from(run_data: RunData, built: dict):
    split, thoughts = run_data.split, Thoughts.from_thoughts([])
    for counts, clicks in (("final", 4 * 20 + TEST), (None, 4 * 10)):
        data = UpdateData(run_data.run, split.test, split, thoughts, counts)
        assert data.statistics.clicked.sum() == clicks


def test_an_unfinished_stage_is_no_engine(built: dict, run_data: RunData):
    assert not (Path(run_data.run) / "final" / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="not a finished stage"):
        load_about(run_data.run, "final")
