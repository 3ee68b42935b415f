"""The plain engine that produced the log: BM25 × popularity, a noisy rule-based understanding, some exploration.

It knows nothing of the shopper. Candidates are computed once per distinct query; a page view then only adds listing
times, noise and exploration slots.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import Stemmer
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onesearch.common.extras import from_extra
from onesearch.common.ragged import Ragged
from onesearch.market import keyed_random as keyed
from onesearch.market.click_truth import Truth, Visits
from onesearch.market.market_catalogue import US_PER_DAY, ItemsByType
from onesearch.market.market_queries import PREDICATES
from onesearch.market.market_settings import EngineParameters, MarketSettings

with from_extra("train"):
    import bm25s

_BM25_SCALE: Final = 4.0  # score of the best BM25 match
_TRAIT_SCALE: Final = 2.5  # score of an item that has all understood traits
_WORDS_IN_COMPLEX: Final = 0.3  # how much of the BM25 score a complex query keeps
_RAMP_DAYS: Final = 30.0
_CHUNK: Final = 20_000
_TEXTS: Final = 200  # texts scored in one sparse product, whose parts fit into a cache
_MOST_POSTINGS: Final = 4_096  # items of a word that are scored; a shop's engine stops looking, too
_SCORE_TOP: Final = np.float32(8.0)  # scores lie in (-4, 8): BM25 4 at most, popularity under 4 in size
_SCORE_STEPS: Final = np.float32(65535.0 / 12.0)
_UNDERSTOOD, _DRAWS = 11, 12


@dataclass(frozen=True)
class MarketCandidates:
    """Per distinct query: item rows int32 [Q, C] (-1 beyond) and scores without noise, float32 [Q, C]."""

    items: NDArray[np.int32]
    scores: NDArray[np.float32]


class LoggingEngine:
    """Ranks pages for the log of one market."""

    def __init__(self, titles: list[str], truth: Truth, config: EngineParameters, seed: int) -> None:
        self.truth, self.config, self.seed = truth, config, seed
        self._stemmer = Stemmer.Stemmer("english")
        self._bm25 = bm25s.BM25()
        self._bm25.index(self._tokens(titles), show_progress=False)
        scores = self._bm25.scores  # term by document, as three arrays
        weights = csr_matrix(
            (scores["data"], scores["indices"], scores["indptr"]), shape=(len(scores["indptr"]) - 1, len(titles))
        )
        catalogue = truth.catalogue
        self._popularity = np.clip(catalogue.log_popularity, -4.0, 4.0) * np.float32(config.popularity_weight)
        self._weights = best_postings(weights, self._popularity, _MOST_POSTINGS)
        self._items = ItemsByType(catalogue, truth.type_sets.shape[1], 0.5)
        stocked = truth.type_sets & self._items.stocked[None, :]
        self._set_types = Ragged.from_lengths(np.nonzero(stocked)[1].astype(np.int32), stocked.sum(1))

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        tokens: list[list[str]] = bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return tokens

    def _search(self, cores: list[str], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Top k by BM25 (scaled to the best match) plus popularity: item rows (-1 beyond) and scores, [n, k]."""
        # Query by token, float32 [n, vocabulary], one entry per known token.
        known = self._bm25.vocab_dict
        tokens = [[known[token] for token in line if token in known] for line in self._tokens(cores)]
        lengths = np.array([len(line) for line in tokens], np.int64)
        flat = np.fromiter((token for line in tokens for token in line), np.int64, int(lengths.sum()))
        ends = np.concatenate([[0], np.cumsum(lengths)])
        # One sparse product scores a whole block of queries; bm25s itself goes query by query.
        wanted = csr_matrix((np.ones(len(flat), np.float32), flat, ends), shape=(len(cores), self._weights.shape[0]))
        found = wanted @ self._weights
        counts = np.diff(found.indptr)
        filled = np.flatnonzero(counts > 0)
        items = np.full((len(cores), k), -1, np.int32)
        scores = np.full((len(cores), k), -np.inf, np.float32)
        if not len(filled):
            return items, scores
        lengths = counts[filled].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        total = _BM25_SCALE * found.data
        total /= np.repeat(np.maximum.reduceat(found.data, starts), lengths)
        total += self._popularity[found.indices]
        falling = (_SCORE_TOP - total) * _SCORE_STEPS
        falling = np.clip(falling, 0, 0xFFFF, out=falling).astype(np.uint16)
        # Few of a query's items can be among its k best; the others are not sorted.
        kept = np.flatnonzero(falling <= np.repeat(not_below_kth(falling, starts, lengths, k), lengths))
        owner = np.searchsorted(starts, kept, side="right") - 1
        # Owner, falling score and item packed into one integer: a plain sort then ranks all queries of the block.
        packed = owner.astype(np.uint64) << np.uint64(44)
        packed |= falling[kept].astype(np.uint64) << np.uint64(28) | found.indices[kept].astype(np.uint64)
        packed.sort()
        place = np.arange(len(packed)) - np.searchsorted(owner, owner)
        # Unpack the k best of each query.
        top = packed[place < k]
        row, column = filled[(top >> np.uint64(44)).astype(np.int64)], place[place < k]
        items[row, column] = (top & np.uint64((1 << 28) - 1)).astype(np.int32)
        scores[row, column] = (
            _SCORE_TOP - ((top >> np.uint64(28)) & np.uint64(0xFFFF)).astype(np.float32) / _SCORE_STEPS
        )
        return items, scores

    def draw_of_types(self, sets: NDArray[np.integer], keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """An item per (type set, key), by popularity within a random type of the set; -1 for a set without items."""
        length = self._set_types.lengths[sets]
        some = keyed.uniform(keyed.mix(keys + np.uint64(1)))
        pick = self._set_types.offsets[:-1][sets] + (some * length).astype(np.int64)
        kind = self._set_types.values[np.minimum(pick, len(self._set_types.values) - 1)]
        item = self._items.draw(kind, keyed.uniform(keyed.mix(keys + np.uint64(2))).astype(np.float64))
        return np.where(length > 0, item, -1).astype(np.int32)

    def candidates(self) -> MarketCandidates:
        """Candidates of all queries of the market."""
        queries, config = self.truth.queries, self.config
        width = config.candidates
        items = np.full((len(queries), width), -1, np.int32)
        scores = np.full((len(queries), width), -np.inf, np.float32)
        distinct: dict[str, int] = {}
        core = np.array([distinct.setdefault(text, len(distinct)) for text in queries.core], np.int64)
        texts = list(distinct)
        found = np.empty((len(texts), width), np.int32)
        value = np.empty((len(texts), width), np.float32)
        for start in range(0, len(texts), _TEXTS):
            part = slice(start, min(start + _TEXTS, len(texts)))
            found[part], value[part] = self._search(texts[part], width)
        plain = np.flatnonzero(queries.kind == 0)
        items[plain], scores[plain] = found[core[plain]], value[core[plain]]
        complex_rows = np.flatnonzero(queries.kind > 0)
        for start in range(0, len(complex_rows), _CHUNK):
            rows = complex_rows[start : start + _CHUNK]
            items[rows], scores[rows] = self._understood(rows, found[core[rows]], value[core[rows]])
        return MarketCandidates(items, scores)

    def _understood(
        self, rows: NDArray[np.int64], found: NDArray[np.int32], value: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Candidates of complex queries: items of the types the rules think of, a few by words; [n, C] each."""
        queries, config, width = self.truth.queries, self.config, self.config.candidates
        keys = keyed.key(self.seed, _UNDERSTOOD, queries.keys[rows].view(np.int64))
        # A query whose topic is not understood is taken for some other query.
        right = keyed.uniform(keys) < config.understands_topic
        wrong = (keyed.uniform(keyed.mix(keys + np.uint64(7))) * len(queries)).astype(np.int64)
        sets = np.where(right, queries.type_set[rows], queries.type_set[wrong])
        # Four fifths of the candidates by type, from what the rules think is meant; the others by words.
        by_words = width // 5
        draws = width - by_words
        draw_keys = keyed.key(self.seed, _DRAWS, queries.keys[rows].view(np.int64)[:, None], np.arange(draws)[None, :])
        drawn = self.draw_of_types(np.repeat(sets, draws), draw_keys.reshape(-1)).reshape(len(rows), draws)
        drawn = np.sort(drawn, 1)
        drawn[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = -1
        met = np.zeros(drawn.shape, np.float32)
        n_values = len(self.truth.catalogue.value_names)
        for column in range(PREDICATES):
            trait = queries.predicates[rows, column] - n_values
            known = keyed.uniform(keyed.mix(keys + np.uint64(20 + column))) < config.understands_trait
            part = np.flatnonzero((trait >= 0) & known)
            if len(part):
                has = self.truth.has_trait(np.repeat(trait[part], draws), np.maximum(drawn[part], 0).reshape(-1))
                met[part] += has.reshape(len(part), draws)
        score = np.where(drawn >= 0, _TRAIT_SCALE * met + self._popularity[drawn], -np.inf)
        word_items, word_scores = found[:, :by_words], value[:, :by_words]
        word_scores = word_scores - np.float32((1.0 - _WORDS_IN_COMPLEX) * _BM25_SCALE)
        return np.concatenate([word_items, drawn], 1), np.concatenate([word_scores, score], 1).astype(np.float32)

    def pages(self, candidates: MarketCandidates, visits: Visits, rng: np.random.Generator) -> NDArray[np.int32]:
        """The page of each page view, item rows int32 [n, page_size]; -1 where nothing was found."""
        config, catalogue, k = self.config, self.truth.catalogue, self.config.page_size
        items, score = candidates.items[visits.query], candidates.scores[visits.query]
        age = (visits.time[:, None] - catalogue.listed[items]).astype(np.float32) / np.float32(US_PER_DAY)
        # A popularity counter of a young item has not filled up yet.
        young = np.log(np.clip((age + 1.0) / np.float32(_RAMP_DAYS), 1e-3, 1.0)) * np.float32(config.popularity_weight)
        if self.truth.kinds is not None:
            # It knows the words that ask for a kind, and what is on.
            asked = self.truth.asked[visits.query][:, None]
            matches = (asked > 0) & (self.truth.kinds.kind_of(items) == asked)
            score = score + np.float32(MarketSettings.kinds.rank_asked) * matches
            score = np.where(self.truth.kinds.is_on(items, visits.time[:, None]), score, -np.inf)
        noise = -np.log(-np.log(np.clip(rng.random(items.shape, np.float32), 1e-7, 1 - 1e-7)))
        score = np.where((age >= 0) & (items >= 0), score + young + np.float32(config.exploration) * noise, -np.inf)
        # The same item can come by words and by types: keep its first copy.
        top = (
            np.argpartition(-score, 2 * k - 1, axis=1)[:, : 2 * k] if items.shape[1] > 2 * k else np.argsort(-score, 1)
        )
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(score, top, 1), 1, kind="stable"), 1)
        ranked = np.where(np.isfinite(np.take_along_axis(score, top, 1)), np.take_along_axis(items, top, 1), -1)
        page = first_distinct(ranked, k)
        return self._explore(page, visits, rng)

    def _explore(self, page: NDArray[np.int32], visits: Visits, rng: np.random.Generator) -> NDArray[np.int32]:
        """Refill some slots with an item of the query's categories or with any item at all; never one already shown."""
        config, catalogue = self.config, self.truth.catalogue
        u = rng.random(page.shape, np.float32)
        row, slot = np.nonzero((u < config.category_slots + config.random_slots) | (page < 0))
        if not len(row):
            return page
        # Which item: of the query's types mostly, now and then any item of the shop.
        keys = rng.integers(0, 1 << 62, len(row)).astype(np.uint64)
        near = self.draw_of_types(self.truth.queries.type_set[visits.query[row]], keys)
        anything = rng.integers(0, len(catalogue), len(row)).astype(np.int32)
        new = np.where((u[row, slot] < config.random_slots) | (near < 0), anything, near)
        new = np.where(self.truth.is_shown(new, visits.time[row]), new, -1)
        clash = (page[row] == new[:, None]).any(1)
        out = page.copy()
        out[row, slot] = np.where(clash | (new < 0), page[row, slot], new)
        return first_distinct(out, page.shape[1])  # of two new copies of one item the first stays


def not_below_kth(
    values: NDArray[np.uint16], starts: NDArray[np.int64], lengths: NDArray[np.int64], k: int
) -> NDArray[np.uint16]:
    """A number that is not below the ``k``-th smallest value of each row, and hardly above it; uint16 [n].

    Rows lie one behind the other, none is empty; ``k`` is at least 1. A row is cut into 2k parts; the k-th smallest of
    their least values will do, as k parts have one that is not above it. A row too short for that has the largest
    number there is.
    """
    parts = 2 * k
    first = starts[:, None] + np.arange(parts) * lengths[:, None] // parts
    least = np.minimum.reduceat(values, first.reshape(-1)).reshape(first.shape)
    kth = np.partition(least, k - 1, axis=1)[:, k - 1]
    return np.where(lengths < parts, np.iinfo(values.dtype).max, kth).astype(values.dtype)


def best_postings(weights: csr_matrix, popularity: NDArray[np.float32], most: int) -> csr_matrix:
    """Word by item, [W, N], with the ``most`` best items of each word: by BM25, scaled to its best, and popularity.

    The log of a market thus costs what it holds: without it a word is in a share of all items, however many there are.
    """
    lengths = np.diff(weights.indptr)
    (long,) = np.nonzero(lengths > most)
    kept = np.ones(weights.nnz, bool)
    for word in long.tolist():
        part = slice(weights.indptr[word], weights.indptr[word + 1])
        score = _BM25_SCALE * weights.data[part] / weights.data[part].max() + popularity[weights.indices[part]]
        kept[part] = False
        kept[part.start + np.argpartition(-score, most - 1)[:most]] = True
    ends = np.concatenate([[0], np.cumsum(np.minimum(lengths, most))])
    return csr_matrix((weights.data[kept], weights.indices[kept], ends), shape=weights.shape)


def first_distinct(ranked: NDArray[np.int32], k: int) -> NDArray[np.int32]:
    """The first k distinct non-negative values of each row, in order, int32 [n, k]; -1 beyond."""
    n, width = ranked.shape
    order = np.argsort(ranked, 1, kind="stable")
    ordered = np.take_along_axis(ranked, order, 1)
    repeated = np.zeros((n, width), np.bool_)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    keep = ~repeated & (ranked >= 0)
    place = np.cumsum(keep, 1) - 1
    row, column = np.nonzero(keep & (place < k))
    out = np.full((n, k), -1, np.int32)
    out[row, place[row, column]] = ranked[row, column]
    return out
