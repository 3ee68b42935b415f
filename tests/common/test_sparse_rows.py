"""The largest values of sparse rows against sorting all of a dense one."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from onesearch.common.sparse_rows import top_k_of_few


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7), st.booleans())
@example(3, 2, True)
@example(3, 2, False)
def test_equal_values_go_by_columns_or_by_an_order(seed: int, k: int, ordered: bool):
    rng = np.random.default_rng(seed)
    dense = (rng.integers(-1, 4, (4, 6)) * (rng.random((4, 6)) < 0.7)).astype(np.float32)
    order = rng.permutation(6) if ordered else None
    columns, values = top_k_of_few(sparse.csr_matrix(dense), k, order)
    assert columns.shape == values.shape == (4, min(k, 6))
    rank = np.arange(6) if order is None else order
    for row in range(4):
        best = sorted((-value, rank[i], i) for i, value in enumerate(dense[row]) if value > 0)[:k]
        some = len(best)
        assert columns[row, :some].tolist() == [i for *_, i in best]
        assert values[row, :some].tolist() == pytest.approx([-value for value, *_ in best])
        assert not columns[row, some:].any() and not values[row, some:].any()
