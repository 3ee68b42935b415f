"""The rows that the item head scores: item vectors and node means, in 32, 16 or 8 bits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from onesearch.index.trie import TrieArrays

Precision = Literal["float32", "bfloat16", "int8"]
_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
_CHUNK_ROWS = 1 << 18  # bounds the float32 copies that are alive at a time
_INT8_LARGEST = 127.0


@dataclass(frozen=True)
class VectorTable:
    """Vectors [rows, R] in their stored precision; int8 rows have one scale each (row = scale * int8 values).

    Attributes:
        data: float32, bfloat16 or int8 [rows, R].
        scale: float32 [rows] for int8, else None.
    """

    data: Tensor
    scale: Tensor | None

    @classmethod
    def empty(cls, rows: int, dimension: int, precision: Precision) -> "VectorTable":
        """Room for ``rows`` vectors."""
        if precision not in _DTYPES:
            raise ValueError(f"precision '{precision}' is unknown; valid are {', '.join(_DTYPES)}")
        data = torch.empty(rows, dimension, dtype=_DTYPES[precision])
        return cls(data, torch.empty(rows) if precision == "int8" else None)

    @property
    def precision(self) -> Precision:
        """How the vectors are stored."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self.data.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors and their scales."""
        return self.data.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def to(self, device: torch.device | str) -> "VectorTable":
        """The same table on another device."""
        return VectorTable(self.data.to(device), None if self.scale is None else self.scale.to(device))

    def read(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The vectors [n, R] of the given table rows [n], as ``dtype``."""
        values = self.data.index_select(0, rows)
        if self.scale is None:
            return values if values.dtype == dtype else values.to(dtype)
        return (values.float() * self.scale.index_select(0, rows)[:, None]).to(dtype)

    def block(self, first: int, last: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The vectors of the consecutive rows ``first`` to ``last`` (excluded): a view where no conversion is due."""
        values = self.data[first:last]
        if self.scale is None:
            return values if values.dtype == dtype else values.to(dtype)
        return (values.float() * self.scale[first:last, None]).to(dtype)

    def write(self, rows: Tensor | slice, vectors: Tensor) -> None:
        """Round float vectors [n, R] to the stored precision and put them at ``rows`` [n]."""
        if self.scale is not None:
            scale = vectors.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_LARGEST
            self.scale[rows] = scale
            vectors = (vectors / scale[:, None]).round_()
        self.data[rows] = vectors.to(self.data.dtype)

    def copy_rows(self, first: int, source: "VectorTable", source_rows: Tensor) -> None:
        """Copy stored rows of another table of the same precision to ``first`` and following, bit by bit."""
        for part in _chunks(len(source_rows)):
            rows, place = source_rows[part], slice(first + part.start, first + part.stop)
            torch.index_select(source.data, 0, rows, out=self.data[place])
            if self.scale is not None and source.scale is not None:
                torch.index_select(source.scale, 0, rows, out=self.scale[place])


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, _CHUNK_ROWS):
        yield slice(start, min(start + _CHUNK_ROWS, n))


def fill_items(table: VectorTable, first: int, vectors: Tensor, order: Tensor) -> None:
    """Write the item vectors ``vectors[order]`` to the sorted positions ``first`` and following."""
    for part in _chunks(len(order)):
        chosen = vectors.index_select(0, order[part].to(vectors.device)).cpu().float()
        table.write(slice(first + part.start, first + part.stop), chosen)


def fill_means(table: VectorTable, trie: TrieArrays, stale: list[NDArray[np.bool_]]) -> None:
    """Compute the mean vectors of the stored nodes marked ``stale`` (per level, bool [stored nodes of the level]).

    Bottom-up: a mean is the weighted mean of the children's *stored* vectors, so a node updated after items came or
    went is bit-equal to the one of an index built from scratch.
    """
    levels = len(trie.codes)
    for level in reversed(range(levels)):
        base = trie.bases[level]
        rows = trie.vector_rows[level]
        nodes = np.flatnonzero(rows >= base)[stale[level]]
        first, last = trie.children[level][nodes], trie.children[level][nodes + 1]
        places = rows[nodes].astype(np.int64)
        span = trie.spans[:, places - trie.bases[0]]
        ends = np.cumsum(last - first, dtype=np.int64)
        begin = 0
        while begin < len(nodes):  # as many nodes at a time as have about _CHUNK_ROWS children
            done = int(ends[begin - 1]) if begin else 0
            stop = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK_ROWS, side="right")))
            part = slice(begin, stop)
            lengths = (last[part] - first[part]).astype(np.int64)
            offsets = np.cumsum(lengths) - lengths
            below = np.arange(int(lengths.sum())) + np.repeat(first[part] - offsets, lengths)
            if level + 1 < levels:
                below_rows = trie.vector_rows[level + 1][below].astype(np.int64)
                weights = _items_of(trie, below_rows).astype(np.float32)
            else:
                below_rows, weights = below, np.ones(len(below), np.float32)
            weights /= np.repeat((span[1, part] - span[0, part]).astype(np.float32), lengths)
            below_ids, values = torch.from_numpy(below_rows), table.data
            if values.dtype != torch.float32:  # sums of rounded rows are still sums in float32
                below_ids, values = torch.arange(len(below)), table.read(below_ids)
            means = functional.embedding_bag(
                below_ids,
                values,
                torch.from_numpy(offsets),
                mode="sum",
                per_sample_weights=torch.from_numpy(weights),
            )
            table.write(torch.from_numpy(places[part]), means)
            begin = stop


def _items_of(trie: TrieArrays, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """How many items lie below the nodes with the given table rows."""
    items = np.ones(len(rows), np.int32)
    (stored,) = np.nonzero(rows >= trie.bases[0])
    spans = trie.spans[:, rows[stored] - trie.bases[0]]
    items[stored] = spans[1] - spans[0]
    return items
