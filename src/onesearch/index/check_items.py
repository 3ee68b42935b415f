"""What callers give an index, checked and brought to arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.index.sid_keys import KeyLayout
from onesearch.index.sorted_update import SortedItems
from onesearch.index.vector_table import STORED_TYPES

_LARGEST_ROW = 2**31 - 2


def as_numpy(values: NDArray[Any] | Tensor | Sequence[int]) -> NDArray[Any]:
    """The values as an array, copied to the CPU if they are elsewhere."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def check_items(
    layout: KeyLayout,
    sids: NDArray[np.integer] | Tensor,
    vectors: NDArray[np.floating] | Tensor,
    popularity: NDArray[np.floating] | Tensor | None,
    rows: NDArray[np.integer] | Tensor | None,
) -> tuple[SortedItems, Tensor]:
    """Items as arrays in the given order, after checking that shapes and values fit together.

    Raises:
        ValueError: lengths differ, vectors are no float matrix, a popularity is not finite, a row is wrong or twice.
    """
    keys = layout.pack(as_numpy(sids))
    n = len(keys)
    # rows default to the order given, vectors may be on any device, popularity may be absent
    item_rows = np.arange(n, dtype=np.int32) if rows is None else as_numpy(rows)
    table = vectors.detach() if isinstance(vectors, Tensor) else torch.from_numpy(np.ascontiguousarray(vectors))
    ranks = None if popularity is None else as_numpy(popularity).astype(np.float32)
    # every check names the array and, where it can, the entry
    for name, array in (("rows", item_rows), ("vectors", table), ("popularity", ranks)):
        if array is not None and len(array) != n:
            raise ValueError(f"{name} has {len(array)} entries, but sids has {n}")
    if table.ndim != 2 or not table.dtype.is_floating_point:
        raise ValueError(f"vectors must be floats of shape [{n}, R], got {table.dtype} {list(table.shape)}")
    if rows is not None:
        check_rows(item_rows)
    if ranks is not None:
        check_popularity(ranks)
    return SortedItems(keys, item_rows.astype(np.int32), ranks), table


def check_rows(rows: NDArray[np.integer]) -> None:
    """Whether rows [N] can be those of items.

    Raises:
        ValueError: a row is below 0, too large or there twice.
    """
    if not len(rows):
        return
    if rows.min() < 0 or rows.max() > _LARGEST_ROW:
        raise ValueError(f"item rows must be 0 to {_LARGEST_ROW}, got {rows.min()} to {rows.max()}")
    # a row given twice would have two positions
    ordered = np.sort(rows)
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError(f"item row {ordered[1:][ordered[1:] == ordered[:-1]][0]} is given more than once")


def check_popularity(popularity: NDArray[np.floating]) -> None:
    """Whether numbers [N] can order items.

    Raises:
        ValueError: one is not finite.
    """
    (wrong,) = np.nonzero(~np.isfinite(popularity))
    if len(wrong):
        raise ValueError(f"popularity of item {int(wrong[0])} is not a finite number")


def check_stored(rows: NDArray[Any], popularity: NDArray[Any] | None, vectors: Tensor, scale: Tensor | None) -> None:
    """Whether the arrays of an index's files can belong to each other (its trie checks itself).

    Raises:
        ValueError: a type, a length or a value is none that :meth:`SidIndex.save` writes.
    """
    if rows.dtype != np.int32 or rows.ndim != 1:
        raise ValueError(f"rows must be int32 [N], got {rows.dtype} {list(rows.shape)}")
    check_rows(rows)
    if popularity is not None:
        if popularity.dtype != np.float32 or popularity.shape != rows.shape:
            raise ValueError(f"popularity must be float32 [{len(rows)}]")
        check_popularity(popularity)
    if vectors.ndim != 2 or vectors.dtype not in STORED_TYPES:
        raise ValueError(f"vectors must be a matrix of {' or '.join(map(str, STORED_TYPES))}, got {vectors.dtype}")
    if (scale is not None) != (vectors.dtype == torch.int8) or (scale is not None and scale.shape != vectors.shape[:1]):
        raise ValueError(f"vector_scale must be [{len(vectors)}], with int8 vectors alone")
