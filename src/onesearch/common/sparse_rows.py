"""A few rows of sparse matrices that have many columns: their products and their largest values."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_FEW: Final = 16  # columns for each value added up, from which on values are sorted: scipy looks at every column


def product_of_few(rows: sparse.csr_matrix, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """``rows @ matrix``, float32 [n, N].

    Where few values are added up, the time grows with these, whatever N is.
    """
    n, columns = rows.shape[0], matrix.shape[1]
    starts = matrix.indptr[rows.indices].astype(np.int64)
    lengths = matrix.indptr[rows.indices + 1] - starts
    total = int(lengths.sum())
    if not 0 < total * _FEW <= columns:
        return sparse.csr_matrix(rows @ matrix)
    # The values to add, in the order of the rows: where they lie in the matrix, and which cell they belong to.
    at = np.arange(total) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    row = np.repeat(np.repeat(np.arange(n), np.diff(rows.indptr)), lengths)
    cell = row * columns + matrix.indices[at]
    values = matrix.data[at] * np.repeat(rows.data, lengths)
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    added, cell = np.add.reduceat(values[order], first), cell[first]
    ends = np.searchsorted(cell, np.arange(n + 1) * columns)
    return sparse.csr_matrix((added, (cell % columns).astype(np.int32), ends), shape=(n, columns))


def top_k_of_few(
    scores: sparse.csr_matrix, k: int, order: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Columns and values of the ``k`` largest values of each row that are above 0, best first; both [n, min(k, N)].

    Equal values go by their columns, or by an ``order`` int64 [N], distinct numbers. Where a row has fewer than k,
    column 0 and value 0 stand for the others. What it takes grows with the values that are there, whatever N is.
    """
    k = min(k, scores.shape[1])
    columns, best = np.zeros((scores.shape[0], k), np.int64), np.zeros((scores.shape[0], k), np.float32)
    for row, (start, end) in enumerate(pairwise(scores.indptr.tolist())):
        values, here = scores.data[start:end], scores.indices[start:end]
        rank = here if order is None else order[here]
        if not k:
            break
        if end - start > k:
            # Those above the k-th value, and of those level with it as many as there is room for.
            last = np.partition(values, -k)[-k]
            above, level = np.flatnonzero(values > last), np.flatnonzero(values == last)
            if len(level) > (room := k - len(above)):
                level = level[np.argsort(rank[level])[:room]]
            chosen = np.concatenate([above, level])
            values, here, rank = values[chosen], here[chosen], rank[chosen]
        by = np.lexsort((rank, -values))[: int((values > 0).sum())]
        columns[row, : len(by)], best[row, : len(by)] = here[by], values[by]
    return columns, best
