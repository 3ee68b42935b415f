"""What the items of a catalogue say to whoever types: how their titles begin, their categories, and their words.

To gather it takes a while in a large catalogue, so that a run does it once; a server maps the file into memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.array_checks import are_finite, are_numbers, are_offsets
from onesearch.common.text_table import TextTable
from onesearch.data.text import completion_key
from onesearch.index.tensor_files import read_arrays, write_arrays
from onesearch.search.spelling import item_words

FILE: Final = "catalogue_words.safetensors"
COLUMNS: Final = ("title", "brand", "seller", "category", "attributes")
"""Columns of the item table that it is made of."""
_TEXTS: Final = ("keys", "categories", "words", "runs")


@dataclass(frozen=True)
class CatalogueWords:
    """Of the items of a table, by row.

    Attributes:
        keys: how their titles are completed (:func:`~onesearch.data.text.completion_key`), sorted.
        rows: int32 [N], the item of each key.
        categories: names of a level of a path, those of the most items first; ``items`` float32 [C], how many.
        words: of titles, names and values, with how often; ``runs``: of names and values, in scripts without spaces.
    """

    keys: Sequence[str]
    rows: NDArray[np.int32]
    categories: Sequence[str]
    items: NDArray[np.float32]
    words: Mapping[str, float]
    runs: Mapping[str, float]

    @classmethod
    def of(cls, items: pl.DataFrame) -> "CatalogueWords":
        """Of an item table, or its :data:`COLUMNS`."""
        keys = [completion_key(title) for title in items["title"]]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        counted = items["category"].explode().drop_nulls().value_counts(name="items")
        counted = counted.sort("items", "category", descending=[True, False])  # in one order in every process
        return cls(
            TextTable.from_texts(keys[i] for i in order),
            np.array(order, np.int32),
            counted["category"].to_list(),
            counted["items"].to_numpy().astype(np.float32),
            *item_words(items),
        )

    def save(self, folder: Path) -> None:
        """Write one file into a folder."""
        arrays: dict[str, NDArray[Any]] = {"rows": self.rows, "items": self.items}
        for name in _TEXTS:
            texts = getattr(self, name)
            table = TextTable.from_texts(texts)
            arrays |= {f"{name}.letters": table.letters, f"{name}.offsets": table.offsets}
            if isinstance(texts, Mapping):
                arrays[f"{name}.counts"] = np.fromiter(texts.values(), np.float32, len(texts))
        write_arrays(folder / FILE, arrays)

    @classmethod
    def load(cls, folder: Path, items: int) -> "CatalogueWords":
        """What :meth:`save` wrote of so many items; the words become Python's, all else is mapped into memory.

        Raises:
            ValueError: the arrays do not fit together, or are those of another number of items.
        """
        path = folder / FILE
        found = read_arrays(path)
        try:
            keys, categories, words, runs = (_table(path, found, name) for name in _TEXTS)
            fit = len(keys) == len(found["rows"]) == items and are_numbers(found["rows"], np.int32, items)
            fit = fit and are_finite(found["items"], (len(categories),))
            counts = [found[f"{name}.counts"] for name in ("words", "runs")]
            fit = fit and all(are_finite(one, (len(of),)) for one, of in zip(counts, (words, runs), strict=True))
        except KeyError as error:
            raise ValueError(f"{path} has no {error}; make the run's stage data again") from None
        if not fit:
            raise ValueError(f"{path} holds no words of {items} items; make the run's stage data again")
        of_words, of_runs = (
            dict(zip(texts, one.tolist(), strict=True)) for texts, one in zip((words, runs), counts, strict=True)
        )
        return cls(keys, found["rows"], list(categories), found["items"], of_words, of_runs)


def _table(path: Path, found: Mapping[str, NDArray[Any]], name: str) -> TextTable:
    letters, offsets = found[f"{name}.letters"], found[f"{name}.offsets"]
    if letters.dtype != np.uint8 or not are_offsets(offsets, letters):
        raise ValueError(f"{path}: {name} are no texts; make the run's stage data again")
    return TextTable(letters, offsets)
