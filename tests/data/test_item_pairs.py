"""Items taken together: counts by hand, and a shopper's own pairs left out as if never counted."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from onesearch.common.ragged import Ragged
from onesearch.data.item_pairs import NEXT_SHARE, ItemPairs

ITEMS = pl.DataFrame({"item_id": list("abcdef")})


def log(baskets: list[list[int]]) -> pl.DataFrame:
    """One page view for each item that each shopper takes, in order."""
    rows = [
        {"user_id": f"u{user}", "session_id": None, "time": time, "clicked": ["abcdef"[item]], "ordered": []}
        for user, basket in enumerate(baskets)
        for time, item in enumerate(basket)
    ]
    schema = {
        "user_id": pl.String,
        "session_id": pl.String,
        "time": pl.Int64,
        "clicked": pl.List(pl.String),
        "ordered": pl.List(pl.String),
    }
    return pl.DataFrame(rows, schema=schema)


def test_counts_by_hand():
    # a with b twice, a with c once; b right after a twice, c right after b once.
    pairs = ItemPairs.from_page_views(log([[0, 1], [0, 1, 2], [0]]), ITEMS)
    np.testing.assert_array_equal(pairs.shoppers, [3, 2, 1, 0, 0, 0])
    assert pairs.together[0, 1] == approx(2 / 6**0.5)
    assert pairs.together[0, 2] == approx(1 / 3**0.5)
    assert pairs.together[0, 0] == 0
    assert pairs.following[0, 1] == approx(2 / 3) and pairs.following[1, 0] == 0
    assert pairs.following[1, 2] == approx(1 / 2) and pairs.following[0, 2] == 0


def test_an_older_item_weighs_less_and_what_is_bought_can_be_left_out():
    pairs = ItemPairs.from_page_views(log([[0, 2], [1, 3]]), ITEMS)
    # History a then b: b is the newest (weight 1), a one place back (2 ** -0.5).
    items, together, following = pairs.top(np.array([[-1, 0, 1]], np.int32), 3)
    np.testing.assert_array_equal(items, [[3, 2, -1]])
    np.testing.assert_allclose(together, [[1, 2**-0.5, 0]])
    np.testing.assert_allclose(following, [[1, 2**-0.5, 0]])
    items, _, _ = pairs.top(np.array([[-1, 0, 1]], np.int32), 3, without=np.array([[3]], np.int32))
    np.testing.assert_array_equal(items, [[2, -1, -1]])


def test_an_item_ordered_after_its_click_counts_once_and_a_session_is_a_shopper():
    views = log([[0, 1]]).with_columns(ordered=pl.col("clicked"))
    views = pl.concat([views, views.with_columns(user_id=None, session_id=pl.lit("u0"))], how="vertical_relaxed")
    pairs = ItemPairs.from_page_views(views, ITEMS)
    np.testing.assert_array_equal(pairs.shoppers[:2], [2, 2])
    assert pairs.together[0, 1] == approx(1)
    own = pairs.own_items(views)
    assert [row.tolist() for row in own] == [[0, 1]] * 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(0, 4))
def test_own_pairs_left_out_are_those_of_the_plain_counts(baskets: list[list[int]], who: int):
    baskets = [list(dict.fromkeys(basket)) for basket in baskets]
    own = baskets[who % len(baskets)]
    history = own[: max(1, len(own) // 2)]
    pairs = ItemPairs.from_page_views(log(baskets), ITEMS)
    given_history = np.array([[-1, *history]], np.int32)
    found = pairs.beside(given_history, Ragged.from_lists([own]))
    # Plain twin: pairs of the others alone, over the same numbers of shoppers.
    others = [basket for i, basket in enumerate(baskets) if i != who % len(baskets)]
    size = np.array([sum(item in basket for basket in baskets) for item in range(6)])
    together, following = np.zeros(6), np.zeros(6)
    for age, item in enumerate(reversed(history), 1):
        for basket in others:
            for first, second in permutations(basket, 2):
                if first == item:
                    together[second] += age**-0.5 / np.sqrt(size[first] * size[second])
                    following[second] += (age**-0.5 / size[first]) * (basket.index(second) == basket.index(first) + 1)
    np.testing.assert_allclose(found.together.toarray()[0], together, atol=1e-5)
    np.testing.assert_allclose(found.following.toarray()[0], following, atol=1e-5)
    items, cosine, after = pairs.top(given_history, 6, Ragged.from_lists([own]))
    score = together + NEXT_SHARE * following
    kept = items[0][items[0] >= 0]
    assert sorted(kept) == np.flatnonzero(score > 1e-5).tolist()
    np.testing.assert_allclose(
        (cosine + NEXT_SHARE * after)[0][: len(kept)], np.sort(score)[::-1][: len(kept)], atol=1e-5
    )


def test_saved_and_read_again(tmp_path: Path):
    views = log([[0, 1, 4], [1, 2], [5]])
    pairs = ItemPairs.from_page_views(views, ITEMS)
    pairs.save(tmp_path)
    again = ItemPairs.load(tmp_path)
    history = np.array([[0, 1], [-1, 5]], np.int32)
    for one, other in zip(pairs.top(history, 4), again.top(history, 4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row.tolist() for row in again.own_items(views)] == [row.tolist() for row in pairs.own_items(views)]


def test_a_shopper_who_comes_twice_is_named_with_the_file(tmp_path: Path):
    ItemPairs.from_page_views(log([[0, 1], [1, 2]]), ITEMS).save(tmp_path)
    for names, problem in ((["x", "x"], "'x' comes twice"), (["x", 7], "doesn't apply")):
        (tmp_path / "shoppers.json").write_text(json.dumps(names))
        with pytest.raises(ValueError, match=rf"shoppers\.json: .*{problem}.*make the run's stage data again"):
            ItemPairs.load(tmp_path)
