"""Filters by kind, and what is shown at a time: over a base, over changes on top of it, and from a file."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from onesearch.data.records import Item, items_frame
from onesearch.index.changed_index import ChangedIndex
from onesearch.index.filter_column_files import FILE, load_filter_columns, save_filter_columns
from onesearch.index.filter_columns import FilterColumns, all_products
from onesearch.index.filter_values import names_key
from onesearch.index.item_filters import ItemFilters
from onesearch.index.shown_spans import span_bounds, span_name, turns_of
from onesearch.index.sid_index import SidIndex
from onesearch.index.tensor_files import read_arrays

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ITEMS = [
    Item("product", "t"),
    Item("video", "t", kind="video"),
    Item("live", "t", kind="live", start=NOON, end=NOON + HOUR),
    Item("begins", "t", kind="live", start=NOON + HOUR),
    Item("ends", "t", end=NOON),
]


def filters_of(items: list[Item]) -> ItemFilters:
    return ItemFilters.build(items_frame(items), index_of(len(items)))


def index_of(n: int) -> SidIndex:
    rows = np.arange(n)
    return SidIndex.build(np.stack([rows % 3, rows % 2], 1), np.ones((n, 2), np.float32), (3, 2), rows=rows)


def allowed(filters: ItemFilters, asked: dict, time: datetime | None = None, n: int = len(ITEMS)) -> list[int]:
    return np.flatnonzero(filters.mask(asked, time).rows_allowed(torch.arange(n)).numpy()).tolist()


def test_items_are_filtered_by_kind_in_any_case():
    filters = filters_of(ITEMS)
    assert allowed(filters, {"kind": "product"}) == [0, 4]
    assert allowed(filters, {"kind": ["video", "live"]}) == [1, 2, 3]
    assert allowed(filters, {"not": {"kind": "live"}}) == [0, 1, 4]
    assert allowed(filters, {"kind": "article"}) == []
    assert filters.knows_kind("live")
    assert not filters.knows_kind("article")
    assert filters.columns().counts("kind") == [("live", 2), ("product", 2), ("video", 1)]


def test_an_item_is_shown_from_its_start_until_before_its_end():
    filters = filters_of(ITEMS)
    second = timedelta(microseconds=1)
    at = {
        NOON - second: [0, 1, 4],
        NOON: [0, 1, 2],
        NOON + HOUR - second: [0, 1, 2],
        NOON + HOUR: [0, 1, 3],
        NOON + 1000 * HOUR: [0, 1, 3],
        datetime(1900, 1, 1, tzinfo=UTC): [0, 1, 4],
    }
    for time, rows in at.items():
        assert allowed(filters, {}, time) == rows, time
        assert allowed(filters, {"kind": "live"}, time) == [row for row in rows if row in (2, 3)]
        assert allowed(filters, {}, time.replace(tzinfo=None)) == rows, "without a zone it is UTC"
    assert allowed(filters, {}) == [0, 1, 2, 3, 4]
    # Between two turns it is one and the same mask.
    assert filters.mask({}, NOON) is filters.mask({}, NOON + HOUR / 2)
    assert filters.turn(NOON + HOUR / 2) == NOON.timestamp()


def test_products_that_are_always_shown_have_no_turns():
    filters = filters_of(ITEMS[:2])
    assert filters.turn(NOON) is None
    assert allowed(filters, {}, NOON, 2) == [0, 1]


def test_spans_come_and_go_on_top_of_a_base():
    filters = filters_of(ITEMS)
    assert allowed(filters, {}, NOON + HOUR / 2) == [0, 1, 2]
    index = ChangedIndex.over(index_of(len(ITEMS)))
    rows, changed = (
        np.array([2, 5]),
        [Item("live", "t", kind="live", end=NOON), Item("new", "t", start=NOON + HOUR / 3)],
    )
    index = index.upsert(np.array([[1, 1], [2, 1]], np.int32), np.ones((2, 2), np.float32), rows)
    later = filters.changed(rows, changed, index)
    assert allowed(later, {}, NOON + HOUR / 4, 6) == [0, 1]
    assert allowed(later, {}, NOON + HOUR / 2, 6) == [0, 1, 5]
    assert allowed(later, {}, NOON + 2 * HOUR, 6) == [0, 1, 3, 5]
    # Whoever reads the version before keeps what it has.
    assert allowed(filters, {}, NOON + HOUR / 2) == [0, 1, 2]


def test_a_column_of_one_kind_is_one_number_in_memory():
    kind, span = all_products(7)
    assert kind.code.tolist() == [kind.numbering.find("product")] * 7 and span.code.tolist() == [-1] * 7
    assert kind.code.strides == span.code.strides == (0,)


def test_columns_come_back_from_a_file_and_products_alone_have_none(tmp_path):
    columns = FilterColumns.from_items(items_frame(ITEMS))
    save_filter_columns(columns, tmp_path)
    found = load_filter_columns(tmp_path, len(ITEMS))
    for time in (NOON, NOON + HOUR):
        filters = ItemFilters.over(found, index_of(len(ITEMS)))
        positions = index_of(len(ITEMS)).item_rows(torch.arange(len(ITEMS))).numpy()
        mask = filters.mask({}, time).rows_allowed(torch.arange(len(ITEMS))).numpy()
        # The file has the columns in the order in which they were given: row r stands at position r there.
        on = columns.having("span", "", time.timestamp())
        np.testing.assert_array_equal(mask[positions], on)
    with pytest.raises(ValueError, match="make the run's stage index again"):
        load_filter_columns(tmp_path, len(ITEMS) + 1)
    save_filter_columns(FilterColumns.from_items(items_frame(ITEMS[:1])), tmp_path)
    assert not [name for name in read_arrays(tmp_path / FILE) if name.startswith(("kind", "span"))]
    assert load_filter_columns(tmp_path, 1).counts("kind") == [("product", 1)]


def test_names_of_spans_by_hand():
    assert span_name(None, None) is None
    assert span_bounds(["-inf to 5.0", "1.5 to inf"]).tolist() == [[-np.inf, 5.0], [1.5, np.inf]]
    assert turns_of([]).tolist() == [-np.inf]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"kind": "live"}, True),
        ({"not": {"kind": "live"}}, True),
        ({"not.kind": "live"}, True),
        ({"brand": "kind", "not": {"brand": "x"}}, False),
        ({}, False),
    ],
)
def test_filters_name_a_key_also_where_they_rule_it_out(filters, names):
    assert names_key(filters, "kind") is names
