"""The vectors of an index: those of the items, then the mean of each trie node, from the leaves up.

::

    for level = L - 1 .. 0:
        for each stored node n:    mean(n) = Σ over children c of items(c) / items(n) · stored vector of c

The item head scores these means; a node with one item has none of its own but the item's vector.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from onesearch.index.trie import TrieArrays
from onesearch.index.vector_table import CHUNK_ROWS, VectorView, chunks


def fill_items(rows: VectorView, vectors: Tensor, order: Tensor) -> None:
    """Write the item vectors ``vectors[order]`` to the first rows, in sorted order."""
    for part in chunks(len(order)):
        rows.write(part, vectors.index_select(0, order[part].to(vectors.device)).cpu().float())


def fill_means(rows: VectorView, trie: TrieArrays, stale: list[NDArray[np.bool_]]) -> None:
    """Compute the mean vectors of the stored nodes marked ``stale`` (per level, bool [stored nodes of the level]).

    Bottom-up: a mean is the weighted mean of the children's *stored* vectors, so a node updated after items came or
    went is bit-equal to the one of an index built from scratch.
    """
    for level in reversed(range(len(trie.codes))):
        # children of the stale nodes, in the level below (at the last level: sorted positions)
        base = trie.bases[level]
        nodes = np.flatnonzero(trie.vector_rows[level] >= base)[stale[level]]
        first, last = trie.children[level][nodes], trie.children[level][nodes + 1]
        ends = np.cumsum(last - first, dtype=np.int64)
        begin = 0
        while begin < len(nodes):  # as many nodes at a time as have about CHUNK_ROWS children
            done = int(ends[begin - 1]) if begin else 0
            stop = max(begin + 1, int(np.searchsorted(ends, done + CHUNK_ROWS, side="right")))
            part = slice(begin, stop)
            _fill_means_of(rows, trie, level, nodes[part], first[part], last[part])
            begin = stop


def _fill_means_of(
    rows: VectorView,
    trie: TrieArrays,
    level: int,
    nodes: NDArray[np.int64],
    first: NDArray[np.int32],
    last: NDArray[np.int32],
) -> None:
    """Means of some stored nodes whose children are ``first`` to ``last`` (excluded)."""
    # the table rows of all children, node after node: [children]
    lengths = (last - first).astype(np.int64)
    offsets = np.cumsum(lengths) - lengths
    below = np.arange(int(lengths.sum())) + np.repeat(first - offsets, lengths)
    if level + 1 < len(trie.codes):
        below = trie.vector_rows[level + 1][below].astype(np.int64)
    # each child weighs by its share of the node's items
    places = trie.vector_rows[level][nodes].astype(np.int64)
    weights = _items_of(trie, below).astype(np.float32)
    weights /= np.repeat(_items_of(trie, places).astype(np.float32), lengths)
    slots, values = rows.slots_of(torch.from_numpy(below)).long(), rows.table.data
    if values.dtype != torch.float32:  # sums of rounded rows are still sums in float32
        slots, values = torch.arange(len(below)), rows.read(torch.from_numpy(below))
    means = functional.embedding_bag(
        slots, values, torch.from_numpy(offsets), mode="sum", per_sample_weights=torch.from_numpy(weights)
    )
    rows.write(torch.from_numpy(places), means)


def _items_of(trie: TrieArrays, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """How many items lie below the nodes with the given table rows (one, where the row is an item's)."""
    items = np.ones(len(rows), np.int32)
    (stored,) = np.nonzero(rows >= trie.bases[0])
    spans = trie.spans[:, rows[stored] - trie.bases[0]]
    items[stored] = spans[1] - spans[0]
    return items
