"""Tables by item row of which a few rows change while others read: a base that stays, and what changed on top of it.

::

    row r = tail[place of r among the changed rows]   where r has changed, or is new
          = base[r]                                    else

A change writes its rows behind the tail, so it costs what it changes; readers hold a version and see none that comes
later. :meth:`LayeredTable.flat` is the plain table again.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ROOM = 256  # rows that a new tail has room for


@dataclass(frozen=True)
class ChangedRows:
    """Which rows have changed: int64 [c], ascending, and the place of each in the tails, int64 [c]."""

    rows: Tensor
    places: Tensor

    @classmethod
    def none(cls, device: torch.device | str = "cpu") -> "ChangedRows":
        """No row."""
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(empty, empty)

    def with_rows(self, rows: NDArray[np.integer], first: int) -> "ChangedRows":
        """With distinct ``rows`` [k] that stand in the tails from ``first`` on."""
        device = self.rows.device
        known, places = self.rows.cpu().numpy(), self.places.cpu().numpy()
        new = np.asarray(rows, np.int64)
        kept = ~np.isin(known, new)
        every = np.concatenate([known[kept], new])
        order = np.argsort(every, kind="stable")
        place = np.concatenate([places[kept], np.arange(first, first + len(new))])[order]
        return ChangedRows(torch.from_numpy(every[order]).to(device), torch.from_numpy(place).to(device))

    def to(self, device: torch.device) -> "ChangedRows":
        """The same on another device."""
        return ChangedRows(self.rows.to(device), self.places.to(device))

    def find(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which of ``rows`` have changed, bool, and their places in the tails (0 for others), int64; of any shape."""
        if not len(self.rows):
            return torch.zeros_like(rows, dtype=torch.bool), torch.zeros_like(rows)
        at = torch.searchsorted(self.rows, rows).clamp(max=len(self.rows) - 1)
        changed = self.rows[at] == rows
        return changed, torch.where(changed, self.places[at], 0)


@dataclass
class _Tail:
    """Rows behind each other, with room for more; written once, behind those that readers know."""

    data: Tensor
    used: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class LayeredTable:
    """A table [N, ...] by row; several that change together share their :class:`ChangedRows`."""

    base: Tensor
    changed: ChangedRows
    tail: _Tail
    used: int = 0

    @classmethod
    def over(cls, base: Tensor) -> "LayeredTable":
        """A base with no changes yet."""
        return cls(base, ChangedRows.none(base.device), _Tail(base.new_zeros(0, *base.shape[1:])))

    @classmethod
    def layered_as(cls, other: "LayeredTable", flat: Tensor) -> "LayeredTable":
        """A plain table of as many rows as another has, in the same layers, to change together with it."""
        changed = other.changed.to(flat.device)
        data = flat.new_zeros(other.used, *flat.shape[1:])
        data[changed.places] = flat[changed.rows]
        return cls(flat, changed, _Tail(data, other.used), other.used)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.base.device

    def __len__(self) -> int:
        rows = self.changed.rows
        return max(len(self.base), int(rows[-1]) + 1 if len(rows) else 0)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The given rows, int64 of any shape, all of them 0 or above: [*rows.shape, ...]."""
        if not len(self.changed.rows):
            return self.base[rows]
        changed, place = self.changed.find(rows)
        if not len(self.base) or bool(changed.all()):
            return self.tail.data[place]
        out = self.base[rows.masked_fill(changed, 0)]
        out[changed] = self.tail.data[place[changed]]
        return out

    def products(self, vector: Tensor) -> Tensor:
        """Products of all rows of a table [N, R] with a vector [R]: float32 [N], in row order."""
        out = vector.new_zeros(len(self))
        out[: len(self.base)] = self.base @ vector
        out[self.changed.rows] = self.tail.data[self.changed.places] @ vector
        return out

    def take(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """As indexing, from and to arrays on the CPU."""
        index = torch.from_numpy(np.ascontiguousarray(rows, np.int64)).to(self.device)
        found: NDArray[Any] = self[index].cpu().numpy()
        return found

    def with_rows(self, changed: ChangedRows, values: Tensor) -> "LayeredTable":
        """A version whose newly changed rows have ``values`` [k, ...], in the order in which ``changed`` got them.

        ``changed`` comes from :meth:`ChangedRows.with_rows` with ``used`` as the first place.
        """
        values, changed = values.to(self.base), changed.to(self.device)
        tail, last = self.tail, self.used + len(values)
        with tail.lock:
            if tail.used != self.used or last > len(tail.data):
                # No room, or another version has written there: readers keep the tail that they have.
                data = self.base.new_zeros(max(last, 2 * len(tail.data), _ROOM), *self.base.shape[1:])
                data[: self.used] = tail.data[: self.used]
                tail = _Tail(data, self.used)
            tail.data[self.used : last] = values
            tail.used = last
        return LayeredTable(self.base, changed, tail, last)

    def to(self, device: torch.device) -> "LayeredTable":
        """The same on another device."""
        if device == self.device:
            return self
        tail = _Tail(self.tail.data.to(device), self.used)
        return LayeredTable(self.base.to(device), self.changed.to(device), tail, self.used)

    def flat(self) -> Tensor:
        """The table without layers, [N, ...]; rows that never were are 0."""
        if not len(self.changed.rows):
            return self.base
        out = self.base.new_zeros(len(self), *self.base.shape[1:])
        out[: len(self.base)] = self.base
        out[self.changed.rows] = self.tail.data[self.changed.places]
        return out
