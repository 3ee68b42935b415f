"""Many texts in two flat arrays, which a file can hold and several processes can share."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TextTable(Sequence[str]):
    """``n`` texts: the i-th is the UTF-8 in ``letters[offsets[i]:offsets[i + 1]]``.

    Shapes: ``letters`` uint8 [total], ``offsets`` int64 [n + 1]. Arrays that anybody may have written give other texts,
    never memory that is not theirs.
    """

    letters: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "TextTable":
        """The given texts in the given order."""
        # Half of a surrogate pair is no letter; what JSON let in is kept as a question mark.
        encoded = [text.encode("utf-8", "replace") for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        letters = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(letters, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        at = index % len(self)
        return self.letters[self.offsets[at] : self.offsets[at + 1]].tobytes().decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        # As one by one, without an array for each.
        letters = self.letters.data
        for begin, end in pairwise(self.offsets.tolist()):
            yield letters[begin:end].tobytes().decode("utf-8", "replace")

    def find(self, text: str) -> int | None:
        """The number of a text in a table that is sorted; None where it is not there."""
        at = bisect_left(self, text)
        return at if at < len(self) and self[at] == text else None
