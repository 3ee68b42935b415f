"""The study of a shop's features on an engine of forty items: what its figures notice."""

import numpy as np
import pytest
from benchmarks.command_page import Benchmark, write_page
from benchmarks.result_files import ResultFiles
from benchmarks.shop_day import compared
from benchmarks.shop_pages import department, whole, wrong_facets
from benchmarks.shop_speed import completing, hundred_rules, made_up, mistyped, searching

from onesearch.search import one_search
from onesearch.search.confidence import Confidence
from onesearch.search.engine import SearchEngine
from onesearch.search.suggestions import Suggestions
from small_engine import small_engine


@pytest.fixture(scope="module")
def engine() -> SearchEngine:
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    engine.known_queries, engine.known_shoppers = ("red tent", "blue lamp"), ("ann", "bob")
    return engine


def test_pages_of_a_whole_engine(engine: SearchEngine):
    found = department(engine, 2)
    assert found == {
        "items": 40,
        "searches": 2,
        "pages of each": 4,
        "shown twice": 0,
        "missing": 0,
        "of other departments": 0,
    }
    found = whole(engine, 2, 1)
    assert [found[name] for name in ("shown twice", "missing", "in another place", "wrong facet counts")] == [0] * 4
    assert found["facet counts"] > 10 and found["explained results"] == 100
    assert found["largest difference between a score and its parts"] < 1e-5


def test_pages_that_overlap_are_noticed(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch):
    search = engine.search

    def overlapping(query, user=None, k=10, filters=None, offset=0):
        return search(query, user, k, filters, offset - (offset == 10))

    monkeypatch.setattr(engine, "search", overlapping)
    found = department(engine, 1)
    assert (found["shown twice"], found["missing"]) == (1, 1)
    assert whole(engine, 3, 1)["in another place"] == 10


def test_facets_that_miscount_are_noticed(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch):
    counts = one_search.facet_counts

    def one_more(snapshot, rows, keys, text):
        return {
            key: [(value, n + (key == "brand")) for value, n in found]
            for key, found in counts(snapshot, rows, keys, text).items()
        }

    assert wrong_facets(engine, "")[1] == 0
    monkeypatch.setattr(one_search, "facet_counts", one_more)
    assert wrong_facets(engine, "")[1] == 2, "both brands"


def test_kinds_of_search_and_completions_are_timed(engine: SearchEngine):
    rules = hundred_rules(engine)
    assert sum(1 for _ in rules.each()) == 100 and len(rules.pins) == len(rules.hides) == 20
    assert mistyped("red tents") == "red tetns" and mistyped("tv") == "tv" and mistyped("") == ""
    found = searching(engine, [("red tent", "ann")], 1)
    assert found["mistyped queries that were corrected"] == 1
    assert found["with explanations"]["over plain, CPU"] > 1 and "over plain, CPU" not in found["plain"]
    statistics = engine.snapshot.click_features.statistics
    large = made_up(statistics, 5)
    assert len(set(large.queries)) == 5 and len(large.items) == 5
    found = completing(Suggestions(engine.current, large), large.queries[:2])
    assert found["beginnings"] == sum(map(len, large.queries[:2])) and found["p50 ms, CPU"] <= found["p95 ms, CPU"]


def test_a_page_says_which_goals_were_missed(tmp_path):
    files = ResultFiles("study", tmp_path)
    made = {"machine": "m", "commit": "c", "date": "d"}
    files.write_figures({"one": {"provenance": made, "figures": {"a": {"b": 3, "c": [1, 2]}, "d": 0.1}}})
    benchmark = Benchmark("run x", "About.", {"a: b": "<= 2", "d": ">= 0.1", "e": "<= 1"})
    write_page(files, {"one": benchmark, "two": benchmark}, ["# Head"], {"one": "![chart](chart.png)"})
    assert files.page.read_text().splitlines() == [
        "# Head",
        "",
        "## one",
        "",
        "About.",
        "",
        "`run x`, m, commit c, d",
        "",
        "| figure | value | goal |",
        "|---|---|---|",
        "| a: b | 3 | <= 2, **missed** |",
        "| a: c | 1, 2 |  |",
        "| d | 0.1 | >= 0.1 |",
        "| e | not measured yet | <= 1 |",
        "",
        "![chart](chart.png)",
    ]


def test_figures_are_paired_by_page_view():
    a, b = np.array([0, 1, 1, np.nan], np.float32), np.array([1, 1, 1, np.nan], np.float32)
    found = compared({"still": {"HR": a}, "learning": {"HR": b}}, np.array([True, True, False, True]))["HR"]
    assert found["without, with"] == [0.5, 1] and found["difference"] == 0.5 and found["p"] == 1
