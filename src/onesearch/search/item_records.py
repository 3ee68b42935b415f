"""The records of the catalogue's items, and which item stands in which row; both change while others read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.common.layered_table import ChangedRows
from onesearch.common.text_numbers import TextNumbers
from onesearch.data.records import Item, item_from_row, items_frame
from onesearch.search.catalogue_words import Beginnings
from onesearch.search.spelling import item_words


class ItemNumbers(Mapping[str, int]):
    """Item id to row, of the items that can be found; a base that stays, and what changed on top of it."""

    def __init__(
        self,
        base: Mapping[str, int],
        added: Mapping[str, int] | None = None,
        gone: Mapping[str, int] | None = None,
    ) -> None:
        self._base, self._added, self._gone = base, added or {}, gone or {}

    def __getitem__(self, item_id: str) -> int:
        if item_id in self._gone:
            raise KeyError(item_id)
        row = self._added.get(item_id)
        return self._base[item_id] if row is None else row

    def __contains__(self, item_id: object) -> bool:
        return item_id not in self._gone and (item_id in self._added or item_id in self._base)

    def __len__(self) -> int:
        return len(self._base) + len(self._added) - len(self._gone)

    def __iter__(self) -> Iterator[str]:
        yield from (item_id for item_id in self._base if item_id not in self._gone)
        yield from (item_id for item_id in self._added if item_id not in self._gone)

    def row_of(self, item_id: str) -> int | None:
        """The row of an item, also of one that was deleted."""
        row = self._added.get(item_id)
        return self._base.get(item_id) if row is None else row

    def flat(self) -> "ItemNumbers":
        """The same numbers in one table."""
        if not self._added:
            return self
        if list(self._added.values()) != list(range(len(self._base), len(self._base) + len(self._added))):
            raise RuntimeError("rows of new items do not follow those of the base in the order in which they came")
        return ItemNumbers(TextNumbers(chain(self._base, self._added)), {}, self._gone)

    def rows(self) -> NDArray[np.int64]:
        """The rows of the items that can be found, in order, int64 [n]."""
        every = np.arange(len(self._base) + len(self._added))
        return np.setdiff1d(every, np.fromiter(self._gone.values(), np.int64, len(self._gone)), assume_unique=True)

    def with_items(self, rows: Mapping[str, int]) -> "ItemNumbers":
        """With items back, and new ones."""
        new = {item_id: row for item_id, row in rows.items() if self.row_of(item_id) is None}
        gone = {item_id: row for item_id, row in self._gone.items() if item_id not in rows}
        return ItemNumbers(self._base, {**self._added, **new}, gone)

    def without(self, item_ids: Sequence[str]) -> "ItemNumbers":
        """Without known items, whose rows stay theirs."""
        return ItemNumbers(self._base, self._added, {**self._gone, **{item_id: self[item_id] for item_id in item_ids}})


class ItemTable(Protocol):
    """The items of a run by row."""

    def __len__(self) -> int: ...

    def item(self, row: int) -> Item:
        """The item of a row."""
        ...

    @property
    def frame(self) -> pl.DataFrame:
        """All of them as a table, which may have to be read."""
        ...

    def columns(self, *names: str) -> pl.DataFrame:
        """The columns of the table that are named; nobody keeps them, and all of it need not be read."""
        ...

    def beginnings(self) -> Beginnings:
        """What of them is completed."""
        ...

    def words(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Their words, as :func:`~onesearch.search.spelling.item_words` has them."""
        ...

    @property
    def links(self) -> pl.DataFrame:
        """``item_id`` and ``linked`` of the items that link to others."""
        ...


@dataclass(frozen=True)
class ItemFrame:
    """An :class:`ItemTable` that is there as a table."""

    frame: pl.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def item(self, row: int) -> Item:
        """The item of a row."""
        return item_from_row(self.frame.row(row, named=True))

    def columns(self, *names: str) -> pl.DataFrame:
        """Some columns of the table."""
        return self.frame.select(names)

    def beginnings(self) -> Beginnings:
        """What of them is completed, gathered anew."""
        return Beginnings.of(self.frame)

    def words(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Their words, gathered anew."""
        return item_words(self.frame)

    @property
    def links(self) -> pl.DataFrame:
        """``item_id`` and ``linked`` of the items that link to others."""
        return self.frame.select("item_id", "linked").filter(pl.col("linked").list.len() > 0)


@dataclass(frozen=True)
class ItemRecords:
    """The item of every row: those of the run, and the records of rows that changed or came later."""

    base: ItemTable
    changed: ChangedRows
    later: tuple[Item, ...] = ()

    @classmethod
    def over(cls, items: ItemTable) -> "ItemRecords":
        """Items with no changes yet."""
        return cls(items, ChangedRows.none())

    def __len__(self) -> int:
        rows = self.changed.rows
        return max(len(self.base), int(rows[-1]) + 1 if len(rows) else 0)

    def item(self, row: int) -> Item:
        """The item of a row."""
        changed, place = self.changed.find(torch.tensor([row]))
        return self.later[int(place)] if bool(changed) else self.base.item(row)

    def flat(self) -> "ItemRecords":
        """The same records in one table."""
        return ItemRecords.over(ItemFrame(self._with_later(self.base.frame))) if self.later else self

    def columns(self, *names: str) -> pl.DataFrame:
        """Some columns of the records as a table, rows in order."""
        return self._with_later(self.base.columns(*names))

    def _with_later(self, base: pl.DataFrame) -> pl.DataFrame:
        """Rows of the base, or columns of them, with those that changed or came later."""
        if not self.later:
            return base
        place = np.arange(len(self))
        place[self.changed.rows.numpy()] = len(self.base) + self.changed.places.numpy()
        return pl.concat([base, items_frame(self.later).select(base.columns)])[place]

    def with_items(self, rows: NDArray[np.integer], items: Sequence[Item]) -> "ItemRecords":
        """With other items in some rows, known or new ones."""
        changed = self.changed.with_rows(rows, len(self.later))
        return replace(self, changed=changed, later=(*self.later, *items))
