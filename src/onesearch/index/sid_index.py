"""SidIndex: which items have which semantic ID, and what may follow after each prefix (docs/method.md, section 8).

The SIDs are kept sorted. A trie node is a range of sorted positions, named by (level, number within the level); the
numbers of a node's children are consecutive. An index never changes; what comes and goes afterwards stands on top of it
(:mod:`onesearch.index.changed_index`).
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.common.artefact import read_json, write_json
from onesearch.index.bits import take
from onesearch.index.check_items import as_numpy, check_items, check_stored
from onesearch.index.sid_keys import KeyLayout
from onesearch.index.sorted_update import IndexArrays, SortedItems, build
from onesearch.index.tensor_files import read_tensors, write_tensors
from onesearch.index.trie import TrieArrays, keys_of
from onesearch.index.vector_table import Precision, VectorTable, VectorView

_FORMAT = 1


class IndexBytes(NamedTuple):
    """Memory of an index in bytes: the trie with the item arrays, and the vectors of items and nodes."""

    structure: int
    vectors: int


class SidIndex:
    """The items of a catalogue sorted by SID, as a trie of ``L`` levels in flat tensors.

    ::

        key(item) = codes of its SID packed into one integer          # keys sort like SIDs
        positions = items sorted by (key, popularity falling, row)
        node of level l = maximal range of positions with equal key >> shift_l
        children of node i = nodes children[l][i] .. children[l][i + 1] of level l + 1        # CSR, as sparse matrices
        vector of a node = mean of the vectors of the items in its range

    Node numbers are int64 tensors of any shape; -1 stands for no node: it has no children, and its code, count and
    vector are meaningless and must be masked by the caller.

    Attributes:
        levels: number of levels L.
        codebook_sizes: number of codes of each level.
        max_children: per level the largest number of children that a node of the level above has.
        numbering: the same object for indexes whose positions are the same.
    """

    def __init__(self, arrays: IndexArrays, layout: KeyLayout, device: torch.device | str = "cpu") -> None:
        self._layout = layout
        self.levels = layout.levels
        self.codebook_sizes = layout.codebook_sizes
        self._bases = arrays.trie.bases
        self._codes = [torch.from_numpy(array).to(device) for array in arrays.trie.codes]
        self._children = [torch.from_numpy(array).to(device) for array in arrays.trie.children]
        self._vector_rows = [torch.from_numpy(array).to(device) for array in arrays.trie.vector_rows]
        self._spans = torch.from_numpy(arrays.trie.spans).to(device)
        self._rows = torch.from_numpy(arrays.items.rows).to(device)
        popularity = arrays.items.popularity
        self._popularity = None if popularity is None else torch.from_numpy(popularity).to(device)
        # item row -> sorted position, -1 for rows that are not in the index
        positions = np.full(int(arrays.items.rows.max(initial=-1)) + 1, -1, np.int32)
        positions[arrays.items.rows] = np.arange(len(arrays.items), dtype=np.int32)
        self._position_of = torch.from_numpy(positions).to(device)
        self._vectors = arrays.vectors.to(device)
        self.numbering = object()
        self._first_blocks: dict[torch.dtype, Tensor] = {}
        widths = [int(np.diff(array).max(initial=0)) for array in arrays.trie.children[:-1]]
        self.max_children = (len(arrays.trie.codes[0]), *widths)

    # -- making one ----------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        sids: NDArray[np.integer] | Tensor,
        vectors: NDArray[np.floating] | Tensor,
        codebook_sizes: Sequence[int],
        popularity: NDArray[np.floating] | Tensor | None = None,
        rows: NDArray[np.integer] | Tensor | None = None,
        precision: Precision = "float32",
    ) -> "SidIndex":
        """Build from the SIDs and vectors of N items.

        Args:
            sids: level-local codes [N, L].
            vectors: what the item head scores, float [N, R].
            codebook_sizes: number of codes of each level, [L].
            popularity: any number that grows with popularity, [N]; orders items of the same SID.
            rows: rows of the items in the item table, [N], distinct; 0 to N - 1 if None.
            precision: how vectors are stored.
        """
        layout = KeyLayout.from_sizes(codebook_sizes)
        items, table = check_items(layout, sids, vectors, popularity, rows)
        return cls(build(items, table, layout, precision), layout, table.device)

    def to(self, device: torch.device | str) -> "SidIndex":
        """The same index on another device."""
        if torch.device(device) == self.device:
            return self
        return SidIndex(self._arrays(), self._layout, device)

    # -- what the search asks ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dimension(self) -> int:
        """R, the length of the vectors."""
        return self._vectors.dimension

    @property
    def precision(self) -> Precision:
        """How the vectors are stored."""
        return self._vectors.precision

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self._rows.device

    def size(self, level: int) -> int:
        """Number of nodes at a level."""
        return len(self._codes[level])

    def children(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The children at ``level`` of ``nodes`` of level - 1: the first one and how many, int64 like ``nodes``.

        At level 0 the parent is the root whatever ``nodes`` says: its children are all nodes of level 0.
        """
        if level == 0:
            first = torch.zeros_like(nodes)
            return first, torch.full_like(first, self.size(0))
        # CSR: the entries of a node and of its successor bound its children
        array = self._children[level - 1]
        parents = nodes.clamp(min=0)
        first = take(array, parents).long()
        count = take(array, parents + 1).long() - first
        return first, count.masked_fill_(nodes < 0, 0)

    def codes(self, level: int, nodes: Tensor) -> Tensor:
        """The level-local code of each node, int64."""
        return take(self._codes[level], nodes.clamp(min=0)).long()

    def counts(self, level: int, nodes: Tensor) -> Tensor:
        """How many items lie below each node, int64."""
        # rows below N are items: a node of one item; the others have a span
        stored = take(self._vector_rows[level], nodes.clamp(min=0)) - len(self)
        at = stored.clamp(min=0)
        count = take(self._spans[1], at) - take(self._spans[0], at)
        return torch.where(stored >= 0, count, 1).long()

    def vectors(self, level: int, nodes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The mean vector of the items below each node, [*nodes.shape, R]."""
        rows = self._vector_rows[level].index_select(0, nodes.reshape(-1).clamp(min=0))
        return self._vectors.read(rows, dtype).view(*nodes.shape, -1)

    @property
    def table(self) -> VectorTable:
        """The vectors of items and nodes, for fused kernels; :meth:`vector_rows` says where."""
        return self._vectors.table

    def vector_rows(self, level: int, nodes: Tensor) -> Tensor:
        """The rows in ``table`` of the vectors of nodes, int32 like ``nodes``."""
        return self._vectors.slots_of(take(self._vector_rows[level], nodes.clamp(min=0)))

    def vector_block(self, level: int, first: int, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The vectors [count, R] of consecutive nodes; at level 0 a slice of a kept block, without any gather."""
        if level == 0:
            if dtype not in self._first_blocks:  # level 0 has at most codebook_sizes[0] nodes
                self._first_blocks[dtype] = self._vectors.block(self._bases[0], self._bases[1], dtype)
            return self._first_blocks[dtype][first : first + count]
        return self._vectors.read(self._vector_rows[level][first : first + count], dtype)

    def item_vectors(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The vectors [*positions.shape, R] of the items at sorted positions."""
        return self._vectors.read(positions.reshape(-1), dtype).view(*positions.shape, -1)

    def item_slots(self, positions: Tensor) -> Tensor:
        """The rows in ``table`` of the vectors of the items at sorted positions."""
        return self._vectors.slots_of(positions)

    def positions(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The range of sorted positions below each node: first, last (excluded), int64."""
        rows = take(self._vector_rows[level], nodes.clamp(min=0))
        at = (rows - len(self)).clamp(min=0)
        stored = rows >= len(self)
        first = torch.where(stored, take(self._spans[0], at), rows)
        return first.long(), torch.where(stored, take(self._spans[1], at), rows + 1).long()

    def item_rows(self, positions: Tensor) -> Tensor:
        """Rows in the item table of the items at sorted positions, int64."""
        return take(self._rows, positions.clamp(min=0)).long()

    def order_of(self, level: int, nodes: Tensor) -> Tensor:
        """Numbers that sort nodes of a level as their SIDs do, int64 like ``nodes``."""
        return nodes

    def item_order_of(self, positions: Tensor) -> Tensor:
        """Numbers that sort items at positions as the index does, int64 like ``positions``."""
        return positions

    def ranges(self, level: int, nodes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Ranges of positions (first, last excluded) that together hold all items below each node; see ``present``."""
        return [self.positions(level, nodes)]

    def present(self, positions: Tensor) -> Tensor | None:
        """Which positions of ``ranges`` hold an item of this index, bool; None for all."""
        return None

    @property
    def base(self) -> "SidIndex":
        """The index that changes stand on top of: this one."""
        return self

    @property
    def live_rows(self) -> NDArray[np.int32]:
        """Rows of the items that stand on top of the base, in the order of their positions: none."""
        return np.zeros(0, np.int32)

    def position_bits(self, of_base: Tensor, of_live: Tensor) -> Tensor:
        """A set of items as packed bits over all positions, from the bits of the base and of what stands on it."""
        return of_base

    # -- what changes on top of it ask ---------------------------------------------------------------------------

    @cached_property
    def structure(self) -> tuple[SortedItems, TrieArrays]:
        """Sorted items and trie as arrays on the CPU; without a copy if they are there already."""
        trie = TrieArrays(
            [as_numpy(tensor) for tensor in self._codes],
            [as_numpy(tensor) for tensor in self._children],
            [as_numpy(tensor) for tensor in self._vector_rows],
            self._bases,
            as_numpy(self._spans),
        )
        popularity = None if self._popularity is None else as_numpy(self._popularity)
        return SortedItems(keys_of(trie.codes, trie.children, self._layout), as_numpy(self._rows), popularity), trie

    @cached_property
    def position_keys(self) -> Tensor:
        """The packed SID of the item at each position, int64 [N]."""
        return torch.from_numpy(self.structure[0].keys).to(self.device)

    # -- from items and SIDs to nodes ----------------------------------------------------------------------------

    def position_of(self, item_rows: Tensor) -> Tensor:
        """Sorted positions of items, int64; -1 for rows that are -1 or not in the index."""
        rows = item_rows.long()
        if not len(self._position_of):
            return torch.full_like(rows, -1)
        position = take(self._position_of, rows.clamp(0, len(self._position_of) - 1)).long()
        return position.masked_fill_((rows < 0) | (rows >= len(self._position_of)), -1)

    def path(self, item_rows: Tensor) -> Tensor:
        """The nodes from level 0 to the last that lead to items, int64 [n, L]; -1 for rows not in the index."""
        # upwards: the parent is the last node whose first child is not behind the one below
        position = self.position_of(item_rows)
        below = position.clamp(min=0).int()
        path = torch.empty(len(position), self.levels, dtype=torch.long, device=self.device)
        for level in reversed(range(self.levels)):
            below = torch.searchsorted(self._children[level], below, right=True, out_int32=True) - 1
            path[:, level] = below
        return path.masked_fill_((position < 0)[:, None], -1)

    def locate(self, sids: Tensor) -> Tensor:
        """The node of each SID or SID prefix [n, l], 1 <= l <= L, at level l - 1: int64 [n], -1 if no item has it."""
        nodes = torch.zeros(len(sids), dtype=torch.long, device=self.device)
        for level in range(sids.shape[1]):
            nodes = self._child_with(level, nodes, sids[:, level].to(self.device, torch.long))
        return nodes

    def _child_with(self, level: int, parents: Tensor, codes: Tensor) -> Tensor:
        """The child of each parent that has the given code, or -1: binary search, all parents at once."""
        # the children of a node are sorted by code; [low, high) closes in on the first one that is not smaller
        first, count = self.children(level, parents)
        count = count.masked_fill(parents < 0, 0)
        low, end = first, first + count
        high, last = end, max(self.size(level) - 1, 0)
        for _ in range(self.max_children[level].bit_length()):
            middle = (low + high) // 2
            less = (self.codes(level, middle.clamp(max=last)) < codes) & (low < high)
            low = torch.where(less, middle + 1, low)
            high = torch.where(less, high, middle)
        found = (low < end) & (self.codes(level, low.clamp(max=last)) == codes) if len(self) else low < end
        return torch.where(found, low, -1)

    def sids(self, level: int, nodes: Tensor) -> Tensor:
        """The codes from level 0 down to each node, int64 [*nodes.shape, level + 1]."""
        codes = [self.codes(level, nodes)]
        below = nodes.int()
        for above in reversed(range(level)):
            below = torch.searchsorted(self._children[above], below, right=True, out_int32=True) - 1
            codes.append(self.codes(above, below))
        return torch.stack(codes[::-1], -1)

    def prefixes(self, level: int, nodes: Tensor) -> Tensor:
        """The codes down to each node as one number, int64 like ``nodes``; they sort as SIDs do, in any index."""
        return take(self.position_keys, self.positions(level, nodes)[0]) >> self._layout.shifts[level]

    # -- bytes and files -----------------------------------------------------------------------------------------

    @property
    def nbytes(self) -> IndexBytes:
        """Memory in bytes, vectors apart."""
        tensors = [*self._codes, *self._children, *self._vector_rows, self._spans, self._rows, self._position_of]
        tensors += [tensor for tensor in (self._popularity, self._vectors.slots) if tensor is not None]
        return IndexBytes(sum(tensor.nbytes for tensor in tensors), self._vectors.nbytes)

    def save(self, folder: Path) -> None:
        """Write ``index.safetensors`` and ``index.json`` to a folder."""
        arrays = self._arrays()
        tensors: dict[str, NDArray[Any]] = {"rows": arrays.items.rows, "spans": arrays.trie.spans}
        tensors |= {f"codes.{level}": array for level, array in enumerate(arrays.trie.codes)}
        tensors |= {f"children.{level}": array for level, array in enumerate(arrays.trie.children)}
        tensors |= {f"vector_rows.{level}": array for level, array in enumerate(arrays.trie.vector_rows)}
        saved = {name: torch.from_numpy(array) for name, array in tensors.items()}
        if arrays.items.popularity is not None:
            saved["popularity"] = torch.from_numpy(arrays.items.popularity)
        saved["vectors"], scale = arrays.vectors.stored()
        if scale is not None:
            saved["vector_scale"] = scale
        write_tensors(folder / "index.safetensors", saved)
        write_json(
            folder / "index.json",
            {
                "format": _FORMAT,
                "codebook_sizes": list(self.codebook_sizes),
                "bases": list(self._bases),
                "items": len(self),
                "dimension": self.dimension,
                "precision": self.precision,
                "nodes": [self.size(level) for level in range(self.levels)],
            },
        )

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "SidIndex":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the arrays are of another format, or cannot be those of an index.
        """
        about: dict[str, Any] = read_json(folder / "index.json")
        if about.get("format") != _FORMAT:
            raise ValueError(f"{folder}: index format {about.get('format')} is not {_FORMAT}; build the index anew")
        tensors = read_tensors(folder / "index.safetensors")
        layout = KeyLayout.from_sizes(about["codebook_sizes"])
        codes, children, vector_rows = (
            [tensors[f"{name}.{level}"].numpy() for level in range(layout.levels)]
            for name in ("codes", "children", "vector_rows")
        )
        trie = TrieArrays(codes, children, vector_rows, tuple(about["bases"]), tensors["spans"].numpy())
        rows = tensors["rows"].numpy()
        popularity = tensors["popularity"].numpy() if "popularity" in tensors else None
        vectors, scale = tensors["vectors"], tensors.get("vector_scale")
        try:
            check_stored(rows, popularity, vectors, scale)
            trie.check(len(rows), len(vectors), layout)
        except ValueError as error:
            raise ValueError(f"{folder / 'index.safetensors'}: damaged: {error}; build the index anew") from error
        items = SortedItems(keys_of(codes, children, layout), rows, popularity)
        return cls(IndexArrays(items, trie, VectorView.from_stored(vectors, scale)), layout, device)

    # -- between tensors and arrays ------------------------------------------------------------------------------

    def _arrays(self) -> IndexArrays:
        """Everything on the CPU (without a copy if it is there already)."""
        items, trie = self.structure
        return IndexArrays(items, trie, self._vectors.to("cpu"))
