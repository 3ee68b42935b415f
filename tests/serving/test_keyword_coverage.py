"""Coverage counted turn by turn, without a service around it; `test_thoughts` has the service."""

import time

import pytest

from onesearch.serving import keyword_coverage
from onesearch.serving.keyword_coverage import Asked, KeywordCoverage, ThoughtSource, thought_states
from onesearch.serving.service_metrics import Metrics
from onesearch.understanding.thought import Analysis, Thought
from onesearch.understanding.thought_cache import CacheError, SqliteThoughts


@pytest.fixture
def cache(tmp_path):
    return SqliteThoughts(tmp_path / "thoughts.sqlite3")


def known(cache, query, *keywords):
    analysis = Analysis(intent="merchandise")
    cache.put([Thought(query=query, analysis=analysis, keywords=keywords, producer="p", version="1")])


def coverage(opened, interval=1.0):
    return KeywordCoverage(ThoughtSource(opened, "p", "1"), Metrics(), interval)


def searches(one):
    states = ("keywords", "no_keywords", "none", "unknown")
    return [int(one._metrics.thought_searches.labels(state)._value.get()) for state in states]


def note(one, *queries):
    for query in queries:
        one.note(query)


def test_every_search_is_counted_and_only_unseen_queries_are_queued(cache):
    known(cache, "lamp", "lamp")
    known(cache, "mug")
    one = coverage(lambda: cache)
    note(one, "Lamp", "lamp", "mug", "tent", " TENT ", "tent", "")
    one._turn()
    assert searches(one) == [2, 1, 3, 0] and cache.take(5) == ["tent"]


def test_what_was_noted_in_an_outage_is_counted_after_it_and_looks_become_rarer(cache):
    broken = True

    def opened():
        if broken:
            raise CacheError("disk on fire")
        return cache

    one, pauses = coverage(opened), []
    note(one, "tent", "tent")
    for _ in range(6):
        one._turn()
        pauses.append(one._pause())
    assert pauses == [2, 4, 8, 16, 30, 30] and searches(one) == [0, 0, 0, 0]
    broken = False
    note(one, "tent")
    one._turn()
    assert searches(one) == [0, 0, 3, 0] and one._pause() == 1.0 and cache.take(5) == ["tent"]


def test_notes_are_limited_and_what_comes_beyond_is_unknown(cache, monkeypatch):
    monkeypatch.setattr(keyword_coverage, "MOST_NOTED", 2)
    one = coverage(lambda: cache)
    note(one, "a", "b", "c", "a", "d")
    assert searches(one) == [0, 0, 0, 2]
    one._turn()
    assert searches(one) == [0, 0, 3, 2] and sorted(cache.take(5)) == ["a", "b"]


def test_states_of_queries(cache):
    known(cache, "lamp", "lamp")
    known(cache, "mug")
    known(cache, "shoe", "shoe")
    cache.enqueue("tent")
    cache.enqueue("taken")
    cache.enqueue("lamp")
    source = ThoughtSource(lambda: cache, "p", "1", lambda: {"shoe", "gone from the cache"})
    queries = ["lamp", "mug", "shoe", "tent", "taken", "new", "gone from the cache"]
    states = ["cached", "no_keywords", "distilled", "queued", "queued", "none", "distilled"]
    assert list(thought_states(queries, cache, source).values()) == states
    other = ThoughtSource(lambda: cache, "p", "2")
    assert thought_states(["lamp"], cache, other) == {"lamp": "queued"}, "a thought of another version is none"


def test_a_search_is_answered_while_it_is_under_way_and_not_at_the_next_turn(cache):
    known(cache, "lamp", "lamp")
    one = coverage(lambda: cache, interval=3600)
    one.start()
    asked = [one.ask(query) for query in (" LAMP ", "tent")]
    wait_for(lambda: all(found.state != "unknown" for found in asked))
    assert [(found.query, found.state) for found in asked] == [("lamp", "cached"), ("tent", "none")]
    assert one.ask("  ") is None and cache.queue_state().waiting == 0, "asking queues nothing"
    one.close()


def test_a_cache_that_is_down_is_not_asked(cache):
    def broken():
        raise CacheError("disk on fire")

    one = coverage(broken)
    first = one.ask("lamp")
    one._answer()
    assert first == Asked("lamp", "unknown") and one.problem() is not None
    later = one.ask("lamp")
    assert later.state == "unknown" and one._asked == []


def test_a_cache_that_hangs_has_a_bounded_list_of_searches(cache, monkeypatch):
    monkeypatch.setattr(keyword_coverage, "MOST_NOTED", 2)
    one = coverage(lambda: cache)
    asked = [one.ask(query) for query in ("a", "b", "c")]
    assert len(one._asked) == 2
    one._answer()
    assert [found.state for found in asked] == ["none", "none", "unknown"]


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
