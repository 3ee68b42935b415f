"""The head rows of items and nodes in 32, 16 or 8 bits: slots that versions of an index share, and views of them.

An update writes new vectors to fresh slots and leaves the old ones, so that readers of the old index are not disturbed.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from onesearch.index.bits import take

Precision = Literal["float32", "bfloat16", "int8"]
_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
STORED_TYPES = tuple(_DTYPES.values())
CHUNK_ROWS = 1 << 18  # bounds the float32 copies that are alive at a time
_INT8_LARGEST = 127.0
_SPARE_SHARE, _SPARE_LEAST = 4, 1024  # room for a quarter more rows; untouched pages take no memory


@dataclass
class VectorTable:
    """Slots for vectors, shared by an index and those made from it; a slot is written once, then only read.

    Attributes:
        data: float32, bfloat16 or int8 [capacity, R].
        scale: float32 [capacity] for int8 (vector = scale * int8 values), else None.
        used: slots given out.
    """

    data: Tensor
    scale: Tensor | None
    used: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def empty(cls, rows: int, dimension: int, precision: Precision, least: int = 0) -> "VectorTable":
        """A table whose first ``rows`` slots are given out, with room for more, ``least`` at least."""
        if precision not in _DTYPES:
            raise ValueError(f"precision '{precision}' is unknown; valid are {', '.join(_DTYPES)}")
        capacity = rows + max(rows // _SPARE_SHARE + _SPARE_LEAST, least)
        data = torch.empty(capacity, dimension, dtype=_DTYPES[precision])
        return cls(data, torch.empty(capacity) if precision == "int8" else None, rows)

    def read(self, slots: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The vectors [n, R] in the given slots [n], as ``dtype``."""
        values = self.data.index_select(0, slots)
        if self.scale is None:
            return values if values.dtype == dtype else values.to(dtype)
        return (values.to(dtype) * self.scale.index_select(0, slots)[:, None]).to(dtype)

    def write(self, slots: Tensor | slice, vectors: Tensor) -> None:
        """Round float vectors [n, R] to the stored precision, into slots that nobody reads yet."""
        if self.scale is not None:  # int8: each vector on its own scale, so that its largest entry is 127
            scale = vectors.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_LARGEST
            self.scale[slots] = scale
            vectors = (vectors / scale[:, None]).round_()
        self.data[slots] = vectors.to(self.data.dtype)

    def reserve(self, rows: int) -> int | None:
        """The first of ``rows`` fresh slots, or None when the table is full."""
        with self.lock:
            if self.used + rows > len(self.data):
                return None
            self.used += rows
            return self.used - rows


@dataclass(frozen=True)
class VectorView:
    """A view of a table: rows [rows, R] whose vectors are in its slots, in any order.

    Attributes:
        table: where the vectors are.
        rows: number of rows.
        slots: the slot of each row, int32 [rows]; None when row ``i`` is in slot ``i``, as after a build.
    """

    table: VectorTable
    rows: int
    slots: Tensor | None = None

    @classmethod
    def empty(cls, rows: int, dimension: int, precision: Precision) -> "VectorView":
        """Rows to be written."""
        return cls(VectorTable.empty(rows, dimension, precision), rows)

    @classmethod
    def from_stored(cls, data: Tensor, scale: Tensor | None) -> "VectorView":
        """Stored rows, in their order."""
        return cls(VectorTable(data, scale, len(data)), len(data))

    def with_room(self, least: int = 0) -> "VectorView":
        """The same rows in a table of their own, in order, with room for more, ``least`` at least."""
        data, scale = self.stored()
        copy = VectorTable.empty(self.rows, self.dimension, self.precision, least)
        copy.data = copy.data.to(data.device)
        copy.data[: self.rows] = data
        if scale is not None and copy.scale is not None:
            copy.scale = copy.scale.to(scale.device)
            copy.scale[: self.rows] = scale
        return VectorView(copy, self.rows)

    @property
    def dimension(self) -> int:
        """R."""
        return int(self.table.data.shape[1])

    @property
    def precision(self) -> Precision:
        """How the vectors are stored."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self.table.data.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the slots in use, those of earlier versions included."""
        scale = self.table.scale
        per_slot = self.dimension * self.table.data.element_size() + (0 if scale is None else scale.element_size())
        return self.table.used * per_slot

    def to(self, device: torch.device | str) -> "VectorView":
        """The same rows on another device, without unused slots."""
        if self.table.data.device == torch.device(device):
            return self
        data, scale = self.stored()
        return VectorView.from_stored(data.to(device), None if scale is None else scale.to(device))

    def slots_of(self, rows: Tensor) -> Tensor:
        """The slots in the table of rows."""
        return rows if self.slots is None else take(self.slots, rows)

    def read(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The vectors [n, R] of the given rows [n], as ``dtype``."""
        return self.table.read(self.slots_of(rows), dtype)

    def block(self, first: int, last: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The vectors of the rows ``first`` to ``last`` (excluded): a view where possible."""
        if self.slots is None and self.table.data.dtype == dtype:
            return self.table.data[first:last]
        return self.read(torch.arange(first, last, device=self.table.data.device), dtype)

    def write(self, rows: Tensor | slice, vectors: Tensor) -> None:
        """Round float vectors [n, R] to the stored precision; only while an index is being made."""
        self.table.write(rows if self.slots is None else self.slots[rows].long(), vectors)

    def write_stored(self, rows: Tensor, data: Tensor, scale: Tensor | None) -> None:
        """As :meth:`write`, of vectors that are in the stored precision already."""
        slots = rows if self.slots is None else self.slots[rows].long()
        self.table.data[slots] = data
        if self.table.scale is not None and scale is not None:
            self.table.scale[slots] = scale

    def stored(self) -> tuple[Tensor, Tensor | None]:
        """All rows in order, as stored: values [rows, R] and, for int8, scales [rows]."""
        data, scale = self.table.data, self.table.scale
        if self.slots is None:
            return data[: self.rows], None if scale is None else scale[: self.rows]
        return data.index_select(0, self.slots), None if scale is None else scale.index_select(0, self.slots)

    def rearranged(self, source: Tensor) -> "VectorView":
        """Rows of which row ``i`` is row ``source[i]`` of this one, or yet to be written where that is -1.

        Vectors stay in their slots; only when the table has no room for the new rows are all copied to a new one.
        ``source`` is int64 [new rows].
        """
        # room in the shared table: old rows keep their slots, fresh ones get the next free slots
        fresh = (source < 0).nonzero().squeeze(1)
        first = self.table.reserve(len(fresh))
        slots = self.slots_of(source.clamp(min=0)).int() if self.rows else torch.zeros(len(source), dtype=torch.int32)
        if first is not None:
            slots[fresh] = torch.arange(first, first + len(fresh), dtype=torch.int32)
            return VectorView(self.table, len(source), slots)
        # no room: a new table with a copy of every row
        copy = VectorView.empty(len(source), self.dimension, self.precision)
        if self.rows:
            for part in chunks(len(source)):
                torch.index_select(self.table.data, 0, slots[part], out=copy.table.data[part])
                if self.table.scale is not None and copy.table.scale is not None:
                    torch.index_select(self.table.scale, 0, slots[part], out=copy.table.scale[part])
        return copy


def chunks(n: int) -> Iterator[slice]:
    """Slices of at most ``CHUNK_ROWS`` that cover 0 to n."""
    for start in range(0, n, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, n))
