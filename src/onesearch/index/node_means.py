"""The vectors of an index: those of the items, then the mean of each trie node, from the leaves up.

::

    for level = L - 1 .. 0:
        for each stored node n:    mean(n) = Σ over children c of items(c) / items(n) · stored vector of c

The item head scores these means; a node with one item has none of its own but the item's vector.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from onesearch.index.trie import TrieArrays
from onesearch.index.vector_table import CHUNK_ROWS, VectorTable, VectorView, chunks


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
        for part in by_children(last - first):
            _fill_means_of(rows, trie, level, nodes[part], first[part], last[part])


def by_children(children: NDArray[np.integer]) -> Iterator[slice]:
    """Slices of nodes, which have so many ``children`` [n], with about ``CHUNK_ROWS`` children each."""
    ends, begin = np.cumsum(children, dtype=np.int64), 0
    while begin < len(children):
        done = int(ends[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, done + CHUNK_ROWS, side="right")))
        yield slice(begin, stop)
        begin = stop


def write_means(
    table: VectorTable,
    slots: NDArray[np.integer],
    of: NDArray[np.integer],
    shares: NDArray[np.float32],
    offsets: NDArray[np.int64],
) -> None:
    """Write to ``slots`` [C] the means of vectors in the slots ``of`` [n] by their ``shares`` [n].

    ``offsets`` [C] says where those of each mean begin.
    """
    values, device = table.data, table.data.device
    read = torch.from_numpy(of.astype(np.int64)).to(device)
    if values.dtype != torch.float32:  # sums of rounded rows are still sums in float32
        read, values = torch.arange(len(of), device=device), table.read(read)
    weights, begins = torch.from_numpy(shares).to(device), torch.from_numpy(offsets).to(device)
    means = functional.embedding_bag(read, values, begins, mode="sum", per_sample_weights=weights)
    table.write(torch.from_numpy(slots.astype(np.int64)).to(device), means)


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
    to, of = (rows.slots_of(torch.from_numpy(one)).numpy() for one in (places, below))
    write_means(rows.table, to, of, weights, offsets)


def _items_of(trie: TrieArrays, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """How many items lie below the nodes with the given table rows (one, where the row is an item's)."""
    items = np.ones(len(rows), np.int32)
    (stored,) = np.nonzero(rows >= trie.bases[0])
    spans = trie.spans[:, rows[stored] - trie.bases[0]]
    items[stored] = spans[1] - spans[0]
    return items
