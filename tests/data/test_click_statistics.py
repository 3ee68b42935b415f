from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import ITEM_IDS, ITEMS, frame, page_view_lists, quick, split_if_it_fills

from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.dataset import ragged_rows
from onesearch.data.records import PageView
from onesearch.data.split import split
from onesearch.data.text import normalise_query

ROW = {name: row for row, name in enumerate(ITEM_IDS)}


def plain(log: list[PageView], query: str, k: int) -> list[int]:
    clicks: Counter[int] = Counter()
    total: Counter[int] = Counter()
    for page_view in log:
        rows = {ROW[i] for i in page_view.clicked if i in ROW}
        total.update(rows)
        if normalise_query(page_view.query) == normalise_query(query):
            clicks.update(rows)
    order = sorted(clicks, key=lambda row: (-clicks[row], -total[row], row))[:k]
    return order + [-1] * (k - len(order))


@quick
@given(page_view_lists, st.integers(1, 4))
def test_most_clicked_is_the_plain_count(log, k):
    statistics = ClickStatistics.from_page_views(frame(log), ITEMS)
    queries = [p.query for p in log] + ["never asked"]
    expected = [plain(log, query, k) for query in queries]
    assert statistics.most_clicked(statistics.query_numbers(queries), k).tolist() == expected


@quick
@given(page_view_lists, st.integers(1, 4))
def test_leaving_a_page_view_out_is_the_log_without_it(log, k):
    statistics = ClickStatistics.from_page_views(frame(log), ITEMS)
    own = ragged_rows(frame(log)["clicked"], ITEMS["item_id"])
    queries = [p.query for p in log]
    items = np.tile(np.arange(-1, len(ITEM_IDS)), (len(log), 1))
    found = statistics.most_clicked(statistics.query_numbers(queries), k, own)
    counts = statistics.pair_counts(statistics.query_numbers(queries), items, own)
    for row, page_view in list(enumerate(log))[:3]:
        rest = log[:row] + log[row + 1 :]
        assert found[row].tolist() == plain(rest, page_view.query, k)
        others = ClickStatistics.from_page_views(frame(rest), ITEMS)
        alone = others.pair_counts(others.query_numbers([page_view.query]), items[:1])
        assert counts[row].tolist() == alone[0].tolist()


@quick
@given(page_view_lists, st.lists(st.sampled_from(ITEM_IDS), max_size=3))
def test_statistics_of_training_do_not_depend_on_later_parts(log, clicked):
    """Changing every click of the validation and test part changes no training statistic."""
    timed = [p for p in log if p.time is not None]
    parts = split_if_it_fills(timed, valid=0.2, test=0.2, by="time")
    if parts is None:
        return
    first_later = min([*parts.valid["time"], *parts.test["time"]], default=None)
    changed = [
        p if first_later is None or p.time < first_later else PageView("", "other", time=p.time, clicked=tuple(clicked))
        for p in timed
    ]
    again = split(frame(changed), valid=0.2, test=0.2, by="time")
    one, two = ClickStatistics.from_page_views(parts.train, ITEMS), ClickStatistics.from_page_views(again.train, ITEMS)
    assert one.queries == two.queries
    assert np.array_equal(one.counts, two.counts)
    assert np.array_equal(one.clicked, two.clicked)


def test_counts_by_hand(tmp_path):
    log = [
        PageView("1", "Red shoe", shown=("i0", "i1"), clicked=("i0", "i0")),
        PageView("2", "red  SHOE", shown=("i0",), clicked=("i0", "i2"), ordered=("i2",)),
        PageView("3", "boots", clicked=()),
    ]
    statistics = ClickStatistics.from_page_views(frame(log), ITEMS)
    assert statistics.shown.tolist() == [2, 1, 0, 0, 0, 0]
    assert statistics.clicked.tolist() == [2, 0, 1, 0, 0, 0]
    assert statistics.ordered.tolist() == [0, 0, 1, 0, 0, 0]
    assert statistics.queries == ["red shoe"]
    assert statistics.items[0].tolist() == [0, 2]
    assert statistics.counts.tolist() == [2, 1]
    assert statistics.searched.tolist() == [2]
    assert statistics.query_clicks[statistics.query_numbers(["Red shoe", "boots"])].tolist() == [3, 0]
    assert statistics.pair_counts(statistics.query_numbers(["RED SHOE"]), np.array([[2, 0, -1, 5]])).tolist() == [
        [1, 2, 0, 0]
    ]
    statistics.save(tmp_path)
    loaded = ClickStatistics.load(tmp_path)
    assert list(loaded.queries) == statistics.queries
    assert loaded.most_clicked(loaded.query_numbers(["red shoe", "boots"]), 2).tolist() == [[0, 2], [-1, -1]]


def test_empty_log(tmp_path):
    statistics = ClickStatistics.from_page_views(frame([]), ITEMS)
    assert statistics.most_clicked(statistics.query_numbers(["a"]), 2).tolist() == [[-1, -1]]
    assert statistics.pair_counts(statistics.query_numbers(["a"]), np.array([[1]])).tolist() == [[0]]
    statistics.save(tmp_path)
    assert list(ClickStatistics.load(tmp_path).queries) == []


def test_own_clicks_left_out_by_hand():
    log = [
        PageView("1", "shoe", clicked=("i1", "i2")),
        PageView("2", "shoe", clicked=("i1", "i0")),
        PageView("3", "shoe", clicked=("i3",)),
        PageView("4", "boot", clicked=("i0", "i3")),
        PageView("5", "hat", clicked=("i0",)),
    ]
    statistics = ClickStatistics.from_page_views(frame(log), ITEMS)
    shoe = statistics.query_numbers(["Shoe"] * 3)
    own = Ragged.from_lists([[1, 0], [1, 2], [3]])
    # Clicks for "shoe": i1 twice, i0, i2, i3 once; in all: i0 thrice, i1 and i3 twice, i2 once.
    assert statistics.most_clicked(shoe[:1], 4).tolist() == [[1, 0, 3, 2]]
    # Without page view 2: i3 (two in all), i1 and i2 (one each, the lower row first). Without 1: i0, i3, i1.
    # Without 3: i1, i0, i2.
    assert statistics.most_clicked(shoe, 3, own).tolist() == [[3, 1, 2], [0, 3, 1], [1, 0, 2]]
    assert statistics.most_clicked(shoe, 1, own).tolist() == [[3], [0], [1]]
    items = np.array([[0, 1, 2, 3]] * 3)
    counts = statistics.pair_counts(shoe, items, own)
    assert counts.tolist() == [[0, 1, 1, 1], [1, 1, 0, 1], [1, 2, 1, 0]]
