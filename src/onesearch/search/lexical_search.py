"""BM25 search over item texts: which items have the words of a query, and how well they match.

The scores of words in items are the sparse matrices of a :class:`LexicalIndex`; a batch of queries is a product with
them. A query's words are looked up as texts may write them: two as one, one as two, a folded letter as two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from onesearch.common.sparse_rows import top_k_of_few
from onesearch.data.requests import Requests
from onesearch.data.text import is_unspaced, item_texts, one_letter
from onesearch.search.hits import Hits
from onesearch.search.lexical_index import LexicalIndex, LexicalSettings
from onesearch.search.ranked_lists import NONE, padded_hits, top_k
from onesearch.search.shards import WHOLE, Shards, best_of_all
from onesearch.search.term_counts import TermCounts
from onesearch.search.text_analyzer import LONGEST_WORD, Analyzer

_CELLS = 8_000_000  # scores held at once while searching: 32 MB
_FEW: Final = 50_000  # texts above which a query's scores stay a sparse row: most texts have none of its words
WordStatus = Literal["known", "lost", "unknown"]
KNOWN: Final = "known"
LOST: Final = "lost"  # the last text with it was removed
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class LexicalMatches:
    """The best items of n queries by BM25; a shorter list is the beginning of a longer one.

    Shapes: ``items`` int64 [n, k] item rows, -1 where fewer items share a term with the query, and ``scores`` float32
    [n, k]; ``best`` float32 [n], the score of the best item, 0 where none matches.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    best: NDArray[np.float32]

    def of_all(self, shards: Shards, k: int) -> "LexicalMatches":
        """The ``k`` best of all shards, given the best of this one."""
        if shards.count == 1:
            return self
        there = torch.from_numpy(np.where(self.items >= 0, self.scores, -np.inf))
        scores, items = (one.numpy() for one in best_of_all(shards, k, there, torch.from_numpy(self.items), True))
        best = shards.gathered(torch.from_numpy(self.best)).amax(0).numpy()
        return LexicalMatches(items, np.where(items >= 0, scores, np.float32(0)), best)


