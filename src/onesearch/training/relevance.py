"""How relevant an item is to a query, learnt from judgments: ``R_Rel`` where nobody judged (docs/method.md, 7.4).

Boosted trees over how texts, categories and attributes of the two agree. Thoughts, where a run has them, say what words
of need mean. Nothing of clicks, popularity or the shopper is read, so that this reward cannot be earned by bait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from onesearch.common.boosted_trees import read_trees
from onesearch.common.extras import from_extra
from onesearch.data.text import normalise_query
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.thought_table import Thoughts

Floats = NDArray[np.float32]
FEATURES: Final = (
    "cosine of query and item",
    "cosine of keywords and item",
    "query phrases that the item says, share",
    "keywords",
    "keywords that the item says, share",
    "keywords that the item says",
    "depth of the thought's category",
    "levels of it that the item is in",
    "stated attributes that the item has, share",
    "excluded attributes it has",
)
MODEL: Final = "relevance.txt"
_CHUNK: Final = 1 << 18  # pairs at a time
_PARAMETERS: Final[dict[str, Any]] = {
    "objective": "multiclass",
    "num_class": 4,
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 30,
    "verbosity": -1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
}


class PairFeatures:
    """Features of (query, item) pairs; queries and items are numbered.

    Args:
        items: the item table, N rows.
        item_vectors: float32 [N, d], L2-normalised.
        queries: Q texts.
        query_vectors: float32 [Q, d], L2-normalised.
        words: the catalogue's phrases.
        thoughts: of queries, or None.
        keyword_vectors: float32 [Q, d], L2-normalised mean of each query's keywords, zero where there is none.
    """

    def __init__(
        self,
        items: pl.DataFrame,
        item_vectors: Floats,
        queries: Sequence[str],
        query_vectors: Floats,
        words: CatalogueVocabulary,
        thoughts: Thoughts | None = None,
        keyword_vectors: Floats | None = None,
    ) -> None:
        self.item_vectors, self.query_vectors = item_vectors, query_vectors
        self.keyword_vectors = np.zeros_like(query_vectors) if keyword_vectors is None else keyword_vectors
        self._item_phrases = ItemPhrases(items, words)
        self._query_phrases = words.matches(queries)
        # The thought of each query, {} where there is none, and its keywords as phrases.
        found = [-1] * len(queries) if thoughts is None else thoughts.rows(queries).tolist()
        rows = [thoughts.table.row(row, named=True) if thoughts is not None and row >= 0 else {} for row in found]
        number = {phrase: place for place, phrase in enumerate(words.phrases)}
        self._keywords = _sparse([[number.get(word) for word in row.get("keywords", ())] for row in rows], len(number))
        # Attributes that the query states, and those that it rules out.
        self._stated, self._banned = (
            _sparse(
                [
                    [
                        number.get(words.keyword(one["value"]) or "")
                        for one in row.get("attributes", ())
                        if one["negated"] == negated
                    ]
                    for row in rows
                ],
                len(number),
            )
            for negated in (False, True)
        )
        # Categories as nodes of the tree at each depth, so that levels in common are equal entries.
        nodes = {path: place for place, path in enumerate(words.paths)}
        self._item_nodes = _nodes(items["category"].to_list(), nodes)
        self._query_nodes = _nodes([row.get("category", ()) for row in rows], nodes)

    def __len__(self) -> int:
        return len(self.query_vectors)

    def compute(self, queries: NDArray[np.integer], items: NDArray[np.integer]) -> Floats:
        """Features of n pairs, float32 [n, F]; nan where a query has nothing of the kind."""
        parts = [
            self._part(queries[at : at + _CHUNK], items[at : at + _CHUNK]) for at in range(0, len(queries), _CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(FEATURES)), np.float32)

    def _part(self, q: NDArray[np.integer], i: NDArray[np.integer]) -> Floats:
        vectors, phrases = self.item_vectors[i], self._item_phrases.rows(i)
        # float32 [n] each, in the order of FEATURES; a share of nothing is nan, which the trees take as missing.
        levels = (self._query_nodes[q] == self._item_nodes[i]) & (self._query_nodes[q] >= 0)
        depth = (self._query_nodes[q] >= 0).sum(1)
        keywords = np.diff(self._keywords.indptr)[q].astype(np.float32)
        shared = _shared(self._keywords[q], phrases)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = [
                # cosines
                (self.query_vectors[q] * vectors).sum(1),
                np.where(keywords > 0, (self.keyword_vectors[q] * vectors).sum(1), np.nan),
                # phrases of the query and of its keywords
                _shared(self._query_phrases[q], phrases) / np.diff(self._query_phrases.indptr)[q],
                keywords,
                shared / keywords,
                shared,
                # levels of the category tree
                depth,
                np.where(depth > 0, levels.sum(1), np.nan),
                # attributes that the query states, and those that it rules out
                _shared(self._stated[q], phrases) / np.diff(self._stated.indptr)[q],
                _shared(self._banned[q], phrases),
            ]
        return np.stack([np.asarray(column, np.float32) for column in columns], 1)


class ItemPhrases:
    """Which items say which phrase, found when an item is first asked for: a round of preference optimisation meets a
    small part of a large catalogue.
    """

    def __init__(self, items: pl.DataFrame, words: CatalogueVocabulary) -> None:
        self._items, self._words = items, words
        self._place = np.full(len(items), -1, np.int64)  # of an item among the known rows
        self._known = csr_matrix((0, len(words)), dtype=np.float32)

    def rows(self, items: NDArray[np.integer]) -> csr_matrix:
        """float32 0/1 [n, phrases]."""
        # The items that were not asked for before are matched now and stay behind the known ones.
        new = np.unique(items[self._place[items] < 0])
        if len(new):
            self._place[new] = self._known.shape[0] + np.arange(len(new))
            self._known = vstack([self._known, self._words.incidence(self._items[new])], "csr")
        return self._known[self._place[items]]


@dataclass(frozen=True)
class Agreement:
    """Predicted against judged levels of pairs that were held out.

    Attributes:
        pairs: how many.
        accuracy: share with the judged level.
        majority: the accuracy of always saying the most frequent level.
        kappa: Cohen's, quadratically weighted.
        auc: of "level 2 or 3" by the expected level; nan where all pairs are on one side.
    """

    pairs: int
    accuracy: float
    majority: float
    kappa: float
    auc: float


class Relevance:
    """Levels 0 to 3 of pairs by boosted trees.

    ::

        x     = how texts, keywords, categories and attributes of query and item agree (:class:`PairFeatures`)
        trees = gradient boosting of the softmax over four levels, on judged pairs (q, i)
        R_Rel = the judged level of (q, i), else the most probable level
    """

    def __init__(self, model: str) -> None:
        """``model``: trees in LightGBM's text format."""
        with from_extra("train"):
            import lightgbm

        self.text = model
        self._trees = lightgbm.Booster(model_str=model)

    @classmethod
    def fit(cls, features: Floats, levels: NDArray[np.integer], rounds: int = 150) -> "Relevance":
        """Train on judged pairs: features [n, F], levels [n].

        Raises:
            ValueError: there are no judgments.
        """
        with from_extra("train"):
            import lightgbm

        if not len(levels):
            raise ValueError("no judgments, so relevance cannot be learnt; set the weight of R_Rel to 0")
        data = lightgbm.Dataset(features, levels.astype(np.int32), free_raw_data=True)
        return cls(lightgbm.train(_PARAMETERS, data, rounds).model_to_string())

    def shares(self, features: Floats) -> NDArray[np.float64]:
        """Probability of each level, [n, 4]."""
        return np.asarray(self._trees.predict(features)).reshape(-1, 4)

    def levels(self, features: Floats) -> NDArray[np.int8]:
        """The most probable level of each pair, [n]."""
        return np.asarray(self.shares(features).argmax(1), np.int8)

    def agreement(self, features: Floats, levels: NDArray[np.integer]) -> Agreement:
        """How well held-out judgments are met."""
        with from_extra("train"):
            from sklearn.metrics import cohen_kappa_score, roc_auc_score

        # The expected level orders pairs; "good" are related and excellent ones.
        shares, good = self.shares(features), levels >= 2
        said = shares.argmax(1)
        several = good.any() and not good.all()
        return Agreement(
            len(levels),
            float((said == levels).mean()),
            float(np.bincount(levels).max() / len(levels)),
            float(cohen_kappa_score(levels, said, weights="quadratic")),
            float(roc_auc_score(good, shares @ np.arange(4))) if several else float("nan"),
        )

    def save(self, folder: Path) -> None:
        """Write ``relevance.txt``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL).write_text(self.text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Relevance":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file does not hold trees.
        """
        return cls(read_trees(folder / MODEL))


