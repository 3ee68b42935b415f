"""Totals, facets and orders of a whole result set, against counts by hand."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.records import Item
from onesearch.index.filter_values import FilterError
from onesearch.search.confidence import Confidence
from onesearch.search.engine import SearchEngine
from onesearch.search.lexical_index import LexicalSettings
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.results import SearchRequest
from onesearch.search.rules import Rules
from onesearch.search.search_settings import SearchSettings
from onesearch.search.shopper_history import ShopperHistory
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
    query = projection.project_queries(featurizer.vectors(["red"]))[0]
    rows = engine.snapshot.item_head_rows.flat().numpy()
    there = sorted(engine.snapshot.number.values())
    likeness = {row: float(rows[row] @ query) for row in there}
    best = max(likeness.values())
    near = {row for row in there if likeness[row] >= best - 0.4}
    # Items with all words of the query belong to them, however near they are.
    named = {row for row in there if "red" in engine.snapshot.item(row).title.split()}
    relevant = near | named
    assert near - named and named - near and len(relevant) < len(there)
    assert ask(engine, query="red", k=1, count=True).total == len(relevant)
    # A filter takes items away and makes none relevant.
    dear = {"price": [20, None]}
    allowed = {row for row in relevant if (engine.snapshot.item(row).price or 0) >= 20}
    assert ask(engine, query="red", filters=dear, count=True).relevant == len(allowed)
    for name in ("tent", "lamp", "boots", "chair", "stove"):
        inside = sum(name in engine.snapshot.item(row).category for row in relevant)
        assert ask(engine, query="red", filters={"category": name}, count=True).relevant == inside
    by_price = ask(engine, query="red", sort="price")
    assert {engine.snapshot.number[hit.item_id] for hit in by_price} == relevant and by_price.total == len(relevant)


def strict() -> SearchEngine:
    """An engine to which nothing is near but the nearest item."""
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.0)
    return engine


def by_price(engine: SearchEngine, query: str, **asked) -> set[str]:
    found = ask(engine, query=query, sort="price", **asked)
    assert found.total == len(found)
    return {hit.item_id for hit in found}


def test_what_is_named_or_clicked_is_counted_and_sorted_however_near_it_is():
    engine = strict()
    engine.upsert([Item("x-1", "Zrnt", brand="Čebu Oy"), Item("x-2", "Kvlp", brand="CEBU OY")])
    # By its id, by all of its words, by its brand in any case and accents, and by clicks.
    for query, wanted in (
        ("BLUE-boots-1", {"blue-boots-1"}),
        ("no stoves 1", {f"{colour}-stove-1" for colour in ("red", "blue", "green", "black")}),
        (" cebu oy", {"x-1", "x-2"}),
        ("boots", {"black-boots-1"} | {f"{colour}-boots-{i}" for colour in ("red", "blue", "green") for i in (0, 1)}),
        ("tents", {"red-tent-0"}),
    ):
        found = by_price(engine, query)
        assert wanted <= found and len(found - wanted) <= (8 if query == "tents" else 2), query
        assert ask(engine, query=query, k=1, count=True).total == len(found)
    # Clicks since the log: of a query that has no word of the item.
    assert "green-chair-0" not in by_price(engine, "zebra")
    clicks = pl.DataFrame([(1, "zebra", "green-chair-0", START, None, True)], CLICKS, orient="row")
    engine.count(LiveClicks.from_clicks(clicks, START))
    assert "green-chair-0" in by_price(engine, "zebra")
    # What a filter or a rule does not allow is not counted, whatever names it.
    assert "blue-boots-1" not in by_price(engine, "blue-boots-1", filters={"brand": "b0"})
    engine.follow_rules(Rules.model_validate({"hides": [{"name": "h", "column": "brand", "values": ["b1"]}]}))
    assert not any(one.endswith("-1") for one in by_price(engine, "no stoves 1") | by_price(engine, "blue-boots-1"))


def test_a_brand_is_counted_though_no_text_names_it():
    engine = strict()
    titles = LexicalSearcher.build(ITEMS, LexicalSettings(fields=("title",)))
    engine.current.value = replace(engine.snapshot, lexical=titles)
    assert {one for one in ITEMS["item_id"] if one.endswith("-1")} <= by_price(engine, " B1 ")
    assert len(by_price(engine, "b1 tent")) < 5


def test_a_page_counts_what_it_shows():
    engine = strict()
    filters = {"category": "stove"}
    relevant = ask(engine, query="blue lamp", k=1, filters=filters, count=True)
    assert (relevant.total, relevant.relevant, len(relevant)) == (1, 0, 1)
    for k, offset in ((3, 0), (3, 3), (3, 6), (9, 0), (3, 99)):
        page = ask(engine, query="blue lamp", k=k, offset=offset, filters=filters, facets=("brand", "category"))
        assert page.total == min(offset + k, 8) and dict(page.facets["category"])["Shop"] == page.total
        assert sum(dict(page.facets["brand"]).values()) == page.total
    # One longer than what is relevant counts both, and the next one is there until all of that was shown.
    plain = ask(engine, query="no 0", k=5, count=True)
    assert plain.total == plain.relevant >= 20
    seen, offset = set(), 0
    while offset < ask(engine, query="no 0", k=7, offset=offset, count=True).total:
        seen |= {hit.item_id for hit in ask(engine, query="no 0", k=7, offset=offset)}
        offset += 7
    assert by_price(engine, "no 0") <= seen


def test_an_order_of_its_own_of_nothing_relevant_shows_what_comes_nearest():
    engine = strict()
    found = ask(engine, query="blue lamp", sort="price", filters={"category": "stove"}, facets=("category",))
    assert found and all("stove" in hit.item.category for hit in found)
    assert (found.total, found.relevant) == (len(found), 0) and dict(found.facets["category"])["Shop"] == len(found)
    assert ask(engine, query="blue lamp", sort="price", filters={"brand": "nobody"}).total == 0


def test_what_the_shopper_has_taken_is_not_counted_unless_it_is_named():
    engine = small_engine(SearchSettings(leave_out="clicked", lexical=True))
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    history = ShopperHistory(("red-tent-0", "blue-lamp-0"), ("", ""))
    for query in ("", "red tent"):
        page = ask(engine, query=query, history=history, count=True)
        assert {"red-tent-0", "blue-lamp-0"}.isdisjoint(hit.item_id for hit in page)
        assert {"red-tent-0", "blue-lamp-0"}.isdisjoint(by_price(engine, query, history=history))
        assert page.total == 38
    assert "red-tent-0" in by_price(engine, "red-tent-0", history=history)


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


def test_without_a_margin_what_has_the_words_or_was_clicked_is_counted():
    engine = small_engine()
    assert ask(engine, count=True).total == len(ITEMS) and ask(engine, query="red").total is None
    titles = dict(ITEMS.select("item_id", "title").rows())
    red = {item_id for item_id, title in titles.items() if "red" in title.split()}
    clicks = pl.DataFrame([(1, "red", "blue-lamp-0", START, 1.0, True)], CLICKS, orient="row")
    engine.count(LiveClicks.from_clicks(clicks, START))
    found = ask(engine, query="red", count=True, facets=("brand",), sort="price", k=len(ITEMS))
    assert 0 < len(red) < len(ITEMS) and {hit.item_id for hit in found} >= red | {"blue-lamp-0"}
    statistics = engine.snapshot.click_features.statistics
    logged = statistics.most_clicked(statistics.query_numbers(["red"]), 50)[0]
    told = {engine.snapshot.item(row).item_id for row in logged.tolist() if row >= 0}
    assert {hit.item_id for hit in found} <= red | {"blue-lamp-0"} | told
    assert found.total == len(found) and sum(count for _, count in found.facets["brand"]) <= found.total
    # A page in the engine's order goes on behind them, and counts what it shows.
    page = ask(engine, query="red", count=True, k=len(ITEMS))
    assert page.relevant == found.total and page.total == len(page) == len(ITEMS)


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
