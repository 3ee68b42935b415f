"""Lifts of words and traits against counts done by hand."""

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from onesearch.common.layered_table import ChangedRows
from onesearch.common.ragged import Ragged
from onesearch.data.records import Item, items_frame
from onesearch.search.click_features import TraitClicks, TraitLists, attributes, title_words
from onesearch.search.text_analyzer import Analyzer

# Traits x, y, z of twenty items: enough for a trait to be kept (three items) and not so common as to be dropped.
TRAITS = pl.Series([["x", "y"], ["x"], ["x", "z"], ["y", "z"], ["y"], ["z"], *[[]] * 14], dtype=pl.List(pl.String))
# Clicks of two words on items.
CLICKS = sparse.csr_matrix(([4.0, 2.0, 1.0], ([0, 0, 1], [0, 3, 5])), shape=(2, 20), dtype=np.float32)


def test_traits_of_items():
    items = items_frame(
        [
            Item(
                "a", "Red tents, the red one", ("Outdoor", "Tents"), brand="Acme", attributes={"Color": ("Red", "red")}
            ),
            Item("b", ""),
        ]
    )
    assert attributes(items).to_list() == [["color=red", "brand=acme", "category=tents"], []]
    assert title_words(items, Analyzer("english")).to_list() == [["red", "tent", "the", "one"], []]


@pytest.fixture
def clicks() -> TraitClicks:
    return TraitClicks.from_clicks(TRAITS, CLICKS)


def by_hand(word: int) -> np.ndarray:
    pairs = np.array([[4.0, 6, 2], [0, 0, 1]])  # word and trait, clicks on items with it
    share = (pairs.sum(0) + 1) / (pairs.sum() + 3)
    return np.log((pairs[word] + 5 * share) / ((pairs[word].sum() + 5) * share))


def test_mean_lift_and_sum_of_positive_lifts(clicks: TraitClicks):
    words = np.array([[0, -1], [0, 1], [-1, -1]], np.int32)
    items = np.array([[0, 5, 6, -1]] * 3)
    mean, positive = clicks.lifts(words, TraitLists.over(clicks.numbers(TRAITS)), items)
    for row, lift in enumerate((by_hand(0), (by_hand(0) + by_hand(1)) / 2, np.zeros(3))):
        np.testing.assert_allclose(mean[row], [lift[:2].mean(), lift[2], 0, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            positive[row], [np.maximum(lift[:2], 0).sum(), max(lift[2], 0), 0, 0], rtol=1e-5, atol=1e-6
        )


def test_rare_and_common_and_unknown_traits_say_nothing():
    common = pl.Series([[*row, "everywhere"] for row in TRAITS.to_list()], dtype=pl.List(pl.String))
    found = TraitClicks.from_clicks(pl.Series([*common[:19], ["once"]], dtype=pl.List(pl.String)), CLICKS)
    assert set(found.names) == {"x", "y", "z"}
    new = found.numbers(pl.Series([["new", "y"], ["new"]], dtype=pl.List(pl.String)))
    assert [found_.tolist() for found_ in (new[0], new[1])] == [[found.names["y"]], []]


def test_a_catalogue_without_traits_and_a_log_without_clicks():
    none = pl.Series([[]] * 3, dtype=pl.List(pl.String))
    empty = TraitClicks.from_clicks(none, sparse.csr_matrix((1, 3), dtype=np.float32))
    mean, positive = empty.lifts(np.array([[0]], np.int32), TraitLists.over(empty.numbers(none)), np.array([[0, 2]]))
    assert not mean.any() and not positive.any()
    unclicked = TraitClicks.from_clicks(TRAITS, sparse.csr_matrix((2, 20), dtype=np.float32))
    mean, _ = unclicked.lifts(np.array([[1]], np.int32), TraitLists.over(unclicked.numbers(TRAITS)), np.array([[0]]))
    assert mean[0, 0] == 0


def test_traits_of_rows_that_changed_or_came_later():
    traits = TraitLists.over(Ragged.from_lists([[1, 2], [], [5]]))
    changed = ChangedRows.none().with_rows(np.array([4, 0]), 0)
    later = traits.with_rows(changed, Ragged.from_lists([[3], [4, 5]]))
    found = later.rows(np.array([[0, 1, 2], [4, -1, 3]]))
    assert [[row[row >= 0].tolist() for row in rows] for rows in found] == [[[4, 5], [], [5]], [[3], [], []]]
    assert traits.rows(np.array([[0, -1]]))[0, :, :3].tolist() == [[1, 2, -1], [-1, -1, -1]]
