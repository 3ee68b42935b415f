from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import ITEM_IDS, ITEMS, USERS, frame, minute, page_view_lists, quick, split_if_it_fills

from onesearch.data.histories import Histories
from onesearch.data.records import PageView

ROW = {name: row for row, name in enumerate(ITEM_IDS)}


def shopper(page_view: PageView) -> tuple[str, str] | None:
    if page_view.user_id is not None:
        return "user", page_view.user_id
    return None if page_view.session_id is None else ("session", page_view.session_id)


def before(log: list[PageView], now: PageView) -> list[PageView]:
    """The plain rule: same shopper, strictly earlier, in time order."""
    if now.time is None or shopper(now) is None:
        return []
    past = [p for p in log if p.time is not None and p.time < now.time and shopper(p) == shopper(now)]
    return sorted(past, key=lambda p: p.time or minute(0))


def last(values: list, width: int, fill: int = -1) -> list:
    kept = values[-width:] if width else []
    return [fill] * (width - len(kept)) + kept


@quick
@given(page_view_lists, st.integers(0, 4))
def test_requests_hold_exactly_what_happened_before(log, width):
    histories = Histories(frame(log), ITEMS, USERS)
    requests = histories.requests(frame(log), clicks=width, orders=width, queries=width)
    for row, now in enumerate(log):
        past = before(log, now)
        clicks = [(ROW[i], p.query) for p in past for i in p.clicked if i in ROW]
        orders = [ROW[i] for p in past for i in p.ordered if i in ROW]
        queries: list[str] = []
        for p in past:
            if p.query and (not queries or queries[-1] != p.query):
                queries.append(p.query)
        assert requests.clicked[row].tolist() == last([i for i, _ in clicks], width)
        texts = [requests.query_texts[n] if n >= 0 else -1 for n in requests.clicked_queries[row]]
        assert texts == last([q for _, q in clicks], width)
        assert requests.ordered[row].tolist() == last(orders, width)
        assert requests.recent_queries[row] == tuple(queries[-width:] if width else [])


@quick
@given(page_view_lists, st.integers(0, 8), st.data())
def test_nothing_of_now_or_later_can_be_seen(log, moment, data):
    """Whatever happens at or after a moment, the requests of that moment stay the same."""
    asked = [replace(p, time=minute(moment)) for p in log]
    other = [
        replace(p, query="changed", clicked=(data.draw(st.sampled_from(ITEM_IDS)),), ordered=())
        if p.time is None or p.time >= minute(moment)
        else p
        for p in log
    ]
    of_log = Histories(frame(log), ITEMS, USERS).requests(frame(asked))
    of_other = Histories(frame(other), ITEMS, USERS).requests(frame(asked))
    assert np.array_equal(of_log.clicked, of_other.clicked)
    assert np.array_equal(of_log.ordered, of_other.ordered)
    assert of_log.recent_queries == of_other.recent_queries


@quick
@given(page_view_lists)
def test_training_histories_do_not_depend_on_the_test_part(log):
    timed = [p for p in log if p.time is not None]
    parts = split_if_it_fills(timed, valid=0.2, test=0.3, by="time")
    if parts is None:
        return
    with_test = Histories(frame(timed), ITEMS, USERS).requests(parts.train)
    without = Histories(parts.train, ITEMS, USERS).requests(parts.train)
    assert np.array_equal(with_test.clicked, without.clicked)
    assert np.array_equal(with_test.ordered, without.ordered)
    assert with_test.recent_queries == without.recent_queries


def test_same_moment_is_not_before():
    log = [
        PageView("a", "one", "u0", time=minute(1), clicked=("i0",)),
        PageView("b", "two", "u0", time=minute(1), clicked=("i1",)),
        PageView("c", "three", "u0", time=minute(2), clicked=("i2",)),
    ]
    requests = Histories(frame(log), ITEMS, USERS).requests(frame(log), clicks=3)
    assert requests.clicked.tolist() == [[-1, -1, -1], [-1, -1, -1], [-1, 0, 1]]
    assert requests.profile == ["F 24-30"] * 3
    assert requests.user.tolist() == [0, 0, 0]


def test_page_views_outside_the_log_and_strangers():
    log = [PageView("a", "one", "u1", time=minute(1), clicked=("i0",))]
    histories = Histories(frame(log), ITEMS, USERS)
    later = [
        PageView("x", "q", "u1", time=minute(100)),
        PageView("y", "q", "nobody", time=minute(100)),
        PageView("z", "q", None, "session", minute(100)),
        PageView("w", "q", "u1", time=None),
    ]
    requests = histories.requests(frame(later), clicks=1)
    assert requests.clicked.tolist() == [[0], [-1], [-1], [-1]]
    assert requests.user.tolist() == [1, -1, -1, 1]
    assert requests.profile == ["", "", "", ""]


def test_targets_are_item_rows_without_unknown_ones():
    log = [PageView("a", "one", shown=("i3", "unknown", "i1"), clicked=("i1",)), PageView("b", "two", ordered=("i5",))]
    targets = Histories(frame(log), ITEMS, USERS).targets(frame(log))
    assert [targets.shown[i].tolist() for i in range(2)] == [[3, 1], []]
    assert [targets.clicked[i].tolist() for i in range(2)] == [[1], []]
    assert [targets.ordered[i].tolist() for i in range(2)] == [[], [5]]


def test_repetitions_count_once_but_not_across_shoppers():
    log = [
        PageView("a", "boots", "u0", time=minute(1)),
        PageView("b", "boots", "u1", time=minute(1)),
        PageView("c", "boots", "u1", time=minute(2)),
        PageView("d", "hat", "u1", time=minute(3)),
        PageView("e", "boots", "u1", time=minute(4)),
    ]
    asked = [PageView("x", "", name, time=minute(9)) for name in ("u0", "u1")]
    requests = Histories(frame(log), ITEMS, USERS).requests(frame(asked))
    assert requests.recent_queries == [("boots",), ("boots", "hat", "boots")]


def test_a_session_is_nobody_who_is_named_like_it():
    log = [PageView("a", "one", "x", time=minute(1), clicked=("i0",))]
    requests = Histories(frame(log), ITEMS, USERS).requests(
        frame([PageView("b", "two", None, "x", minute(2)), PageView("c", "two", "x", "y", minute(2))]), clicks=1
    )
    assert requests.clicked.tolist() == [[-1], [0]]
