"""BM25 over item texts: stemmed words for spaced scripts, characters and their bigrams for unspaced ones.

``bm25s`` computes the matrix of word-in-item scores; a batch of queries is then one sparse matrix product. Items added
later live in a small second matrix that uses the first one's word statistics, so that an upsert costs milliseconds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import bm25s
import numpy as np
import polars as pl
import Stemmer
from numpy.typing import NDArray
from scipy import sparse

from onesearch.common.artefact import read_json, write_json
from onesearch.common.settings import Settings
from onesearch.common.sparse_files import load_csr
from onesearch.data.requests import Requests
from onesearch.data.text import is_unspaced, item_texts, split_words
from onesearch.search.hits import Hits
from onesearch.search.ranked_lists import NONE, padded_hits, top_k

STEMMER = "english"
_CELLS = 8_000_000  # scores held at once while searching: 32 MB
_ARRAYS = ("data", "indices", "indptr", "rows", "extra_data", "extra_indices", "extra_indptr", "extra_rows", "idf")


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


class Analyzer:
    """Texts to index terms."""

    def __init__(self, stemmer: str | None) -> None:
        if stemmer is not None and stemmer not in Stemmer.algorithms():
            raise ValueError(f"unknown stemmer {stemmer!r}; choose from {', '.join(Stemmer.algorithms())} or null")
        self._stem: Callable[[str], str] = Stemmer.Stemmer(stemmer).stemWord if stemmer else str
        self._stems: dict[str, str] = {}

    def __call__(self, text: str) -> list[str]:
        """Terms of a text, in order, repetitions kept."""
        stems, terms = self._stems, []
        for word in split_words(text):
            term = stems.get(word)
            if term is None:
                if len(stems) > 500_000:  # a server sees endless misspellings; start over rather than grow
                    stems.clear()
                term = stems[word] = self._stem(word)
            terms.append(term)
        if is_unspaced(text):
            terms += [first + second for first, second in pairwise(terms) if is_unspaced(first) and is_unspaced(second)]
        return terms


@dataclass(frozen=True)
class LexicalMatches:
    """The best items of n queries by BM25, in lists of several lengths.

    Which of equal scores end a list depends on its length, so one list is not the beginning of another.

    Shapes: ``items`` for each length k int64 [n, k] item rows, -1 where fewer items share a term with the query, and
    ``scores`` float32 [n, k]; ``best`` float32 [n], the score of the best item, 0 where none matches.
    """

    items: tuple[NDArray[np.int64], ...]
    scores: tuple[NDArray[np.float32], ...]
    best: NDArray[np.float32]


class LexicalSearcher:
    """BM25 search. Immutable: :meth:`add` and :meth:`remove` return a new searcher that shares the big arrays."""

    def __init__(
        self,
        config: LexicalSettings,
        vocabulary: dict[str, int],
        idf: NDArray[np.float32],
        average_length: float,
        main: sparse.csr_matrix,
        rows: NDArray[np.int64],
        extra: sparse.csr_matrix,
        extra_rows: NDArray[np.int64],
    ) -> None:
        """Use :meth:`build` or :meth:`load`.

        Shapes: ``main`` [V, N] and ``extra`` [V', M] hold term scores; ``rows`` [N] and ``extra_rows`` [M] are item
        rows, -1 where the text has been removed or replaced.
        """
        self.config, self._vocabulary, self._idf, self._average_length = config, vocabulary, idf, average_length
        self._main, self._rows, self._extra, self._extra_rows = main, rows, extra, extra_rows
        self._analyze = Analyzer(config.stemmer)
        for matrix in (main, extra):
            matrix.sort_indices()  # a look-up finds an item among those of a term; scipy remembers what is sorted
        self._all_rows = np.concatenate([rows, extra_rows])
        self._dead = np.flatnonzero(self._all_rows == NONE)
        live = np.flatnonzero(self._all_rows != NONE)
        self._column = np.full(int(self._all_rows.max(initial=-1)) + 2, NONE, np.int64)  # last entry stays -1
        self._column[self._all_rows[live]] = live

    @classmethod
    def build(cls, items: pl.DataFrame, config: LexicalSettings | None = None) -> "LexicalSearcher":
        """Index an item table; item rows are its row numbers."""
        config = config or LexicalSettings()
        return cls.from_texts(item_texts(items, config.fields, distinct=False), config)

    @classmethod
    def from_texts(cls, texts: Sequence[str], config: LexicalSettings | None = None) -> "LexicalSearcher":
        """Index ready-made texts; the i-th text is item row i.

        Raises:
            ValueError: there is no text with a word in it.
        """
        config = config or LexicalSettings()
        analyze = Analyzer(config.stemmer)
        vocabulary: dict[str, int] = {}
        documents = [[vocabulary.setdefault(term, len(vocabulary)) for term in analyze(text)] for text in texts]
        if not vocabulary:
            raise ValueError(f"none of the {len(texts)} item texts holds a word; check LexicalSettings.fields")
        # bm25s gives the scores of all (term, text) pairs; a query is the sum of its terms' columns.
        engine = bm25s.BM25(method="lucene", k1=config.k1, b=config.b)
        built = engine.build_index_from_ids(list(range(len(vocabulary))), documents, show_progress=False)
        main = sparse.csr_matrix(
            (built["data"].astype(np.float32), built["indices"], built["indptr"]), (len(vocabulary), len(texts))
        )
        # Statistics that texts added later are weighted with.
        frequency = np.diff(main.indptr)
        idf = np.log1p((len(texts) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        average = float(np.mean([len(document) for document in documents]))
        rows = np.arange(len(texts), dtype=np.int64)
        nothing = sparse.csr_matrix((len(vocabulary), 0), dtype=np.float32)
        return cls(config, vocabulary, idf, average, main, rows, nothing, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self._all_rows) - len(self._dead)

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` items with the highest BM25 score; only items that share a term with the query."""
        return self.top_items(requests.query, k)

    def top_items(self, queries: Sequence[str], k: int, weights: NDArray[np.float32] | None = None) -> Hits:
        """Best items by BM25, or by BM25 x ``weights``, which are positive and given per item row [rows]."""
        # Equal queries are scored once.
        distinct, inverse = np.unique(np.asarray(queries, dtype=object), return_inverse=True)
        factor = None if weights is None else np.where(self._all_rows == NONE, 0, weights[self._all_rows])
        found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        for _, scores in self._score_chunks([self._analyze(query) for query in distinct.tolist()]):
            columns, best = top_k(scores if factor is None else scores * factor.astype(np.float32), k)
            found.append((np.where(best > 0, self._all_rows[columns], NONE), best))
        if not found:
            return padded_hits(np.zeros((0, k), np.int64), np.zeros((0, k), np.float32), k)
        items, best = (np.concatenate(parts)[inverse] for parts in zip(*found, strict=True))
        return padded_hits(items, best, k)

    def scores(self, queries: Sequence[str], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """BM25 of given candidates, as :meth:`pair_scores`, from query texts [n]."""
        return self.pair_scores([self._analyze(query) for query in queries], items)

    def pair_scores(self, terms: Sequence[Sequence[str]], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """BM25 of given candidates, float32 [n, C]; 0 for -1 and for items that are not indexed.

        Nothing but the candidates is scored: each is looked up among the items of each of the query's terms.

        Args:
            terms: the analysed words of each query, [n].
            items: item rows, [n, C].
        """
        columns = self._column[np.where(items >= len(self._column) - 1, NONE, items)]
        scores, first_extra = np.zeros(items.shape, np.float32), self._main.shape[1]
        for row, words in enumerate(terms):
            known = [self._vocabulary[word] for word in words if word in self._vocabulary]
            _add_scores(scores[row], self._main, known, columns[row])
            if self._extra.shape[1]:
                _add_scores(scores[row], self._extra, known, columns[row] - first_extra)
        return scores

    def match(self, queries: Sequence[str], terms: Sequence[Sequence[str]], *lengths: int) -> LexicalMatches:
        """The best items of each query, in a list of each of the ``lengths``, from scoring the catalogue once.

        Args:
            queries: query texts, [n].
            terms: the analysed words of each, [n].
            lengths: items to find.
        """
        _, first, inverse = np.unique(np.asarray(queries, dtype=object), return_index=True, return_inverse=True)
        sizes = [min(k, len(self._all_rows)) for k in lengths]
        items = [np.full((len(first), k), NONE, np.int64) for k in sizes]
        scores, best = [np.zeros((len(first), k), np.float32) for k in sizes], np.zeros(len(first), np.float32)
        # Each distinct query is searched for once, a chunk of them at a time.
        for start, of_catalogue in self._score_chunks([terms[i] for i in first.tolist()]):
            part = slice(start, start + len(of_catalogue))
            best[part] = of_catalogue.max(1, initial=0)
            for found, top, k in zip(items, scores, sizes, strict=True):
                columns, top[part] = top_k(of_catalogue, k)
                found[part] = np.where(top[part] > 0, self._all_rows[columns], NONE)
        return LexicalMatches(
            tuple(one[inverse] for one in items), tuple(one[inverse] for one in scores), best[inverse]
        )

    def add(self, rows: NDArray[np.integer], texts: Sequence[str]) -> "LexicalSearcher":
        """A searcher that also finds these items; a row that is already indexed gets the new text.

        New texts are weighted with the word statistics of the last build; a word not seen there counts as rare as
        a word can be. Rebuild when many items have been added.
        """
        if len(rows) != len(texts):
            raise ValueError(f"{len(rows)} item rows but {len(texts)} texts; give one text per row")
        kept = self.remove(rows)
        # Texts to term numbers; words that the last build did not know get new ones.
        vocabulary = dict(self._vocabulary)
        documents = [[vocabulary.setdefault(term, len(vocabulary)) for term in self._analyze(text)] for text in texts]
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        terms = np.fromiter((term for document in documents for term in document), np.int64, int(lengths.sum()))
        owners = np.repeat(np.arange(len(texts)), lengths)
        # idf of a word that a single text holds: what the last build would have given it.
        rarest = np.log1p((len(self._rows) - 0.5) / 1.5)
        idf = np.concatenate([self._idf, np.full(len(vocabulary) - len(self._idf), rarest, np.float32)])
        # BM25 of each (term, new text), as bm25s has it: idf · tf / (tf + k1 (1 - b + b · length / average)).
        counts = sparse.csr_matrix((np.ones(len(terms)), (terms, owners)), (len(vocabulary), len(texts)))
        counts.sum_duplicates()
        tf, owner = counts.data, counts.indices
        k1, b = self.config.k1, self.config.b
        norm = k1 * (1 - b + b * lengths[owner] / self._average_length)
        counts.data = np.repeat(idf, np.diff(counts.indptr)) * tf / (tf + norm)
        # The new texts stand behind those added before; the big matrix of the last build is shared.
        old = sparse.csr_matrix(
            (self._extra.data, self._extra.indices, _stretched(self._extra.indptr, len(vocabulary))),
            (len(vocabulary), self._extra.shape[1]),
        )
        extra = sparse.hstack([old, counts.astype(np.float32)], format="csr")
        extra_rows = np.concatenate([kept._extra_rows, np.asarray(rows, np.int64)])
        return LexicalSearcher(
            self.config, vocabulary, idf, self._average_length, self._main, kept._rows, extra, extra_rows
        )

    def remove(self, rows: NDArray[np.integer]) -> "LexicalSearcher":
        """A searcher that no longer finds these item rows."""
        return LexicalSearcher(
            self.config,
            self._vocabulary,
            self._idf,
            self._average_length,
            self._main,
            np.where(np.isin(self._rows, rows), NONE, self._rows),
            self._extra,
            np.where(np.isin(self._extra_rows, rows), NONE, self._extra_rows),
        )

    def save(self, folder: Path) -> None:
        """Write ``.npy`` arrays (no pickle) and JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = (
            self._main.data,
            self._main.indices,
            self._main.indptr,
            self._rows,
            self._extra.data,
            self._extra.indices,
            self._extra.indptr,
            self._extra_rows,
            self._idf,
        )
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        description = {"config": self.config.model_dump(), "average_length": self._average_length}
        write_json(folder / "lexical.json", {**description, "terms": list(self._vocabulary)})

    @classmethod
    def load(cls, folder: Path) -> "LexicalSearcher":
        """Read what :meth:`save` wrote."""
        if not (folder / "lexical.json").is_file():
            raise FileNotFoundError(f"{folder} holds no BM25 index (lexical.json is missing); build and save one first")
        description = read_json(folder / "lexical.json")
        rows, extra_rows, idf = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("rows", "extra_rows", "idf")
        )
        vocabulary = {term: i for i, term in enumerate(description["terms"])}
        main, extra = load_csr(folder, "", len(rows)), load_csr(folder, "extra_", len(extra_rows))
        config = LexicalSettings.model_validate(description["config"])
        return cls(config, vocabulary, idf, description["average_length"], main, rows, extra, extra_rows)

    def _score_chunks(self, queries: Sequence[Sequence[str]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(number of the first query, BM25 of every text [chunk, N + M]) for successive chunks of queries' terms."""
        known = self._vocabulary
        # Queries as a sparse count matrix [queries, terms].
        numbers = [[known[term] for term in query if term in known] for query in queries]
        lengths = np.fromiter(map(len, numbers), np.int64, len(numbers))
        flat = np.fromiter((number for query in numbers for number in query), np.int64, int(lengths.sum()))
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        matrix = sparse.csr_matrix((np.ones(len(flat), np.float32), flat, bounds), (len(queries), len(self._idf)))
        # The product is sparse, its rows are read densely: a chunk of them at a time.
        size = max(1, _CELLS // max(len(self._all_rows), 1))
        main_terms = self._main.shape[0]
        for first in range(0, len(queries), size):
            part = matrix[first : first + size]
            scores = (part[:, :main_terms] @ self._main).toarray()
            # Texts added since the last build, then those taken out.
            if self._extra.shape[1]:
                scores = np.hstack([scores, (part @ self._extra).toarray()])
            if len(self._dead):
                scores[:, self._dead] = 0
            yield first, np.ascontiguousarray(scores, np.float32)


def _add_scores(
    scores: NDArray[np.float32], matrix: sparse.csr_matrix, terms: Sequence[int], columns: NDArray[np.int64]
) -> None:
    """Add each term's scores of the texts ``columns`` [C] to ``scores`` [C]; there is none outside of the matrix."""
    wanted = columns.astype(matrix.indices.dtype)
    for term in terms:
        if term >= matrix.shape[0]:
            continue
        part = slice(matrix.indptr[term], matrix.indptr[term + 1])
        texts = matrix.indices[part]
        if len(texts):
            at = np.minimum(np.searchsorted(texts, wanted), len(texts) - 1)
            scores += np.where(texts[at] == wanted, matrix.data[part][at], np.float32(0))


def _stretched(indptr: NDArray[np.integer], terms: int) -> NDArray[np.integer]:
    """Row pointers of a matrix that gets empty rows at its end."""
    return np.concatenate([indptr, np.full(terms + 1 - len(indptr), indptr[-1], indptr.dtype)])
