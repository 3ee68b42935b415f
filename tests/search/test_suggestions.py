"""Completions against a plain search through all texts, and how they follow the catalogue."""

import random
from dataclasses import replace

import numpy as np
import pytest

from onesearch.common.ragged import Ragged
from onesearch.data.records import Item
from onesearch.search import suggestions
from onesearch.search.engine import SearchEngine
from onesearch.search.suggestions import Completions, Suggestion, completion_key
from small_engine import ITEMS, small_engine


@pytest.fixture
def engine() -> SearchEngine:
    return small_engine()


def texts(found: list[Suggestion], kind: str = "") -> list[str]:
    return [one.text for one in found if kind in ("", one.kind)]


def test_the_heaviest_are_those_of_a_plain_search(monkeypatch):
    monkeypatch.setattr(suggestions, "_BLOCK", 4)
    rng = random.Random(0)
    words = ["".join(rng.choices("ab运é ", k=rng.randrange(0, 9))) for _ in range(400)]
    weights = np.array([rng.randrange(40) for _ in words], np.float32)
    completions = Completions.of(words, weights)
    keys = [completion_key(word) for word in words]
    for prefix in ("", "a", "b", "e", "运", "a ", "运 a", "ab", "aaab", "zz"):
        for k in (1, 3, 10, 1000):
            fitting = [i for i, key in enumerate(keys) if key.startswith(prefix)]
            plain = sorted(fitting, key=lambda i: (-weights[i], keys[i], i))[:k]
            assert completions.best(prefix, k).tolist() == plain
    assert completions.has(words[7], 7) and not completions.has(words[7], 8)
    assert Completions.of([], np.zeros(0)).best("a", 3).tolist() == []


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("Red  Ten", "red ten"),
        ("red ", "red "),
        ("Crème Brû", "creme bru"),
        ("12-ga", "12 ga"),
        ("运动", "运 动"),
        (" ", ""),
        ("?! ", ""),
    ],
)
def test_texts_are_compared_as_search_does(typed, key):
    assert completion_key(typed) == key


def test_queries_come_first_then_categories_and_titles_with_a_quarter_each(engine):
    assert engine.suggest("red t", 2) == [
        Suggestion("red tent", "query"),
        Suggestion("red tent no 0", "item", "red-tent-0"),  # the one with more clicks
    ]
    every = engine.suggest("", 8)
    assert texts(every, "query") == ["red tent", "blue lamp", "boots", "tents"]  # by clicks, then by the alphabet
    assert len(texts(every, "category")) == len(texts(every, "item")) == 2
    assert texts(engine.suggest("", 4), "query") == ["red tent", "blue lamp"]
    assert texts(engine.suggest("tent")) == ["tents", "tent"], "a query and a category"
    assert texts(engine.suggest("boots")) == ["boots"], "the same text is there once"
    assert texts(engine.suggest("red ")) == texts(engine.suggest("ŘED "))
    assert engine.suggest("qwertyzxcv") == [] and texts(engine.suggest("lmap"), "category") == ["lamp"]


def test_what_leaves_the_catalogue_is_not_suggested_and_what_comes_is(engine):
    assert "red tent" in texts(engine.suggest("red t"))
    assert engine.suggest("tarp") == []
    engine.delete(["red-tent-0"])
    assert texts(engine.suggest("red t")) == ["red tent", "red tent no 1"] and engine.suggest("tents") == []
    engine.delete(["red-tent-1"])
    assert engine.suggest("red t") == [], "the query leads to nothing that is there"
    # A new item, its category, another title of a known item, and one that comes back.
    engine.upsert([Item("t", "Tarpaulin 3x3", ("Shop", "Tarps")), Item("blue-lamp-0", "Cyan lamp", ("Shop", "lamp"))])
    assert engine.suggest("tarp") == [Suggestion("Tarps", "category"), Suggestion("Tarpaulin 3x3", "item", "t")]
    assert texts(engine.suggest("cyan")) == ["Cyan lamp"] and texts(engine.suggest("blue lamp no")) == [
        "blue lamp no 1"
    ]
    engine.upsert([Item("red-tent-1", "red tent no 1", ("Shop", "tent"))])
    assert texts(engine.suggest("red t")) == ["red tent", "red tent no 1"]
    engine.delete(["t"])
    assert texts(engine.suggest("tarp"), "item") == []


