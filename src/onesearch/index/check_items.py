"""What callers give an index, checked and brought to arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.index.sid_keys import KeyLayout
from onesearch.index.sorted_update import SortedItems

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
    if ranks is not None and not np.isfinite(ranks).all():
        raise ValueError(f"popularity of item {int(np.flatnonzero(~np.isfinite(ranks))[0])} is not a finite number")
    if rows is not None and n:
        if item_rows.min() < 0 or item_rows.max() > _LARGEST_ROW:
            raise ValueError(f"item rows must be 0 to {_LARGEST_ROW}, got {item_rows.min()} to {item_rows.max()}")
        # a row given twice would have two positions
        ordered = np.sort(item_rows)
        if (ordered[1:] == ordered[:-1]).any():
            raise ValueError(f"item row {ordered[1:][ordered[1:] == ordered[:-1]][0]} is given more than once")
    return SortedItems(keys, item_rows.astype(np.int32), ranks), table
