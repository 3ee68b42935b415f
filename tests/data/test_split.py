import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import ITEMS, USERS, frame, minute, page_view_lists, quick, split_if_it_fills

from onesearch.data.histories import Histories
from onesearch.data.records import PageView
from onesearch.data.split import split
from onesearch.data.text import normalise_query


@quick
@given(page_view_lists, st.floats(0, 0.5), st.floats(0, 0.49))
def test_by_time_no_part_overlaps_a_later_one(log, valid, test):
    timed = [p for p in log if p.time is not None]
    parts = split_if_it_fills(timed, valid, test, by="time")
    if parts is None:
        return
    assert len(parts.train) + len(parts.valid) + len(parts.test) == len(timed)
    edges = [part["time"] for part in (parts.train, parts.valid, parts.test) if len(part)]
    assert all(earlier.max() < later.min() for earlier, later in itertools.pairwise(edges))


@quick
@given(page_view_lists, st.floats(0, 0.5), st.floats(0, 0.49), st.integers(0, 3))
def test_by_query_no_query_is_in_two_parts(log, valid, test, seed):
    parts = split_if_it_fills(log, valid, test, by="query", seed=seed)
    if parts is None:
        return
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
    assert split(log, 0, 0).by == "query"
    with pytest.raises(ValueError, match="1 of 2 page views have no time"):
        split(log, 0.1, 0.1, by="time")
    with pytest.raises(ValueError, match=r"valid \+ test < 1"):
        split(log, 0.6, 0.4)


@pytest.mark.parametrize(
    ("moments", "shares", "complaint"),
    [
        ([0] * 20, (0.1, 0.1), "nothing in 'train' and 'valid': 20 page views have one and the same time; .* 'query'$"),
        (
            [0] * 19 + [1],
            (0.1, 0.1),
            "nothing in 'train' and 'valid': 20 page views have 2 different times; .* other shares",
        ),
        ([0, 1], (0.1, 0.5), "nothing in 'valid'"),
        ([], (0.1, 0.1), "no page views.*import a search log"),
    ],
)
def test_a_part_that_would_be_empty_is_refused_with_what_to_set(moments, shares, complaint):
    log = frame([PageView(str(n), "q", time=minute(at)) for n, at in enumerate(moments)])
    with pytest.raises(ValueError, match=complaint):
        split(log, *shares)


def test_few_queries_are_refused_and_a_share_of_nothing_is_not():
    log = frame([PageView(str(n), f"query {n % 2}") for n in range(20)])
    with pytest.raises(ValueError, match=r"20 page views have 2 different queries; set larger shares .* seed"):
        split(log, 0.01, 0.01)
    assert len(split(log, 0, 0).train) == 20
    timed = frame([PageView(str(n), "q", time=minute(n)) for n in range(10)])
    assert [len(part) for part in (split(timed, 0, 0.2).valid, split(timed, 0.2, 0).test)] == [0, 0]


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


def ids(parts):
    return [part["page_view_id"].to_list() for part in (parts.train, parts.valid, parts.test)]


def test_leave_one_out_takes_the_last_two_clicks_of_each_shopper():
    """Rows are not in time order; a user and a session of the same name are two shoppers; a user's sessions are one."""

    def seen(name, at, user=None, session=None, clicked=("i0",)):
        return PageView(name, "q", user, session, minute(at), clicked=clicked)

    log = frame(
        [
            seen("u0 fourth, no click", 7, "u0", "s1", ()),
            seen("u0 third", 5, "u0", "s2"),
            seen("u0 first", 1, "u0", "s1"),
            seen("u0 second", 3, "u0", "s1"),
            seen("s0 first", 2, None, "u0"),  # a session, called as the user is
            seen("s0 second", 2, None, "u0"),  # the same moment: the log's order decides
            seen("s0 third", 2, None, "u0"),
            seen("s0 fourth", 4, None, "u0"),
            seen("u1 first", 1, "u1"),  # two clicks only
            seen("u1 second", 9, "u1"),
            seen("nobody 1", 6),
            seen("nobody 2", 7),
            seen("nobody 3", 8),
        ]
    )
    parts = split(log, 0.1, 0.1, by="leave-one-out")
    assert parts.by == "leave-one-out"
    train, valid, test = ids(parts)
    assert valid == ["s0 third", "u0 second"] and test == ["s0 fourth", "u0 third"]
    # In time order, and nothing is lost.
    assert parts.train["time"].is_sorted() and len(train) + 4 == len(log)
    assert {"u0 first", "u0 fourth, no click", "u1 second", "nobody 3", "s0 second"} <= set(train)


