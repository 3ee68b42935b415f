"""Clicks since the log: their counts by hand, and their statistics against those of a log."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from tests.data.logs import ITEM_IDS, ITEMS, START, frame, page_view_lists, quick

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.records import PageView
from onesearch.data.text import normalise_query

QUERIES = ["red shoe", "boots", "", "靴子", "never"]


def clicks(*rows: tuple[str, str, float, float | None, bool]) -> pl.DataFrame:
    """Query, item, age in days, P(examined), first of the day."""
    given = [(n, query, item, START - timedelta(days=age), *rest) for n, (query, item, age, *rest) in enumerate(rows)]
    return pl.DataFrame(given, schema=CLICKS, orient="row")


def by_pair(live: LiveClicks) -> dict[tuple[str, str], float]:
    names = [(live.queries[q], live.item_ids[i]) for q, i in zip(live.query, live.item, strict=True)]
    return dict(zip(names, live.counts.tolist(), strict=True))


def test_counts_decay_and_do_not_depend_on_the_rank_by_hand():
    given = clicks(
        ("q", "a", 0, 1.0, True),  # now, at the first rank
        ("q", "b", 7, 0.5, True),  # one half-life ago, where half of the shoppers look
        ("q", "b", 14, None, False),  # two half-lives ago, somewhere
        ("r", "a", 0, 0.25, False),
    )
    # The mean examination of the ranked clicks: their decays over their decays / examination.
    mean = (1 + 0.5 + 1) / (1 / 1 + 0.5 / 0.5 + 1 / 0.25)
    live = LiveClicks.from_clicks(given, START, half_life=7)
    found = by_pair(live)
    assert found == pytest.approx(
        {("q", "a"): mean, ("q", "b"): 0.5 * mean / 0.5 + 0.25, ("r", "a"): mean / 0.25}, rel=1e-6
    )
    assert sum(found.values()) == pytest.approx(1 + 0.5 + 0.25 + 1), "as many as there were, decayed"
    # Of an item those count that were a shopper's first of the day.
    assert dict(zip(live.item_ids, live.clicked.tolist(), strict=True)) == pytest.approx({"a": mean, "b": mean})
    plain = LiveClicks.from_clicks(given.with_columns(examined=pl.lit(1.0)), START)
    assert by_pair(plain) == {("q", "a"): 1, ("q", "b"): 2, ("r", "a"): 1}
    two = LiveClicks.from_clicks(given, START, 7, shoppers=2)
    assert by_pair(two) == {("q", "b"): found["q", "b"]} and two.clicked.tolist() == live.clicked.tolist()
    alone = LiveClicks.from_clicks(given.with_columns(who=pl.lit(1)), START, 7, shoppers=2)
    assert not by_pair(alone) and not len(alone.clicked)
    nothing = LiveClicks.from_clicks(given.clear(), START)
    assert not by_pair(nothing) and nothing.queries == []


def live_of(log: list[PageView]) -> LiveClicks:
    """Every click of page views, each item once a page view."""
    rows = [(normalise_query(p.query), item, 0.0, 1.0, True) for p in log for item in dict.fromkeys(p.clicked)]
    return LiveClicks.from_clicks(clicks(*rows), START)


@quick
@given(page_view_lists)
def test_their_statistics_are_those_of_a_log_of_theirs(log):
    """Lists, counts and sums; items that the catalogue does not have are left out."""
    live = live_of(log)
    rows = np.array([ITEM_IDS.index(i) if i in ITEM_IDS else -1 for i in live.item_ids], np.int64)
    found, plain = live.statistics(rows, len(ITEMS)), ClickStatistics.from_page_views(frame(log), ITEMS)
    items = np.tile(np.arange(-1, 6), (len(QUERIES), 1))
    mine, theirs = found.query_numbers(QUERIES), plain.query_numbers(QUERIES)
    assert found.pair_counts(mine, items).tolist() == plain.pair_counts(theirs, items).tolist()
    assert found.query_clicks[mine].tolist() == plain.query_clicks[theirs].tolist()
    assert found.clicked.tolist() == plain.clicked.tolist()
    assert found.most_clicked(mine, 9).tolist() == plain.most_clicked(theirs, 9).tolist()
