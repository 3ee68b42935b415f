"""A set of sorted positions as packed bits with counts before each word: how many lie in a range is two look-ups."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORD = 64
_PAIRS, _NIBBLES, _BYTES = 0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F


def pack(members: NDArray[np.bool_]) -> Tensor:
    """Words int64 [n // 64 + 1] of a bool array [n]; bit ``p % 64`` of word ``p // 64`` says whether p is a member."""
    padded = np.zeros((len(members) // _WORD + 1) * _WORD, bool)
    padded[: len(members)] = members
    return torch.from_numpy(np.packbits(padded, bitorder="little").view("<i8").astype(np.int64, copy=False))


def popcount(words: Tensor) -> Tensor:
    """The number of one bits of each int64 word (torch has no such operation)."""
    # the shifts are arithmetic; each mask clears the copies of the sign bit that they bring in
    words = words - ((words >> 1) & _PAIRS)
    words = (words & _NIBBLES) + ((words >> 2) & _NIBBLES)
    words = (words + (words >> 4)) & _BYTES
    return (words * 0x0101010101010101) >> 56


def take(values: Tensor, places: Tensor) -> Tensor:
    """``values[places]`` for values [n] and places >= 0 of any shape; several times as fast on a CPU."""
    return values.index_select(0, places.reshape(-1)).view(places.shape)


@dataclass(frozen=True)
class RankedBits:
    """A set of positions 0 to n - 1.

    Attributes:
        words: packed bits, int64 [n // 64 + 1].
        before: members in the words before each word, and in all, int32 [n // 64 + 2]; half a bit per position.
        count: number of members.
    """

    words: Tensor
    before: Tensor
    count: int

    @classmethod
    def from_words(cls, words: Tensor) -> "RankedBits":
        """Count the bits of packed words."""
        before = torch.zeros(len(words) + 1, dtype=torch.int32, device=words.device)
        torch.cumsum(popcount(words), 0, dtype=torch.int32, out=before[1:])
        return cls(words, before, int(before[-1]))

    def contains(self, positions: Tensor) -> Tensor:
        """Whether each position is a member, bool."""
        return ((take(self.words, positions >> 6) >> (positions & 63)) & 1).bool()

    def any_between(self, first: Tensor, last: Tensor) -> Tensor:
        """Whether a member lies in each range ``first`` to ``last`` (excluded, > first), bool.

        As ``rank(last) > rank(first)``, without counting bits: the words at both ends are looked at, and those between
        them are told by their counts.
        """
        head, tail = first >> 6, last >> 6  # the words of both ends
        from_first = take(self.words, head) & (-1 << (first & 63))
        to_last = take(self.words, tail) & ~(-1 << (last & 63))
        ends = torch.where(head == tail, from_first & to_last, from_first | to_last)
        return (ends != 0) | (take(self.before, tail) > take(self.before, head + 1))

    def rank(self, positions: Tensor) -> Tensor:
        """How many members are smaller than each position (0 to n), int64."""
        word = positions >> 6
        return take(self.before, word) + popcount(take(self.words, word) & ~(-1 << (positions & 63)))
