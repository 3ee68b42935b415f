"""What becomes of items out of stock, by the shop's setting."""

import math
from dataclasses import replace

import pytest

from onesearch.data.records import Item
from onesearch.search.engine import SearchEngine
from onesearch.search.results import SearchRequest
from small_engine import small_engine

GONE, UNKNOWN = "red-tent-0", "red-tent-1"


@pytest.fixture
def engine() -> SearchEngine:
    engine = small_engine()
    items = [replace(engine.item(GONE), in_stock=False), replace(engine.item(UNKNOWN), in_stock=None)]
    engine.upsert(items)
    return engine


def found(engine: SearchEngine, **asked) -> list[str]:
    return [hit.item_id for hit in engine.search_batch([SearchRequest("red tent", k=100, **asked)])[0]]


def test_shown_is_the_order_of_before(engine: SearchEngine):
    assert engine.out_of_stock == "shown"
    assert found(engine) == [hit.item_id for hit in small_engine().search("red tent", k=100)]


def test_demoted_items_lose_the_logarithm_of_twenty_and_are_still_found(engine: SearchEngine):
    before = {hit.item_id: hit.score for hit in engine.search("red tent", k=5)}
    engine.out_of_stock = "demoted"
    hits = engine.search_batch([SearchRequest("red tent", k=100, explain=True)])[0]
    after = {hit.item_id: hit.score for hit in hits}
    assert sorted(after) == sorted(found(engine)) and len(after) == 40
    for name in (GONE, UNKNOWN):
        assert after[name] == pytest.approx(before[name] - math.log(20), abs=1e-4)
    assert hits[0].item_id not in (GONE, UNKNOWN)
    why = next(hit.why for hit in hits if hit.item_id == GONE)
    assert why.score == pytest.approx(after[GONE], abs=1e-4)
    assert {part.feature: part.product for part in why.parts}["out_of_stock"] == pytest.approx(-math.log(20))
    assert engine.with_settings(engine.config, engine.weights).out_of_stock == "demoted"


def test_hidden_items_are_in_no_answer(engine: SearchEngine):
    engine.out_of_stock = "hidden"
    assert len(found(engine)) == 38 and not {GONE, UNKNOWN} & set(found(engine))
    assert not {GONE, UNKNOWN} & set(found(engine, filters={"brand": "b0"}))
    answer = engine.search_batch([SearchRequest("", k=3, count=True, facets=("in_stock",))])[0]
    assert answer.total == 38 and answer.facets == {"in_stock": [(True, 38)]}
    assert {hit.item_id for hit in engine.search_lexical("red tent", 40)}.isdisjoint({GONE, UNKNOWN})
    assert {hit.item_id for hit in engine.similar("red-tent-1", 40)}.isdisjoint({GONE, UNKNOWN})
    assert GONE not in {hit.item_id for hit in engine.search(GONE, k=40)}  # not by its id either


def test_hidden_items_are_in_no_suggestion_and_no_choice(engine: SearchEngine):
    engine.upsert(
        [Item(f"gone-{i}", f"Qwerty {i}", ("Shop", "Qwertys"), brand="Zork", in_stock=False) for i in range(9)]
    )
    assert len(engine.suggest("qwerty", 9)) == 9 and ("Zork", 9) in engine.filters_available().brands
    engine.out_of_stock = "hidden"
    assert engine.suggest("qwerty", 9) == []
    assert engine.suggest("tents") == [], "a query that led to what is hidden"
    assert {one.item_id for one in engine.suggest("red", 40)}.isdisjoint({GONE, UNKNOWN})
    choices = engine.filters_available()
    assert dict(choices.brands) == {"b0": 19, "b1": 19}
    assert all(name != "Shop > Qwertys" for name, _ in choices.categories)
    engine.out_of_stock = "shown"
    assert ("Zork", 9) in engine.filters_available().brands


def test_whoever_filters_by_stock_gets_what_is_asked_for(engine: SearchEngine):
    engine.out_of_stock = "hidden"
    for asked in ({"in_stock": False}, {"not": {"in_stock": True}}, {"not.in_stock": True}):
        assert sorted(found(engine, filters=asked)) == [GONE, UNKNOWN], asked
        assert {hit.item_id for hit in engine.search_lexical("red tent", 9, asked)} == {GONE, UNKNOWN}, asked
    assert len(found(engine, filters={"not": {"brand": "b0"}})) == 19
