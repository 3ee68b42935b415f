"""Draws of places: by the odds of the order, a request's own, prefixes of each other, within filters, behind pins."""

import numpy as np
import pytest

from onesearch.search.exploration import DEPTH, Exploration, explore
from onesearch.search.hits import Hits
from onesearch.search.results import SearchRequest
from onesearch.search.rules import Hide, Pin, Rules
from small_engine import small_engine


def hits(scores):
    scores = np.sort(np.array(scores, np.float32))[:, ::-1].copy()
    return Hits(np.tile(np.arange(scores.shape[1], dtype=np.int32), (len(scores), 1)), scores)


def test_the_first_place_is_drawn_by_the_odds():
    scores = np.log(np.array([8.0, 4.0, 2.0, 1.0, 1.0]))
    one = hits(np.tile(scores, (4000, 1)))
    explore(one, [Exploration(1.0, seed) for seed in range(4000)])
    first = np.bincount(one.items[:, 0], minlength=5) / 4000
    assert first == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.0625], abs=0.025)
    second = one.items[one.items[:, 0] == 0, 1]
    assert np.bincount(second, minlength=5)[1] / len(second) == pytest.approx(0.5, abs=0.04), "of those that are left"
    assert (np.sort(one.items, 1) == np.arange(5)).all()


def test_a_share_of_the_places_is_drawn_and_the_others_keep_their_order():
    many = 2000
    one = hits(np.tile(np.linspace(0, 3, 30), (many, 1)))
    drawn = explore(one, [Exploration(0.1, seed) for seed in range(many)])
    assert np.mean([len(rows) for rows in drawn]) == pytest.approx(3.0, abs=0.15)
    for items, rows in zip(one.items[:200], drawn, strict=False):
        assert (np.diff([item for item in items if item not in rows]) > 0).all()
        assert len(set(rows.tolist())) == len(rows) and set(rows.tolist()) <= set(items.tolist())
    places = np.concatenate([Exploration(0.1, seed).places() for seed in range(many)])
    assert np.bincount(places, minlength=DEPTH).std() < 25 and places.max() < DEPTH


def test_who_does_not_ask_and_what_is_not_there_stays():
    one = hits([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    one.items[:, 2], one.scores[:, 2] = -1, -np.inf
    before = one.items[0].copy()
    drawn = explore(one, [None, Exploration(1.0, 5)])
    assert (one.items[0] == before).all() and len(drawn[0]) == 0
    assert one.items[1, 2] == -1 and sorted(drawn[1].tolist()) == [0, 1]
    many = hits([np.linspace(0, 3, 30)])
    scores = many.scores[0].copy()
    explore(many, [Exploration(1.0, 5)])
    assert (many.items[0] != np.arange(30)).any()
    assert (many.scores[0] == scores[many.items[0]]).all(), "a score goes with its item"


@pytest.fixture(scope="module")
def engine():
    return small_engine()


def page(engine, exploration, **more):
    return engine.search_batch([SearchRequest("red tent", k=more.pop("k", 10), exploration=exploration, **more)])[0]


def ids(found):
    return [hit.item_id for hit in found]


def test_a_request_without_exploration_is_answered_as_ever_beside_one_with(engine):
    plain = page(engine, None)
    exploring = SearchRequest("red tent", exploration=Exploration(1.0, 3))
    both = engine.search_batch([SearchRequest("red tent"), exploring])
    assert both[0] == plain and both[0].explored == () and ids(both[1]) != ids(plain)
    assert page(engine, Exploration(0.0, 3)) == plain
    assert set(both[1].explored) == set(ids(both[1]))


def test_draws_are_a_requests_own_and_longer_pages_begin_as_shorter_ones(engine):
    one = page(engine, Exploration(0.5, 7), k=20)
    assert ids(page(engine, Exploration(0.5, 7), k=20)) == ids(one)
    assert any(ids(page(engine, Exploration(0.5, seed), k=20)) != ids(one) for seed in range(8, 12))
    parts = [page(engine, Exploration(0.5, 7), k=5, offset=offset) for offset in (0, 5, 10, 15)]
    assert [one for part in parts for one in ids(part)] == ids(one)
    assert [one for part in parts for one in part.explored] == list(one.explored) != []
    whole = ids(page(engine, None, k=40))
    assert sorted(ids(page(engine, Exploration(0.5, 7), k=40))) == sorted(whole), "nothing is shown twice or lost"


def test_pins_stay_first_and_filters_and_rules_hold(engine):
    every = ids(page(engine, None, k=40))
    rules = Rules(
        pins=(Pin(name="p", items=(every[9], every[4])),),
        hides=(Hide(name="h", column="item_id", values=(every[0],)),),
    )
    brand = engine.item(every[1]).brand
    allowed = set(ids(page(engine, None, k=40, filters={"brand": brand})))
    for seed in range(10):
        found = page(engine, Exploration(1.0, seed), rules=rules)
        assert ids(found)[:2] == [every[9], every[4]] and every[0] not in ids(found)
        assert not {every[9], every[4]} & set(found.explored), "nobody drew what is pinned"
        assert set(ids(page(engine, Exploration(1.0, seed), k=40, filters={"brand": brand}))) == allowed
