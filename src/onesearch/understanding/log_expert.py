"""Thoughts without a language model: what shoppers clicked for a query, or for queries with the same rare words.

The paper has a language model think; this producer needs none (docs/method.md, section 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags, hstack

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.text import is_unspaced, normalise_query, split_words
from onesearch.understanding.catalogue_vocabulary import STOP_WORDS, CatalogueVocabulary, singular
from onesearch.understanding.keyword_lexicon import Lexicon
from onesearch.understanding.query_types import split_negated
from onesearch.understanding.rule_thoughts import (
    MOST_TOPICS,
    StatedAttributes,
    thought_of_topics,
    topic_phrases,
    typed_phrases,
)
from onesearch.understanding.thought import Thought, ThoughtError

Floats = NDArray[np.float64]

# Constants of equations 4.3 and 4.4, chosen on the simulated market.
_CLICKS_OF_A_WORD: Final = 20.0  # one word never counts for more clicks than this
_ENOUGH_OWN: Final = 5.0  # own clicks at which words count half
_PRIOR: Final = 2.0  # clicks at catalogue share that smooth a phrase's share
_LEAST_SHARE: Final = 0.1
_LEAST_LIFT: Final = 0.2
_SHORT_LIST: Final = 24  # phrases of a query from which its topics are taken
_PART_OF_LONGER: Final = 0.8  # of a phrase's clicks: it hardly occurs outside the longer phrase
_CATEGORY_SHARE: Final = 0.6  # of a query's clicks: they lie in one category
_CHUNK: Final = 2048  # queries at once
_NOTHING: Final = 1e-9  # clicks below this are rounding errors


@dataclass(frozen=True)
class _ClickMass:
    """Click mass of n queries (4.3): ``parts`` sparse [n, P + K] by phrase and category node, ``total`` [n]."""

    parts: csr_matrix
    total: Floats


class LogExpert:
    """A :class:`~onesearch.understanding.thought.Producer` that reads the *training* log.

    For a query::

        mass = its own clicks + those of the queries that share a word with it, rare words more (4.3),
            by phrase of the catalogue and by category node
        topics = what the query itself says, then phrases by lift over their catalogue share times root of mass (4.4)
        category = the deepest node with 60 % of the mass
        keywords = step 2 of the topics, as for any producer

    The keywords of a training query are informed by its own clicks, so they may name what its page views were clicked
    for. With ``leave_out_own`` only the queries that share words with it speak, as if it had never been asked; the
    order of keywords still follows popularity in the whole training log.
    """

    name = "log-expert"
    version = "1"

    def __init__(
        self,
        words: CatalogueVocabulary,
        kinds: Mapping[str, str],
        phrases: Sequence[str],
        share: Floats,
        statistics: ClickStatistics,
        clicks: csr_matrix,
        leave_out_own: bool,
    ) -> None:
        """See :meth:`from_log`.

        Args:
            words: the catalogue.
            kinds: attribute types of canonical phrases, for the attributes that a query states.
            phrases: P candidate topics.
            share: their shares of the catalogue's items, [P].
            statistics: of the training log, Q queries.
            clicks: of each query on items with each phrase, in each of K category nodes, and of all items;
                float64 [Q, P + K + 1].
            leave_out_own: a query's own clicks do not count.
        """
        self._words, self._phrases, self._share, self._leave_out_own = words, list(phrases), share, leave_out_own
        self._statistics, self._clicks = statistics, clicks
        self._total_clicks: Floats = clicks[:, -1].toarray().ravel()
        self._depth = np.array([len(path) for path in words.paths], np.int64)
        self._stated = StatedAttributes(words, kinds)
        # Of each of W words: queries that say it [W], their clicks [W], these by phrase and node [W, P + K + 1].
        self._word_number: dict[str, int] = {}
        bags = [_informative_words(query) for query in statistics.queries]
        for bag in bags:
            for word in bag:
                self._word_number.setdefault(word, len(self._word_number))
        says = self._bags(bags)
        self._queries_of_word: Floats = np.asarray(says.sum(0)).ravel()
        self._clicks_of_word: Floats = says.T @ self._total_clicks
        self._of_words = (says.T @ clicks).tocsr()

    @classmethod
    def from_log(
        cls,
        items: pl.DataFrame,
        statistics: ClickStatistics,
        words: CatalogueVocabulary,
        lexicon: Lexicon | None,
        leave_out_own: bool = False,
    ) -> "LogExpert":
        """Count clicks by phrase and category.

        Args:
            items: the item table [N].
            statistics: of the *training* page views, over the same items.
            words: the catalogue's words, over the same items.
            lexicon: its keywords join attribute values, brands and names of lowest categories as candidates; without
                one every phrase of the pool is a candidate.
            leave_out_own: see the class.
        """
        # The P phrases that may be topics, and their shares of the items [P].
        kinds = typed_phrases(words, lexicon)
        chosen = topic_phrases(words, kinds, lexicon)
        holds = words.incidence(items).tocsc()[:, chosen].astype(np.float64)
        share = (np.asarray(holds.sum(0)).ravel() + 0.5) / (len(items) + 1)
        # Of each item: phrases, category nodes, and 1 for all clicks [N, P + K + 1]; then of each query [Q, P + K + 1].
        features = hstack([holds, _nodes(items, words), np.ones((len(items), 1))]).tocsr()
        clicked = statistics.items
        shape = (len(statistics.queries), len(items))
        item_clicks = csr_matrix((statistics.counts.astype(np.float64), clicked.values, clicked.offsets), shape=shape)
        phrases = [words.phrases[i] for i in chosen.tolist()]
        return cls(words, kinds, phrases, share, statistics, (item_clicks @ features).tocsr(), leave_out_own)

    async def think(self, query: str) -> Thought:
        """Steps 1 and 2 for one query.

        Raises:
            ThoughtError: the query wants merchandise, but neither the log nor the lexicon knows any of its words.
        """
        (thought,) = self.think_all([query])
        if thought.analysis.intent == "merchandise" and not thought.keywords:
            raise ThoughtError(f"no keywords for {thought.query!r}: no query of the log shares a word with it")
        return thought

    def think_all(self, queries: Sequence[str]) -> list[Thought]:
        """Thoughts of many queries, in order; where nothing is known the thought has no keywords."""
        normal = [normalise_query(query) for query in queries]
        out: list[Thought] = []
        for begin in range(0, len(normal), _CHUNK):
            out += self._chunk(normal[begin : begin + _CHUNK])
        return out

    def _chunk(self, queries: list[str]) -> list[Thought]:
        # What each query states, and what was clicked for it and for queries like it.
        stated, mass = self._stated.find(queries), self._click_mass(queries)
        topics, categories = self._topics(mass), self._categories(mass)
        producer = self.name, self.version
        return [
            thought_of_topics(query, stated[i], topics[i], categories[i], producer, self._words)
            for i, query in enumerate(queries)
        ]

    def _bags(self, bags: Sequence[Sequence[str]]) -> csr_matrix:
        """Which text holds which known word: float64 0/1 [n, words]."""
        get = self._word_number.get
        numbers = [sorted(n for n in (get(word, -1) for word in bag) if n >= 0) for bag in bags]
        ends = np.cumsum([0, *map(len, numbers)])
        flat = np.fromiter((n for bag in numbers for n in bag), np.int64, int(ends[-1]))
        return csr_matrix((np.ones(len(flat)), flat, ends), shape=(len(bags), len(self._word_number)))

    def _click_mass(self, queries: list[str]) -> _ClickMass:
        """Own clicks plus those of queries with the same words, the rarer the word the more (4.3)."""
        # Own clicks and whether the log has the query: [n].
        rows = self._statistics.query_numbers(queries)
        known = np.flatnonzero(rows >= 0)
        clicks, asked = np.zeros(len(queries)), np.zeros(len(queries))
        clicks[known] = self._total_clicks[rows[known]]
        asked[known] = 1.0
        # Of each (query, word) the queries of the log that say the word, and their clicks; without this query's own.
        says = self._bags([_informative_words(query) for query in queries]).tocoo()
        others, count = self._queries_of_word[says.col], self._clicks_of_word[says.col]
        if self._leave_out_own:
            others, count = others - asked[says.row], count - clicks[says.row]
        # Weights g of the words: rarity as a share of the query's words, at most 20 clicks each.
        known_words = (others > _NOTHING) & (count > _NOTHING)
        rarity = np.where(known_words, np.log1p(len(self._statistics.queries) / np.maximum(others, 1.0)), 0.0)
        sums = np.bincount(says.row, rarity, len(queries))
        weight = rarity / np.maximum(sums[says.row], _NOTHING)
        weight *= np.minimum(count, _CLICKS_OF_A_WORD) / np.maximum(count, 1.0)
        own_weight: Floats
        if self._leave_out_own:  # the words' clicks hold the query's own: take them out again
            own_weight = -np.bincount(says.row, weight, len(queries)).astype(np.float64)
        else:  # the more own clicks, the less the words say
            weight *= (_ENOUGH_OWN / (_ENOUGH_OWN + clicks))[says.row]
            own_weight = np.ones(len(queries))
        # Sum over words and the query itself: [n, P + K + 1].
        mass = coo_matrix((weight, (says.row, says.col)), shape=says.shape).tocsr() @ self._of_words
        pick = csr_matrix((np.ones(len(known)), (known, rows[known])), shape=(len(queries), self._clicks.shape[0]))
        # Counts are whole numbers, so what remains of a subtraction that should give nothing is mere rounding.
        mass = (mass + diags(own_weight) @ (pick @ self._clicks)).tocsr()
        mass.data[mass.data < _NOTHING] = 0.0
        mass.eliminate_zeros()
        return _ClickMass(mass[:, :-1].tocsr(), mass[:, -1].toarray().ravel())

    def _topics(self, mass: _ClickMass) -> list[list[str]]:
        """The phrases with the highest lift over their catalogue share times the root of their clicks (4.4)."""
        # Lift of every (query, phrase) with clicks.
        by_phrase = mass.parts[:, : len(self._phrases)].tocoo()
        row, phrase, clicks = by_phrase.row, by_phrase.col, by_phrase.data
        total, share = mass.total[row], self._share[phrase]
        lift = np.log((clicks + _PRIOR * share) / (total + _PRIOR) / share)
        # The best first within each query; rounded, so that the order does not hang on the last digit.
        keep = (lift > _LEAST_LIFT) & (clicks >= _LEAST_SHARE * total)
        row, phrase, clicks, score = row[keep], phrase[keep], clicks[keep], (lift * np.sqrt(clicks))[keep].round(9)
        order = np.lexsort((phrase, -score, row))
        row, phrase, clicks = row[order], phrase[order], clicks[order]
        starts = np.searchsorted(row, np.arange(len(mass.total) + 1))
        out = []
        for a, b in pairwise(starts.tolist()):
            part = slice(a, min(b, a + _SHORT_LIST))
            texts = [self._phrases[p] for p in phrase[part].tolist()]
            out.append(_whole(texts, clicks[part].tolist())[:MOST_TOPICS])
        return out

    def _categories(self, mass: _ClickMass) -> list[tuple[str, ...]]:
        """The deepest node with 60 % of the clicks; more than half of them makes it one branch of the tree."""
        by_node = mass.parts[:, len(self._phrases) :].tocoo()
        keep = by_node.data >= _CATEGORY_SHARE * mass.total[by_node.row]
        row, node = by_node.row[keep], by_node.col[keep]
        out: list[tuple[str, ...]] = [()] * len(mass.total)
        # Deeper nodes come later and replace their ancestors.
        order = np.argsort(self._depth[node], kind="stable")
        for r, n in zip(row[order].tolist(), node[order].tolist(), strict=True):
            out[r] = self._words.paths[n]
        return out


def _whole(texts: list[str], clicks: list[float]) -> list[str]:
    """The phrases without those that hardly occur outside a longer one of them ("call" in "call of duty")."""
    marked = [f" {text} " for text in texts]
    return [
        text
        for i, text in enumerate(texts)
        if not any(
            clicks[j] >= _PART_OF_LONGER * clicks[i]
            and len(other) > len(text)
            and (text if is_unspaced(text) else marked[i]) in marked[j]
            for j, other in enumerate(texts)
        )
    ]


def _informative_words(query: str) -> list[str]:
    """Distinct singular words of what a query does not rule out; pairs of characters in unspaced scripts."""
    words = split_words(split_negated(query)[0])
    spaced = [singular(word) for word in words if word not in STOP_WORDS and not is_unspaced(word)]
    pairs = [a + b for a, b in pairwise(words) if is_unspaced(a) and is_unspaced(b)]
    return list(dict.fromkeys([*spaced, *pairs]))


def _nodes(items: pl.DataFrame, words: CatalogueVocabulary) -> csr_matrix:
    """Which item lies in or below which category node: float64 0/1 [N, K]."""
    number = {path: i for i, path in enumerate(words.paths)}
    paths = [tuple(path or ()) for path in items["category"].to_list()]
    pairs = [
        (row, node)
        for row, path in enumerate(paths)
        for depth in range(1, len(path) + 1)
        if (node := number.get(path[:depth])) is not None
    ]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(len(items), len(number)))
