"""Lists of integers of different lengths as two flat arrays, so that nothing loops over rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """``n`` integer lists: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    Shapes: ``values`` int32 [total], ``offsets`` int64 [n + 1].
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        """From Python lists (tests, small data)."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        values = np.fromiter((value for row in rows for value in row), np.int32, int(lengths.sum()))
        return cls.from_lengths(values, lengths)

    @classmethod
    def from_lengths(cls, values: NDArray[np.int32], lengths: NDArray[np.int64]) -> "Ragged":
        """From flat values and the length of each row."""
        return cls(values.astype(np.int32, copy=False), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        if row < 0:  # from the end, as in a list
            row += len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each row, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The row that each value belongs to, int64 [total]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def select(self, rows: NDArray[np.integer]) -> "Ragged":
        """The given rows, in the given order."""
        # Where each value of the result lies: the start of its row, and how far in it. Only these rows are looked at.
        begin, end = self.offsets[:-1][rows], self.offsets[1:][rows]
        lengths = end - begin
        starts = np.repeat(begin, lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Ragged.from_lengths(self.values[starts + within], lengths)

    def heads(self, rows: NDArray[np.integer], width: int, fill: int = -1) -> NDArray[np.int32]:
        """The first ``width`` values of rows of any shape, int32 [*rows.shape, width]; only these are touched."""
        begin, end = self.offsets[rows], self.offsets[rows + 1]
        within = np.arange(width)
        inside = within < (end - begin)[..., None]
        place = np.where(inside, begin[..., None] + within, 0)
        if not len(self.values):
            return np.full(place.shape, fill, np.int32)
        return np.where(inside, self.values[place], np.int32(fill))

    def last(self, most: int) -> "Ragged":
        """The last ``most`` values of each row."""
        before_end = self.offsets[1:][self.owners] - np.arange(len(self.values))
        return Ragged.from_lengths(self.values[before_end <= most], np.minimum(self.lengths, most))

    def padded(self, width: int, fill: int = -1, newest: bool = True) -> NDArray[np.int32]:
        """Fixed width int32 [n, width].

        ``newest`` keeps the last values of each row, right-aligned with padding on the left; otherwise the first ones,
        left-aligned.
        """
        out = np.full((len(self), width), fill, np.int32)
        # The column of each value, [total]: counted from the row's first value or back from its last one.
        owners, lengths = self.owners, self.lengths
        within = np.arange(len(self.values)) - self.offsets[:-1][owners]
        column = width - lengths[owners] + within if newest else within
        keep = (column >= 0) & (column < width)
        out[owners[keep], column[keep]] = self.values[keep]
        return out
