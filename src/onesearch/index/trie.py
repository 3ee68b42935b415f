"""The trie of the sorted SIDs as integer arrays.

A node is a range of sorted positions. The nodes of a level are numbered in sorted order, so the children of a node are
consecutive numbers. Per node we keep its code (2 bytes), its first child (4) and the table row of its vector (4).
The vector table holds the N item vectors in sorted order, then one mean vector per *stored* node. A node with one item
is not stored: the row of its vector is the item's position, which is also its range. Level 0 is the exception: all its
nodes are stored, so that the first step of every search reads one slice.

At most 10 bytes per item and level, since a stored node (8 bytes more, for its range) holds at least two items.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onesearch.index.sid_keys import KeyLayout

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class TrieArrays:
    """The arrays of a trie of ``L`` levels over ``N`` sorted positions; level ``l`` has ``n_l`` nodes.

    Attributes:
        codes: per level the code of each node, int16 [n_l].
        children: per level int32 [n_l + 1]; the children of node ``i`` are ``children[l][i]`` to
            ``children[l][i + 1]`` (excluded): nodes of level ``l + 1``, at the last level sorted positions.
        vector_rows: per level the row of each node's vector in the vector table, int32 [n_l].
        bases: the first table row of each level's stored nodes, [L + 1]; the last one is the length of the table.
        spans: first and last (excluded) sorted position of every stored node, int32 [2, stored nodes].
    """

    codes: list[NDArray[np.int16]]
    children: list[Ints]
    vector_rows: list[Ints]
    bases: tuple[int, ...]
    spans: NDArray[np.int32]

    @classmethod
    def from_keys(cls, keys: NDArray[np.int64], layout: KeyLayout) -> "TrieArrays":
        """Build from sorted keys int64 [N]: a few passes over the keys, no loop over nodes."""
        # a node of a level opens where its prefix differs from that of the position before
        n = len(keys)
        change = keys[1:] ^ keys[:-1]
        codes: list[NDArray[np.int16]] = []
        starts: list[Ints] = []
        ranks: list[Ints] = []  # of each position, the number of the node that it lies in, plus one
        for size_bits, shift in zip(layout.bits, layout.shifts, strict=True):
            opens = np.ones(n, bool)
            np.greater_equal(change, 1 << shift, out=opens[1:])  # a bit of this level's prefix changed
            ranks.append(np.cumsum(opens, dtype=np.int32))
            opened = np.flatnonzero(opens)
            starts.append(opened.astype(np.int32))
            codes.append(((keys[opened] >> shift) & ((1 << size_bits) - 1)).astype(np.int16))
        # the first child of a node is the node of the next level that lies at its first position
        children = []
        for level, start in enumerate(starts):
            below = ranks[level + 1][start] - 1 if level + 1 < len(starts) else start
            end = len(starts[level + 1]) if level + 1 < len(starts) else n
            children.append(np.append(below, end).astype(np.int32))
        # table rows: the item's own for a node with one item, else a row behind those of all items and levels before
        vector_rows: list[Ints] = []
        spans, bases = [], [n]
        for level, start in enumerate(starts):
            last = np.append(start[1:], np.int32(n)).astype(np.int32)
            stored = np.flatnonzero(last - start > 1) if level else np.arange(len(start))
            rows = start.copy()
            rows[stored] = bases[-1] + np.arange(len(stored), dtype=np.int32)
            vector_rows.append(rows)
            spans.append(np.stack([start[stored], last[stored]]))
            bases.append(bases[-1] + len(stored))
        return cls(codes, children, vector_rows, tuple(bases), np.concatenate(spans, axis=1))

    def check(self, n: int, table: int, layout: KeyLayout) -> None:
        """Whether these arrays, read from a file, can be a trie over ``n`` positions with a table of ``table`` rows.

        A few passes, as long as the arrays; every later use stays within them if nothing is raised.

        Raises:
            ValueError: type, shape, order or range of an array is not that of a trie.
        """
        bases = self.bases
        if not all(type(base) is int for base in bases) or [n, table] != [*bases[:1], *bases[-1:]]:
            raise ValueError(f"bases must be whole numbers from {n:,} items to {table:,} vectors")
        if len(bases) != layout.levels + 1 or list(bases) != sorted(bases):
            raise ValueError(f"bases must be {layout.levels + 1} numbers that rise")
        for level, size in enumerate(layout.codebook_sizes):
            codes, children, rows = self.codes[level], self.children[level], self.vector_rows[level]
            nodes = len(codes)
            below = len(self.codes[level + 1]) if level + 1 < layout.levels else n
            if codes.dtype != np.int16 or codes.ndim != 1 or ((codes < 0) | (codes >= size)).any():
                raise ValueError(f"codes.{level} must be int16 from 0 to {size - 1}")
            if children.dtype != np.int32 or children.shape != (nodes + 1,):
                raise ValueError(f"children.{level} must be int32 [{nodes + 1}]")
            if children[0] != 0 or children[-1] != below or (np.diff(children) < 1).any():
                raise ValueError(f"children.{level} must rise from 0 to {below}")
            # sorted siblings are what the search of a child relies on
            first = np.zeros(nodes, bool)
            first[self.children[level - 1][:-1] if level else slice(1)] = True
            if ((np.diff(codes) <= 0) & ~first[1:]).any():
                raise ValueError(f"codes.{level} must rise below each node")
            if rows.dtype != np.int32 or rows.shape != (nodes,) or ((rows < 0) | (rows >= table)).any():
                raise ValueError(f"vector_rows.{level} must be int32 [{nodes}] from 0 to {table - 1}")
        spans = self.spans
        if spans.dtype != np.int32 or spans.shape != (2, table - n):
            raise ValueError(f"spans must be int32 [2, {table - n}]")
        if (spans[0] < 0).any() or (spans[1] > n).any() or (spans[0] >= spans[1]).any():
            raise ValueError(f"spans must be ranges of the {n} sorted positions")


def keys_of(codes: list[NDArray[np.int16]], children: list[Ints], layout: KeyLayout) -> NDArray[np.int64]:
    """The sorted keys int64 [N] of a trie: what :meth:`TrieArrays.from_keys` was built from."""
    keys = np.zeros(1, np.int64)
    counts: NDArray[np.integer] = np.array([len(codes[0])])
    for level, bits in enumerate(layout.bits):
        keys = (np.repeat(keys, counts) << bits) | codes[level].astype(np.int64)
        counts = np.diff(children[level])
    return np.repeat(keys, counts)
