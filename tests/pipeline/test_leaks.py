"""What each stage reads of which part of the log: nothing is learnt from, chosen or judged on, the wrong one."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.split import Split
from onesearch.encoding.encoder_alignment import EncoderAlignmentSettings
from onesearch.encoding.khqe import KHQE, KHQESettings
from onesearch.encoding.static_encoder import StaticSettings
from onesearch.model.featurizer import TextFeatures
from onesearch.model.model_settings import PromptSettings
from onesearch.pipeline import engine_stage, preference_stages, preparation_stages, training_stages, update_round
from onesearch.pipeline.preference_stages import build_rewards
from onesearch.pipeline.preparation_stages import build_encoder, build_khqe, build_lexical
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import EncoderSettings, LexiconSettings
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.boosts import Boost
from onesearch.search.candidates import Candidates
from onesearch.search.hits import Hits
from onesearch.search.search_settings import SearchSettings
from onesearch.training.batching import BatchSource, TaskMixture
from onesearch.training.click_rates import ClickRates
from onesearch.training.dpo import DpoSettings
from onesearch.training.loop_settings import PreferenceLoopSettings
from onesearch.training.sft_settings import PersonalisationSettings
from onesearch.understanding.thought_table import Thoughts

from .conftest import N_ITEMS, TRAIN, VALID, page_view


def context(folder: Path, **inputs: Path) -> StageContext:
    return StageContext("stage", folder, inputs, seed=5)


class RecordingEngine:
    """Stands in for an engine: notes what is asked, and finds the items 0, 1, 2 and 11."""

    def __init__(self, *_, **__) -> None:
        self.asked: list[str] = []

    def candidates(self, requests, fixed=None):
        self.asked += requests.query
        items = np.tile([0, 1, 2, 11], (len(requests), 1)) if fixed is None else fixed
        number = np.where(items >= 0, items, 0).astype(np.float32)
        return Candidates(items, {"log_prob": -number, "text": number % 3}, items >= 0, {})

    def rank(self, requests, k):
        self.asked += requests.query
        items = np.tile([0, 1, 2, 11], (len(requests), 1))
        return Hits(items, np.zeros(items.shape, np.float32))

    def adopt(self, generator, name):
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> RecordingEngine:
    """Every engine that a stage makes."""
    one = RecordingEngine()
    for module in (engine_stage, training_stages, update_round):
        made = SimpleNamespace(from_parts=lambda *_: one, from_about=lambda *_: one)
        monkeypatch.setattr(module, "SearchEngine", made if module is not training_stages else lambda *_, **__: one)
    return one


# -- data and preparation ----------------------------------------------------------------------------------------------


def test_the_parts_follow_each_other_in_time_and_only_the_first_is_counted(run_data: RunData):
    split = run_data.split
    assert [len(part) for part in (split.train, split.valid, split.test)] == [TRAIN, VALID, 10]
    assert set(split.valid["query"]) == {"valid"} and set(split.test["query"]) == {"test"}
    assert sorted(run_data.statistics.queries) == ["train 0", "train 1"]
    assert run_data.statistics.clicked.tolist() == [10, 10, 10, 10] + [0] * 8


def test_judgments_of_queries_that_only_later_parts_have_are_not_for_training(run_data: RunData):
    assert run_data.training_judgments["query"].unique(maintain_order=True).to_list() == ["train 0", "elsewhere"]


def test_the_encoder_learns_from_the_training_part(run_data: RunData, tmp_path: Path):
    settings = EncoderSettings(
        static=StaticSettings(dimension=8), align=EncoderAlignmentSettings(epochs=1, nested=(), batch_size=16), folds=2
    )
    metrics = build_encoder(run_data, context(tmp_path), settings)
    held_out = pl.read_parquet(tmp_path / "held_out_queries.parquet")["query"].to_list()
    assert sorted(held_out) == ["train 0", "train 1"] and metrics["queries"] == 2


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Path:
    """Item vectors along one axis, held-out query vectors along another: quantizers of one say nothing of the other."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    write_json(folder / "fields.json", ["title"])
    numbers = np.arange(N_ITEMS, dtype=np.float32)[:, None]
    np.save(folder / "item_vectors.npy", np.eye(8, dtype=np.float32)[:1] + 0.01 * numbers)
    np.save(folder / "held_out_vectors.npy", np.eye(8, dtype=np.float32)[[3, 4]])
    return folder


