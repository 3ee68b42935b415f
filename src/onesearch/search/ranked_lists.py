"""Small array operations that rankings are made of: top-k, removal of duplicates, per-request normalisation."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.search.hits import Hits

NONE = -1


def top_k(
    scores: NDArray[np.float32], k: int, order: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Columns and scores of the ``k`` largest values of each row, best first, equal scores by column.

    Shapes: scores [n, N]; both results [n, min(k, N)]. Of several equal scores at the k-th place those of the first
    columns are kept, but for scores of 0, of which any are. With an ``order`` int64 [N], distinct numbers, they go by
    that instead of the columns.
    """
    k = min(k, scores.shape[1])
    values, columns = torch.topk(torch.from_numpy(scores), k, dim=1, sorted=True)
    best, where = values.numpy(), columns.numpy()
    if k:
        # torch leaves open which of equal scores it keeps: rows where more are equal to the last than were kept.
        last = best[:, -1:]
        equal, kept = (scores == last).sum(1), (best == last).sum(1)
        for row in np.flatnonzero((equal > kept) & (last[:, 0] != 0)).tolist():
            level = np.flatnonzero(scores[row] == last[row])
            if order is not None:
                level = level[np.argsort(order[level])]
            where[row, k - kept[row] :] = level[: kept[row]]
    # And in which order.
    sorted_by = np.lexsort((where if order is None else order[where], -best), axis=1)
    return np.take_along_axis(where, sorted_by, 1), np.take_along_axis(best, sorted_by, 1)


def padded_hits(items: NDArray[np.integer], scores: NDArray[np.float32], k: int) -> Hits:
    """Hits of exactly ``k`` columns: extra columns cut, missing ones -1 with score -inf."""
    columns = min(k, items.shape[1])
    best = np.full((len(items), k), NONE, np.int32)
    best[:, :columns] = items[:, :columns]
    values = np.full((len(items), k), -np.inf, np.float32)
    values[:, :columns] = np.where(best[:, :columns] == NONE, -np.inf, scores[:, :columns])
    return Hits(best, values)


def first_occurrence(items: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each entry of [n, m] is a real item (not -1) that does not appear further left in its row."""
    # Equal items lie side by side once sorted; a stable sort keeps the leftmost first.
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, 1)
    fresh = np.ones_like(items, dtype=bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    out = np.empty_like(fresh)
    np.put_along_axis(out, order, fresh, 1)
    out[items == NONE] = False
    return out


def compacted(keep: NDArray[np.bool_], items: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Kept entries moved to the left in order, the rest -1; also the column each entry came from, both [n, m]."""
    # False sorts before true: kept entries come first, in their own order.
    order = np.argsort(~keep, axis=1, kind="stable")
    return np.take_along_axis(np.where(keep, items, np.int32(NONE)), order, 1), order


def chained(lists: Sequence[NDArray[np.int32]], k: int) -> NDArray[np.int32]:
    """The lists [n, k_i] one after the other, without repetitions, cut to ``k`` columns; int32 [n, min(k, sum k_i)]."""
    items = np.concatenate(lists, axis=1)
    return compacted(first_occurrence(items), items)[0][:, :k]


def union(lists: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """All distinct items of each row of the lists, as narrow as the longest row allows, int32 [n, m]."""
    items = chained(lists, sum(part.shape[1] for part in lists))
    used = int((items != NONE).sum(1).max(initial=0))
    return items[:, : max(used, 1)]


def normalised(scores: NDArray[np.float32], valid: NDArray[np.bool_], how: str) -> NDArray[np.float32]:
    """Scores made comparable within each request; [n, m], zero where not ``valid``.

    ``minmax``: (s - min) / (max - min), in [0, 1]. ``z``: (s - mean) / standard deviation. A row of equal scores
    becomes zeros.
    """
    if how == "minmax":
        low = np.min(scores, axis=1, keepdims=True, where=valid, initial=np.inf)
        spread = np.max(scores, axis=1, keepdims=True, where=valid, initial=-np.inf) - low
    elif how == "z":
        count = np.maximum(valid.sum(1, keepdims=True), 1)
        low = np.where(valid, scores, 0).sum(1, keepdims=True) / count
        spread = np.sqrt((np.where(valid, scores - low, 0) ** 2).sum(1, keepdims=True) / count)
    else:
        raise ValueError(f"unknown normalisation {how!r}; expected 'minmax' or 'z'")
    usable = valid & (spread > 1e-12) & np.isfinite(spread)
    safe = np.where(usable, scores - np.where(np.isfinite(low), low, 0), 0)
    return (safe / np.where(usable, spread, 1)).astype(np.float32)
