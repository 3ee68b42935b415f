"""What an index with changes keeps of the nodes and items that changed: columns of numbers, sorted by SID."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from onesearch.index.check_items import as_numpy
from onesearch.index.sid_index import SidIndex

Ints = NDArray[np.int64]
# What is known of a changed node: its code, its children (at the last level none: items are found by the key), the slot
# of its vector, how many items lie below it, which positions of the base it had, and all codes down to it, packed.
CODE, FIRST, COUNT, SLOT, ITEMS, BEGIN, END, PREFIX = range(8)
_ROOM = 1024  # nodes that a new table has room for


class Live(NamedTuple):
    """The items of changed leaves in SID order: key int64, row int32, popularity float32, vector slot int32, [m]."""

    keys: Ints
    rows: NDArray[np.int32]
    popularity: NDArray[np.float32]
    slots: NDArray[np.int32]

    @classmethod
    def empty(cls) -> "Live":
        """No items."""
        none = np.zeros(0, np.int32)
        return cls(np.zeros(0, np.int64), none, np.zeros(0, np.float32), none)

    def take(self, places: NDArray[np.integer] | NDArray[np.bool_]) -> "Live":
        """Some of the items."""
        return Live(self.keys[places], self.rows[places], self.popularity[places], self.slots[places])

    def plus(self, other: "Live") -> "Live":
        """With other items behind these."""
        keys, rows = np.concatenate([self.keys, other.keys]), np.concatenate([self.rows, other.rows])
        popularity, slots = (
            np.concatenate([self.popularity, other.popularity]),
            np.concatenate([self.slots, other.slots]),
        )
        return Live(keys, rows, popularity, slots)


class NodeTable:
    """The changed nodes of a level, int64 [8, n]; written once, behind those that readers know."""

    def __init__(self, device: torch.device) -> None:
        self.array: Ints = np.zeros((8, _ROOM), np.int64)
        self._copy = None if device.type == "cpu" else torch.zeros(8, _ROOM, dtype=torch.int64, device=device)
        self.used = 0

    @property
    def tensor(self) -> Tensor:
        """All columns on the index's device; those from ``used`` on mean nothing yet."""
        return torch.from_numpy(self.array) if self._copy is None else self._copy

    def append(self, nodes: Ints) -> int:
        """Write nodes [8, n] behind the others; the number of the first."""
        first, last = self.used, self.used + nodes.shape[1]
        if last > self.array.shape[1]:
            # Readers keep the arrays that they have.
            room = max(last, 2 * self.array.shape[1]) - self.array.shape[1]
            self.array = np.pad(self.array, ((0, 0), (0, room)))
            self._copy = None if self._copy is None else functional.pad(self._copy, (0, room))
        self.array[:, first:last] = nodes
        if self._copy is not None:
            self._copy[:, first:last] = torch.from_numpy(nodes).to(self._copy.device)
        self.used = last
        return first


def nodes_of(base: SidIndex, level: int, nodes: Ints) -> Ints:
    """What is known of nodes of a plain index, [8, n]."""
    items, trie = base.structure
    out = np.zeros((8, len(nodes)), np.int64)
    if not len(nodes):
        return out
    # A row below N is an item: a node of one item; the others have a span.
    rows = trie.vector_rows[level][nodes].astype(np.int64)
    stored = rows >= len(items)
    begin, end = rows.copy(), rows + 1
    begin[stored], end[stored] = trie.spans[:, rows[stored] - len(items)]
    out[CODE], out[BEGIN], out[END], out[ITEMS] = trie.codes[level][nodes], begin, end, end - begin
    out[PREFIX] = items.keys[begin] >> base._layout.shifts[level]
    out[SLOT] = as_numpy(base._vectors.slots_of(torch.from_numpy(rows).to(base.device)))
    if level + 1 < base.levels:
        out[FIRST] = trie.children[level][nodes]
        out[COUNT] = trie.children[level][nodes + 1] - out[FIRST]
    return out


def replaced(nodes: Ints, changed: Ints) -> Ints:
    """Nodes [8, n], with changed ones [8, C] in the place of those with their prefixes; ascending by prefix.

    A changed node without items is left out.
    """
    kept, new = np.flatnonzero(~among(nodes[PREFIX], changed[PREFIX])), np.flatnonzero(changed[ITEMS] > 0)
    order = np.argsort(np.concatenate([nodes[PREFIX, kept], changed[PREFIX, new]]), kind="stable")
    # Two steps of one look-up each: numpy is slow at picking columns of a matrix by a mask.
    place = np.concatenate([kept, nodes.shape[1] + new])[order]
    return np.concatenate([nodes, changed], 1).take(place, 1)


def among(values: NDArray[np.integer], wanted: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which values are among the ascending ``wanted``."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    found: NDArray[np.bool_] = wanted[at] == values
    return found


def flat_ranges(first: NDArray[np.integer], count: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """The numbers of the ranges that begin at ``first`` and have ``count`` numbers, and whose each is: int64 [n]."""
    count = count.astype(np.int64)
    owner = np.repeat(np.arange(len(count)), count)
    return np.arange(int(count.sum())) + (first - (np.cumsum(count) - count))[owner], owner
