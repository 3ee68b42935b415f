"""Products and largest values of sparse rows against those of dense ones."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from onesearch.common.sparse_rows import product_of_few, top_k_of_few


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4), st.sampled_from([0.0, 0.001, 0.2]))
@example(0, 3, 0.001)
def test_a_product_is_that_of_dense_matrices(seed: int, n: int, share: float):
    rng = np.random.default_rng(seed)
    rows, matrix = (
        (rng.integers(1, 9, shape) * (rng.random(shape) < some)).astype(np.float32)
        for shape, some in (((n, 30), 0.1), ((30, 9000), share))
    )
    found = product_of_few(sparse.csr_matrix(rows), sparse.csr_matrix(matrix))
    assert found.dtype == np.float32 and found.shape == (n, 9000) and found.nnz == np.count_nonzero(rows @ matrix)
    assert np.array_equal(found.toarray(), rows @ matrix)


def test_few_values_are_added_without_a_look_at_every_column(monkeypatch):
    rows = sparse.csr_matrix(np.array([[1.0, 2.0], [0.0, 0.0]], np.float32))
    matrix = sparse.csr_matrix(([3.0, 4.0, 5.0], ([0, 0, 1], [7, 2, 7])), shape=(2, 1000), dtype=np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(sparse.csr_matrix, "__matmul__", lambda *_: pytest.fail("every column was looked at"))
        found = product_of_few(rows, matrix)
    assert found.indices.tolist() == [2, 7] and found.data.tolist() == [4, 13] and found.indptr.tolist() == [0, 2, 2]


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
