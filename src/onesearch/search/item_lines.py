"""The items of a run, one line of JSON each, in a file that is mapped into memory: an item is read when it is shown.

The table of all items, some hundred bytes each, is then there only where something asks for whole columns.
"""

import json
from collections.abc import Callable
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
from onesearch.search.catalogue_words import COLUMNS, CatalogueWords
from onesearch.search.catalogue_words import FILE as WORDS_FILE
from onesearch.search.item_records import ItemFrame

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
    """

    def __init__(
        self, path: Path, letters: NDArray[np.uint8], offsets: NDArray[np.int64], table: Callable[..., pl.DataFrame]
    ) -> None:
        self.path, self._letters, self._offsets, self._table = path, letters, offsets, table

    @classmethod
    def load(cls, folder: Path, items: int, table: Callable[..., pl.DataFrame]) -> "ItemLines":
        """What :func:`save_item_lines` wrote of so many items.

        Raises:
            ValueError: the file holds no lines, or those of another number of items.
        """
        path = folder / FILE
        arrays = read_arrays(path)
        try:
            letters, offsets = arrays["letters"], arrays["offsets"]
        except KeyError as error:
            raise ValueError(f"{path} has no {error}; make the run's stage data again") from None
        if letters.dtype != np.uint8 or not are_offsets(offsets, letters) or len(offsets) != items + 1:
            raise ValueError(f"{path} holds no lines of {items} items; make the run's stage data again")
        return cls(path, letters, offsets, table)

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
        return self._table()

    def columns(self, *names: str) -> pl.DataFrame:
        """Some columns of the table, read."""
        return self._table(*names)

    def words(self) -> CatalogueWords:
        """What the items say to whoever types, as the run has it; of a run of an earlier version gathered anew.

        Raises:
            ValueError: the file is damaged.
        """
        folder = self.path.parent
        if (folder / WORDS_FILE).is_file():
            return CatalogueWords.load(folder, len(self))
        return CatalogueWords.of(self.columns(*COLUMNS))

    @property
    def links(self) -> pl.DataFrame:
        """``item_id`` and ``linked`` of the items that link to others; the table is read where there may be some."""
        first = self._letters[: self._offsets[min(1, len(self))]].tobytes()
        if not len(self) or "kind" not in json.loads(first):
            return ItemFrame(items_frame([])).links
        return ItemFrame(self.frame).links


def save_item_lines(items: pl.DataFrame, folder: Path) -> None:
    """Write the items of a table into a folder."""
    lines = BytesIO()
    items = without_kinds(items)
    times = [pl.col(name).dt.to_string("iso:strict") for name in _TIMES if name in items.columns]
    items.with_columns(times).write_ndjson(lines)
    letters = np.frombuffer(lines.getbuffer(), np.uint8)
    offsets = np.concatenate([[0], np.flatnonzero(letters == _NEWLINE) + 1]).astype(np.int64)
    write_arrays(folder / FILE, {"letters": letters, "offsets": offsets})
