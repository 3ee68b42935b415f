"""Filters inside the search: does a trie node still hold an item of this category, brand, price, shop, stock?

::

    set of a value = bits over sorted positions, 64 to a word, and for each word how many members lie before it
    filter = AND over keys of (OR over the key's values), or of NOT (OR ...)  # word by word
    node allowed = a member lies in its range [first, last):
        bits of the first and last word under masks, or different counts before the words between them

So the question costs the same at every level, and nothing of the index is rebuilt. Sets are cached per filter value.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial, reduce
from operator import add, and_, or_
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.data.records import Item, in_utc
from onesearch.index.bits import RankedBits, pack
from onesearch.index.filter_columns import FilterColumns
from onesearch.index.filter_values import ATTRIBUTES, Checked, Filter, FilterError, Value, normalised
from onesearch.index.sid_index import SidIndex

_CACHE_BYTES = 256 << 20
_LARGEST_CACHE = 4096
WordsOf = Callable[[str, str, Value], Tensor]


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
        below = [self._bits.any_between(first, end) for first, end in self._index.ranges(level, nodes)]
        return reduce(or_, below) & (nodes >= 0)

    def counts(self, level: int, nodes: Tensor) -> Tensor:
        """How many allowed items lie below each node, int64 like ``nodes``; 0 for -1."""
        below = [self._bits.rank(end) - self._bits.rank(first) for first, end in self._index.ranges(level, nodes)]
        return reduce(add, below).masked_fill_(nodes < 0, 0)

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
    """Makes the masks of one index, plain or changed, from the item table.

    The sets of filter values over the base of an index serve all versions on top of it; those of the few items on top
    are made for each version.
    """

    def __init__(
        self,
        columns: FilterColumns,
        index: SidIndex,
        words: WordsOf,
        entries: int,
        changed: tuple[NDArray[np.int64], FilterColumns],
    ) -> None:
        """Use :meth:`build` and :meth:`changed`.

        ``columns`` are those of the items at the base's positions; ``changed`` are the item rows that are no longer as
        the base has them, ascending, and their columns.
        """
        self._columns, self._words, self._entries, self._changed = columns, words, entries, changed
        self._index = index
        # The caches hold no reference to self: an old version with its arrays goes when its last reader goes.
        live: Callable[[], FilterColumns] = lru_cache(1)(
            partial(_columns_of, columns, changed, index.base, index.live_rows)
        )
        self._mask: Callable[[Checked], ItemMask] = lru_cache(entries)(partial(_mask, words, live, index))
        # When what is shown changes; numberings are shared, so these are all spans that any version has.
        self._turns = columns.turns()

    @classmethod
    def build(cls, items: pl.DataFrame, index: SidIndex) -> "ItemFilters":
        """Read the filterable columns of the item table whose rows the index refers to."""
        columns = FilterColumns.from_items(items)
        live = np.unique(index.live_rows).astype(np.int64)
        return cls._of(columns_at(columns, _base_rows(index)), index, (live, columns_at(columns, live)))

    @classmethod
    def over(cls, columns: FilterColumns, index: SidIndex) -> "ItemFilters":
        """The filters of an index without changes, from the columns of the items at its positions."""
        return cls._of(columns, index, (np.zeros(0, np.int64), columns.of([])))

    @classmethod
    def _of(
        cls, columns: FilterColumns, index: SidIndex, changed: tuple[NDArray[np.int64], FilterColumns]
    ) -> "ItemFilters":
        # Now, and not when the first search asks for an attribute: it takes a while.
        _ = columns.tags.holders
        # A set takes 1.5 bits per item; large catalogues keep fewer of them.
        entries = max(16, min(_LARGEST_CACHE, _CACHE_BYTES // (len(columns) // 5 + 64)))
        words: WordsOf = lru_cache(entries)(partial(_words, columns, index.device))
        return cls(columns, index, words, entries, changed)

    def rebased(self, index: SidIndex) -> "ItemFilters":
        """The filters of a plain index of the same items, as they are now."""
        columns = _columns_of(self._columns, self._changed, self._index.base, _base_rows(index))
        return ItemFilters.over(columns, index)

    def columns(self) -> FilterColumns:
        """Columns of the items in the index, in any order."""
        base = torch.arange(len(self._index.base), device=self._index.device)
        present = self._index.present(base)
        rows = self._index.base.item_rows(base if present is None else base[present]).int().cpu().numpy()
        return self.columns_of(np.concatenate([rows, self._index.live_rows]))

    def columns_of(self, rows: NDArray[np.integer]) -> FilterColumns:
        """Columns of the items of some rows [m], in their order."""
        return _columns_of(self._columns, self._changed, self._index.base, rows.astype(np.int32))

    def changed(
        self, rows: Sequence[int] | NDArray[np.integer], items: Sequence[Item], index: SidIndex
    ) -> "ItemFilters":
        """The filters of a version of the index whose ``rows`` are now ``items``; readers keep these."""
        known, columns = self._changed
        new = np.asarray(rows, np.int64)
        kept = np.flatnonzero(~np.isin(known, new))
        every = np.concatenate([known[kept], new])
        order = np.argsort(every, kind="stable")
        changed = (every[order], columns.take(kept).followed_by(columns.of(items)).take(order))
        if index.base.numbering is not self._index.base.numbering:  # it was merged to make room
            return ItemFilters._of(
                _columns_of(self._columns, changed, self._index.base, _base_rows(index)), index, changed
            )
        return ItemFilters(self._columns, index, self._words, self._entries, changed)

    def mask(self, filters: Mapping[str, Any], time: datetime | None = None) -> ItemMask:
        """The items that match every filter and, where a time is given, are shown then.

        Args:
            filters: ``category``: a name anywhere in the path, or a path from the root ('A > B' or a tuple), which
                includes what lies below; ``brand``, ``seller``: the name; ``price``: [low, high], inclusive, either
                may be None; ``in_stock``: a bool; ``kind``: product, video, live or article; ``attributes``: values by
                type, or ``{"min": 40, "max": 42}`` for texts that begin with a number. Case and accents of names do
                not matter. A list of values means any of them. ``not`` holds filters that must not match, ``all`` a
                list of further ones that each must match, such as two values that an item has both. A value that no
                item has allows nothing. No filters allow everything. ``attributes.Color`` and ``not.brand`` are short
                for a mapping of one.
            time: of the search; without a zone it is UTC.

        Raises:
            FilterError: an unknown key or attribute type, or a value of the wrong kind.
        """
        checked = normalised(filters)
        # A misspelt type would allow nothing, silently.
        types = self._columns.tags.types
        for kind in (one.kind for one in checked if one.key == ATTRIBUTES):
            if not types.with_part(kind):
                names = [name for name, _ in types.items()]
                near = difflib.get_close_matches(kind, names, n=1)
                hint = (
                    f"; did you mean '{near[0]}'?" if near else f". There are {', '.join(sorted(names)[:20]) or 'none'}"
                )
                raise FilterError(f"no item has an attribute of type '{kind}'{hint}")
        # What is shown at the time, as one condition more.
        if time is not None and (turn := self.turn(time)) is not None:
            checked = (*checked, Filter("span", "", False, (turn,)))
        return self._mask(checked)

    def turn(self, time: datetime) -> float | None:
        """The last moment, up to a time, at which something began or ended to be shown, in seconds of 1970.

        Until the next one the same items are shown. None where all always are.
        """
        if len(self._turns) == 1:
            return None
        return float(self._turns[np.searchsorted(self._turns, in_utc(time).timestamp(), side="right") - 1])

    def knows_kind(self, kind: str) -> bool:
        """Whether an item has, or had, a kind."""
        return self._columns.kind.numbering.find(kind) is not None

    def all_but(self, rows: NDArray[np.int64]) -> ItemMask:
        """All items but those of some rows."""
        index = self._index
        base, live = np.ones(len(index.base), bool), ~np.isin(index.live_rows, rows)
        at = index.base.position_of(torch.from_numpy(rows).to(index.device)).cpu().numpy()
        base[at[at >= 0]] = False
        bits = index.position_bits(pack(base).to(index.device), pack(live).to(index.device))
        return ItemMask(RankedBits.from_words(bits), index)


def columns_at(columns: FilterColumns, rows: NDArray[np.integer]) -> FilterColumns:
    """The columns of some item rows, in their order.

    Raises:
        ValueError: there are not so many items.
    """
    if (largest := int(rows.max(initial=-1))) >= len(columns):
        raise ValueError(f"the index has item row {largest}, but the item table has {len(columns)} rows")
    return columns.take(rows)


def _base_rows(index: SidIndex) -> NDArray[np.int32]:
    """The item row at each position of the base."""
    positions = torch.arange(len(index.base), device=index.device)
    rows: NDArray[np.int32] = index.base.item_rows(positions).int().cpu().numpy()
    return rows


def _words(columns: FilterColumns, device: torch.device, key: str, kind: str, value: Value) -> Tensor:
    """The packed set of the base's positions whose items have a value."""
    return pack(columns.having(key, kind, value)).to(device)


