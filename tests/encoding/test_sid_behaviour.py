"""Vectors drawn by clicks, by hand: two dimensions, three items, two queries and the empty one."""

import numpy as np
import pytest

from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.encoding.khqe import KHQE, KHQESettings
from onesearch.encoding.kmeans import fit_kmeans
from onesearch.encoding.sid_behaviour import drawn, fit_sids

ITEMS = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
QUERIES = np.array([[0, -1], [0.8, 0.6], [-1, 0]], np.float32)  # of "", "a" and "b"
CATEGORIES = [["x"], ["x", "y"], ["x"]]
A, B = np.array([2, 1]) / 5**0.5, np.array([0, 1])  # unit means of what was clicked for "a" and "b"


@pytest.fixture
def statistics() -> ClickStatistics:
    """ "a" had two clicks on item 0 and one on item 1, "b" one on item 1; browsing many on items 2 and 0."""
    counts = np.array([9, 5, 2, 1, 1], np.float32)
    none = np.zeros(3, np.float32)
    return ClickStatistics(none, none, none, ["", "a", "b"], Ragged.from_lists([[2, 0], [0, 1], [1]]), counts, none)


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the quantizer was fitted on."""
    seen: dict = {}
    monkeypatch.setattr(
        KHQE, "fit", lambda *given: seen.update(zip(("vectors", "_", "weights", "first"), given, strict=True))
    )
    return seen


def unit(vector):
    return np.asarray(vector) / np.linalg.norm(vector)


def test_items_are_coded_from_vectors_drawn_towards_co_clicked_ones(statistics, fitted):
    _, coded = fit_sids(ITEMS, QUERIES, statistics, CATEGORIES, KHQESettings(co_click=0.5))
    w = 0.5 * 2 / (2 + 3)  # items 0 and 1 had two clicks each
    np.testing.assert_allclose(coded[0], unit((1 - w) * ITEMS[0] + w * A), rtol=1e-6)
    np.testing.assert_allclose(coded[1], unit((1 - w) * ITEMS[1] + w * unit(A + B)), rtol=1e-6)
    np.testing.assert_array_equal(coded[2], ITEMS[2])  # browsing says nothing of what an item is
    # Every codebook is fitted on these, and on queries as they will be coded.
    np.testing.assert_array_equal(fitted["vectors"], np.concatenate([coded, QUERIES]))
    np.testing.assert_array_equal(fitted["first"], fitted["vectors"])


def test_the_first_codebook_sees_queries_near_their_clicks_and_items_near_their_category(statistics, fitted):
    settings = KHQESettings(first_by_clicks=0.8, first_by_category=0.25)
    _, coded = fit_sids(ITEMS, QUERIES, statistics, [["x"], None, None], settings)
    np.testing.assert_array_equal(coded, ITEMS)
    np.testing.assert_array_equal(fitted["vectors"], np.concatenate([ITEMS, QUERIES]))
    a, b = 0.8 * 3 / 6, 0.8 * 1 / 4  # three clicks and one
    wanted = [QUERIES[0], unit((1 - a) * QUERIES[1] + a * A), unit((1 - b) * QUERIES[2] + b * B)]
    np.testing.assert_allclose(fitted["first"][3:], wanted, rtol=1e-6)
    np.testing.assert_allclose(fitted["first"][:3], ITEMS, rtol=1e-6)  # each alone in its category, or without one
    fit_sids(ITEMS, QUERIES, statistics, CATEGORIES, settings)
    mean = unit(ITEMS[0] + ITEMS[2])
    np.testing.assert_allclose(fitted["first"][0], unit(0.75 * ITEMS[0] + 0.25 * mean), rtol=1e-6)
    np.testing.assert_allclose(fitted["first"][1], ITEMS[1], rtol=1e-6)


def test_all_queries_weigh_no_more_than_all_items_times_their_weight(statistics, fitted):
    fit_sids(ITEMS, QUERIES, statistics, CATEGORIES, KHQESettings())
    assert fitted["weights"].tolist() == [1.0] * 6 and fitted["first"] is None
    fit_sids(ITEMS[:2], QUERIES, statistics, CATEGORIES[:2], KHQESettings(query_weight=3.0))
    np.testing.assert_allclose(fitted["weights"], [1, 1, 2, 2, 2], rtol=1e-6)


def test_without_weight_a_vector_stays_bit_by_bit():
    vectors = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    np.testing.assert_array_equal(drawn(vectors, vectors[::-1], np.zeros(50)), vectors)


def test_the_first_codebook_alone_is_fitted_on_other_vectors():
    rng = np.random.default_rng(1)
    vectors, first = (rng.normal(size=(300, 6)).astype(np.float32) for _ in range(2))
    made = KHQE.fit(vectors, KHQESettings(layers=(8, 4), opq_parts=0, balance="none", sample=200), first=first)
    kept = np.sort(np.random.default_rng(0).choice(300, 200, replace=False))
    np.testing.assert_array_equal(made.layers[0], fit_kmeans(first[kept], 8, 20, 0))
    left = vectors[kept] - made.layers[0][made.encode(vectors[kept])[:, 0]]
    np.testing.assert_allclose(made.layers[1], fit_kmeans(left, 4, 20, 1000), atol=1e-6)