@quick
@given(page_view_lists)
def test_leave_one_out_is_what_a_loop_over_shoppers_finds_and_histories_are_earlier(log):
    log = [p for p in log if p.time is not None]
    log = [PageView(**{**vars(p), "page_view_id": str(n)}) for n, p in enumerate(log)]
    by_shopper = {}
    for view in sorted(log, key=lambda view: view.time):
        if view.clicked and (view.user_id or view.session_id):
            by_shopper.setdefault(("u", view.user_id) if view.user_id else ("s", view.session_id), []).append(view)
    long = [views for views in by_shopper.values() if len(views) >= 3]
    if not long:
        with pytest.raises(ValueError, match="no shopper"):
            split(frame(log), 0.1, 0.1, by="leave-one-out")
        return
    parts = split(frame(log), 0.1, 0.1, by="leave-one-out")
    train, valid, test = ids(parts)
    assert sorted(valid) == sorted(views[-2].page_view_id for views in long)
    assert sorted(test) == sorted(views[-1].page_view_id for views in long)
    assert sorted(train + valid + test, key=int) == [view.page_view_id for view in log]
    # What a test request knows is what its shopper clicked strictly earlier: not the page view itself.
    requests = Histories(frame(log), ITEMS, USERS).requests(parts.test)
    at = {views[-1].page_view_id: views for views in long}
    for row, name in zip(requests.clicked, test, strict=True):
        views = at[name]
        earlier = [i for view in views if view.time < views[-1].time for i in view.clicked if i != "unknown"]
        assert [f"i{number}" for number in row[row >= 0].tolist()] == earlier


def test_a_given_split_is_taken_word_by_word():
    words = ["test", "train", "valid", "train", "test"]
    log = [PageView(str(n), "q", time=minute(5 - n), split=word) for n, word in enumerate(words)]
    parts = split(frame(log), 0.1, 0.1, by="given")
    assert parts.by == "given" and ids(parts) == [["3", "1"], ["2"], ["4", "0"]]  # in time order
    untimed = split(frame([PageView(str(n), "q", split=word) for n, word in enumerate(words)]), 0.1, 0.1, by="given")
    assert ids(untimed) == [["1", "3"], ["2"], ["0", "4"]]  # in the order of the log


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train", "valid", "dev"], "1 of 3 page views say neither .* 'dev'"),
        (["train", "valid", None], "1 of 3 page views .* None; map a column"),
        (["train", "test"], "no page view says 'valid'"),
        (["train", "valid"], "no page view says 'test'"),
        (["test", "valid"], "no page view says 'train' in 'split'; map a column .* or set data.split to 'auto'"),
        ([], "no page view says 'train'"),
    ],
)
def test_a_given_split_with_a_hole_is_refused(words, complaint):
    log = frame([PageView(str(n), "q", split=word) for n, word in enumerate(words)])
    with pytest.raises(ValueError, match=complaint):
        split(log, 0.1, 0.1, by="given")


def test_leave_one_out_needs_times():
    log = frame([PageView("1", "a", "u0", time=minute(0)), PageView("2", "b", "u0")])
    with pytest.raises(ValueError, match="cannot split by leave-one-out: 1 of 2 page views have no time"):
        split(log, 0.1, 0.1, by="leave-one-out")