def test_a_category_is_suggested_as_long_as_an_item_has_it(engine):
    assert texts(engine.suggest("stov"), "category") == ["stove"]
    engine.upsert([Item("t", "Zorblax", ("Shop", "Tarps"))])
    assert texts(engine.suggest("tarp"), "category") == ["Tarps"]
    engine.delete(["t", *(one for one in ITEMS["item_id"] if "stove" in one)])
    assert engine.suggest("stov") == engine.suggest("tarp") == []


def test_places_go_to_texts_that_are_not_the_same():
    queries = [f"red{mark}tent" for mark in " -/+.:"] + [f"red tent {i}" for i in range(9)]
    engine = small_engine()
    clicked = Ragged.from_lists([[0]] * len(queries))
    counts = np.arange(len(queries), 0, -1, dtype=np.float32)
    statistics = replace(engine.suggestions._statistics, queries=queries, items=clicked, counts=counts)
    found = suggestions.Suggestions(engine.current, statistics).complete("red tent", 8)
    assert len(found) == 8 and len(texts(found, "query")) == 6
    assert len({completion_key(one.text) for one in found}) == 8


def test_many_new_titles_are_sorted_in(engine, monkeypatch):
    monkeypatch.setattr(suggestions, "_MOST_LATER", 3)
    engine.suggest("")
    for i in range(9):
        engine.upsert([Item(f"n{i}", f"Größe no {i}", ("Shop",))])
        assert len(texts(engine.suggest("grosse"))) == min(i + 1, 8)
        assert len(engine.suggestions._texts.later) <= 3
    assert texts(engine.suggest("groess", 1)) == ["Größe no 0"], "spelt with two letters"
    before = dict(engine.suggestions._texts.later)
    engine.upsert([Item("n0", "Größe no 0", ("Shop",), price=1.0)])
    assert engine.suggestions._texts.later == before, "another price is no other text"


def test_a_mistyped_query_is_searched_for_as_it_was_meant(engine):
    meant, typed = engine.search("blue lamp", k=5), engine.search("blue lmap", k=5)
    assert typed == meant and typed.confidence == meant.confidence
    assert (typed.corrected_query, typed.did_you_mean) == ("blue lamp", None)
    assert (meant.corrected_query, meant.did_you_mean) == (None, None)
    literal = engine.search("blue lmap", k=5, correct=False)
    assert (literal.corrected_query, literal.did_you_mean) == (None, "blue lamp")
    assert engine.search("").corrected_query is None
    # A word of the log alone is known; so is an item's id, whatever it is like.
    engine.upsert([Item("lmap", "an unlikely name")])
    found = engine.search("LMAP")
    assert found[0].item_id == "lmap" and (found.corrected_query, found.did_you_mean) == (None, None)
    engine.upsert([Item("t", "tarpaulin")])
    assert engine.search("tarpualin").corrected_query == "tarpaulin"


def test_what_came_before_anybody_typed_is_suggested_as_what_came_after(monkeypatch):
    new = [Item("n", "tarpaulin green", ("shelter",)), replace(small_engine().item("red-tent-0"), title="red tarp")]
    for most in (4096, 1):
        monkeypatch.setattr(suggestions, "_MOST_LATER", most)
        early, late = small_engine(), small_engine()
        late.suggest("")
        for one in (early, late):
            one.upsert(new)
        for typed in ("", "t", "tarp", "red t", "shel", "tarpaulim"):
            assert early.suggest(typed) == late.suggest(typed), typed
        assert texts(early.suggest("tarp"), "item") == texts(early.suggest("tarpaulim"), "item") == ["tarpaulin green"]
        assert texts(early.suggest("shel")) == ["shelter"]
