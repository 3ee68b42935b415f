"""Items that came and went put into an index by merging sorted arrays; only means of touched nodes are computed anew.

::

    left  = old items without the removed ones            # still sorted
    new   = added items, sorted
    items = merge(left, new)                              # by binary search of each new item in left
    trie  = built from the merged keys                    # a few passes over integers
    vectors: old ones stay in their slots, new ones are written, means on the way to a removed or added item recomputed

The result is bit-equal to an index built from scratch.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.index.node_means import fill_items, fill_means
from onesearch.index.sid_keys import KeyLayout, sorted_order
from onesearch.index.trie import TrieArrays
from onesearch.index.vector_table import Precision, VectorView

_Number = TypeVar("_Number", np.int32, np.int64, np.float32)


@dataclass(frozen=True)
class SortedItems:
    """Items in SID order: keys int64 [N], item rows int32 [N], popularity float32 [N] or None."""

    keys: NDArray[np.int64]
    rows: NDArray[np.int32]
    popularity: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, places: NDArray[np.integer]) -> "SortedItems":
        """The items at the given places, in that order."""
        popularity = None if self.popularity is None else self.popularity[places]
        return SortedItems(self.keys[places], self.rows[places], popularity)

    def order(self) -> NDArray[np.int64]:
        """The order that sorts these items by SID, then popularity (highest first), then row."""
        return sorted_order(self.keys, self.popularity, self.rows)


@dataclass(frozen=True)
class IndexArrays:
    """All of an index: its sorted items, their trie and the vectors of both."""

    items: SortedItems
    trie: TrieArrays
    vectors: VectorView


def build(items: SortedItems, vectors: Tensor, layout: KeyLayout, precision: Precision) -> IndexArrays:
    """Sort the items and build trie and table; ``vectors`` float [N, R] are in the order of ``items``."""
    order = items.order()
    items = items.take(order)
    trie = TrieArrays.from_keys(items.keys, layout)
    filled = VectorView.empty(trie.bases[-1], vectors.shape[1], precision)
    fill_items(filled, vectors, torch.from_numpy(order))
    fill_means(filled, trie, [np.ones(n, bool) for n in np.diff(trie.bases)])
    return IndexArrays(items, trie, filled)


def splice(
    old: IndexArrays,
    removed: NDArray[np.int64],
    added: SortedItems,
    data: Tensor,
    scale: Tensor | None,
    layout: KeyLayout,
) -> IndexArrays:
    """New arrays without the sorted positions ``removed`` [m] and with the items ``added``.

    Vectors of added items come as they are stored: ``data`` [k, R], and ``scale`` [k] for int8.
    """
    # 1. what stays, what comes, and where both stand in the merged order of n items
    keep = np.ones(len(old.items), bool)
    keep[removed] = False
    (kept,) = np.nonzero(keep)
    order = added.order()
    new = added.take(order)
    left = old.items.take(kept) if len(removed) else old.items
    places = _merge_places(left, new)
    n = len(left) + len(new)
    is_new = np.zeros(n, bool)
    is_new[places] = True
    stay = np.flatnonzero(~is_new)
    items = SortedItems(
        _merged(left.keys, new.keys, stay, places),
        _merged(left.rows, new.rows, stay, places),
        None
        if left.popularity is None or new.popularity is None
        else _merged(left.popularity, new.popularity, stay, places),
    )
    # 2. the new trie; `source` says of each of its vector rows which old one it is, -1 for those to be written
    trie = TrieArrays.from_keys(items.keys, layout)
    source = np.full(trie.bases[-1], -1, np.int64)  # the old vector row of each new one
    source[stay] = kept
    # 3. nodes on a path that changed get new means; all others keep theirs
    touched = np.unique(np.concatenate([old.items.keys[removed], new.keys]))
    stale = []
    for level, shift in enumerate(layout.shifts):
        prefixes = touched >> shift
        before = _on_changed_path(old.items.keys, old.trie, level, prefixes, shift)
        after = _on_changed_path(items.keys, trie, level, prefixes, shift)
        # untouched nodes are the same, and in the same order, before and after
        source[trie.bases[level] + np.flatnonzero(~after)] = old.trie.bases[level] + np.flatnonzero(~before)
        stale.append(after)
    filled = old.vectors.rearranged(torch.from_numpy(source))
    chosen = torch.from_numpy(order)
    filled.write_stored(torch.from_numpy(places), data[chosen], None if scale is None else scale[chosen])
    fill_means(filled, trie, stale)
    return IndexArrays(items, trie, filled)


def _merge_places(left: SortedItems, new: SortedItems) -> NDArray[np.int64]:
    """Where the sorted items ``new`` come to stand in the merged order, int64 [k]."""
    # after all old items with a smaller or equal key, unless the key is shared
    low = np.searchsorted(left.keys, new.keys, side="left")
    high = np.searchsorted(left.keys, new.keys, side="right")
    at = high.copy()
    (tied,) = np.nonzero(high > low)
    if len(tied):  # old items of the same SID: find the place among them by popularity, then row
        lengths = high[tied] - low[tied]
        owner = np.repeat(tied, lengths)
        offsets = np.cumsum(lengths) - lengths
        old = np.arange(int(lengths.sum())) + np.repeat(low[tied] - offsets, lengths)
        first = left.rows[old] < new.rows[owner]
        if left.popularity is not None and new.popularity is not None:
            of_new, of_old = new.popularity[owner], left.popularity[old]
            first = (of_old > of_new) | ((of_old == of_new) & first)
        at[tied] = low[tied] + np.add.reduceat(first, offsets, dtype=np.int64)
    return at + np.arange(len(new))


def _on_changed_path(
    keys: NDArray[np.int64], trie: TrieArrays, level: int, prefixes: NDArray[np.int64], shift: int
) -> NDArray[np.bool_]:
    """Which stored nodes of a level have one of the sorted prefixes, bool [stored nodes]."""
    first = trie.spans[0, trie.bases[level] - trie.bases[0] : trie.bases[level + 1] - trie.bases[0]]
    nodes = keys[first] >> shift
    touched = np.zeros(len(nodes), bool)
    if len(nodes):
        place = np.minimum(np.searchsorted(nodes, prefixes), len(nodes) - 1)
        touched[place[nodes[place] == prefixes]] = True
    return touched


def _merged(
    left: NDArray[_Number], new: NDArray[_Number], stay: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[_Number]:
    """One array with ``left`` at ``stay`` and ``new`` at ``places``."""
    out = np.empty(len(left) + len(new), left.dtype)
    out[stay], out[places] = left, new
    return out
