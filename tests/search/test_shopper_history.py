"""Histories: what stays of a long one, and how they become columns."""

import pytest

from onesearch.search.shopper_history import MAX_CLICKS, MAX_ORDERS, MAX_QUERIES, ShopperHistory, to_requests


def test_the_newest_stay():
    old = ShopperHistory(("a",) * MAX_CLICKS, ("q",) * MAX_CLICKS, ("o",) * MAX_ORDERS, ("x",) * MAX_QUERIES, "F 24-30")
    both = old.followed_by(ShopperHistory(("b", "c"), ("r", "s"), ("p",), ("y",)))
    assert both.clicked[-3:] == ("a", "b", "c") and len(both.clicked) == MAX_CLICKS
    assert both.clicked_queries[-3:] == ("q", "r", "s") and len(both.clicked_queries) == MAX_CLICKS
    assert both.ordered[-2:] == ("o", "p") and len(both.ordered) == MAX_ORDERS
    assert both.recent_queries[-2:] == ("x", "y") and len(both.recent_queries) == MAX_QUERIES
    assert both.profile == "F 24-30"


def test_every_click_has_a_query():
    with pytest.raises(ValueError, match="2 clicked items but 1 queries"):
        ShopperHistory(("a", "b"), ("q",))


def test_histories_as_columns_are_right_aligned_and_know_no_item_that_is_gone():
    histories = [
        ShopperHistory(("a", "gone", "b"), ("q", "q", "r"), ("b",)),
        ShopperHistory(),
        ShopperHistory(("b",), ("q",)),
    ]
    found = to_requests(["x", "y", "z"], histories, {"a": 0, "b": 1})
    assert found.clicked.tolist() == [[0, 1], [-1, -1], [-1, 1]]
    assert [[found.query_texts[q] if q >= 0 else None for q in row] for row in found.clicked_queries.tolist()] == [
        ["q", "r"],
        [None, None],
        [None, "q"],
    ]
    assert found.ordered.tolist() == [[1], [-1], [-1]]
