"""Semantic IDs as single integers: five small codes packed into one sortable int64 key."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGEST_CODEBOOK = 1 << 15  # codes are stored as int16
_KEY_BITS = 63  # keys stay non-negative


@dataclass(frozen=True)
class KeyLayout:
    """How the codes of a SID share the bits of a key: the first level has the highest bits, so keys sort like SIDs."""

    codebook_sizes: tuple[int, ...]

    @classmethod
    def from_sizes(cls, codebook_sizes: Sequence[int]) -> "KeyLayout":
        """The layout of the given codebooks."""
        return cls(tuple(int(size) for size in codebook_sizes))

    def __post_init__(self) -> None:
        if not self.codebook_sizes:
            raise ValueError("codebook_sizes is empty: a SID needs at least one level")
        for level, size in enumerate(self.codebook_sizes):
            if not 1 <= size <= _LARGEST_CODEBOOK:
                raise ValueError(f"codebook of level {level} has {size} codes; must be 1 to {_LARGEST_CODEBOOK}")
        if self.shifts[0] + self.bits[0] > _KEY_BITS:
            raise ValueError(
                f"codebooks {self.codebook_sizes} need {self.shifts[0] + self.bits[0]} bits per SID, at most "
                f"{_KEY_BITS} fit; use fewer levels or smaller codebooks"
            )

    @property
    def levels(self) -> int:
        """Number of codes in a SID."""
        return len(self.codebook_sizes)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each level's code."""
        return tuple(max(1, (size - 1).bit_length()) for size in self.codebook_sizes)

    @property
    def shifts(self) -> tuple[int, ...]:
        """Bits to the right of each level's code; ``key >> shifts[l]`` is the prefix of ``l + 1`` codes."""
        bits = self.bits
        return tuple(sum(bits[level + 1 :]) for level in range(len(bits)))

    def pack(self, sids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Keys int64 [n] of level-local codes [n, L]; codes outside their codebook are an error that names the row."""
        if sids.ndim != 2 or sids.shape[1] != self.levels:
            raise ValueError(f"sids must have shape [n, {self.levels}], got {list(sids.shape)}")
        keys = np.zeros(len(sids), np.int64)
        for level, (size, shift) in enumerate(zip(self.codebook_sizes, self.shifts, strict=True)):
            # an error names the first wrong row and level
            codes = np.ascontiguousarray(sids[:, level])
            if len(codes) and (codes.min() < 0 or codes.max() >= size):
                row = int(np.flatnonzero((codes < 0) | (codes >= size))[0])
                raise ValueError(
                    f"sids[{row}, {level}] is {codes[row]}, but the codebook of level {level} has codes 0 to {size - 1}"
                    " (codes are local to their level)"
                )
            # the first level lies in the highest bits, so that keys sort like SIDs
            keys |= codes.astype(np.int64) << shift
        return keys


def sorted_order(
    keys: NDArray[np.int64], popularity: NDArray[np.float32] | None, rows: NDArray[np.int32]
) -> NDArray[np.int64]:
    """The order of items by key; items of the same SID by popularity, highest first, then by row. int64 [n]."""
    order = np.argsort(keys)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.zeros(len(keys), bool)
    tied[1:] |= same
    tied[:-1] |= same
    (places,) = np.nonzero(tied)
    if len(places):  # sorting only the ties by three columns is far cheaper than sorting everything so
        items = order[places]
        unpopular = np.zeros(len(items), np.float32) if popularity is None else -popularity[items]
        order[places] = items[np.lexsort((rows[items], unpopular, keys[items]))]
    return order
