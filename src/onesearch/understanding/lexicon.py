"""The keyword lexicon of the 18 attribute types and its matching in texts (specification section 2).

Texts and keywords are compared as word sequences: a keyword never begins or ends inside a word of a spaced script, and
since every character of an unspaced script is a word of its own, Chinese keywords match anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import ahocorasick
import numpy as np
import polars as pl

from onesearch.data.attributes import ATTRIBUTE_TYPES
from onesearch.data.ragged import Ragged
from onesearch.understanding.words import split_words

FILE: Final = "lexicon.parquet"
SCHEMA: Final = {"keyword": pl.String, "type": pl.String, "page_views": pl.Float64}


@dataclass(frozen=True)
class Keyword:
    """One keyword, its attribute type and the training page views that speak for it."""

    text: str
    type: str
    page_views: float


class Lexicon:
    """A pool of keywords per attribute type, most page views first; a keyword's number is its place in ``keywords``."""

    def __init__(self, keywords: Sequence[Keyword]) -> None:
        """Order the keywords and drop what equals an earlier one word by word.

        Raises:
            ValueError: a type is not one of the 18.
        """
        for keyword in keywords:
            if keyword.type not in ATTRIBUTE_TYPES:
                known = ", ".join(ATTRIBUTE_TYPES)
                raise ValueError(f"keyword {keyword.text!r} has unknown type {keyword.type!r}; known: {known}")
        ordered = sorted(keywords, key=lambda k: (-k.page_views, ATTRIBUTE_TYPES.index(k.type), k.text))
        by_words: dict[tuple[str, ...], Keyword] = {}
        for keyword in ordered:
            words = tuple(split_words(keyword.text))
            if words:
                by_words.setdefault(words, keyword)
        self.keywords = list(by_words.values())
        self._words = list(by_words)

    def __len__(self) -> int:
        return len(self.keywords)

    @property
    def texts(self) -> list[str]:
        """Keyword texts, by number."""
        return [keyword.text for keyword in self.keywords]

    def of_type(self, attribute: str) -> list[str]:
        """The pool of one attribute type, most page views first."""
        return [keyword.text for keyword in self.keywords if keyword.type == attribute]

    @cached_property
    def _automaton(self) -> Any:
        # Rebuilt at load: the library's own file format is a pickle.
        automaton = ahocorasick.Automaton()
        for number, words in enumerate(self._words):
            pattern = _joined(words)
            automaton.add_word(pattern, (number, len(pattern)))
        automaton.make_automaton()
        return automaton

    def match(self, texts: Sequence[str]) -> Ragged:
        """Keyword numbers found in each text, in text order, each at most once.

        The longest match wins: shorter ones inside it or overlapping it are dropped (equally long: the earlier one).
        """
        if not self.keywords:
            return Ragged.from_lengths(np.zeros(0, np.int32), np.zeros(len(texts), np.int64))
        find = self._automaton.iter
        return Ragged.of([_resolve([(end, *found) for end, found in find(_joined(split_words(t)))]) for t in texts])

    def save(self, folder: Path) -> None:
        """Write ``lexicon.parquet``."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [(keyword.text, keyword.type, keyword.page_views) for keyword in self.keywords]
        pl.DataFrame(rows, schema=SCHEMA, orient="row").write_parquet(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Lexicon":
        """Load what :meth:`save` wrote.

        Raises:
            FileNotFoundError: the folder holds no lexicon.
        """
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no lexicon ({FILE} is missing); run the lexicon's stage first")
        return cls([Keyword(*row) for row in pl.read_parquet(path).select(list(SCHEMA)).iter_rows()])

    @classmethod
    def mine(
        cls, items: pl.DataFrame, page_views: pl.DataFrame, per_type: int = 2000, min_page_views: float = 1.0
    ) -> "Lexicon":
        """Mine the pools from attributes and clicked queries; see :mod:`onesearch.understanding.mining`.

        Args:
            items: the item table (columns item_id, title, category, brand, attributes).
            page_views: *training* page views only (columns query, clicked, ordered).
            per_type: keywords kept of each type.
            min_page_views: clicked page views a keyword needs; attribute values with fewer are left out too, unless
                there are no page views at all.
        """
        from onesearch.understanding.mining import mine_keywords

        return cls(mine_keywords(items, page_views, per_type, min_page_views))


def _joined(words: Sequence[str]) -> str:
    """Words with marks on both sides, so that neighbouring keywords share no character of the text."""
    return "".join([f" {word}\n" for word in words])


def _resolve(matches: list[tuple[int, int, int]]) -> list[int]:
    """Numbers of the kept (end, number, length) matches."""
    if len(matches) < 2:
        return [number for _, number, _ in matches]
    taken: list[tuple[int, int, int]] = []
    for end, number, length in sorted(matches, key=lambda match: (-match[2], match[0])):
        start = end - length
        if all(end <= other_start or start >= other_end for other_start, other_end, _ in taken):
            taken.append((start, end, number))
    return list(dict.fromkeys(number for _, _, number in sorted(taken)))
