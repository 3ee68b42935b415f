"""A catalogue that lives: an index with changes on top of it, each of which costs what it changes.

The base index never moves. Beside it stand the nodes whose items changed, in tables that only grow, and the items of
changed leaves, sorted; :mod:`onesearch.index.path_copying` writes both. A node number below the base's size of the
level is a node of the base, below which nothing has changed; others stand in the table. Positions are the base's and,
behind them from a whole word of bits on, those of the items of changed leaves. A reader keeps its version, as tables
grow behind the numbers that it knows. :meth:`ChangedIndex.merged` is the plain index of all items, bit-equal to one
built anew; changes then start from nothing again.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.index.bits import RankedBits, pack, take
from onesearch.index.changed_nodes import CHILDREN, LOW, PLACES, PREFIX, VECTOR, Live, NodeTable, nodes_of
from onesearch.index.check_items import as_numpy, check_items
from onesearch.index.path_copying import Change, IndexVersion, SharedTables, TableFullError
from onesearch.index.sid_index import IndexBytes, SidIndex
from onesearch.index.sorted_update import IndexArrays, SortedItems, splice


class ChangedIndex(SidIndex):
    """An index with changes; answers as an index built anew, but for the numbers of nodes and positions."""

    def __init__(self, version: IndexVersion) -> None:
        """Use :meth:`over`."""
        base, live, root = version.base, version.live, version.root
        self._layout, self.levels, self.codebook_sizes = base._layout, base.levels, base.codebook_sizes
        self._version, self._base, self._live = version, base, live
        self._vectors, self.max_children = base._vectors, version.max_children
        self._count = int((root[VECTOR] & LOW).sum())
        self._live_begins = 64 * len(version.alive)
        self._sizes = [base.size(level) for level in range(base.levels)]
        self._used = [table.used for table in version.shared.tables]
        # The same on the index's device; an entry more than there are, so that there is one to read.
        device = base.device
        self._tables = [torch.from_numpy(np.pad(root, ((0, 0), (0, 1)))).to(device)]
        self._tables += [table.tensor for table in version.shared.tables[1:]]
        self._alive_words = torch.from_numpy(version.alive).to(device)
        self._live_keys = torch.from_numpy(np.append(live.keys, np.int64(0))).to(device)
        self._live_rows = torch.from_numpy(np.append(live.rows, np.int32(-1))).to(device)
        self._live_slots = torch.from_numpy(np.append(live.slots, np.int32(0))).to(device)
        self._first_blocks: dict[torch.dtype, Tensor] = {}

    @classmethod
    def over(cls, base: SidIndex) -> "ChangedIndex":
        """A base with no changes yet; its vectors get room for those that come."""
        if base._vectors.table.used == len(base._vectors.table.data):
            roomy = SidIndex(IndexArrays(*base.structure, base._vectors.with_room()), base._layout, base.device)
            roomy.numbering, base = base.numbering, roomy
        # About as many nodes as there are items may change before a merge: so far tables need not grow.
        shared = SharedTables([NodeTable(base.device, len(base)) for _ in range(base.levels)])
        every = as_numpy(pack(np.ones(len(base), bool)))
        root = np.zeros((4, base.size(0)), np.int64)
        nodes_of(base, 0, np.arange(base.size(0)), root)
        return cls(IndexVersion(base, shared, root, Live.empty(), every, base.max_children))

    # -- changes -------------------------------------------------------------------------------------------------

    def add(
        self,
        sids: NDArray[np.integer] | Tensor,
        vectors: NDArray[np.floating] | Tensor,
        rows: NDArray[np.integer] | Tensor,
        popularity: NDArray[np.floating] | Tensor | None = None,
    ) -> "ChangedIndex":
        """A version with k more items; shapes as in :meth:`SidIndex.build`. Popularity is 0 if not given.

        Raises:
            ValueError: an item row is already in the index (use :meth:`upsert` to replace it).
        """
        known = self._known(as_numpy(rows))
        if known.any():
            rows = as_numpy(rows)[known][:5].tolist()
            raise ValueError(f"item rows {rows} are already in the index; use upsert()")
        return self.upsert(sids, vectors, rows, popularity)

    def upsert(
        self,
        sids: NDArray[np.integer] | Tensor,
        vectors: NDArray[np.floating] | Tensor,
        rows: NDArray[np.integer] | Tensor,
        popularity: NDArray[np.floating] | Tensor | None = None,
    ) -> "ChangedIndex":
        """As :meth:`add`, but items already in the index are replaced."""
        if popularity is not None and not self._has_popularity:
            raise ValueError("this index was built without popularity; leave it out")
        items, table = check_items(self._layout, sids, vectors, popularity, rows)
        if table.shape[1] != self.dimension:
            raise ValueError(f"vectors have {table.shape[1]} dimensions, but the index has {self.dimension}")
        return self._changed(items.rows[self._known(items.rows)], items, table)

    def remove(self, rows: NDArray[np.integer] | Tensor | Sequence[int]) -> "ChangedIndex":
        """A version without the items of the given rows.

        Raises:
            ValueError: an item row is not in the index.
        """
        gone = np.unique(as_numpy(rows)).astype(np.int32)
        known = self._known(gone)
        if not known.all():
            raise ValueError(f"item rows {gone[~known][:5].tolist()} are not in the index; nothing was removed")
        nothing = SortedItems(np.zeros(0, np.int64), np.zeros(0, np.int32), None)
        return self._changed(gone, nothing, torch.zeros(0, self.dimension))

    def merged(self, room: int = 0) -> SidIndex:
        """The plain index of all items; its vectors move to a table of their own if it shall have ``room`` for more."""
        base, live = self._base, self._live
        # Items of changed leaves that are as the base has them stay where they are.
        of_base = as_numpy(base.position_of(torch.from_numpy(live.rows).to(self.device)))
        there = np.flatnonzero(of_base >= 0)
        if len(there):
            at = torch.from_numpy(of_base[there]).to(self.device)
            there = there[as_numpy(base.item_slots(at)) == live.slots[there]]
        gone = ~np.unpackbits(self._version.alive.view(np.uint8), count=len(base), bitorder="little").astype(bool)
        gone[of_base[there]] = False
        new = live.take(np.setdiff1d(np.arange(len(live.keys)), there))
        # Vectors of the others move as they are stored.
        slots, table = torch.from_numpy(new.slots).to(self.device), self.table
        data = table.data.index_select(0, slots).cpu()
        scale = None if table.scale is None else table.scale.index_select(0, slots).cpu()
        items = SortedItems(new.keys, new.rows, new.popularity if self._has_popularity else None)
        arrays = splice(base._arrays(), np.flatnonzero(gone), items, data, scale, self._layout)
        if room:
            arrays = IndexArrays(arrays.items, arrays.trie, arrays.vectors.with_room(room))
        return SidIndex(arrays, self._layout, self.device)

    def _changed(self, gone: NDArray[np.int32], added: SortedItems, vectors: Tensor) -> "ChangedIndex":
        """A version without the rows ``gone`` and with the items ``added``, vectors [k, R]."""
        left = as_numpy(self.keys_at(self.position_of(torch.from_numpy(gone.astype(np.int64)).to(self.device))))
        with self._version.shared.lock:
            try:
                return ChangedIndex(Change(self._version, gone, left, added, vectors).version())
            except TableFullError:
                pass
        # Slots given out by the attempt are lost with the table. A change needs one for each item and node at most.
        room = (len(gone) + len(added)) * (self.levels + 1)
        return ChangedIndex.over(self.merged(room))._changed(gone, added, vectors)

    @property
    def changes(self) -> int:
        """What a merge would have to do: items of changed leaves, and base positions in whose place they are."""
        return len(self._live.keys) + len(self._base) - RankedBits.from_words(self._alive_words).count

    @property
    def written(self) -> int:
        """Nodes that changes have written to the tables, those of earlier versions included."""
        return sum(self._used)

    # -- what the search asks ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self._base.device

    def size(self, level: int) -> int:
        """Number of nodes of level 0; for other levels a bound that all node numbers are below."""
        return self._version.root.shape[1] if level == 0 else self._sizes[level] + self._used[level]

    def children(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`SidIndex.children`."""
        if level == 0:
            first = torch.zeros_like(nodes)
            return first, torch.full_like(first, self.size(0))
        both = self._pick(level - 1, CHILDREN, nodes, lambda at: _packed(self._base.children(level, at)))
        return both >> 32, (both & LOW).masked_fill(nodes < 0, 0)

    def codes(self, level: int, nodes: Tensor) -> Tensor:
        """As :meth:`SidIndex.codes`."""
        prefix = self._pick(level, PREFIX, nodes, lambda at: self._base.codes(level, at))
        return prefix & ((1 << self._layout.bits[level]) - 1)

    def counts(self, level: int, nodes: Tensor) -> Tensor:
        """As :meth:`SidIndex.counts`."""
        return self._pick(level, VECTOR, nodes, lambda at: self._base.counts(level, at)) & LOW

    def vectors(self, level: int, nodes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As :meth:`SidIndex.vectors`."""
        return self.table.read(self.vector_rows(level, nodes).reshape(-1), dtype).view(*nodes.shape, -1)

    def vector_rows(self, level: int, nodes: Tensor) -> Tensor:
        """As :meth:`SidIndex.vector_rows`."""
        slot = self._pick(level, VECTOR, nodes, lambda at: self._base.vector_rows(level, at).long() << 32) >> 32
        return slot.int()

    def vector_block(self, level: int, first: int, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """As :meth:`SidIndex.vector_block`."""
        if level:
            return self.vectors(level, torch.arange(first, first + count, device=self.device), dtype)
        if dtype not in self._first_blocks:
            self._first_blocks[dtype] = self.table.read(self._tables[0][VECTOR, :-1] >> 32, dtype)
        return self._first_blocks[dtype][first : first + count]

    def item_vectors(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As :meth:`SidIndex.item_vectors`."""
        return self.table.read(self.item_slots(positions).reshape(-1), dtype).view(*positions.shape, -1)

    def item_slots(self, positions: Tensor) -> Tensor:
        """As :meth:`SidIndex.item_slots`."""
        return self._pick_item(positions, self._live_slots, lambda at: self._base.item_slots(at).int())

    def item_rows(self, positions: Tensor) -> Tensor:
        """As :meth:`SidIndex.item_rows`."""
        return self._pick_item(positions, self._live_rows, lambda at: self._base.item_rows(at).int()).long()

    def positions(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`SidIndex.positions`, of nodes of the last level alone.

        Raises:
            ValueError: another level, whose items may lie in two ranges (:meth:`ranges`).
        """
        if level != self.levels - 1:
            raise ValueError("the items below a node of an upper level lie in two ranges: use ranges()")
        of_base, of_live = self.ranges(level, nodes)
        # A leaf has all its items in one of the two.
        in_base = (of_base[1] > of_base[0]) & self.present(of_base[0])
        return torch.where(in_base, of_base[0], of_live[0]), torch.where(in_base, of_base[1], of_live[1])

    def ranges(self, level: int, nodes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """As :meth:`SidIndex.ranges`: in the base, where some are no longer ``present``, and of changed leaves."""
        both = self._pick(level, PLACES, nodes, lambda at: _packed(self._base.positions(level, at)))
        # Items of changed leaves are those whose key begins with the node's prefix; a node of the base has none.
        shift = self._layout.shifts[level]
        lowest = self._pick(level, PREFIX, nodes, torch.zeros_like) << shift
        low = torch.searchsorted(self._live_keys[:-1], lowest) + self._live_begins
        high = torch.searchsorted(self._live_keys[:-1], lowest | ((1 << shift) - 1), right=True) + self._live_begins
        if level:
            high = torch.where(nodes < self._sizes[level], low, high)
        return [(both >> 32, both & LOW), (low, high)]

    def present(self, positions: Tensor) -> Tensor:
        """As :meth:`SidIndex.present`: positions of the base whose leaf has changed hold nothing."""
        at = positions.clamp(min=0, max=self._live_begins - 1)
        inside = (take(self._alive_words, at >> 6) >> (at & 63)) & 1
        return inside.bool() | (positions >= self._live_begins)

    @property
    def base(self) -> SidIndex:
        """As :meth:`SidIndex.base`."""
        return self._base

    @property
    def live_rows(self) -> NDArray[np.int32]:
        """As :meth:`SidIndex.live_rows`: the items of changed leaves."""
        return self._live.rows

    def position_bits(self, of_base: Tensor, of_live: Tensor) -> Tensor:
        """As :meth:`SidIndex.position_bits`."""
        return torch.cat([of_base & self._alive_words, of_live])

    # -- from items and SIDs to nodes ----------------------------------------------------------------------------

    def position_of(self, item_rows: Tensor) -> Tensor:
        """As :meth:`SidIndex.position_of`."""
        of_base = self._base.position_of(item_rows)
        of_base = of_base.masked_fill((of_base < 0) | ~self.present(of_base), -1)
        rows, place = self._live_by_row
        if not len(rows):
            return of_base
        wanted = item_rows.int()
        at = torch.searchsorted(rows, wanted).clamp(max=len(rows) - 1)
        return torch.where(take(rows, at) == wanted, take(place, at) + self._live_begins, of_base)

    @cached_property
    def _live_by_row(self) -> tuple[Tensor, Tensor]:
        """Rows of the items of changed leaves, ascending, and the place of each among them."""
        order = np.argsort(self._live.rows, kind="stable")
        return torch.from_numpy(self._live.rows[order]).to(self.device), torch.from_numpy(order).to(self.device)

    def path(self, item_rows: Tensor) -> Tensor:
        """As :meth:`SidIndex.path`."""
        position = self.position_of(item_rows)
        return self._down(self.keys_at(position)).masked_fill_((position < 0)[:, None], -1)

    def keys_at(self, positions: Tensor) -> Tensor:
        """The packed SIDs of the items at positions, int64."""
        return self._pick_item(positions, self._live_keys, lambda at: take(self._base.position_keys, at))

    def _down(self, keys: Tensor) -> Tensor:
        """The nodes on the way down to packed SIDs [n]: int64 [n, L], -1 from the first that there is not."""
        nodes, path = torch.zeros_like(keys), []
        for level, (bits, shift) in enumerate(zip(self._layout.bits, self._layout.shifts, strict=True)):
            nodes = self._child_with(level, nodes, (keys >> shift) & ((1 << bits) - 1))
            path.append(nodes)
        return torch.stack(path, 1)

    def sids(self, level: int, nodes: Tensor) -> Tensor:
        """As :meth:`SidIndex.sids`."""
        bits = self._layout.bits[: level + 1]
        shifts = [shift - self._layout.shifts[level] for shift in self._layout.shifts[: level + 1]]
        prefix = self.order_of(level, nodes)
        return torch.stack([(prefix >> shift) & ((1 << b) - 1) for b, shift in zip(bits, shifts, strict=True)], -1)

    def order_of(self, level: int, nodes: Tensor) -> Tensor:
        """As :meth:`SidIndex.order_of`: the codes down to each node, packed."""

        def of_base(at: Tensor) -> Tensor:
            return take(self._base.position_keys, self._base.positions(level, at)[0]) >> self._layout.shifts[level]

        return self._pick(level, PREFIX, nodes, of_base)

    def prefixes(self, level: int, nodes: Tensor) -> Tensor:
        """As :meth:`SidIndex.prefixes`."""
        return self.order_of(level, nodes)

    def item_order_of(self, positions: Tensor) -> Tensor:
        """As :meth:`SidIndex.item_order_of`: items of one SID stand in one place, in their order."""
        by_place = positions.argsort()
        order = by_place[self.keys_at(positions[by_place]).argsort(stable=True)]
        return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))

    # -- bytes and files -----------------------------------------------------------------------------------------

    @property
    def nbytes(self) -> IndexBytes:
        """As :meth:`SidIndex.nbytes`, with what stands on top."""
        more = sum(table.nbytes for table in self._version.shared.tables) + sum(one.nbytes for one in self._live)
        return IndexBytes(self._base.nbytes.structure + more, self._base.nbytes.vectors)

    def to(self, device: torch.device | str) -> SidIndex:
        """As :meth:`SidIndex.to`; merged, where that is another device."""
        return self if torch.device(device) == self.device else self.merged().to(device)

    def save(self, folder: Path) -> None:
        """As :meth:`SidIndex.save`, merged."""
        self.merged().save(folder)

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def _has_popularity(self) -> bool:
        return self._base._popularity is not None

    def _known(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which item rows are in the index."""
        found: NDArray[np.bool_] = (
            as_numpy(self.position_of(torch.from_numpy(rows.astype(np.int64)).to(self.device))) >= 0
        )
        return found

    def _pick(self, level: int, column: int, nodes: Tensor, of_base: Callable[[Tensor], Tensor]) -> Tensor:
        """A column of nodes, int64: of changed ones as the table has it, of others as the base says."""
        n = self._sizes[level] if level else 0
        of_table = take(self._tables[level][column], (nodes - n).clamp(min=0))
        if not n:
            return of_table
        changed = nodes >= n
        return torch.where(changed, of_table, of_base(nodes.masked_fill(changed, 0)))

    def _pick_item(self, positions: Tensor, live: Tensor, of_base: Callable[[Tensor], Tensor]) -> Tensor:
        """What is known of the items at positions: ``live`` of those of changed leaves, else what the base says."""
        changed = positions >= self._live_begins
        of_live = take(live, (positions - self._live_begins).clamp(min=0))
        if not len(self._base):
            return of_live
        return torch.where(changed, of_live, of_base(positions.masked_fill(changed, 0).clamp(min=0)))


def _packed(both: tuple[Tensor, Tensor]) -> Tensor:
    return both[0] << 32 | both[1]
