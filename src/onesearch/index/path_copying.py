"""A change of items in an index by path copying: what leads to changed leaves is written anew, all else is shared.

A change copies the lists of children on the way from its items to the root, and nothing else::

    for every changed leaf:        list its items anew, without those that left, with those that came
    for level = L - 1 .. 1:
        for every changed node:    count its items; mean of its children's vectors, as :mod:`onesearch.index.node_means`
        for every parent of one:   copy its list of children to the end of the table, changed ones in their places
    level 0:                       copied as a whole: it is short

:class:`onesearch.index.changed_index.ChangedIndex` answers searches from what this writes.
"""

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.index.changed_nodes import (
    CHILDREN,
    LOW,
    PLACES,
    PREFIX,
    VECTOR,
    Ints,
    Live,
    NodeTable,
    find,
    flat_ranges,
    joined,
    nodes_of,
    prefixes_of,
)
from onesearch.index.check_items import as_numpy
from onesearch.index.node_means import by_children, write_means
from onesearch.index.sid_index import SidIndex
from onesearch.index.sorted_update import SortedItems


@dataclass
class SharedTables:
    """What all versions on one base share: the tables of the levels (level 0 has none), and a lock for writers."""

    tables: list[NodeTable]
    lock: threading.Lock = field(default_factory=threading.Lock)


class IndexVersion(NamedTuple):
    """A base index with the changes made on it so far.

    Attributes:
        base: the index without any.
        shared: its tables, with the nodes that changed.
        root: all nodes of level 0, int64 [4, n], each as a table has it.
        live: the items of changed leaves.
        alive: packed bits over the base's positions, int64: those outside changed leaves.
        max_children: per level the largest number of children that a node of the level above has.
    """

    base: SidIndex
    shared: SharedTables
    root: Ints
    live: Live
    alive: Ints
    max_children: tuple[int, ...]


class TableFullError(Exception):
    """The vector table has no free slot left."""


class _Way(NamedTuple):
    """The nodes of a level on the way to changed leaves: their prefixes int64 [C], ascending; what the version before
    knows of them [4, C], 0 where there is no such node; and the numbers and prefixes of all their children [n],
    ascending.
    """

    level: int
    prefix: Ints
    nodes: Ints
    children: Ints
    below: Ints


