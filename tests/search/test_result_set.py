"""Totals, facets and orders of a whole result set, against counts by hand."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from onesearch.data.records import Item
from onesearch.index.filter_values import FilterError
from onesearch.search.confidence import Confidence
from onesearch.search.engine import SearchEngine
from onesearch.search.results import SearchRequest
from small_engine import ITEMS, small_engine

START = datetime(2026, 1, 1, tzinfo=UTC)
FACETS = ("category", "brand", "price", "in_stock", "attributes.Color", "attributes.Size")


@pytest.fixture(scope="module")
def engine() -> SearchEngine:
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    sizes = (("40", "41"), ("40", "40"), ("xl",), ())
    for number in range(30):
        colour = ("Red", "red", "Grün", "grun", "grün")[number % 5]
        item = Item(
            f"new-{number}",
            f"red tent {number}" if number % 2 else f"blue lamp {number}",
            ("Shop", "tent" if number % 2 else "lamp", f"shelf {number % 3}"),
            brand=("Acme", "ACME", None)[number % 3],
            price=None if number % 7 == 0 else float(number % 11),
            attributes={"Color": (colour,), "Size": sizes[number % 4]},
            listed_at=None if number % 5 == 0 else START + timedelta(hours=(number * 7) % 30),
            in_stock=number % 4 != 0,
        )
        engine.upsert([item])
    engine.delete(["new-3", "red-tent-0"])
    return engine


def everything(engine: SearchEngine) -> list[Item]:
    return [engine.snapshot.item(row) for row in engine.snapshot.number.values()]


def ask(engine: SearchEngine, **asked):
    return engine.search_batch([SearchRequest(**{"query": "", "k": 100, **asked})])[0]


@pytest.mark.parametrize(
    "filters", [None, {"brand": "acme"}, {"category": "tent", "not": {"attributes": {"Color": "red"}}}]
)
def test_facets_are_counts_by_hand(engine: SearchEngine, filters):
    found = ask(engine, filters=filters, facets=FACETS)
    items = [hit.item for hit in found]
    assert found.total == len(items) > 5
    paths = Counter(" > ".join(item.category[:end]) for item in items for end in range(1, len(item.category) + 1))
    assert dict(found.facets["category"]) == dict(paths)
    brands = Counter(item.brand.lower() for item in items if item.brand)
    assert {name.lower(): n for name, n in found.facets["brand"]} == dict(brands)
    assert dict(found.facets["in_stock"]) == dict(Counter(bool(item.in_stock) for item in items))
    colours = Counter(
        value.lower().replace("ü", "u") for item in items for value in set(item.attributes.get("Color", ()))
    )
    assert {name.lower().replace("ü", "u"): n for name, n in found.facets["attributes.Color"]} == dict(colours)
    sizes = Counter(value for item in items for value in set(item.attributes.get("Size", ())))
    assert dict(found.facets["attributes.Size"]) == dict(sizes)
    prices = [item.price for item in items if item.price is not None]
    ranges = found.facets["price"]
    assert sum(n for _, n in ranges) == len(prices) and all(
        ranges[i][0][1] < ranges[i + 1][0][0] for i in range(len(ranges) - 1)
    )
    assert all(n == sum(low <= price <= high for price in prices) for (low, high), n in ranges)
    # Most items first, and a value that is asked for as a filter finds as many as it says.
    for key in ("category", "brand", "attributes.Color"):
        counts = [n for _, n in found.facets[key]]
        assert counts == sorted(counts, reverse=True)
        value, n = found.facets[key][0]
        asked = {**(filters or {})}
        if key not in asked and key != "category":
            assert ask(engine, filters={**asked, key: value}, count=True).total == n


def test_names_that_are_alike_are_one_spelt_as_most_items_spell_it(engine: SearchEngine):
    engine.upsert([Item(f"more-{number}", "lamp", attributes={"Color": ("GRÜN",)}) for number in range(20)])
    try:
        colours = dict(ask(engine, facets=("attributes.Color",)).facets["attributes.Color"])
        assert set(colours) in ({"GRÜN", "Red"}, {"GRÜN", "red"}) and colours["GRÜN"] > 20
    finally:
        engine.delete([f"more-{number}" for number in range(20)])


def test_the_total_of_a_query_counts_items_as_near_as_the_margin(engine: SearchEngine):
    projection, featurizer = engine.featurizer.head_row_projection, engine.featurizer
    query = projection.project_queries(featurizer.vectors(["red tent"]))[0]
    rows = engine.snapshot.item_head_rows.flat().numpy()
    there = sorted(engine.snapshot.number.values())
    likeness = {row: float(rows[row] @ query) for row in there}
    best = max(likeness.values())
    relevant = {row for row in there if likeness[row] >= best - 0.4}
    assert 0 < len(relevant) < len(there)
    assert ask(engine, query="red tent", count=True).total == len(relevant)
    # A filter takes items away and makes none relevant.
    dear = {"price": [20, None]}
    allowed = {row for row in relevant if (engine.snapshot.item(row).price or 0) >= 20}
    assert ask(engine, query="red tent", filters=dear, count=True).total == len(allowed)
    for name in ("tent", "lamp", "boots", "chair", "stove"):
        inside = sum(name in engine.snapshot.item(row).category for row in relevant)
        assert ask(engine, query="red tent", filters={"category": name}, count=True).total == inside
    by_price = ask(engine, query="red tent", sort="price")
    assert {engine.snapshot.number[hit.item_id] for hit in by_price} == relevant and by_price.total == len(relevant)


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("price", lambda item: (item.price is None, item.price)),
        ("-price", lambda item: (item.price is None, -(item.price or 0))),
        ("newest", lambda item: (item.listed_at is None, -(item.listed_at or START).timestamp())),
    ],
)
def test_orders_put_what_is_unknown_last_and_pages_join(engine: SearchEngine, sort, key):
    found = ask(engine, sort=sort)
    keys = [key(hit.item) for hit in found]
    plain = [one if not one[0] else (True, 0) for one in keys]
    assert plain == sorted(plain) and found.total == len(found) == len(engine)
    pages = [ask(engine, sort=sort, k=9, offset=offset) for offset in range(0, len(engine), 9)]
    assert [hit.item_id for page in pages for hit in page] == [hit.item_id for hit in found]
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_by_popularity_first_comes_what_was_clicked_most(engine: SearchEngine):
    clicks = engine.snapshot.popularity.flat().numpy()
    found = [clicks[engine.snapshot.number[hit.item_id]] for hit in ask(engine, sort="popularity")]
    assert found == sorted(found, reverse=True) and found[0] > 0


def test_what_cannot_be_told_is_said(engine: SearchEngine):
    with pytest.raises(FilterError, match="unknown facet 'colour'; valid facets are category, brand"):
        ask(engine, facets=("colour",))
    with pytest.raises(FilterError, match=r"unknown facet 'attributes'; .* attributes\.TYPE"):
        ask(engine, facets=("attributes",))
    with pytest.raises(ValueError, match="unknown order 'cheap'; valid ones are price, -price"):
        ask(engine, sort="cheap")
    old = small_engine()
    assert ask(old, count=True).total == len(ITEMS) and ask(old, query="red").total is None
    with pytest.raises(ValueError, match="does not know which items are relevant"):
        ask(old, query="red", count=True)


def test_requests_with_and_without_share_a_batch(engine: SearchEngine):
    asked = [
        SearchRequest("red tent", k=5),
        SearchRequest("red tent", k=5, sort="price"),
        SearchRequest("red tent", k=5, facets=("brand",)),
    ]
    plain, sorted_, counted = engine.search_batch(asked)
    assert plain == counted and plain.total is None and counted.total == sorted_.total > 0 and counted.facets["brand"]
    assert plain == engine.search("red tent", k=5) and sorted_ == ask(engine, query="red tent", k=5, sort="price")


def test_an_empty_catalogue_has_nothing_to_count():
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    engine.delete(ITEMS["item_id"].to_list())
    for query in ("", "red"):
        found = ask(engine, query=query, facets=("category", "brand", "price", "in_stock"), sort="price")
        assert (
            found == [] and found.total == 0 and not any(np.array(list(found.facets.values()), dtype=object).tolist())
        )