class LexicalSearcher:
    """BM25 search. Immutable: :meth:`add` and :meth:`remove` return a new searcher that shares the big matrix."""

    def __init__(self, index: LexicalIndex) -> None:
        """Use :meth:`build` or :meth:`load`."""
        self.config, self._index = index.config, index
        self._analyze, self._number = index.analyze, index.number

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
        return cls.from_counts(TermCounts.of(texts, Analyzer(config.stemmer)), config)

    @classmethod
    def from_counts(cls, counts: TermCounts, config: LexicalSettings) -> "LexicalSearcher":
        """Index the texts whose terms were counted, with the fields and the stemmer of ``config``.

        Raises:
            ValueError: there is no text with a word in it.
        """
        return cls(LexicalIndex.from_counts(counts, config))

    def __len__(self) -> int:
        return len(self._index)

    @property
    def changes(self) -> int:
        """Texts that came, and those that went, since the last build or merge."""
        return self._index.changes

    def add(self, rows: NDArray[np.integer], texts: Sequence[str]) -> "LexicalSearcher":
        """A searcher that also finds these items; a row that is already indexed gets the new text.

        New texts are weighted as :meth:`LexicalIndex.add` says. Rebuild when many items have been added.
        """
        return LexicalSearcher(self._index.add(rows, texts))

    def remove(self, rows: NDArray[np.integer]) -> "LexicalSearcher":
        """A searcher that no longer finds these item rows."""
        return LexicalSearcher(self._index.remove(rows))

    def merged(self) -> "LexicalSearcher":
        """The same searcher with all its texts in one matrix; word statistics are still those of the last build."""
        return LexicalSearcher(self._index.merged()) if self.changes else self

    def save(self, folder: Path) -> None:
        """Write ``.npy`` arrays (no pickle) and JSON."""
        self._index.save(folder)

    @classmethod
    def load(cls, folder: Path) -> "LexicalSearcher":
        """Read what :meth:`save` wrote."""
        return cls(LexicalIndex.load(folder))

    def knows(self, word: str) -> bool:
        """Whether a search finds a word in item texts; of unspaced scripts also two characters side by side."""
        return self.status([word])[0] == KNOWN

    def status(self, words: Sequence[str], shards: Shards | None = WHOLE) -> list[WordStatus]:
        """Of words what :meth:`knows` says, in the texts of all shards, and which of the others texts had once.

        Without ``shards`` no text was ever changed or removed, so that they need not meet.
        """
        numbers = [self._word_numbers(word) for word in words]
        if shards is None:
            return [KNOWN if found else UNKNOWN for found in numbers]
        flat = [number for of_word in numbers for number in of_word]
        live = iter(shards.gathered(torch.tensor([self._index.is_live(number) for number in flat]) > 0).any(0).tolist())
        # Of a word that texts write as two, both must be there; all of them are looked at.
        there = [[next(live) for _ in of_word] for of_word in numbers]
        return [KNOWN if found and all(found) else LOST if found else UNKNOWN for found in there]

    def together(self, one: str, other: str) -> int:
        """How many texts have both words, at least: of a word that texts write as two, its first part counts."""
        numbers = [self._word_numbers(word)[:1] for word in (one, other)]
        if not all(numbers):
            return 0
        return len(_in_all([self._index.texts_with(number) for (number,) in numbers]))

    def rows_with_all(self, query: str) -> NDArray[np.int64]:
        """Rows of the items whose texts have all words of a query, int64 [m], ascending; of one without words none.

        As in a search, two words may stand as one in a text, and one as two.
        """
        terms = self._analyze(query)
        having = [_in_all([self._index.texts_with(number) for number in self._spelt(term)]) for term in terms]
        for at, (one, other) in enumerate(pairwise(terms)):
            for both in map(self._index.texts_with, self._joined(one, other)):
                having[at : at + 2] = [np.union1d(texts, both) for texts in having[at : at + 2]]
        return np.sort(self._index.rows_at(_in_all(having)))

    def _word_numbers(self, word: str) -> list[int]:
        return self.numbers([word] if is_unspaced(word) else self._analyze(word))

    def numbers(self, terms: Sequence[str]) -> list[int]:
        """Numbers of a query's terms; with two that items write as one, and one that they write as two ("redbull").

        An unknown term may spell a folded letter with two: "groesse" is "Größe" as well as "grosse" is.
        """
        found = [number for term in terms for number in self._spelt(term)]
        return found + [number for one, other in pairwise(terms) for number in self._joined(one, other)]

    def _spelt(self, term: str) -> list[int]:
        """The number of a term, or those of the two that items write it as; none for an unknown one."""
        number = self._number(term)
        number = self._number(one_letter(term)) if number is None else number
        return self._parts(term) if number is None else [number]

    def _joined(self, one: str, other: str) -> list[int]:
        """The number of the term that two neighbours are together, or none."""
        term = one + other
        if not (one.isalpha() and other.isalpha()) or is_unspaced(term):
            return []
        # Two stems joined may end otherwise than the stem of the joined word: "red bull", but "redbul".
        ends = (self._number(end) for end in (term, *self._analyze(term)[:1]))
        return [number for number in ends if number is not None][:1]

    def _parts(self, term: str) -> list[int]:
        """The two terms that an unknown one joins, of at least three letters each, as alike in length as can be."""
        if not term.isalpha() or is_unspaced(term) or len(term) > LONGEST_WORD:
            return []
        for at in sorted(range(3, len(term) - 2), key=lambda at: abs(2 * at - len(term))):
            one, rest = self._number(term[:at]), term[at:]
            if one is None:
                continue
            # A stem ends otherwise at the end of a long word than of a short one: "redbul", but "bull".
            ends = (self._number(end) for end in (rest, rest + rest[-1], self._analyze(rest)[0]))
            other = next((number for number in ends if number is not None), None)
            if other is not None:
                return [one, other]
        return []

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` items with the highest BM25 score; only items that share a term with the query."""
        return self.top_items(requests.query, k)

    def top_items(self, queries: Sequence[str], k: int, weights: NDArray[np.float32] | None = None) -> Hits:
        """Best items by BM25, or by BM25 x ``weights``, which are positive and given per item row [rows]."""
        # Equal queries are scored once.
        distinct, inverse = np.unique(np.asarray(queries, dtype=object), return_inverse=True)
        factor = None if weights is None else weights[self._index.rows_at(np.arange(self._index.columns))]
        found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        for _, scores in self._score_chunks([self._analyze(query) for query in distinct.tolist()]):
            if factor is not None:
                scores = _times(scores, factor.astype(np.float32))
            columns, best = self._top_k(scores, k)
            found.append((np.where(best > 0, self._index.rows_at(columns), NONE), best))
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
        index, main, added = self._index, self._index.main, self._index.added
        columns = main.column[np.where((items < 0) | (items >= len(main.column) - 1), NONE, items)]
        columns = np.where(np.isin(columns, index.gone), NONE, columns)
        order = np.argsort(added.rows)
        place = np.minimum(np.searchsorted(added.rows, items, sorter=order), max(len(added.rows) - 1, 0))
        scores = np.zeros(items.shape, np.float32)
        for row, words in enumerate(terms):
            known = self.numbers(words)
            _add_scores(scores[row], main.matrix, known, columns[row])
            if len(added.rows):
                # The few texts that came later, whole.
                text = order[place[row]]
                (here,) = np.nonzero(added.rows[text] == items[row])
                counts = self._counts([known])
                scores[row, here] = (added.matrix[text[here]] @ counts.T).toarray()[:, 0]
        return scores

    def match(self, queries: Sequence[str], terms: Sequence[Sequence[str]], k: int) -> LexicalMatches:
        """The ``k`` best items of each query; each distinct query is searched for once.

        Args:
            queries: query texts, [n].
            terms: the analysed words of each, [n].
            k: items to find.
        """
        _, first, inverse = np.unique(np.asarray(queries, dtype=object), return_index=True, return_inverse=True)
        k = min(k, self._index.columns)
        items, scores = np.full((len(first), k), NONE, np.int64), np.zeros((len(first), k), np.float32)
        best = np.zeros(len(first), np.float32)
        # A chunk of queries at a time.
        for start, of_catalogue in self._score_chunks([terms[i] for i in first.tolist()]):
            part = slice(start, start + of_catalogue.shape[0])
            columns, scores[part] = self._top_k(of_catalogue, k)
            best[part] = scores[part].max(1, initial=0)
            items[part] = np.where(scores[part] > 0, self._index.rows_at(columns), NONE)
        return LexicalMatches(items[inverse], scores[inverse], best[inverse])

    def _counts(self, queries: Sequence[Sequence[int]]) -> sparse.csr_matrix:
        """Term numbers of queries as counts, [queries, V + W]."""
        lengths = np.fromiter(map(len, queries), np.int64, len(queries))
        flat = np.fromiter((number for query in queries for number in query), np.int64, int(lengths.sum()))
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_matrix(
            (np.ones(len(flat), np.float32), flat, bounds), (len(queries), self._index.added.matrix.shape[1])
        )

    def _top_k(
        self, scores: NDArray[np.float32] | sparse.csr_matrix, k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Columns and scores [chunk, k] of the best texts, equal ones by their rows."""
        rows = self._index.rows
        return top_k(scores, k, rows) if isinstance(scores, np.ndarray) else top_k_of_few(scores, k, rows)

    def _score_chunks(
        self, queries: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, NDArray[np.float32] | sparse.csr_matrix]]:
        """(number of the first query, BM25 of every text [chunk, N + M]) for successive chunks of queries' terms."""
        main, added = self._index.main, self._index.added
        counts = self._counts([self.numbers(query) for query in queries])
        few = self._index.columns > _FEW
        # So many scores at a time: of all texts, or of those alone that have a word of the query.
        each = counts[:, : len(main.idf)] @ main.texts_with if few else np.full(len(queries), self._index.columns)
        chunk = (np.cumsum(each) // _CELLS).astype(np.int64)
        for first, end in pairwise([*np.unique(chunk, return_index=True)[1].tolist(), len(queries)]):
            part = counts[first:end]
            scores = part[:, : len(main.idf)] @ main.matrix
            if few:
                scores.data[np.isin(scores.indices, self._index.gone)] = 0
            else:
                scores = scores.toarray()
                scores[:, self._index.gone] = 0
            # Texts added since the last build.
            if len(added.rows):
                more = added.matrix @ part.T
                scores = sparse.hstack([scores, more.T], "csr") if few else np.hstack([scores, more.toarray().T])
            yield first, scores.astype(np.float32) if few else np.ascontiguousarray(scores, np.float32)


def _times(scores: Any, factor: NDArray[np.float32]) -> Any:
    """Scores [n, N] times a factor of each column [N]."""
    if isinstance(scores, np.ndarray):
        return scores * factor
    scores.data *= factor[scores.indices]
    return scores


def _in_all(lists: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """What all of some ascending lists have, ascending; nothing where there is no list."""
    # The shortest is looked up in the longer ones.
    found, *longer = sorted(lists, key=len) or [np.zeros(0, np.int64)]
    for many in longer if len(found) else ():
        at = np.minimum(np.searchsorted(many, found), len(many) - 1)
        found = found[many[at] == found]
    return found


def _add_scores(
    scores: NDArray[np.float32], matrix: sparse.csr_matrix, terms: Sequence[int], columns: NDArray[np.integer]
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