class Change:
    """One change under way: from a version to the next."""

    def __init__(
        self, old: IndexVersion, gone: NDArray[np.int32], left: Ints, added: SortedItems, vectors: Tensor
    ) -> None:
        """Writes the vectors.

        Args:
            old: the version before.
            gone: rows of its items that leave, [g].
            left: the packed SIDs that these have, [g].
            added: items that come, [k]; those that take the place of others are in ``gone``, too.
            vectors: theirs, [k, R].

        Raises:
            TableFullError: as :meth:`version`.
        """
        self.old, self.layout, self.table = old, old.base._layout, old.base.table
        self.sizes = [old.base.size(level) for level in range(old.base.levels)]
        slots = self._reserve(len(added))
        self.table.write(torch.from_numpy(slots), vectors.to(self.table.data.device).float())
        popularity = np.zeros(len(added), np.float32) if added.popularity is None else added.popularity
        self.gone, self.left = gone, left
        self.new = Live(added.keys, added.rows, popularity, slots.astype(np.int32))

    def version(self) -> IndexVersion:
        """The next version; in comments T changed leaves, C changed nodes of a level.

        Raises:
            TableFullError: there is no room for all vectors; the version before is as it was.
        """
        old, last = self.old, self.layout.levels - 1
        # Leaves that items leave or come to, by their key [T]; what stands on the way to them; and their items now.
        keys = np.unique(np.concatenate([self.left, self.new.keys]))
        ways = self._ways(keys)
        live, alive = self._relisted(keys)
        # The leaves: their items are a range of the live ones.
        first = np.searchsorted(live.keys, keys)
        items = np.searchsorted(live.keys, keys, side="right") - first
        slots, ones = live.slots.astype(np.int64), np.ones(len(live.slots), np.int64)
        vectors = self._vectors(last, items, first, items, slots, ones)
        changed = np.stack([np.zeros_like(keys), vectors << 32 | items, ways[last].nodes[PLACES], keys])
        # Upwards: the children of a level's changed nodes are written behind the table of the level below.
        widest = list(old.max_children)
        for level in reversed(range(last)):
            changed, most = self._parents(ways[level], changed)
            widest[level + 1] = max(widest[level + 1], most)
        nodes, places, new = joined(np.arange(old.root.shape[1]), old.root[PREFIX], changed)
        root = np.empty((4, len(nodes)), np.int64)
        self._list(0, nodes, places, changed[:, new], root)
        widest[0] = max(widest[0], root.shape[1])
        return IndexVersion(old.base, old.shared, root, live, alive, tuple(widest))

    def _ways(self, keys: Ints) -> list[_Way]:
        """What stands at each level on the way to packed SIDs [T], ascending."""
        out = []
        numbers, prefixes = np.arange(self.old.root.shape[1]), self.old.root[PREFIX]
        for level, shift in enumerate(self.layout.shifts):
            prefix = np.unique(keys >> shift)
            # Which of the level's known nodes, ascending by prefix, are on the way.
            at, was = find(prefixes, prefix)
            on_way = numbers[at[was]]
            nodes = np.zeros((4, len(prefix)), np.int64)
            nodes[:, was] = self._nodes_at(level, on_way, np.empty((4, len(on_way)), np.int64))
            # All children of those.
            numbers, _ = flat_ranges(nodes[CHILDREN] >> 32, nodes[CHILDREN] & LOW)
            if level + 1 < self.layout.levels:
                prefixes = self._prefixes(level + 1, numbers)
            out.append(_Way(level, prefix, nodes, numbers, prefixes))
        return out

    def _prefixes(self, level: int, nodes: Ints) -> Ints:
        """The prefixes of nodes [n] of a level below the root's, as the version before has them."""
        old, begin = self.old, self.sizes[level]
        out: Ints = old.shared.tables[level].array[PREFIX].take(nodes - begin, mode="clip")
        of_base = np.flatnonzero(nodes < begin)
        out[of_base] = prefixes_of(old.base, level, nodes[of_base])
        return out

    def _relisted(self, keys: Ints) -> tuple[Live, Ints]:
        """The items of changed leaves after the change, and the bits of the base's positions that stay as they are."""
        old, live, base = self.old, self.old.live, self.old.base.structure[0]
        # What the leaves hold now: live items, and positions of the base that are still alive.
        is_touched = find(keys, live.keys)[1]
        first = np.searchsorted(base.keys, keys)
        places, _ = flat_ranges(first, np.searchsorted(base.keys, keys, side="right") - first)
        bit = np.int64(1) << (places & 63)
        standing = places[(old.alive[places >> 6] & bit) != 0]
        popularity = np.zeros(len(standing), np.float32) if base.popularity is None else base.popularity[standing]
        slots = as_numpy(old.base.item_slots(torch.from_numpy(standing).to(old.base.device))).astype(np.int32)
        held = live.take(is_touched).plus(Live(base.keys[standing], base.rows[standing], popularity, slots))
        held = held.take(~find(np.sort(self.gone), held.rows)[1]).plus(self.new)
        # Each leaf by popularity, then row; and all leaves by key, where two sorted lists are put together.
        held = held.take(np.lexsort((held.rows, -held.popularity, held.keys)))
        every = live.take(~is_touched).plus(held)
        alive = old.alive.copy()
        np.bitwise_and.at(alive, places >> 6, ~bit)
        return every.take(np.argsort(every.keys, kind="stable")), alive

    def _parents(self, way: _Way, changed: Ints) -> tuple[Ints, int]:
        """The changed nodes [4, C] of a level from those of the level below, and the most children that one has."""
        old, below = self.old, way.level + 1
        # Their children [4, n]: those that did not change, as they stand, and those that did and have items left.
        nodes, places, new = joined(way.children, way.below, changed)
        fill = partial(self._list, below, nodes, places, changed[:, new])
        begin, children = old.shared.tables[below].append(len(nodes), fill)
        above = children[PREFIX] >> self.layout.bits[below]
        first = np.searchsorted(above, way.prefix)
        count = np.searchsorted(above, way.prefix, side="right") - first
        # Items below them, and the means of their vectors.
        slots, weights = children[VECTOR] >> 32, children[VECTOR] & LOW
        sums = np.append(0, np.cumsum(weights))
        items = sums[first + count] - sums[first]
        vectors = self._vectors(way.level, items, first, count, slots, weights)
        ranges = self.sizes[below] + begin + first << 32 | count
        return np.stack([ranges, vectors << 32 | items, way.nodes[PLACES], way.prefix]), int(count.max(initial=0))

    def _list(self, level: int, nodes: Ints, places: Ints, changed: Ints, out: Ints) -> None:
        """Write to ``out`` [4, n] nodes [n] of the version before, but at ``places`` [C] the changed ones [4, C]."""
        if len(places) < len(nodes):
            self._nodes_at(level, nodes, out)
        out[:, places] = changed

    def _nodes_at(self, level: int, nodes: Ints, out: Ints) -> Ints:
        """What the version before knows of nodes [n] of a level, written to ``out`` [4, n]."""
        old, table = self.old, self.old.shared.tables[level].array if level else self.old.root
        begin = self.sizes[level] if level else 0
        of_base = np.flatnonzero(nodes < begin)
        if len(of_base) == len(nodes):
            nodes_of(old.base, level, nodes, out)
            return out
        # Those of the base get anything first. By column, and clipped, as numpy would fill a copy otherwise.
        at = nodes - begin
        for column, known in zip(out, table, strict=True):
            np.take(known, at, out=column, mode="clip")
        if len(of_base):
            found = np.empty((4, len(of_base)), np.int64)
            nodes_of(old.base, level, nodes[of_base], found)
            for column, values in zip(out, found, strict=True):
                column[of_base] = values
        return out

    def _vectors(self, level: int, items: Ints, first: Ints, count: Ints, slots: Ints, weights: Ints) -> Ints:
        """Slots of the vectors of C changed nodes, whose children are ranges of ``slots`` [n] with ``weights`` items.

        A node of one item has that item's vector, but at level 0, where every node has a mean of its own.
        """
        out = np.zeros(len(items), np.int64)
        own = (items == 1) & (level > 0)
        out[own] = slots[first[own]]
        means = np.flatnonzero((items > 0) & ~own)
        out[means] = self._reserve(len(means))
        for part in (means[one] for one in by_children(count[means])):
            places, owner = flat_ranges(first[part], count[part])
            shares = weights[places].astype(np.float32) / items[part].astype(np.float32)[owner]
            write_means(self.table, out[part], slots[places], shares, np.cumsum(count[part]) - count[part])
        return out

    def _reserve(self, n: int) -> Ints:
        """Fresh slots, int64 [n]."""
        first = self.table.reserve(n)
        if first is None:
            raise TableFullError
        return np.arange(first, first + n)
