"""Item texts as a lexical index: BM25 of each term in each text, built, changed, merged and kept in files.

The texts of the last build are one sparse matrix (``term_counts.py``). Texts that come later live in a small second
one, weighted with the first one's word statistics, until they are merged into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onesearch.common.array_files import map_array
from onesearch.common.artefact import read_json, write_json
from onesearch.common.settings import Settings
from onesearch.common.sparse_files import load_csr
from onesearch.common.text_numbers import TextNumbers
from onesearch.search.ranked_lists import NONE
from onesearch.search.term_counts import TermCounts
from onesearch.search.text_analyzer import STEMMER, Analyzer

_ARRAYS: Final = ("data", "indices", "indptr", "rows", "idf")


class LexicalSettings(Settings):
    """How item texts are made and weighted."""

    fields: tuple[str, ...] = ("title", "brand", "category")
    """Item columns joined to one text; "attributes" adds all attribute values."""
    stemmer: str | None = STEMMER
    """Snowball language for spaced scripts; None keeps words as they are."""
    k1: float = 1.2
    """Saturation of repeated words."""
    b: float = 0.75
    """Strength of the length normalisation, 0..1."""


@dataclass(frozen=True)
class MainTexts:
    """The texts of the last build or merge.

    Attributes:
        vocabulary: term to number; idf: float32 [V] of each.
        average_length: of the texts of the last build, in terms; texts: how many there were.
        matrix: BM25 of each term in each text, [V, N].
        rows: the item row of each text, int64 [N].
        column: the text of each item row, int32, -1 for none; its last entry, too.
    """

    vocabulary: Mapping[str, int]
    idf: NDArray[np.float32]
    average_length: float
    texts: int
    matrix: sparse.csr_matrix
    rows: NDArray[np.int64]
    column: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        vocabulary: Mapping[str, int],
        idf: NDArray[np.float32],
        average_length: float,
        texts: int,
        matrix: sparse.csr_matrix,
        rows: NDArray[np.int64],
    ) -> "MainTexts":
        """With the column of each row."""
        matrix.sort_indices()  # a look-up finds an item among those of a term; scipy remembers what is sorted
        column = np.full(int(rows.max(initial=-1)) + 2, NONE, np.int32)
        column[rows] = np.arange(len(rows))
        return cls(vocabulary, idf, average_length, texts, matrix, rows, column)

    @cached_property
    def texts_with(self) -> NDArray[np.int64]:
        """How many texts have each term, int64 [V]."""
        counts: NDArray[np.int64] = np.diff(self.matrix.indptr).astype(np.int64)
        return counts


@dataclass(frozen=True)
class AddedTexts:
    """Texts that came later: BM25 by text, [M, V + W], their item rows int64 [M], W new terms numbered from V on."""

    matrix: sparse.csr_matrix
    rows: NDArray[np.int64]
    words: Mapping[str, int]


class LexicalIndex:
    """Texts by item row. Immutable: :meth:`add` and :meth:`remove` return a new index that shares the big matrix.

    Attributes:
        config: how the texts were made and are weighted.
        main: those of the last build or merge.
        added: those that came later.
        gone: columns of ``main`` whose text is no longer there, int64, ascending.
        analyze: cuts texts, and queries for them, into terms.
    """

    def __init__(
        self,
        config: LexicalSettings,
        main: MainTexts,
        added: AddedTexts | None = None,
        gone: NDArray[np.int64] | None = None,
    ) -> None:
        """Use :meth:`from_counts` or :meth:`load`."""
        self.config, self.main = config, main
        nothing = sparse.csr_matrix((0, len(main.idf)), dtype=np.float32)
        self.added = AddedTexts(nothing, np.zeros(0, np.int64), {}) if added is None else added
        self.gone = np.zeros(0, np.int64) if gone is None else gone
        self.analyze = Analyzer(config.stemmer)

    @classmethod
    def from_counts(cls, counts: TermCounts, config: LexicalSettings) -> "LexicalIndex":
        """Index the texts whose terms were counted, with the fields and the stemmer of ``config``.

        Raises:
            ValueError: there is no text with a word in it.
        """
        if not counts.vocabulary:
            raise ValueError(f"none of the {len(counts.lengths)} item texts holds a word; check LexicalSettings.fields")
        # Texts added later are weighted with the statistics of these.
        idf, average, texts = counts.idf(), counts.average_length, len(counts.lengths)
        matrix = counts.weighted(idf, average, config.k1, config.b).T.tocsr()
        rows = np.arange(texts, dtype=np.int64)
        return cls(config, MainTexts.of(counts.vocabulary, idf, average, texts, matrix, rows))

    def __len__(self) -> int:
        return self.columns - len(self.gone)

    @property
    def changes(self) -> int:
        """Texts that came, and those that went, since the last build or merge."""
        return len(self.added.rows) + len(self.gone)

    @property
    def columns(self) -> int:
        """Texts that have scores: those of the big matrix, gone or not, then those that came later."""
        return len(self.main.rows) + len(self.added.rows)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The item row of every text; equal scores go by it, whenever a text came."""
        return np.concatenate([self.main.rows, self.added.rows]) if len(self.added.rows) else self.main.rows

    def rows_at(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Item rows of texts, those of the big matrix first."""
        main, added = self.main.rows, self.added.rows
        later = columns >= len(main)
        rows = np.empty(columns.shape, np.int64)
        rows[later], rows[~later] = added[columns[later] - len(main)], main[columns[~later]]
        return rows

    def number(self, term: str) -> int | None:
        """The number of a term; None for one that no text ever had."""
        found = self.main.vocabulary.get(term)
        return self.added.words.get(term) if found is None else found

    def is_live(self, number: int) -> bool:
        """Whether a text has a term; terms stay in the vocabulary when the last text with them is removed."""
        main, added = self.main.matrix, self.added.matrix
        if number < main.shape[0]:
            columns = main.indices[main.indptr[number] : main.indptr[number + 1]]
            # Most terms are in more texts than are gone.
            if len(columns) > len(self.gone) or not np.isin(columns, self.gone).all():
                return True
        return bool((added.indices == number).any())

    def texts_with(self, number: int) -> NDArray[np.int64]:
        """The columns of the texts that have a term, ascending."""
        main, added = self.main.matrix, self.added.matrix
        found = [len(self.main.rows) + np.flatnonzero(added[:, number].toarray())] if added.shape[0] else []
        if number < main.shape[0]:
            columns = main.indices[main.indptr[number] : main.indptr[number + 1]]
            found.insert(0, columns[~np.isin(columns, self.gone)] if len(self.gone) else columns)
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def add(self, rows: NDArray[np.integer], texts: Sequence[str]) -> "LexicalIndex":
        """With the texts of these items; a row that is already indexed gets the new text.

        New texts are weighted with the word statistics of the last build; a word not seen there counts as rare as
        a word can be. Rebuild when many items have been added.
        """
        if len(rows) != len(texts):
            raise ValueError(f"{len(rows)} item rows but {len(texts)} texts; give one text per row")
        kept, main = self.remove(rows), self.main
        # Words that the last build did not know get numbers after its own.
        counts = TermCounts.of(texts, self.analyze, main.vocabulary, kept.added.words)
        words = counts.vocabulary
        # idf of a word that a single text holds: what the last build would have given it.
        rarest = np.float32(np.log1p((main.texts - 0.5) / 1.5))
        idf = np.concatenate([main.idf, np.full(len(words), rarest, np.float32)])
        new = counts.weighted(idf, main.average_length, self.config.k1, self.config.b)
        # The new texts stand behind those added before.
        old = kept.added.matrix
        old = sparse.csr_matrix((old.data, old.indices, old.indptr), (old.shape[0], len(idf)))
        matrix = sparse.vstack([old, new], format="csr")
        added = AddedTexts(matrix, np.concatenate([kept.added.rows, np.asarray(rows, np.int64)]), words)
        return LexicalIndex(self.config, main, added, kept.gone)

    def remove(self, rows: NDArray[np.integer]) -> "LexicalIndex":
        """Without the texts of these item rows."""
        main, added = self.main, self.added
        asked = np.asarray(rows, np.int64)
        columns = main.column[asked[(asked >= 0) & (asked < len(main.column) - 1)]]
        gone = np.union1d(self.gone, columns[columns != NONE])
        stays = ~np.isin(added.rows, asked)
        if not stays.all():
            added = AddedTexts(added.matrix[stays], added.rows[stays], added.words)
        return LexicalIndex(self.config, main, added, gone)

    def merged(self) -> "LexicalIndex":
        """The same texts in one matrix; word statistics are still those of the last build."""
        if not self.changes:
            return self
        main, added = self.main, self.added
        vocabulary = TextNumbers(chain(main.vocabulary, added.words))  # new ones are numbered behind the others
        rarest = np.float32(np.log1p((main.texts - 0.5) / 1.5))
        idf = np.concatenate([main.idf, np.full(len(added.words), rarest, np.float32)])
        stays = np.ones(len(main.rows), bool)
        stays[self.gone] = False
        # Columns that stay, then the texts added; terms that are new have empty rows in the big matrix.
        empty = sparse.csr_matrix((len(added.words), len(main.rows)), dtype=np.float32)
        old = sparse.vstack([main.matrix, empty], format="csr")[:, np.flatnonzero(stays)]
        new = sparse.csr_matrix(
            (added.matrix.data, added.matrix.indices, added.matrix.indptr), (len(added.rows), len(idf))
        )
        matrix = sparse.hstack([old, new.T], format="csr")
        rows = np.concatenate([main.rows[stays], added.rows])
        return LexicalIndex(self.config, MainTexts.of(vocabulary, idf, main.average_length, main.texts, matrix, rows))

    def save(self, folder: Path) -> None:
        """Write ``.npy`` arrays (no pickle) and JSON."""
        main = self.merged().main
        folder.mkdir(parents=True, exist_ok=True)
        arrays = (main.matrix.data, main.matrix.indices, main.matrix.indptr, main.rows, main.idf)
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        description = {"config": self.config.model_dump(), "average_length": main.average_length, "texts": main.texts}
        write_json(folder / "lexical.json", {**description, "terms": list(main.vocabulary)})

    @classmethod
    def load(cls, folder: Path) -> "LexicalIndex":
        """Read what :meth:`save` wrote."""
        if not (folder / "lexical.json").is_file():
            raise FileNotFoundError(f"{folder} holds no BM25 index (lexical.json is missing); build and save one first")
        about = read_json(folder / "lexical.json")
        rows, idf = (map_array(folder / f"{name}.npy") for name in ("rows", "idf"))
        try:
            vocabulary = TextNumbers(about["terms"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'lexical.json'}: terms: {error}; build and save the index again") from None
        matrix = load_csr(folder, "", len(rows))
        main = MainTexts.of(vocabulary, idf, about["average_length"], about.get("texts", len(rows)), matrix, rows)
        return cls(LexicalSettings.model_validate(about["config"]), main)
