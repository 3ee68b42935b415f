"""Boosts in the order of pages: which items they hold, what they add, that they outlive changes of the catalogue."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from onesearch.common.artefact import read_json
from onesearch.data.records import Item
from onesearch.data.requests import Requests
from onesearch.search.boosts import Boost, log_times
from onesearch.search.engine import SearchEngine
from onesearch.search.engine_file import ENGINE, boosts_of, save_engine
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.search_settings import MODEL_ONLY
from small_engine import ITEMS, WEIGHTS, small_engine

LAMPS = Boost(name="lamps", column="category", values=("lamp",), times=4.0)
CHEAP = Boost(name="cheap", column="brand", values=("b0", "no such brand"), term="all", times=0.5)
REQUESTS = Requests.anonymous(["red tent", "blue lamp", "stove"])
WEIGHT = 0.7


def boosted(*boosts: Boost, weight: float = WEIGHT) -> SearchEngine:
    engine = small_engine()
    engine.weights = RankingWeights({**WEIGHTS.values, "boost": weight})
    engine.adopt(engine.generator, "boosted", boosts)
    return engine


def scores(engine: SearchEngine) -> dict[tuple[str, str], float]:
    """Of every candidate, by query and item."""
    found, ids = engine.candidates(REQUESTS), ITEMS["item_id"].to_list()
    ranked = engine.weights.score(found.features, found.contexts)
    return {
        (query, ids[item]): float(score)
        for query, items, scores in zip(REQUESTS.query, found.items.tolist(), ranked, strict=True)
        for item, score in zip(items, scores, strict=True)
        if item >= 0
    }


def test_the_boosts_of_an_item_multiply_whatever_their_term():
    found = log_times([LAMPS, CHEAP], ITEMS)
    kind, brand = ITEMS["category"].list.last().to_list(), ITEMS["brand"].to_list()
    by_hand = [
        math.log((4 if a == "lamp" else 1) * (0.5 if b == "b0" else 1)) for a, b in zip(kind, brand, strict=True)
    ]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6, atol=1e-7)
    assert len(set(by_hand)) == 4 and log_times([], ITEMS).tolist() == [0] * len(ITEMS)
    with pytest.raises(ValueError, match=r"boost 'typo': no item has one of these values of 'seller'"):
        Boost(name="typo", column="seller", values=("x",), times=2).members(ITEMS)


def test_a_boost_adds_its_weight_times_the_log_to_each_score_and_nothing_else():
    plain, raised = scores(small_engine()), scores(boosted(LAMPS, CHEAP))
    assert plain.keys() == raised.keys(), "a boost orders candidates and finds none"
    add = dict(zip(ITEMS["item_id"].to_list(), log_times([LAMPS, CHEAP], ITEMS).tolist(), strict=True))
    for pair, score in plain.items():
        assert raised[pair] == pytest.approx(score + WEIGHT * add[pair[1]], abs=1e-5)
    first = [hit.item.category[-1] == "lamp" for hit in boosted(LAMPS, weight=50.0).search("red", k=15)]
    assert any(first) and first == sorted(first, reverse=True) and not all(first)


def test_without_boosts_or_weight_there_is_no_such_feature():
    engine = boosted(LAMPS)
    assert "boost" in engine.candidates(REQUESTS).features
    off = engine.with_settings(engine.config.updated(boost=0.0), engine.weights)
    model = engine.with_settings(engine.config.updated(**MODEL_ONLY), engine.weights)
    for one in (small_engine(), off, model, engine.alone()):
        assert "boost" not in one.candidates(REQUESTS).features
    np.testing.assert_array_equal(off.rank(REQUESTS, 10).scores, small_engine().rank(REQUESTS, 10).scores)
    engine.adopt(engine.generator, "another")
    assert engine.snapshot.boosts == (LAMPS,), "another generator alone leaves the boosts as they are"
    engine.adopt(engine.generator, "none", ())
    assert engine.snapshot.boost is None


def test_a_search_reads_one_model_with_its_boosts():
    """Another version comes while a search is under way, after each of its model's passes in turn."""
    engine, other = boosted(LAMPS), small_engine().generator
    with torch.no_grad():
        other.item_head.log_scale.add_(1.0)
    before = engine.rank(REQUESTS, 40)
    first, encode = engine.generator, engine.generator.encode

    def adopts_first(prompt):
        engine.adopt(other, "other", (CHEAP,))
        return encode(prompt)

    engine.batch_size, first.encode = 1, adopts_first
    during = engine.rank(REQUESTS, 40)
    np.testing.assert_array_equal(during.items, before.items)
    np.testing.assert_allclose(during.scores, before.scores, atol=1e-5)
    assert engine.generator is other and engine.snapshot.boosts == (CHEAP,) and engine.name == "other"
    assert not np.allclose(engine.rank(REQUESTS, 40).scores, before.scores, atol=1e-2)


def test_items_added_or_changed_later_belong_to_their_group():
    engine = boosted(LAMPS)
    engine.upsert(
        [Item("new", "red tent lamp", ("Shop", "lamp")), Item("red-lamp-0", "red lamp no 0", ("Shop", "tent"))]
    )
    number, boost = engine.snapshot.number, engine.snapshot.boost
    assert boost is not None and len(boost) == len(engine.snapshot.records) == len(ITEMS) + 1
    of_both = boost.take(np.array([number["new"], number["red-lamp-0"]]))
    assert of_both.tolist() == pytest.approx([math.log(4), 0])
    again = engine.snapshot.boosted((LAMPS,)).boost
    assert again is not None and torch.equal(again.flat(), boost.flat())
    found = engine.candidates(Requests.anonymous(["red tent lamp"]))
    at = found.items[0].tolist().index(number["new"])
    assert found.features["boost"][0, at] == pytest.approx(math.log(4))
    engine.delete(["new"])
    assert engine.snapshot.boost is not None and len(engine.snapshot.boost) == len(ITEMS) + 1


def test_an_engine_file_names_groups(tmp_path: Path):
    engine = small_engine()
    save_engine(tmp_path, "sft3", engine.config, WEIGHTS, {}, boosts=(LAMPS, CHEAP))
    about = read_json(tmp_path / ENGINE)
    assert boosts_of(about) == (LAMPS, CHEAP) and about["boosts"][0]["values"] == ["lamp"]
    assert boosts_of({"model": "sft3"}) == ()
