"""The readable twin of SidIndex: dicts of Python objects, one loop per question."""

from dataclasses import dataclass, field

import numpy as np
import torch

from onesearch.index.sid_index import SidIndex

SIZES = (4, 3, 5, 2, 3)
DIMENSION = 6
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.1}


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


def items_of(seed: int, n: int, rows: list[int] | None = None, spread: int = 10) -> list[PlainItem]:
    """Random items; a small ``spread`` makes prefixes and whole SIDs collide."""
    rng = np.random.default_rng(seed)
    sids = np.stack([rng.integers(0, min(size, spread), n) for size in SIZES], 1)
    vectors = rng.standard_normal((n, DIMENSION)).astype(np.float32)
    popularity = rng.integers(0, 3, n)
    rows = rng.permutation(n).tolist() if rows is None else rows
    return [
        PlainItem(tuple(int(code) for code in sid), vector, int(row), float(count))
        for sid, vector, row, count in zip(sids, vectors, rows, popularity, strict=True)
    ]


def arrays(items: list[PlainItem]):
    return (
        np.array([item.sid for item in items]).reshape(-1, len(SIZES)),
        np.array([item.vector for item in items], np.float32).reshape(-1, DIMENSION),
        np.array([item.row for item in items], np.int64),
        np.array([item.popularity for item in items], np.float32),
    )


def built(items: list[PlainItem], precision="float32") -> SidIndex:
    sids, vectors, rows, popularity = arrays(items)
    return SidIndex.build(sids, vectors, SIZES, popularity, rows, precision)


def assert_matches(index: SidIndex, plain: PlainTrie, tolerance: float = 1e-5) -> None:
    ordered = plain.sorted_items()
    assert len(index) == len(ordered)
    assert index.item_rows(torch.arange(len(index))).tolist() == [item.row for item in ordered]
    parents: list[tuple[int, ...]] = [()]
    for level in range(index.levels):
        prefixes = plain.prefixes(level)
        every = torch.arange(len(prefixes))
        assert index.size(level) == len(prefixes)
        first, count = index.children(level, torch.arange(len(parents)))
        for number, prefix in enumerate(parents):
            children = plain.children(level, prefix)
            assert list(range(int(first[number]), int(first[number] + count[number]))) == children
        assert index.codes(level, every).tolist() == [prefix[-1] for prefix in prefixes]
        assert [tuple(sid) for sid in index.sids(level, every).tolist()] == prefixes
        below = [plain.below(prefix) for prefix in prefixes]
        assert index.counts(level, every).tolist() == [len(items) for items in below]
        starts, ends = index.positions(level, every)
        assert [ordered[start:end] for start, end in zip(starts, ends, strict=True)] == below
        if prefixes:
            means = np.array([plain.mean(prefix) for prefix in prefixes])
            np.testing.assert_allclose(index.vectors(level, every).numpy(), means, atol=tolerance)
            np.testing.assert_array_equal(index.vector_block(level, 0, len(every)), index.vectors(level, every))
            assert index.locate(torch.tensor(prefixes)).tolist() == every.tolist()
        parents = prefixes
    numbers = [{prefix: number for number, prefix in enumerate(plain.prefixes(level))} for level in range(index.levels)]
    path = index.path(torch.tensor([item.row for item in ordered] + [-1, 10**6], dtype=torch.long))
    expected = [[numbers[level][item.sid[: level + 1]] for level in range(index.levels)] for item in ordered]
    assert path.tolist() == [*expected, [-1] * index.levels, [-1] * index.levels]


def assert_same(one: SidIndex, other: SidIndex) -> None:
    """Bit-equal, arrays and vectors."""
    mine, theirs = one._arrays(), other._arrays()
    np.testing.assert_array_equal(mine.items.keys, theirs.items.keys)
    np.testing.assert_array_equal(mine.items.rows, theirs.items.rows)
    np.testing.assert_array_equal(mine.items.popularity, theirs.items.popularity)
    for name in ("codes", "children", "vector_rows"):
        for a, b in zip(getattr(mine.trie, name), getattr(theirs.trie, name), strict=True):
            np.testing.assert_array_equal(a, b)
    assert mine.trie.bases == theirs.trie.bases
    np.testing.assert_array_equal(mine.trie.spans, theirs.trie.spans)
    for a, b in zip(mine.vectors.stored(), theirs.vectors.stored(), strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
