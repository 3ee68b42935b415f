"""What an agent is told, on the small engine: facts, words, questions, alternatives, each against a plain search."""

from dataclasses import replace

import pytest

from onesearch.data.records import Item, items_frame
from onesearch.index.filter_columns import FilterColumns
from onesearch.search.agent_search import AgentRequest, _conditions, agent_pages, rating, without
from onesearch.search.confidence import NOTHING_FITS, Confidence
from onesearch.search.results import Part, SearchRequest
from onesearch.search.score_words import OTHER, score_words, topic_of
from onesearch.search.word_matches import word_matches
from small_engine import small_engine


@pytest.fixture(scope="module")
def engine():
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    return engine


def ask(engine, query="red tent", **more):
    return agent_pages(engine, [AgentRequest(query, **more)])[0]


def ids(page):
    return [one.hit.item_id for one in page.items]


def test_a_page_is_the_engines_own_with_what_speaks_for_each_item(engine):
    page = ask(engine, k=4)
    plain = engine.search("red tent", k=4)
    assert ids(page) == [hit.item_id for hit in plain]
    assert page.total == engine.search_batch([SearchRequest("red tent", count=True)])[0].relevant
    assert page.confidence == plain.confidence and page.fits is (plain.confidence >= NOTHING_FITS)
    first = page.items[0]
    assert [(one.word, one.fields) for one in first.words] == [("red", ("title",)), ("tent", ("title", "category"))]
    assert first.reasons and all(line.startswith(("for it: ", "against it: ")) for line in first.reasons)
    assert ask(engine, k=4, reasons=False).items[0].reasons == ()


def test_words_that_an_item_does_not_say_are_told(engine):
    (first, *_) = ask(engine, "red lamp Tents, red zzyzx").items
    said = {one.word: one.fields for one in first.words}
    assert list(said) == ["red", "lamp", "Tents", "zzyzx"]
    assert said["zzyzx"] == () and ("title" in said["Tents"]) == ("tent" in first.hit.item.title)


def test_words_are_looked_for_in_all_texts_of_an_item():
    item = Item("a", "Desk", ("Office", "Tables"), "Oakly", attributes={"Color": ("red",)}, description="for a study")
    number = {"desk": 1, "tables": 2, "oakly": 3, "red": 4, "study": 5}
    found = word_matches(
        ["Tables", "Oakly", "red", "study", "blue"],
        item,
        lambda text: [number[w] for w in text.lower().split() if w in number],
    )
    assert [one.fields for one in found] == [("category",), ("brand",), ("attributes",), ("description",), ()]


def test_excluded_items_make_room_for_the_next_ones(engine):
    whole = ids(ask(engine, k=8))
    page = ask(engine, k=4, exclude=(whole[0], whole[2], "no such item"))
    assert ids(page) == [one for one in whole if one not in (whole[0], whole[2])][:4]
    assert {item.item_id for item in page.near}.isdisjoint({*ids(page), whole[0], whole[2]})


def test_a_budget_is_the_lower_of_two_bounds(engine):
    assert {one.hit.item.price for one in ask(engine, budget=12.0, k=10).items} == {10.0}
    request = AgentRequest("", filters={"price": [5.0, 11.0]}, budget=12.0)
    assert request.conditions == {"price": [5.0, 11.0]}
    assert replace(request, budget=9.0).conditions == {"price": [5.0, 9.0]}
    assert AgentRequest("", filters={}).conditions is None


def test_each_filter_left_out_is_counted_as_a_search_without_it(engine):
    filters = {"brand": "b0", "category": "tent"}
    page = ask(engine, "", filters=filters)
    assert page.total == 4
    # Eight tents, twenty items of the brand: what costs most comes first.
    assert [(one.filter, one.value, one.total, one.more) for one in page.relaxed] == [
        ("category", "tent", 20, 16),
        ("brand", "b0", 8, 4),
    ]
    # Items of the brand cost so much alone, so that the bound costs nothing.
    assert [one.filter for one in ask(engine, "", filters={"brand": "b0", "category": "tent"}, budget=12).relaxed] == [
        "category"
    ]
    for one in ask(engine, "red tent", filters=filters).relaxed:
        request = SearchRequest("red tent", filters=without(filters, one.filter), count=True)
        assert one.total == engine.search_batch([request])[0].relevant
    assert ask(engine, "", filters=filters, alternatives=False).relaxed == ()
    # What a page shows behind the relevant items is none that a filter would bring.
    none = ask(engine, "red tent", k=4, filters={"category": "stove", "brand": "b1"})
    assert len(none.items) == 4 and none.total == 0
    assert {one.filter: one.more for one in none.relaxed} == {
        one.filter: ask(engine, "red tent", filters=without({"category": "stove", "brand": "b1"}, one.filter)).total
        for one in none.relaxed
    }


