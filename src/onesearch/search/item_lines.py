"""The items of a run, one line of JSON each, in a file that is mapped into memory: an item is read when it is shown.

The table of all items, some hundred bytes each, is then there only where something asks for whole columns.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.array_checks import are_offsets
from onesearch.data.records import Item, item_from_row, items_frame, without_kinds
from onesearch.index.tensor_files import read_arrays, write_arrays
from onesearch.search.catalogue_words import BEGINNING_COLUMNS, WORD_COLUMNS, Beginnings, CatalogueWords
from onesearch.search.catalogue_words import FILE as WORDS_FILE
from onesearch.search.item_records import ItemFrame
from onesearch.search.spelling import item_words

FILE: Final = "item_lines.safetensors"
_NEWLINE: Final = ord("\n")
_TEXT: Final = (str, type(None))
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "item_id": (str,),
    "title": (str,),
    "price": (float, int, type(None)),
    "in_stock": (bool,),
    **dict.fromkeys(("brand", "seller", "listed_at", "description"), _TEXT),
    **dict.fromkeys(("category", "images", "attributes"), (list, type(None))),
}
# Of a catalogue of more than products.
_MORE: Final[dict[str, tuple[type, ...]]] = {
    "kind": (str,),
    "linked": (list, type(None)),
    **dict.fromkeys(("transcript", "host", "start", "end"), _TEXT),
}
_TIMES: Final = ("listed_at", "start", "end")


class ItemLines:
    """Items by row, as :class:`~onesearch.search.item_records.ItemTable` has them.

    Args:
        path: of the file, for errors.
        letters: uint8 [total], the lines one after another.
        offsets: int64 [n + 1], where each of them begins.
        table: reads the table of the same items, or the columns that are named.
        words: what the run's file says of the items' words; None in a run of an earlier version.
    """

    def __init__(
        self,
        path: Path,
        letters: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        table: Callable[..., pl.DataFrame],
        words: CatalogueWords | None = None,
    ) -> None:
        self.path, self._letters, self._offsets, self._table, self._words = path, letters, offsets, table, words

    @classmethod
    def load(cls, folder: Path, items: int, table: Callable[..., pl.DataFrame]) -> "ItemLines":
        """What :func:`save_item_lines` wrote of so many items.

        Raises:
            ValueError: a file holds no lines, or no words, or those of another number of items.
        """
        path = folder / FILE
        arrays = read_arrays(path)
        try:
            letters, offsets = arrays["letters"], arrays["offsets"]
        except KeyError as error:
            raise ValueError(f"{path} has no {error}; make the run's stage data again") from None
        if letters.dtype != np.uint8 or not are_offsets(offsets, letters) or len(offsets) != items + 1:
            raise ValueError(f"{path} holds no lines of {items} items; make the run's stage data again")
        words = CatalogueWords.load(folder, items) if (folder / WORDS_FILE).is_file() else None
        return cls(path, letters, offsets, table, words)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def item(self, row: int) -> Item:
        """The item of a row.

        Raises:
            ValueError: its line is damaged.
        """
        line = self._letters[self._offsets[row] : self._offsets[row + 1]].tobytes()
        try:
            values: dict[str, Any] = json.loads(line)
            expected = _KINDS | (_MORE if "kind" in values else {})
            if wrong := [name for name, kinds in expected.items() if not isinstance(values[name], kinds)]:
                raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r:.40}")
            times = {name: datetime.fromisoformat(given) for name in _TIMES if (given := values.get(name)) is not None}
            return item_from_row({**values, **times})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            words = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.path}: item {row} is damaged ({words}); make the run's stage data again") from None

    @property
    def frame(self) -> pl.DataFrame:
        """The table of the items, read."""
        return self._of_these(self._table())

    def columns(self, *names: str) -> pl.DataFrame:
        """The columns of the table that are named, read."""
        return self._of_these(self._table(*names))

    def beginnings(self) -> Beginnings:
        """What of the items is completed; in a run of an earlier version gathered anew."""
        return self._words.beginnings if self._words else Beginnings.of(self.columns(*BEGINNING_COLUMNS))

    def words(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Words of the items; in a run of an earlier version gathered anew."""
        return self._words.counted() if self._words else item_words(self.columns(*WORD_COLUMNS))

    @property
    def links(self) -> pl.DataFrame:
        """``item_id`` and ``linked`` of the items that link to others; the table is read where there may be some."""
        first = self._letters[: self._offsets[min(1, len(self))]].tobytes()
        if not len(self) or "kind" not in json.loads(first):
            return ItemFrame(items_frame([])).links
        return ItemFrame(self.frame).links

    def _of_these(self, table: pl.DataFrame) -> pl.DataFrame:
        if len(table) != len(self):
            raise ValueError(f"the items of {self.path.parent} are others than when it was opened; start again")
        return table


def save_item_lines(items: pl.DataFrame, folder: Path) -> None:
    """Write the items of a table into a folder."""
    lines = BytesIO()
    items = without_kinds(items)
    times = [pl.col(name).dt.to_string("iso:strict") for name in _TIMES if name in items.columns]
    items.with_columns(times).write_ndjson(lines)
    letters = np.frombuffer(lines.getbuffer(), np.uint8)
    offsets = np.concatenate([[0], np.flatnonzero(letters == _NEWLINE) + 1]).astype(np.int64)
    write_arrays(folder / FILE, {"letters": letters, "offsets": offsets})
