"""Filters inside the search: does a trie node still hold an item of this category, brand, price, shop, stock?

::

    set of a value = bits over sorted positions, 64 to a word, and for each word how many members lie before it
    filter = AND over keys of (OR over the key's values)                    # word by word
    node allowed = a member lies in its range [first, last):
        bits of the first and last word under masks, or different counts before the words between them

So the question costs the same at every level, and nothing of the index is rebuilt. Sets are cached per filter value.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial, reduce
from operator import and_, or_
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.index.bits import RankedBits, pack
from onesearch.index.filter_columns import FilterColumns
from onesearch.index.filter_values import Checked, Value, normalised
from onesearch.index.sid_index import SidIndex

_CACHE_BYTES = 256 << 20
_LARGEST_CACHE = 4096
WordsOf = Callable[[str, Value], Tensor]


class ItemMask:
    """The items that a filter allows, for one index."""

    def __init__(self, bits: RankedBits, index: SidIndex) -> None:
        self._bits = bits
        self._index = index

    @property
    def count(self) -> int:
        """Number of allowed items."""
        return self._bits.count

    def allowed(self, level: int, nodes: Tensor) -> Tensor:
        """Whether an allowed item lies below each node, bool like ``nodes``; False for -1."""
        return self._bits.any_between(*self._index.positions(level, nodes)) & (nodes >= 0)

    def counts(self, level: int, nodes: Tensor) -> Tensor:
        """How many allowed items lie below each node, int64 like ``nodes``; 0 for -1."""
        first, last = self._index.positions(level, nodes)
        return (self._bits.rank(last) - self._bits.rank(first)).masked_fill_(nodes < 0, 0)

    def items_allowed(self, positions: Tensor) -> Tensor:
        """Whether the items at sorted positions are allowed, bool like ``positions``; False for -1."""
        return self._bits.contains(positions.clamp(min=0)) & (positions >= 0)

    def rows_allowed(self, item_rows: Tensor) -> Tensor:
        """Whether the items of the given rows are allowed, bool; False for rows not in the index."""
        return self.items_allowed(self._index.position_of(item_rows))

    def __and__(self, other: "ItemMask") -> "ItemMask":
        if other._index is not self._index:
            raise ValueError("the two masks belong to different indexes; make both with the same ItemFilters")
        return ItemMask(RankedBits.from_words(self._bits.words & other._bits.words), self._index)


class ItemFilters:
    """Makes the masks of one index from the item table."""

    def __init__(self, columns: FilterColumns, index: SidIndex) -> None:
        rows = index.item_rows(torch.arange(len(index), device=index.device)).int().cpu().numpy()
        if len(rows) and int(rows.max()) >= len(columns):
            raise ValueError(f"the index has item row {int(rows.max())}, but the item table has {len(columns)} rows")
        self._columns = columns
        # a set takes 1.5 bits per item; large catalogues keep fewer of them
        entries = max(16, min(_LARGEST_CACHE, _CACHE_BYTES // (len(rows) // 5 + 64)))
        # the caches hold no reference to self: an old version with its arrays goes when its last reader goes
        words: WordsOf = lru_cache(entries)(partial(_words, columns, rows, index.device))
        self._mask: Callable[[Checked], ItemMask] = lru_cache(entries)(partial(_mask, words, index))

    @classmethod
    def build(cls, items: pl.DataFrame, index: SidIndex) -> "ItemFilters":
        """Read columns category, brand, seller, price, in_stock of the item table whose rows the index refers to."""
        return cls(FilterColumns.from_items(items), index)

    def updated(self, items: pl.DataFrame, index: SidIndex, unchanged: int = 0) -> "ItemFilters":
        """The filters of a changed item table and index; these stay as they are for their readers.

        Args:
            items: the new item table.
            index: the new index.
            unchanged: the first so many rows of the table are as before and need not be read again.
        """
        if unchanged > len(self._columns):
            raise ValueError(f"unchanged={unchanged}, but these filters know only {len(self._columns)} rows")
        if not unchanged:
            return ItemFilters.build(items, index)
        return ItemFilters(self._columns.head(unchanged).extended(items[unchanged:]), index)

    def mask(self, filters: Mapping[str, Any]) -> ItemMask:
        """The items that match every filter.

        Args:
            filters: ``category``: a name anywhere in the path, or a path from the root ('A > B' or a tuple), which
                includes what lies below; ``brand``, ``seller``: the exact name; ``price``: [low, high], inclusive,
                either may be None; ``in_stock``: a bool. A list of values means any of them. A value that no item has
                allows nothing. No filters allow everything.

        Raises:
            FilterError: an unknown key, or a value of the wrong kind.
        """
        return self._mask(normalised(filters))


def _words(columns: FilterColumns, rows: NDArray[np.int32], device: torch.device, key: str, value: Value) -> Tensor:
    """The packed set of the sorted positions whose items have a value."""
    return pack(columns.having(key, value)[rows]).to(device)


def _mask(words_of: WordsOf, index: SidIndex, filters: Checked) -> ItemMask:
    """The mask of several filters from the sets of their values."""
    sets = [reduce(or_, (words_of(key, value) for value in values)) for key, values in filters]
    words = reduce(and_, sets) if sets else pack(np.ones(len(index), bool)).to(index.device)
    return ItemMask(RankedBits.from_words(words), index)