def test_near_items_are_like_the_best_one_or_of_no_filter(engine):
    page = ask(engine, k=3, filters={"category": "tent"})
    best = page.items[0].hit.item_id
    like = [hit.item_id for hit in engine.similar(best, 20) if hit.item_id not in ids(page)]
    assert [item.item_id for item in page.near] == like[:3]
    none = ask(engine, filters={"brand": "nobody"})
    assert none.items == () and none.total == 0
    assert [item.item_id for item in none.near] == [hit.item_id for hit in engine.search("red tent", k=3)]
    assert [one.filter for one in none.relaxed] == ["brand"]


def test_an_item_that_has_just_left_the_catalogue_is_like_nothing(engine, monkeypatch):
    def gone(*_):
        raise KeyError("red-tent-0")

    monkeypatch.setattr(engine, "similar", gone)
    page = ask(engine, k=3)
    assert len(page.items) == 3 and page.near == ()


def test_questions_are_those_of_the_found_items(engine):
    page = ask(engine, "", k=2, questions=10)
    facets = {one.facet: one for one in page.questions}
    assert page.total == 40 and set(facets) == {"brand", "category", "price"}
    assert facets["brand"].bits == 1 and facets["brand"].values == (("b0", 20), ("b1", 20))
    assert {path for path, _ in facets["category"].values} == {
        f"Shop > {one}" for one in ("tent", "lamp", "boots", "chair", "stove")
    }
    assert "brand" not in {one.facet for one in ask(engine, "", filters={"brand": "b0"}, questions=10).questions}
    assert ask(engine, "", questions=0).questions == ()


def test_conditions_are_told_one_by_one_and_taken_out_one_by_one():
    filters = {
        "brand": "a",
        "attributes": {"Color": "red", "Size": "4"},
        "not": {"brand": "b", "attributes": {"Use": "x"}},
    }
    names = [name for name, _ in _conditions(filters)]
    assert names == ["brand", "attributes.Color", "attributes.Size", "not.brand", "not.attributes.Use"]
    assert without(filters, "attributes.Color")["attributes"] == {"Size": "4"}
    assert without(filters, "not.attributes.Use")["not"] == {"brand": "b"}
    left = filters
    for name in names:
        left = without(left, name)
    assert left == {}
    assert without({"attributes.Color": "red"}, "attributes.Color") == {}


def test_every_feature_of_the_engine_has_words(engine):
    for hit in engine.search_batch([SearchRequest("red tent", explain=True)])[0]:
        assert all(topic_of(part.feature) != OTHER for part in hit.why.parts)
    assert topic_of("text_popularity") == topic_of("text") != topic_of("taste")
    assert topic_of("item_clicks") == topic_of("popularity") != topic_of("clicks")
    assert topic_of("word_item_popularity") == topic_of("word_category")
    assert topic_of("unheard_of") == OTHER


def test_parts_of_one_meaning_are_one_reason():
    parts = (Part("clicks", 1.0, 1.0), Part("click_share", 0.5, 2.0), Part("popularity", 2.0, -1.5), Part("text", 0, 1))
    assert score_words(parts) == (
        "against it: shoppers take it often (-3.00)",
        "for it: shoppers clicked it for this query (+2.00)",
    )
    assert len(score_words(parts, most=1)) == 1


def test_a_rating_is_a_number_of_the_shops_own_attribute():
    assert rating(Item("a", "x", attributes={"rating": ("none", "4.5 stars")})) == 4.5
    assert rating(Item("a", "x", attributes={"Color": ("4",)})) is None


def test_types_of_attributes_are_counted():
    items = [
        Item("a", "x", attributes={"Color": ("red", "blue"), "Size": ("4",)}),
        Item("b", "y", attributes={"Color": ("red",)}),
    ]
    tags = FilterColumns.from_items(items_frame(items)).tags
    assert tags.counted_types(10) == [("Color", 3), ("Size", 1)] and tags.counted_types(1) == [("Color", 3)]
    assert FilterColumns.from_items(items_frame([])).tags.counted_types(5) == []
