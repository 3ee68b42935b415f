from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.common.ragged import Ragged
from onesearch.data.pair_counts import Lift, PairCounts, contained, counted

lists = st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=5)


@given(lists, st.integers(0, 3))
def test_counted_and_contained_equal_plain_python(rows, seed):
    values = np.random.default_rng(seed).integers(-1, 7, (len(rows), 4))
    found, inside = counted(Ragged.from_lists(rows), values), contained(Ragged.from_lists(rows), values)
    for row, wanted, counts, hit in zip(rows, values.tolist(), found, inside, strict=True):
        assert counts.tolist() == [row.count(value) if value >= 0 else 0 for value in wanted]
        assert hit.tolist() == [value in row for value in wanted]


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=30))
def test_pair_counts_equal_a_counter(pairs):
    table = PairCounts.from_pairs(np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64))
    expected = Counter(pair for pair in pairs if min(pair) >= 0)
    grid = table.lookup(np.arange(5)[:, None], np.arange(5)[None])
    assert all(grid[a, b] == expected[a, b] for a in range(5) for b in range(5))


def test_lift_is_the_arithmetic_done_by_hand_and_leaves_own_clicks_out():
    contexts, things = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    lift = Lift.from_pairs(contexts, things, 3, 2, smoothing=2.0)
    share = (2 + 1) / (4 + 2)
    expected = np.log((2 + 2 * share) / ((3 + 2) * share))
    assert lift.score(np.array([0]), np.array([0]))[0] == pytest.approx(expected)
    # One click less of everything.
    share = (1 + 1) / (3 + 2)
    expected = np.log((1 + 2 * share) / ((2 + 2) * share))
    own = lift.score(np.array([0]), np.array([0]), np.float32(1), np.float32(1))
    assert own[0] == pytest.approx(expected)
    assert lift.score(np.array([-1, 0]), np.array([0, -1])).tolist() == [0, 0]


def test_pairs_counted_more_than_once():
    contexts, things, times = np.array([0, 0, 1, -1]), np.array([0, 1, 1, 0]), np.array([2, 1, 4, 9], np.float32)
    table = PairCounts.from_pairs(contexts, things, times)
    assert table.lookup(np.array([[0], [1]]), np.array([[0, 1]])).tolist() == [[2, 1], [0, 4]]
    lift = Lift.from_pairs(contexts, things, 2, 2, smoothing=1.0, times=times)
    assert (lift.contexts.tolist(), lift.things.tolist()) == ([3, 4], [2, 5])
    share = (5 + 1) / (7 + 2)
    expected = np.log((4 + share) / ((4 + 1) * share))
    assert lift.score(np.array([1]), np.array([1]))[0] == pytest.approx(expected)


def test_pair_counts_of_lists_are_those_of_their_contexts():
    table = PairCounts.from_lists(np.array([3, -1, 3]), Ragged.from_lists([[1, 1], [1], [1, 2]]))
    assert table.lookup(np.array([3]), np.array([0, 1, 2])).tolist() == [0, 3, 1]