def test_items_and_training_queries_are_quantized_jointly(
    run_data: RunData, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = {}
    fit = KHQE.fit

    def recording(vectors, settings, weights, first):
        seen.update(vectors=vectors, weights=weights, seed=settings.seed)
        return fit(vectors, settings, weights, first)

    monkeypatch.setattr(KHQE, "fit", recording)
    folder = tmp_path / "khqe"
    folder.mkdir()
    settings = KHQESettings(layers=(4, 4, 2), opq_size=4, opq_parts=2, iterations=2)
    build_khqe(run_data, context(folder, encoder=encoder_folder), settings, LexiconSettings(fuse=False))
    items, queries = (np.load(encoder_folder / name) for name in ("item_vectors.npy", "held_out_vectors.npy"))
    np.testing.assert_array_equal(seen["vectors"], np.concatenate([items, queries]))
    assert seen["weights"].tolist() == [1.0] * (N_ITEMS + 2) and seen["seed"] == 5
    # What training reads of its own queries is the held-out vectors, under their texts.
    assert pl.read_parquet(folder / "held_out_queries.parquet")["query"].to_list() == ["train 0", "train 1"]
    np.testing.assert_array_equal(np.load(folder / "held_out_vectors.npy"), queries)
    assert len(np.load(folder / "item_sids.npy")) == N_ITEMS


def test_training_clicks_alone_move_what_sids_are_made_of_and_no_vector_that_searches_read(
    run_data: RunData, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Items 0 to 3 are clicked in the training part, item 11 in the test part."""
    seen = {}
    monkeypatch.setattr(KHQE, "encode", lambda _, vectors: seen.setdefault("coded", vectors)[:, :1].astype(np.int32))
    monkeypatch.setattr(preparation_stages, "quality_report", lambda *_: {})
    folder = tmp_path / "khqe"
    folder.mkdir()
    settings = KHQESettings(layers=(4,), opq_parts=0, iterations=2, co_click=0.5)
    build_khqe(run_data, context(folder, encoder=encoder_folder), settings, LexiconSettings(fuse=False))
    items = np.load(encoder_folder / "item_vectors.npy")
    assert np.flatnonzero((seen["coded"] != items).any(1)).tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.load(folder / "item_vectors.npy"), items)


def test_bm25_is_tuned_on_validation_clicks(run_data: RunData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = {}

    def tuned(items, start, requests, clicked):
        seen.update(queries=set(requests.query), clicked=set(clicked.values.tolist()))
        return SimpleNamespace(save=lambda _: None, config=start)

    monkeypatch.setattr(preparation_stages, "tune_lexical", tuned)
    run_data.fields = ("title",)
    build_lexical(run_data, context(tmp_path))
    assert seen == {"queries": {"valid"}, "clicked": {0, 1, 2, 3}}


# -- what training reads -----------------------------------------------------------------------------------------------


def features(texts: list[str]) -> TextFeatures:
    """Features of the right shapes that say nothing, so that prompts can be made without an encoder."""
    n = len(texts)
    tokens = Ragged.from_lengths(np.zeros(n, np.int32), np.ones(n, np.int64))
    return TextFeatures(list(texts), tokens, np.zeros((n, 8), np.float32), np.zeros((n, 5), np.int32), np.zeros((n, 4)))


def filled(run_data: RunData, page_views: pl.DataFrame) -> list[list[int]]:
    """Items most clicked for the query, as training reads them, of each page view."""
    run_data.training_text_features = lambda texts, held_out=True: features(texts)
    inputs = run_data.training_columns(page_views, PromptSettings(clicked_for_query=4), True)
    return [sorted(row[row >= 0].tolist()) for row in inputs.clicked_for_query]


def test_training_reads_neither_the_click_that_it_learns_nor_later_ones(run_data: RunData):
    # "train 0" has ten clicks on item 0 and ten on item 2: one less is still the most.
    assert filled(run_data, run_data.split.train[:4]) == [[0, 2], [1, 3], [0, 2], [1, 3]]
    # Of three page views only the first one of "train 0" clicked item 7, and only the third one item 0.
    page_views = run_data.split.train[:3].with_columns(clicked=pl.Series([["i7"], ["i1"], ["i0"]]))
    run_data.statistics = ClickStatistics.from_page_views(page_views, run_data.dataset.items)
    assert filled(run_data, page_views) == [[0], [], [7]]
    # Histories end before the page view: the first one of a shopper has none, the next ones their earlier clicks.
    requests = run_data.requests(run_data.split.train[:7])
    known = [row[row >= 0].tolist() for row in requests.clicked]
    assert known == [[], [], [], [0], [1], [2], [0, 3]]


def test_new_page_views_of_an_update_are_not_in_the_counts_and_nothing_is_left_out(run_data: RunData):
    split = run_data.split
    update = update_round.UpdateData(run_data.run, split.test, split, Thoughts.from_thoughts([]))
    new = split.train[:1].with_columns(page_view_id=pl.lit("new"))
    assert filled(update, new) == [[0, 2]]
    update.statistics = ClickStatistics.from_page_views(new, run_data.dataset.items)
    assert filled(update, new) == [[0]]


def test_training_queries_have_held_out_vectors_and_other_texts_the_encoders(run_data: RunData):
    run_data.featurizer = SimpleNamespace(vectors=lambda texts: np.zeros((len(texts), 2), np.float32))
    run_data.held_out = {"train 0": 0, "train 1": 1}
    run_data.held_out_vectors = np.array([[1, 0], [2, 0]], np.float32)
    texts = ["Train 1", "valid", "train 0"]
    assert run_data.training_vectors(texts)[:, 0].tolist() == [2, 0, 1]
    assert run_data.training_vectors(texts, held_out=False)[:, 0].tolist() == [0, 0, 0]


def test_searches_to_learn_are_those_of_the_training_part(run_data: RunData):
    page_views, targets, weights = training_stages.searches(run_data, PersonalisationSettings())
    assert page_views["page_view_id"].to_list() == [f"p{n}" for n in range(TRAIN)]
    assert targets.values.tolist() == [n % 4 for n in range(TRAIN)] and len(weights) == TRAIN


# -- what chooses and judges -------------------------------------------------------------------------------------------


def test_training_is_validated_on_the_validation_part(run_data: RunData, engine: RecordingEngine):
    run_data.featurizer, run_data.click_features = SimpleNamespace(), SimpleNamespace()
    run_data.snapshot = lambda *_, **__: None
    generator = nn.Linear(1, 1)
    generator.config = SimpleNamespace(prompt=None)
    validate = training_stages.validator(run_data, generator, 8, 0, most=6)
    figures = validate(generator)
    assert engine.asked == ["valid"] * 6
    assert figures == {"hr10": 1.0, "mrr10": 1.0}


def test_weights_of_the_engine_are_fitted_on_validation_clicks(
    run_data: RunData, engine: RecordingEngine, tmp_path: Path
):
    search = SearchSettings(lexical=True)
    engine_stage.run_engine(run_data, context(tmp_path), "sft3", search, fit_requests=7, run_seed=0)
    assert engine.asked == ["valid"] * 28  # the engine, and its three controls
    about = read_json(tmp_path / "engine.json")
    assert about["model"] == "sft3" and about["weights"]["log_prob"] > 0  # 0, 1 and 2 are clicked, 11 is not


def test_the_weight_of_boosts_is_set_and_not_fitted(
    run_data: RunData, engine: RecordingEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fitted = []
    made = SimpleNamespace(from_parts=lambda *given: fitted.append(given) or engine)
    monkeypatch.setattr(engine_stage, "SearchEngine", made)
    boost = Boost(name="few", column="item_id", values=("i0", "i1"), times=4.0)
    search = SearchSettings(boost=0.3)
    found = engine_stage.run_engine(run_data, context(tmp_path), "sft3", search, 7, 0, boosts=(boost,))
    about = read_json(tmp_path / "engine.json")
    assert about["weights"]["boost"] == about["controls"]["engine without generator"]["boost"] == 0.3
    assert "boost" not in about["controls"]["one model"] and about["boosts"] == [boost.model_dump(mode="json")]
    assert found["boosted_items"] == {"few": 2}
    assert len(fitted) == 3 and all(len(given) == 5 for given in fitted), "engines that are fitted have no boosts"
    nothing = boost.updated(values=("none",))
    with pytest.raises(ValueError, match="boost 'few'"):
        engine_stage.run_engine(run_data, context(tmp_path), "sft3", search, 7, 0, boosts=(nothing,))


def test_relevance_is_fitted_on_judgments_that_training_may_see(run_data: RunData, engine: RecordingEngine):
    weights = engine_stage.fit_relevance(run_data, engine)
    assert engine.asked == ["train 0", "elsewhere"] and weights.values["log_prob"] > 0


def test_click_rates_are_counted_in_training_and_calibrated_on_validation(
    run_data: RunData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_data.training_judgments = run_data.dataset.judgments.clear()
    drawn = []
    monkeypatch.setattr(preference_stages, "_draw", lambda found, _: drawn.append(found))
    figures = build_rewards(run_data, context(tmp_path))
    rates = ClickRates.load(tmp_path / preference_stages.RATES)
    assert figures["impressions"] == 4 * TRAIN
    assert 0.1 < rates.attraction[0] < 0.5  # a quarter in training
    assert rates.rate(np.arange(4)).tolist() == [1.0] * 4  # all in validation
    # Reliability is measured on the test part, where none of the four is clicked and the fifth always.
    assert int(drawn[0].n.sum()) == 50 and figures["calibration_error"] > 0.5


class Tiny(nn.Module):
    """One number as a generator, whose training moves it by its learning rate at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.generator.weight)
        self.generator.save = lambda path: torch.save(self.generator.weight.detach().clone(), path)

    def forward(self, batch):
        return {"loss": self.generator.weight.sum()}


@pytest.mark.parametrize(("figures", "step"), [([5, 4, 3, 2, 1], 0), ([1, 5, 3, 2, 1], 2), ([1, 2, 3, 4, 5], 8)])
def test_the_guard_keeps_the_weights_of_the_best_validation(
    run_data: RunData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: list[int], step: int
):
    objective, looks = Tiny(), iter(figures)
    monkeypatch.setattr(
        preference_stages, "validator", lambda *_, **__: lambda _: {"hr10": float(next(looks)), "mrr10": 0.0}
    )
    loop = PreferenceLoopSettings(validate_steps=2, curves=False, weight_decay=0, warmup=0, schedule="constant")
    settings = DpoSettings(steps=8, loop=loop, patience=0)
    source = BatchSource(np.ones(8, int), lambda rows: rows, 2, seed=0, name="task")
    mixture = TaskMixture({"task": source}, {"task": 1.0}, 8, 0)
    found = preference_stages._guarded(run_data, context(tmp_path), settings, objective, mixture, 8, 0)
    saved = torch.load(tmp_path / "generator", weights_only=True)
    assert found["chosen_step"] == step
    assert saved.item() == pytest.approx(-step * loop.learning_rate, rel=0.05)


def test_an_update_learns_from_the_oldest_page_views_and_is_judged_by_the_newest(run_data: RunData):
    page_views = pl.concat([pl.DataFrame([page_view(n, f"q{n}", [0])]) for n in range(300)])
    split = update_round._split(page_views, run_data.dataset.items["item_id"])
    assert [len(part) for part in (split.train, split.valid, split.test)] == [190, 50, 60]
    assert split.train["query"][0] == "q0" and split.valid["query"][0] == "q190" and split.test["query"][-1] == "q299"


def test_the_judge_asks_the_newest_page_views(
    run_data: RunData, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(update_round, "Generator", SimpleNamespace(load=lambda _: None))
    split = run_data.split
    parts = Split(split.train, split.valid, split.test, "time")
    update = update_round.UpdateData(run_data.run, split.test, parts, Thoughts.from_thoughts([]))
    about = {"model": "distill", "search": {}, "weights": {"log_prob": 1.0}}
    aligned, folder = {**about, "model": "versions/0001"}, Path(run_data.run) / "versions" / "0001"
    found = update_round._judged(update, about, aligned, folder)
    assert set(engine.asked) == {"test"} and found.before == found.after and found.before["hr10"] == 1.0
    assert found.p == found.same == 1.0 and not found.better
