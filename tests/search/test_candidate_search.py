"""The path of one search on a small engine: what is found once, where candidates come from, what describes them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.requests import Requests
from onesearch.model.model_settings import ModelSettings
from onesearch.model.numeric_item_features import FEATURE_NAMES
from onesearch.search import candidate_search
from onesearch.search.candidates import Candidates, ordered
from onesearch.search.engine import SearchEngine
from onesearch.search.evidence_finder import EvidenceFinder, EvidenceRequests
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.ranking_weights import GENERATOR_ALONE, RankingWeights
from onesearch.search.search_settings import SearchSettings
from onesearch.search.shopper_history import ShopperHistory, to_requests
from onesearch.search.text_analyzer import Analyzer
from small_engine import EVIDENCE, ITEMS, small_engine

IDS = ITEMS["item_id"].to_list()


@pytest.fixture(scope="module")
def engine() -> SearchEngine:
    return small_engine()


def found_ids(candidates: Candidates, row: int = 0) -> list[str]:
    return [IDS[item] for item in candidates.items[row] if item >= 0]


@pytest.mark.parametrize("model", [None, EVIDENCE], ids=["plain", "evidence"])
def test_each_thing_is_looked_up_once_for_a_search(model: ModelSettings | None, monkeypatch: pytest.MonkeyPatch):
    engine = small_engine(model=model)
    monkeypatch.setattr(candidate_search, "FEWEST", 1)  # a shop of forty items is looked through once more
    calls: dict[str, int] = {}

    def counted(owner: type, name: str) -> None:
        plain = getattr(owner, name)

        def count(self, *arguments, **options):
            if arguments[:1] not in (("red",), ("tents",), ("redtent",)):  # single words
                calls[name] = calls.get(name, 0) + 1
            return plain(self, *arguments, **options)

        monkeypatch.setattr(owner, name, count)

    counted(Analyzer, "__call__")
    counted(ClickStatistics, "query_numbers")
    counted(LexicalSearcher, "_score_chunks")
    counted(EvidenceFinder, "_find")
    counted(EvidenceFinder, "__init__")
    assert engine.search("red tents")
    once = {"__call__": 1, "query_numbers": 1, "_score_chunks": 1}
    assert calls == (once if model is None else {**once, "_find": 1, "__init__": 1})
    # The finder is made once for a catalogue, and anew for a changed one.
    engine.search("lamp")
    assert calls.get("__init__", 0) == (model is not None)
    engine.delete(["red-lamp-0"])
    engine.search("lamp")
    assert calls.get("__init__", 0) == 2 * (model is not None)


def test_candidates_come_from_beams_clicks_bm25_and_the_nearest_items(engine: SearchEngine):
    requests = Requests.anonymous(["red tent"])
    everything = engine.candidates(requests)
    assert len(found_ids(everything)) == len(set(found_ids(everything))), "no item twice"

    def candidates(**settings) -> Candidates:
        off = {"width": 1, "lexical_candidates": 0, "clicked_candidates": 0, "nearest": 0}
        config = SearchSettings(**{**off, "lexical": True, **settings})
        return engine.with_settings(config, GENERATOR_ALONE).candidates(requests)

    def only(**settings) -> list[str]:
        found = candidates(**settings)
        return [
            IDS[item] for item, beam in zip(found.items[0], found.generated[0], strict=True) if item >= 0 and not beam
        ]

    assert only() == []
    assert set(only(clicked_candidates=2)) <= {"red-tent-0", "red-tent-1"}
    # "red" and "tent" are in two titles, one of them in fourteen more.
    by_bm25 = engine.snapshot.lexical.top_items(["red tent"], 6).items[0]
    added = only(lexical_candidates=6)
    assert added and set(added) <= {IDS[item] for item in by_bm25}
    assert {IDS[item] for item in by_bm25} <= set(
        found_ids(candidates(lexical_candidates=6))
    )  # all of them, beams or not
    assert 1 <= len(only(nearest=3)) <= 3


def test_features_of_bm25_are_those_of_the_searcher_wherever_a_candidate_came_from(engine: SearchEngine):
    queries = ["red tent", "blue lamp", "no such word", "red tent"]
    found = engine.candidates(Requests.anonymous(queries))
    lexical = engine.snapshot.lexical
    scores = np.where(found.items >= 0, lexical.scores(queries, found.items), 0)
    np.testing.assert_array_equal(found.features["lexical"], scores)
    best = lexical.scores(queries, np.tile(np.arange(len(IDS)), (4, 1))).max(1)
    expected = scores / np.where(best > 0, best, 1)[:, None]
    np.testing.assert_allclose(found.features["lexical_share"], expected, rtol=1e-6)
    np.testing.assert_allclose(found.features["lexical_share_square"], expected**2, rtol=1e-5)


@pytest.mark.parametrize("model", [None, EVIDENCE], ids=["plain", "evidence"])
def test_candidates_of_other_channels_have_the_log_probability_of_a_beam(model: ModelSettings | None):
    engine = small_engine(model=model)
    requests = Requests.anonymous(["red tent", "lamp"])
    narrow = engine.candidates(requests)
    wide = engine.with_settings(engine.config.updated(width=200), engine.weights).candidates(requests)
    for row in range(2):
        of_beam = dict(zip(wide.items[row].tolist(), wide.features["log_prob"][row].tolist(), strict=True))
        added = (narrow.items[row] >= 0) & ~narrow.generated[row]
        assert added.any() and wide.generated[row][wide.items[row] >= 0].all()
        expected = [of_beam[item] for item in narrow.items[row][added].tolist()]
        np.testing.assert_allclose(narrow.features["log_prob"][row][added], expected, atol=1e-4)
    # Along given paths, as in training, the same.
    given = engine.candidates(requests, fixed=wide.items)
    assert (given.items == wide.items).all()
    np.testing.assert_allclose(given.features["log_prob"], wide.features["log_prob"], atol=1e-4)


def test_taste_without_clicks_is_zero(engine: SearchEngine):
    histories = [ShopperHistory(("red-lamp-0",), ("lamp",)), ShopperHistory()]
    found = engine.candidates(to_requests(["red tent"] * 2, histories, engine.snapshot.number))
    assert found.features["taste"][0].any() and not found.features["taste"][1].any()


def test_likeness_by_hand(engine: SearchEngine):
    user = ShopperHistory(("green-stove-0", "gone", "green-stove-1"), ("stove", "", "stove"))
    found = engine.candidates(to_requests(["red tent"], [user], engine.snapshot.number))
    rows = engine.snapshot.item_head_rows.flat().numpy()
    text = rows.shape[1] - engine.featurizer.head_row_projection.features
    mean = rows[[IDS.index("green-stove-0"), IDS.index("green-stove-1")]].mean(0)
    there = found.items[0] >= 0
    candidates = rows[found.items[0][there]]
    np.testing.assert_allclose(
        found.features["taste"][0][there], candidates[:, :text] @ mean[:text], rtol=1e-4, atol=1e-5
    )
    query = engine.featurizer.head_row_projection.project_queries(engine.featurizer.vectors(["red tent"]))[0]
    np.testing.assert_allclose(
        found.features["text"][0][there], candidates[:, :text] @ query[:text], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        found.features["item_price"][0][there], candidates[:, text:][:, FEATURE_NAMES.index("price")], rtol=1e-5
    )


def test_popularity_and_its_products(engine: SearchEngine):
    found = engine.candidates(Requests.anonymous(["red tent"]))
    there = found.items >= 0
    popularity = np.where(there, np.log1p(engine.snapshot.popularity.take(np.maximum(found.items, 0))), 0)
    np.testing.assert_allclose(found.features["popularity"], popularity, rtol=1e-6)
    for name in ("text", "word_item", "lexical_share"):
        np.testing.assert_allclose(
            found.features[f"{name}_popularity"], found.features[name] * popularity, rtol=1e-5, atol=1e-7
        )


def test_requests_of_a_batch_do_not_touch_each_other(engine: SearchEngine):
    queries = ["red tent", "lamp", "boots", "", "stove no 1"]
    small = engine.with_settings(engine.config, engine.weights)
    small.batch_size = 2
    together, parts = engine.candidates(Requests.anonymous(queries)), small.candidates(Requests.anonymous(queries))
    for row in range(len(queries)):
        assert found_ids(together, row) == found_ids(parts, row)
    for name, values in together.features.items():
        there = together.items >= 0
        np.testing.assert_allclose(
            values[there], parts.features[name][:, : values.shape[1]][there], rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_fixed_items_are_described_and_nothing_is_searched(engine: SearchEngine):
    fixed = np.array([[3, -1, 0, 3]])
    found = engine.candidates(Requests.anonymous(["red tent"]), fixed=fixed)
    assert found.items.tolist() == [[3, -1, 0, -1]], "a repeated item keeps its first place"
    assert not found.generated.any() and found.features["lexical"][0, 0] > 0
    searched = engine.candidates(Requests.anonymous(["red tent"]))
    again = engine.candidates(Requests.anonymous(["red tent"]), fixed=searched.items[:, 7:2:-1])
    for name in ("log_prob", "item_score", "lexical"):
        np.testing.assert_allclose(again.features[name], searched.features[name][:, 7:2:-1], atol=1e-4)


def test_order_is_by_score_then_item_score_then_popularity():
    items = np.array([[4, 1, 2, -1, 3, 0]])
    features = {
        "log_prob": np.array([[1.0, 1.0, 2.0, 0.0, 1.0, 1.0]], np.float32),
        "item_score": np.array([[0.0, 5.0, 0.0, 0.0, 0.0, 0.0]], np.float32),
    }
    found = Candidates(items, features, items >= 0, {})
    popularity = np.array([1, 0, 0, 9, 5], np.float32)
    hits = ordered(found, RankingWeights({"log_prob": 1.0}), 7, popularity)
    # 2 has the best score; of the equal ones 1 has the item score, then 3 > 4 > 0 by popularity.
    assert hits.items.tolist() == [[2, 1, 3, 4, 0, -1, -1]]
    assert hits.scores[0, :5].tolist() == [2, 1, 1, 1, 1] and np.isinf(hits.scores[0, 5:]).all()


def test_a_filter_removes_items_and_changes_no_other_score(engine: SearchEngine):
    free = {hit.item_id: hit.score for hit in engine.search("red tent", k=15)}  # all of them candidates
    filtered = engine.search("red tent", k=40, filters={"brand": "b1"})
    assert filtered and all(hit.item.brand == "b1" for hit in filtered)
    for hit in filtered:
        if hit.item_id in free:
            assert hit.score == pytest.approx(free[hit.item_id], rel=1e-4, abs=1e-4)


def test_the_generator_alone_has_beams_and_nothing_else(engine: SearchEngine):
    found = engine.alone().candidates(Requests.anonymous(["red tent"]))
    assert set(found.features) == {"log_prob", "item_score"} and found.generated[found.items >= 0].all()
    hits = engine.alone().rank(Requests.anonymous(["red tent"]), 3)
    assert hits.scores[0].tolist() == sorted(found.features["log_prob"][0].tolist(), reverse=True)[:3]


def test_with_evidence_all_paths_sum_to_one_and_evidence_changes_them():
    engine = small_engine(model=EVIDENCE)
    requests = Requests.anonymous(["red tent", "lamp"])
    config = engine.config.updated(width=200)
    found = engine.with_settings(config, GENERATOR_ALONE).candidates(requests)
    for row in range(2):
        beams = found.generated[row]
        items, log_probs = found.items[row][beams].tolist(), found.features["log_prob"][row][beams].tolist()
        by_sid = {engine.sid(IDS[item]): value for item, value in zip(items, log_probs, strict=True)}
        assert sum(np.exp(list(by_sid.values()))) == pytest.approx(1, abs=1e-5)
    # Without the evidence of BM25 the distribution is another.
    snapshot = replace(engine.snapshot, lexical=None)
    other = engine.with_settings(config.updated(lexical=False), GENERATOR_ALONE).candidates(requests, snapshot=snapshot)
    assert not np.allclose(found.features["log_prob"][:, :3], other.features["log_prob"][:, :3], atol=1e-3)


def test_evidence_joins_the_candidates_and_its_score_has_what_the_pointer_says():
    engine = small_engine(model=EVIDENCE)
    requests = Requests.anonymous(["red tent"])
    off = {"width": 1, "lexical_candidates": 0, "clicked_candidates": 0, "nearest": 0}
    found = engine.with_settings(SearchSettings(**off), GENERATOR_ALONE).candidates(requests)
    inputs = engine.prompt_inputs(requests, engine.snapshot)
    evidence = inputs.evidence(np.array([0])).items[0]
    assert set(evidence.tolist()) <= set(found.items[0].tolist())
    # The score by hand: the state on the item's row, plus the pointer's number for evidence.
    with torch.inference_mode():
        memory = engine.generator.encode(engine.snapshot.builder.search_prompt(inputs, np.array([0])))
        asked = engine.generator.ask(memory)
    rows = engine.snapshot.item_head_rows.flat().double()
    for item, score in zip(found.items[0].tolist(), found.features["item_score"][0].tolist(), strict=True):
        if item < 0:
            continue
        told = asked.told[0, evidence.tolist().index(item)] if item in evidence else 0.0
        recalled = (
            engine.generator.item_memory.weight.detach()[item] if item < len(IDS) - 1 else torch.zeros(16).double()
        )
        by_hand = asked.state[0] @ rows[item] + told + asked.recalling[0] @ recalled
        assert score == pytest.approx(float(by_hand), abs=1e-4), "the last item is newer than training"
    unwanted = engine.with_settings(SearchSettings(**off, evidence=False), GENERATOR_ALONE).candidates(requests)
    assert unwanted.generated[0][unwanted.items[0] >= 0].all()


def test_the_evidence_of_a_search_is_what_training_finds():
    """BM25's list comes from the pass that gives the candidates; which of equal scores end it is as in training."""
    engine = small_engine(model=EVIDENCE)
    queries = ["tent", "red", "stove no 1", "tent", "nothing known", ""]  # many titles score alike
    requests = Requests.anonymous(queries)
    inputs, facts = engine.prompt_inputs(requests, engine.snapshot), engine.snapshot.click_features.query_facts(queries)
    alone = EvidenceRequests(
        facts.texts, facts.terms, facts.click_rows, facts.words, inputs.query_head_rows(), requests.clicked
    )
    rows = np.arange(len(queries))
    found, expected = inputs.evidence(rows), engine.snapshot.evidence_finder.prepare(alone)(rows)
    np.testing.assert_array_equal(found.items, expected.items)
    np.testing.assert_array_equal(found.numbers, expected.numbers)
