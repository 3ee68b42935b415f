"""Ranking metrics per request: plain functions of a ranking and its right answers.

Every function takes ``ranked`` int32 [n, k'] (item rows, best first, -1 for none) and ``targets``, a ``Ragged`` of n
lists of right item rows, looks at the first ``k`` places, and gives float32 [n]: nan where a request has no target.
An item that is ranked twice counts at its first place only.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged

Floats = NDArray[np.float32]


def hit_rate(ranked: NDArray[np.integer], targets: Ragged, k: int = 10) -> Floats:
    """HR@k: 1 when at least one target is among the first k."""
    return _known(np.any(_gains(ranked, targets, k) > 0, axis=1), targets)


def mrr(ranked: NDArray[np.integer], targets: Ragged, k: int = 10) -> Floats:
    """MRR@k: 1 / place of the first target, 0 when none is among the first k."""
    found = _gains(ranked, targets, k) > 0
    place = 1.0 / np.arange(1, found.shape[1] + 1)
    return _known((found * place).max(1, initial=0.0), targets)


def recall(ranked: NDArray[np.integer], targets: Ragged, k: int = 10) -> Floats:
    """Recall@k: share of the distinct targets that are among the first k."""
    found = (_gains(ranked, targets, k) > 0).sum(1)
    return _known(found / np.maximum(_distinct_lengths(targets), 1), targets)


def ndcg(
    ranked: NDArray[np.integer], targets: Ragged, k: int = 10, gains: NDArray[np.floating] | None = None
) -> Floats:
    """NDCG@k: sum of gain / log2(1 + place), over that of the best possible order.

    Args:
        ranked: item rows.
        targets: right items; those with gain 0 are not targets.
        k: places that count.
        gains: gain of each of ``targets.values``, for instance ``2.0 ** level - 1``; all 1 when left out. Of an item
            listed twice the larger gain counts.
    """
    # What the ranking gains at each place, [n, k], and what a place counts for, [k].
    found = _gains(ranked, targets, k, gains)
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    # The best possible order: each request's gains from the largest down, as far as there are places.
    row, _, value = _distinct(targets, gains)
    order = np.lexsort((-value, row))
    row, value = row[order], value[order]
    place = np.arange(len(row)) - np.searchsorted(row, row, side="left")
    inside = place < k
    best = np.bincount(row[inside], value[inside] * discount[place[inside]], minlength=len(targets))
    score = (found * discount[: found.shape[1]]).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(best > 0, score / best, np.nan).astype(np.float32)


def _known(values: NDArray[Any], targets: Ragged) -> Floats:
    """The values [n], nan where a request has no target."""
    return np.where(targets.lengths > 0, values, np.nan).astype(np.float32)


def _distinct(
    targets: Ragged, gains: NDArray[np.floating] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, items and gains of the distinct (row, item) pairs, sorted; of equal pairs the largest gain."""
    value = np.ones(len(targets.values)) if gains is None else np.asarray(gains, np.float64)
    if len(value) != len(targets.values):
        raise ValueError(f"gains has {len(value)} values but targets has {len(targets.values)}")
    row, item = targets.owners, targets.values.astype(np.int64)
    order = np.lexsort((-value, item, row))
    row, item, value = row[order], item[order], value[order]
    # Sorted by request, item and falling gain: the first of each pair has the largest.
    first = np.ones(len(row), bool)
    first[1:] = (row[1:] != row[:-1]) | (item[1:] != item[:-1])
    return row[first], item[first], value[first]


def _distinct_lengths(targets: Ragged) -> NDArray[np.int64]:
    return np.bincount(_distinct(targets, None)[0], minlength=len(targets))


def _gains(
    ranked: NDArray[np.integer], targets: Ragged, k: int, gains: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Gain of each of the first k places, 0 for misses and for repetitions: float64 [n, min(k, k')]."""
    if len(ranked) != len(targets):
        raise ValueError(f"{len(ranked)} rankings but {len(targets)} lists of targets")
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    top = ranked[:, :k].astype(np.int64)
    row, item, value = _distinct(targets, gains)
    if not len(row) or not top.size:
        return np.zeros(top.shape)
    # Request and item in one number; those of the targets are sorted, so a binary search finds each ranked item.
    span = max(int(item.max()), int(top.max())) + 1
    keys = row * span + item
    wanted = np.arange(len(top))[:, None] * span + top
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    out = np.where((keys[at] == wanted) & (top >= 0), value[at], 0.0)
    # Of equal items, neighbours once a ranking is sorted, all but the first place gain nothing.
    order = np.argsort(top, axis=1, kind="stable")
    ordered = np.take_along_axis(top, order, 1)
    again = np.zeros(top.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    out[again] = 0.0
    return out
