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
BEGINNING_COLUMNS: Final = ("title", "category")
WORD_COLUMNS: Final = ("title", "brand", "seller", "category", "attributes")
"""Columns of the item table that :class:`Beginnings` and words are made of."""
_TEXTS: Final = ("keys", "categories", "words", "runs")
Floats = NDArray[np.float32]


def sorted_keys(texts: Sequence[str]) -> tuple[TextTable, NDArray[np.int32]]:
    """Completion keys of texts, sorted, and the number of the text of each, int32 [n]."""
    keys = [completion_key(text) for text in texts]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    # Not Python's texts: they take less memory, and few are looked at.
    return TextTable.from_texts(keys[i] for i in order), np.array(order, np.int32)


@dataclass(frozen=True)
class Beginnings:
    """What is completed, of the items of a table.

    Attributes:
        keys: of the titles (:func:`~onesearch.data.text.completion_key`), sorted.
        rows: int32 [N], the item of each key.
        categories: names of a level of a path, those of the most items first.
        counts: float32 [C], how many items each category has.
    """

    keys: Sequence[str]
    rows: NDArray[np.int32]
    categories: Sequence[str]
    counts: Floats

    @classmethod
    def of(cls, items: pl.DataFrame) -> "Beginnings":
        """Of an item table, or its :data:`BEGINNING_COLUMNS`."""
        counted = items["category"].explode().drop_nulls().value_counts(name="items")
        counted = counted.sort("items", "category", descending=[True, False])  # in one order in every process
        titles = sorted_keys(items["title"].fill_null("").to_list())
        return cls(*titles, counted["category"].to_list(), counted["items"].to_numpy().astype(np.float32))


@dataclass(frozen=True)
class CatalogueWords:
    """What a run's file has.

    Attributes:
        beginnings: of the titles and categories.
        words: of titles, names and values, with how often, float32; ``runs``: of names and values, in scripts without
            spaces.
    """

    beginnings: Beginnings
    words: tuple[Sequence[str], Floats]
    runs: tuple[Sequence[str], Floats]

    @classmethod
    def of(cls, items: pl.DataFrame) -> "CatalogueWords":
        """Of an item table."""
        # Sorted, so that the same items make the same file.
        words, runs = (sorted(one.items()) for one in item_words(items))
        texts = [[text for text, _ in one] for one in (words, runs)]
        counts = [np.array([count for _, count in one], np.float32) for one in (words, runs)]
        return cls(Beginnings.of(items), (texts[0], counts[0]), (texts[1], counts[1]))

    def counted(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Words and runs as :func:`~onesearch.search.spelling.item_words` gives them."""
        words, runs = (dict(zip(texts, counts.tolist(), strict=True)) for texts, counts in (self.words, self.runs))
        return words, runs

    def save(self, folder: Path) -> None:
        """Write one file into a folder."""
        arrays: dict[str, NDArray[Any]] = {"rows": self.beginnings.rows, "categories.counts": self.beginnings.counts}
        arrays |= {"words.counts": self.words[1], "runs.counts": self.runs[1]}
        texts = (self.beginnings.keys, self.beginnings.categories, self.words[0], self.runs[0])
        for name, some in zip(_TEXTS, texts, strict=True):
            table = TextTable.from_texts(some)
            arrays |= {f"{name}.letters": table.letters, f"{name}.offsets": table.offsets}
        write_arrays(folder / FILE, arrays)

    @classmethod
    def load(cls, folder: Path, items: int) -> "CatalogueWords":
        """What :meth:`save` wrote of so many items, mapped into memory.

        Raises:
            ValueError: the arrays do not fit together, or are those of another number of items.
        """
        path = folder / FILE
        found = read_arrays(path)
        try:
            keys, categories, words, runs = (_table(path, found, name) for name in _TEXTS)
            rows = found["rows"]
            fit = rows.shape == (items,) and len(keys) == items and are_numbers(rows, np.int32, items)
            counts = [found[f"{name}.counts"] for name in _TEXTS[1:]]
            for one, of in zip(counts, (categories, words, runs), strict=True):
                fit = fit and are_finite(one, (len(of),))
        except KeyError as error:
            raise ValueError(f"{path} has no {error}; make the run's stage data again") from None
        if not fit:
            raise ValueError(f"{path} holds no words of {items} items; make the run's stage data again")
        return cls(Beginnings(keys, rows, list(categories), counts[0]), (words, counts[1]), (runs, counts[2]))


def _table(path: Path, found: Mapping[str, NDArray[Any]], name: str) -> TextTable:
    letters, offsets = found[f"{name}.letters"], found[f"{name}.offsets"]
    if letters.dtype != np.uint8 or not are_offsets(offsets, letters):
        raise ValueError(f"{path}: {name} are no texts; make the run's stage data again")
    return TextTable(letters, offsets)
