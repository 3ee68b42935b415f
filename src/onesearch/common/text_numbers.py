"""The numbers of many texts, such as the rows of item ids: what a dict says, in less memory."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

_AT_ONCE: Final = 50_000  # texts that are Python's at a time
_ALL_BITS: Final = (1 << 64) - 1
_CODE: Final = ("utf-8", "surrogatepass")  # also what is no text: half of a surrogate pair


class TextNumbers(Mapping[str, int]):
    """Texts, numbered from 0 in the order in which they came.

    Texts of like hashes stand side by side, one or two of them; hashes, and so these arrays, are this process's own::

        letters, offsets   the texts themselves, as UTF-8, by number
        order              numbers, sorted by the hashes of their texts
        starts             of those whose hashes have the same first bits, where they begin in ``order``
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Take texts, all of them different.

        Raises:
            TypeError: one is no text.
            ValueError: a text comes twice.
        """
        letters, lengths, hashes, given = bytearray(), [np.zeros(1, np.int64)], [np.zeros(0, np.uint64)], iter(texts)
        while some := [str.encode(text, *_CODE) for text in islice(given, _AT_ONCE)]:
            letters += b"".join(some)
            lengths.append(np.fromiter(map(len, some), np.int64, len(some)))
            hashes.append(np.fromiter(map(hash, some), np.int64, len(some)).astype(np.uint64))
        self._letters = bytes(letters)
        offsets = np.cumsum(np.concatenate(lengths))
        self._offsets: NDArray[np.integer] = offsets.astype(np.min_scalar_type(offsets[-1]))
        # One place for a text or two: the first bits of its hash, so that the order of hashes is that of places.
        bits = max(len(self).bit_length() - 1, 1)
        self._shift = 64 - bits
        found = np.concatenate(hashes)
        order = np.argsort(found).astype(np.int32)
        found = found[order]
        starts = np.searchsorted(found >> np.uint64(self._shift), np.arange((1 << bits) + 1, dtype=np.uint64))
        self._order, self._starts = memoryview(order.data), memoryview(starts.astype(np.int32).data)
        # Twins have one hash.
        for at in np.flatnonzero(found[1:] == found[:-1]).tolist():
            text = self._encoded(order[at + 1]).decode(*_CODE)
            if self[text] != order[at + 1]:
                raise ValueError(f"{text!r} comes twice, as {self[text]} and {order[at + 1]}")

    def __getitem__(self, text: str) -> int:
        found = self.get(text)
        if found is None:
            raise KeyError(text)
        return found

    def get(self, text: object, default: int | None = None) -> int | None:  # type: ignore[override]
        """The number of a text, or ``default``."""
        if not isinstance(text, str):
            return default
        wanted = text.encode(*_CODE)
        place = (hash(wanted) & _ALL_BITS) >> self._shift
        for number in self._order[self._starts[place] : self._starts[place + 1]]:
            if self._encoded(number) == wanted:
                return number
        return default

    def __reduce__(self) -> tuple[type["TextNumbers"], tuple[list[str]]]:
        return TextNumbers, (list(self),)  # in each process texts have other hashes

    def __contains__(self, text: object) -> bool:
        return self.get(text) is not None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return (self._encoded(number).decode(*_CODE) for number in range(len(self)))

    def _encoded(self, number: int) -> bytes:
        return self._letters[self._offsets[number] : self._offsets[number + 1]]
