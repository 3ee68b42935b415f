import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import frame, minute, page_view_lists, quick

from onesearch.data.records import PageView
from onesearch.data.split import split
from onesearch.data.text import normalise_query


@quick
@given(page_view_lists, st.floats(0, 0.5), st.floats(0, 0.49))
def test_by_time_no_part_overlaps_a_later_one(log, valid, test):
    timed = [p for p in log if p.time is not None]
    parts = split(frame(timed), valid, test, by="time")
    assert len(parts.train) + len(parts.valid) + len(parts.test) == len(timed)
    edges = [part["time"] for part in (parts.train, parts.valid, parts.test) if len(part)]
    assert all(earlier.max() < later.min() for earlier, later in itertools.pairwise(edges))


@quick
@given(page_view_lists, st.floats(0, 0.5), st.floats(0, 0.49), st.integers(0, 3))
def test_by_query_no_query_is_in_two_parts(log, valid, test, seed):
    parts = split(frame(log), valid, test, by="query", seed=seed)
    assert len(parts.train) + len(parts.valid) + len(parts.test) == len(log)
    queries = [{normalise_query(q) for q in part["query"]} for part in (parts.train, parts.valid, parts.test)]
    assert not (queries[0] & queries[1] or queries[0] & queries[2] or queries[1] & queries[2])


def test_shares_are_met():
    log = frame([PageView(str(n), f"query {n}", time=minute(n)) for n in range(1000)])
    by_time = split(log, 0.1, 0.2)
    assert (by_time.by, len(by_time.train), len(by_time.valid), len(by_time.test)) == ("time", 700, 100, 200)
    by_query = split(log, 0.1, 0.2, by="query")
    assert abs(len(by_query.test) - 200) < 50 and abs(len(by_query.valid) - 100) < 40
    assert split(log, 0.1, 0.2, by="query", seed=1).test["query"].to_list() != by_query.test["query"].to_list()


def test_a_querys_part_does_not_depend_on_the_other_queries():
    log = frame([PageView(str(n), f"query {n}") for n in range(200)])
    whole, half = split(log, 0.2, 0.2), split(log[::2], 0.2, 0.2)
    assert whole.by == "query"
    assert set(half.test["query"]) == set(whole.test["query"]) & set(log[::2]["query"])


def test_errors_say_what_to_do():
    log = frame([PageView("1", "a", time=minute(0)), PageView("2", "b")])
    assert split(log, 0.1, 0.1).by == "query"
    with pytest.raises(ValueError, match="1 of 2 page views have no time"):
        split(log, 0.1, 0.1, by="time")
    with pytest.raises(ValueError, match=r"valid \+ test < 1"):
        split(log, 0.6, 0.4)


def test_the_same_moment_is_not_cut():
    log = frame([PageView(str(n), "q", time=minute(n // 4)) for n in range(12)])
    parts = split(log, 0.25, 0.25, by="time")  # the last three of twelve are cut within four of one moment
    assert [len(part) for part in (parts.train, parts.valid, parts.test)] == [4, 4, 4]


def test_a_querys_number_is_pinned():
    """Another hash would deal the queries of every data set anew."""
    log = frame([PageView(str(n), f"query {n}") for n in range(12)])
    parts = split(log, 0.3, 0.3, seed=5)
    assert parts.valid["page_view_id"].to_list() == ["7", "9"]
    assert parts.test["page_view_id"].to_list() == ["2", "3", "5"]