def _columns_of(
    columns: FilterColumns,
    changed: tuple[NDArray[np.int64], FilterColumns],
    base: SidIndex,
    rows: NDArray[np.int32],
) -> FilterColumns:
    """The columns of some item rows [n]: of changed ones as they are now, of others as the base has them."""
    known, now = changed
    is_changed = np.isin(rows, known)
    at = np.searchsorted(known, rows[is_changed])
    positions = base.position_of(torch.from_numpy(rows[~is_changed].astype(np.int64)).to(base.device)).cpu().numpy()
    if not len(at):
        return columns.take(positions)
    # First the ones, then the others, then all in the order asked for.
    place = np.empty(len(rows), np.int64)
    place[np.concatenate([np.flatnonzero(is_changed), np.flatnonzero(~is_changed)])] = np.arange(len(rows))
    return now.take(at).followed_by(columns.take(positions)).take(place)


def _mask(words_of: WordsOf, live: Callable[[], FilterColumns], index: SidIndex, filters: Checked) -> ItemMask:
    """The mask of several filters from the sets of their values."""

    def both(key: str, kind: str, value: Value) -> Tensor:
        on_top = pack(live().having(key, kind, value)).to(index.device)
        return index.position_bits(words_of(key, kind, value), on_top)

    sets = []
    for one in filters:
        having = reduce(or_, (both(one.key, one.kind, value) for value in one.values))
        sets.append(~having if one.negated else having)
    if all(one.negated for one in filters):  # none, or what they leave of everything
        every = [pack(np.ones(n, bool)).to(index.device) for n in (len(index.base), len(index.live_rows))]
        sets.append(index.position_bits(*every))
    return ItemMask(RankedBits.from_words(reduce(and_, sets)), index)
