"""Columns of names as numbers: of brands, of category paths, of whatever an item has one of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.data.text import fold
from onesearch.index.filter_values import PATH_SEPARATOR

JOINT = "\x1f"
"""Between the parts of a name: the ASCII unit separator, which does not occur in names."""

OfAll = Callable[[NDArray[Any]], list[NDArray[Any]]]
"""Beside an array those of the other shards of a catalogue, which number names alike."""


def alone(value: NDArray[Any]) -> list[NDArray[Any]]:
    """One catalogue, in no shards."""
    return [value]


def added_up(counts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sums of counts by number; later numbers may be unknown to some."""
    total = np.zeros(max(map(len, counts)), np.int64)
    for one in counts:
        total[: len(one)] += one
    return total


class Numbering:
    """Numbers of distinct names, from 0; it only grows: one writer at a time, any number of readers.

    A name may have several parts with joints between them. Case and accents do not matter where names are looked up.
    """

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._names: list[str] = []  # as it is written
        self._path: dict[int, str] = {}  # of a name with several parts: these without case and accents
        self._with: dict[str, int | list[int]] = {}  # by part, without case and accents: most are of one name

    def __len__(self) -> int:
        return len(self._number)

    def of(self, name: str) -> int:
        """The number of a name, a new one if need be."""
        number = self._number.get(name)
        if number is None:
            number, parts = len(self._number), [fold(part) for part in name.split(JOINT)]
            self._names.append(name)
            if len(parts) > 1:
                self._path[number] = JOINT.join(parts) + JOINT
            self._number[name] = number  # before a reader can find it by a part, as readers count names
            for part in dict.fromkeys(parts):
                known = self._with.get(part)
                if isinstance(known, list):
                    known.append(number)
                else:
                    self._with[part] = number if known is None else [known, number]
        return number

    def find(self, name: str) -> int | None:
        """The number of a name, None for one that no item has had."""
        return self._number.get(name)

    def with_part(self, part: str) -> list[int]:
        """The numbers of the names that have a part."""
        return list(self._having(fold(part)))

    def starting_with(self, *parts: str) -> list[int]:
        """The numbers of the names that begin with these parts."""
        begin = [fold(part) for part in JOINT.join(parts).split(JOINT)]
        key, alone = JOINT.join(begin) + JOINT, begin[-1] + JOINT
        return [number for number in self._having(begin[-1]) if self._path.get(number, alone).startswith(key)]

    def _having(self, folded: str) -> list[int]:
        """The numbers of the names that have a part, given without case and accents; not the caller's to change."""
        known = self._with.get(folded, [])
        return known if isinstance(known, list) else [known]

    def name(self, number: int) -> str:
        """The name that has a number."""
        return self._names[number]

    def items(self) -> list[tuple[str, int]]:
        """All names with their numbers, as of now."""
        return list(self._number.items())


@dataclass(frozen=True)
class Names:
    """A text column as numbers: ``code`` int32 [n], -1 for none; columns made from each other share the numbering."""

    code: NDArray[np.int32]
    numbering: Numbering

    @classmethod
    def from_texts(cls, texts: pl.Series) -> "Names":
        """Number the distinct texts of a new column."""
        numbering, names = Numbering(), texts.drop_nulls().unique().sort()
        if not len(names):
            return cls(np.full(len(texts), -1, np.int32), numbering)
        # Distinct names are numbered, then one look-up for all items.
        code = np.array([*(numbering.of(name) for name in names), -1], np.int32)
        return cls(code[texts.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()], numbering)

    def of(self, texts: Iterable[str | None]) -> "Names":
        """Other items' texts, in the same numbers."""
        code = [-1 if text is None else self.numbering.of(text) for text in texts]
        return Names(np.array(code, np.int32), self.numbering)

    def counted(self, most: int, of_all: OfAll = alone) -> list[tuple[str, int]]:
        """Names that items have, the parts of a path joined, with how many have them; the ``most`` frequent ones."""
        counts = added_up(of_all(np.bincount(self.code[self.code >= 0])))
        best = np.argsort(-counts, kind="stable")[:most].tolist()
        found = [(self.numbering.name(i).replace(JOINT, PATH_SEPARATOR), int(counts[i])) for i in best if counts[i]]
        return [(name, count) for name, count in found if name]

    def numbers(self, names: Iterable[str]) -> list[int]:
        """The numbers of names as they are spelt, without those that no item has had."""
        return [number for name in dict.fromkeys(names) if (number := self.numbering.find(name)) is not None]

    def below(self, levels: Iterable[str]) -> list[int]:
        """Of category paths: the numbers of those with one of these levels, as they are spelt."""
        wanted = frozenset(levels)
        return [number for path, number in self.numbering.items() if not wanted.isdisjoint(path.split(JOINT))]

    def among(self, numbers: list[int]) -> NDArray[np.bool_]:
        """Which items have one of these names, bool [n]."""
        if len(numbers) == 1:
            return np.equal(self.code, numbers[0])
        # one look-up table over the names instead of a comparison per name
        chosen = np.zeros(len(self.numbering) + 1, bool)  # the last entry serves code -1
        chosen[numbers] = True
        return np.take(chosen, self.code, mode="wrap")
