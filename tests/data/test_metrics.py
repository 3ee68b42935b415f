import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import quick

from onesearch.common.ragged import Ragged
from onesearch.data.metrics import hit_rate, mrr, ndcg, recall

RANKED = np.array([[4, 2, 7], [1, 0, -1], [5, 6, 8], [3, 3, 2]], np.int32)
TARGETS = Ragged.from_lists([[7, 9], [0], [], [2, 2]])


def test_by_hand():
    assert hit_rate(RANKED, TARGETS, 3).tolist()[:2] == [1, 1]
    assert hit_rate(RANKED, TARGETS, 2).tolist()[:2] == [0, 1]
    assert mrr(RANKED, TARGETS, 3) == pytest.approx([1 / 3, 1 / 2, math.nan, 1 / 3], nan_ok=True)
    assert recall(RANKED, TARGETS, 3) == pytest.approx([1 / 2, 1, math.nan, 1], nan_ok=True)
    ideal = 1 + 1 / math.log2(3)
    expected = [0.5 / ideal, 1 / math.log2(3), math.nan, 0.5]
    assert ndcg(RANKED, TARGETS, 3) == pytest.approx(expected, nan_ok=True)


def test_graded_ndcg_by_hand():
    ranked = np.array([[0, 1, 2]], np.int32)
    targets = Ragged.from_lists([[2, 0, 5]])
    gains = np.array([7.0, 1.0, 3.0])
    ideal = 7 + 3 / math.log2(3) + 1 / 2
    assert ndcg(ranked, targets, 10, gains)[0] == pytest.approx((1 + 7 / 2) / ideal)
    assert ndcg(ranked, targets, 1, gains)[0] == pytest.approx(1 / 7)
    assert math.isnan(ndcg(ranked, targets, 3, np.zeros(3))[0])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="4 rankings but 1 lists"):
        hit_rate(RANKED, Ragged.from_lists([[1]]))
    with pytest.raises(ValueError, match="gains has 1 values"):
        ndcg(RANKED[:1], Ragged.from_lists([[1, 2]]), gains=np.ones(1))


def plain(ranked: list[int], right: set[int], k: int) -> tuple[float, float, float, float]:
    seen: list[int] = []
    places = []
    for place, item in enumerate(ranked[:k], 1):
        if item >= 0 and item in right and item not in seen:
            places.append(place)
        seen.append(item)
    best = sum(1 / math.log2(1 + p) for p in range(1, min(len(right), k) + 1))
    gained = sum(1 / math.log2(1 + p) for p in places)
    return float(bool(places)), 1 / places[0] if places else 0.0, len(places) / len(right), gained / best


@quick
@given(
    st.lists(st.tuples(st.lists(st.integers(-1, 9), min_size=5, max_size=5), st.lists(st.integers(0, 9))), min_size=1),
    st.integers(1, 7),
)
def test_against_the_plain_definition(rows, k):
    ranked = np.array([r for r, _ in rows], np.int32)
    targets = Ragged.from_lists([t for _, t in rows])
    columns = [function(ranked, targets, k) for function in (hit_rate, mrr, recall, ndcg)]
    for row, (places, right) in enumerate(rows):
        got = [float(column[row]) for column in columns]
        if right:
            assert got == pytest.approx(plain(places, set(right), k), rel=1e-5)
        else:
            assert all(math.isnan(value) for value in got)


def test_of_an_item_listed_twice_the_larger_gain_counts():
    targets = Ragged.from_lists([[4, 6, 4]])
    gains = np.array([1.0, 3.0, 7.0])
    ideal = 7 + 3 / math.log2(3)
    assert ndcg(np.array([[6, 4]], np.int32), targets, 2, gains)[0] == pytest.approx((3 + 7 / math.log2(3)) / ideal)
