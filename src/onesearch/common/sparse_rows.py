"""The largest values of the rows of sparse matrices."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


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
