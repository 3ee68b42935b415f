"""What an index with changes keeps of the nodes and items that changed: columns of numbers, sorted by SID."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from onesearch.index.check_items import as_numpy
from onesearch.index.sid_index import SidIndex

Ints = NDArray[np.int64]
# What is known of a changed node, two numbers packed in one: first child and count of children (at the last level none:
# items are found by the key); slot of its vector and count of items below it; begin and end of the positions that the
# base has for it; and all codes down to it. Packed, as what a change costs is to copy lists of nodes.
CHILDREN, VECTOR, PLACES, PREFIX = range(4)
LOW = (1 << 32) - 1  # where the second of two numbers is
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
    """The changed nodes of a level, int64 [4, n]; written once, behind those that readers know."""

    def __init__(self, device: torch.device, room: int) -> None:
        """Empty, with room for so many nodes: pages that nothing is written to take no memory."""
        self.array: Ints = np.zeros((4, max(room, _ROOM)), np.int64)
        self._copy = None if device.type == "cpu" else torch.zeros(4, _ROOM, dtype=torch.int64, device=device)
        self.used = 0

    @property
    def tensor(self) -> Tensor:
        """All columns on the index's device; those from ``used`` on mean nothing yet."""
        return torch.from_numpy(self.array) if self._copy is None else self._copy

    @property
    def nbytes(self) -> int:
        """Bytes of the nodes written."""
        return self.array.itemsize * 4 * self.used

    def append(self, n: int, fill: Callable[[Ints], None]) -> tuple[int, Ints]:
        """Room for n nodes behind the others, which ``fill`` writes; the number of the first, and the nodes [4, n]."""
        first, last = self.used, self.used + n
        # Readers keep the arrays that they have.
        if last > self.array.shape[1]:
            wider = np.zeros((4, max(last, 2 * self.array.shape[1])), np.int64)
            wider[:, :first] = self.array[:, :first]
            self.array = wider
        nodes = self.array[:, first:last]
        fill(nodes)
        if self._copy is not None:
            if last > self._copy.shape[1]:
                self._copy = functional.pad(self._copy, (0, max(last - self._copy.shape[1], self._copy.shape[1])))
            self._copy[:, first:last] = torch.from_numpy(nodes).to(self._copy.device)
        self.used = last
        return first, nodes


def places_of(base: SidIndex, level: int, nodes: Ints) -> tuple[Ints, Ints]:
    """The first and the last position (excluded) of nodes [n] of a plain index, int64 [n]."""
    items, trie = base.structure
    # A row below N is an item: a node of one item; the others have a span.
    begin = trie.vector_rows[level][nodes].astype(np.int64)
    end, stored = begin + 1, np.flatnonzero(begin >= len(items))
    begin[stored], end[stored] = trie.spans.take(begin[stored] - len(items), 1)
    return begin, end


def prefixes_of(base: SidIndex, level: int, nodes: Ints) -> Ints:
    """All codes down to nodes [n] of a plain index, packed: int64 [n]."""
    prefixes: Ints = base.structure[0].keys[places_of(base, level, nodes)[0]] >> base._layout.shifts[level]
    return prefixes


def nodes_of(base: SidIndex, level: int, nodes: Ints, out: Ints) -> None:
    """Write to ``out`` [4, n] what is known of nodes [n] of a plain index."""
    items, trie = base.structure
    begin, end = places_of(base, level, nodes)
    rows = torch.from_numpy(trie.vector_rows[level][nodes]).to(base.device)
    slots = as_numpy(base._vectors.slots_of(rows)).astype(np.int64)
    out[VECTOR], out[PLACES] = slots << 32 | end - begin, begin << 32 | end
    out[PREFIX] = items.keys[begin] >> base._layout.shifts[level]
    out[CHILDREN] = 0
    if level + 1 < base.levels:
        first, last = trie.children[level][nodes].astype(np.int64), trie.children[level][nodes + 1]
        out[CHILDREN] = first << 32 | last - first


def joined(numbers: Ints, known: Ints, changed: Ints) -> tuple[Ints, Ints, Ints]:
    """One list of the nodes ``numbers`` [n] with prefixes ``known`` and of those ``changed`` [4, C] that have items.

    Prefixes ascend; a changed node stands in the place of the known one with its prefix. Returned are the numbers of
    the nodes in the m places (any, where a changed one stands), and of the changed ones in the list their places and
    which they are.
    """
    at, was = find(known, changed[PREFIX])
    stays = np.ones(len(known), bool)
    stays[at[was]] = False
    kept, new = np.flatnonzero(stays), np.flatnonzero(changed[VECTOR] & LOW)
    # Before a changed node stand the known ones that stay and the changed ones with items, if of lower prefixes.
    places = at[new] - np.searchsorted(at[was], at[new]) + np.arange(len(new))
    is_kept = np.ones(len(kept) + len(new), bool)
    is_kept[places] = False
    listed = np.full(len(is_kept), numbers[kept[0]] if len(kept) else 0)
    listed[is_kept] = numbers[kept]
    return listed, places, new


def find(values: NDArray[np.integer], wanted: NDArray[np.integer]) -> tuple[Ints, NDArray[np.bool_]]:
    """Where ``wanted`` values [m] stand, or would stand, among ascending ``values``, and which of them are there."""
    at = np.searchsorted(values, wanted)
    if not len(values):
        return at, np.zeros(len(wanted), bool)
    found: NDArray[np.bool_] = values[np.minimum(at, len(values) - 1)] == wanted
    return at, found


def flat_ranges(first: NDArray[np.integer], count: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """The numbers of the ranges that begin at ``first`` and have ``count`` numbers, and whose each is: int64 [n]."""
    count = count.astype(np.int64)
    owner = np.repeat(np.arange(len(count)), count)
    return np.arange(int(count.sum())) + (first - (np.cumsum(count) - count))[owner], owner