def held_out_queries(queries: Sequence[str], share: float = 0.2, seed: int = 0) -> NDArray[np.bool_]:
    """Which judgments to hold out, by query, bool [n]: all of a query's or none."""
    # In the order of the texts, so that the choice depends on the set of queries and the seed alone.
    distinct = sorted({normalise_query(query) for query in queries})
    drawn = np.random.default_rng(seed).permutation(len(distinct))[: round(share * len(distinct))]
    chosen = {distinct[place] for place in drawn.tolist()}
    return np.fromiter((normalise_query(query) in chosen for query in queries), np.bool_, len(queries))


def _sparse(rows: Sequence[Sequence[int | None]], width: int) -> csr_matrix:
    """0/1 rows from lists of columns; None is left out."""
    kept = [sorted({place for place in row if place is not None}) for row in rows]
    lengths = np.fromiter(map(len, kept), np.int64, len(kept))
    columns = np.fromiter((place for row in kept for place in row), np.int64, int(lengths.sum()))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((np.ones(len(columns), np.float32), columns, offsets), shape=(len(kept), width))


def _shared(one: csr_matrix, other: csr_matrix) -> Floats:
    """How many columns both have, row by row."""
    return np.asarray(one.multiply(other).sum(1), np.float32).ravel()


def _nodes(paths: Sequence[Sequence[str] | None], nodes: dict[tuple[str, ...], int]) -> NDArray[np.int32]:
    """The category node at every depth of each path, int32 [n, D]; -1 below its end, and where it is unknown."""
    deepest = max((len(path) for path in nodes), default=1)
    out = np.full((len(paths), deepest), -1, np.int32)
    for row, path in enumerate(paths):
        for depth in range(min(len(path or ()), deepest)):
            out[row, depth] = nodes.get(tuple((path or ())[: depth + 1]), -1)
    return out
