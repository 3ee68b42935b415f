"""The readable twin of SidIndex: dicts of Python objects, one loop per question."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class PlainItem:
    sid: tuple[int, ...]
    vector: np.ndarray
    row: int
    popularity: float = 0.0


@dataclass
class PlainTrie:
    """Prefix -> items below it, in sorted order; a node's number is its rank among the prefixes of its length."""

    levels: int
    items: list[PlainItem] = field(default_factory=list)

    def add(self, items: list[PlainItem]) -> "PlainTrie":
        return PlainTrie(self.levels, self.items + items)

    def remove(self, rows: set[int]) -> "PlainTrie":
        return PlainTrie(self.levels, [item for item in self.items if item.row not in rows])

    def sorted_items(self) -> list[PlainItem]:
        return sorted(self.items, key=lambda item: (item.sid, -item.popularity, item.row))

    def prefixes(self, level: int) -> list[tuple[int, ...]]:
        return sorted({item.sid[: level + 1] for item in self.items})

    def below(self, prefix: tuple[int, ...]) -> list[PlainItem]:
        return [item for item in self.sorted_items() if item.sid[: len(prefix)] == prefix]

    def children(self, level: int, prefix: tuple[int, ...]) -> list[int]:
        return [number for number, node in enumerate(self.prefixes(level)) if node[:-1] == prefix]

    def mean(self, prefix: tuple[int, ...]) -> np.ndarray:
        return np.mean([item.vector for item in self.below(prefix)], axis=0)
