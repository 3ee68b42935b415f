"""Features of the classical cascade's ranker: text match, clicks, item quality, the shopper's taste.

Every statistic comes from training page views. For a training page view its own shows, clicks and orders are left
out, so that no feature knows the label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.histories import Targets
from onesearch.data.pair_counts import Floats, Ints, Lift, contained, counted
from onesearch.data.requests import Requests
from onesearch.search.dense_search import DenseSearcher
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.text_analyzer import Analyzer

FEATURES: Final = (
    "bm25",
    "bm25 place",
    "dense",
    "dense place",
    "bm25 x popularity",
    "query clicks",
    "query click share",
    "item clicks",
    "item CTR",
    "item orders per click",
    "brand CTR",
    "seller CTR",
    "price",
    "price in page",
    "price to taste",
    "age",
    "same brand",
    "same category",
    "same price band",
    "same seller",
    "last click similarity",
    "mean click similarity",
    "largest click similarity",
    "clicked before",
    "ordered before",
    "profile brand",
    "profile category",
    "profile item",
    "word category",
    "word brand",
    "word item",
    "category share",
    "history",
    "query frequency",
    "query words",
)
_WORDS = 8
_BANDS = 5
_RECENT = 10
_TOGETHER = 32  # requests whose candidates' vectors are held at once


@dataclass(frozen=True)
class CascadeItems:
    """Numbers of the item table that features read, each [N]; groups are numbered from 0."""

    brand: NDArray[np.int64]
    category: NDArray[np.int64]
    band: NDArray[np.int64]
    seller: NDArray[np.int64]
    price: Floats
    age: Floats

    @classmethod
    def from_items(cls, items: pl.DataFrame, now: Any = None) -> "CascadeItems":
        """``now`` (a datetime, the end of training) is the moment ages are counted to; unknown prices and ages: nan."""

        def group(name: str) -> NDArray[np.int64]:
            values = items.select(pl.col(name).fill_null("").rank("dense") - 1).to_series()
            return values.to_numpy().astype(np.int64)

        # A category is its whole path; a price band is a fifth of the prices in a category.
        items = items.with_columns(pl.col("category").list.join("/", ignore_nulls=True))
        place = pl.col("price").rank().over("category") / (pl.col("price").count().over("category") + 1)
        band = items.select((place * _BANDS).floor().fill_null(_BANDS)).to_series().to_numpy().astype(np.int64)
        price = np.log1p(np.maximum(items["price"].cast(pl.Float64).to_numpy(), 0)).astype(np.float32)
        age = np.full(len(items), np.nan, np.float32)
        if now is not None:
            days = items.select((pl.lit(now) - pl.col("listed_at")).dt.total_seconds() / 86_400).to_series()
            age = np.maximum(days.cast(pl.Float64).to_numpy(), 0).astype(np.float32)
        return cls(group("brand"), group("category"), band, group("seller"), price, age)


class CascadeFeatures:
    """Computes the feature matrix of candidates."""

    def __init__(
        self,
        items: pl.DataFrame,
        statistics: ClickStatistics,
        lexical: LexicalSearcher,
        dense: DenseSearcher,
        training: Requests,
        targets: Targets,
        now: Any = None,
        smoothing: float = 1.0,
    ) -> None:
        """Count what the features need.

        Args:
            items: the item table.
            statistics: of the training page views.
            lexical: BM25 searcher.
            dense: dense searcher.
            training: all training page views as requests.
            targets: what happened on them.
            now: end of training, for item ages.
            smoothing: of log popularity.
        """
        self.items, self.statistics, self.smoothing = CascadeItems.from_items(items, now), statistics, smoothing
        self.lexical, self.dense = lexical, dense
        self._analyze = Analyzer(lexical.config.stemmer)
        # Numbers of profiles and query words that training page views have.
        profiles = sorted(set(training.profile) - {""})
        self._profiles = {profile: number for number, profile in enumerate(profiles)}
        words = sorted(set(chain.from_iterable(map(self._analyze, sorted(set(training.query))))))
        self._words = {word: number for number, word in enumerate(words)}
        # How much more often a profile, or a word, goes with clicks on a brand, a category, an item.
        clicked = targets.clicked
        context = self._profile_numbers(training)[clicked.owners]
        self._lifts: dict[str, Lift] = {}
        tables = {"brand": self.items.brand, "category": self.items.category, "item": np.arange(len(items))}
        for name, numbers in tables.items():
            things = numbers[clicked.values]
            self._lifts[f"profile {name}"] = Lift.from_pairs(context, things, len(profiles) + 1, int(numbers.max()) + 1)
        # Every click counts once for each of the query's words.
        word = self._word_numbers(training.query)
        for name, numbers in tables.items():
            things = np.repeat(numbers[clicked.values], _WORDS)
            contexts = word[clicked.owners].reshape(-1)
            self._lifts[f"word {name}"] = Lift.from_pairs(contexts, things, len(words) + 1, int(numbers.max()) + 1, 5.0)
        self._tables = tables

    def compute(
        self,
        requests: Requests,
        candidates: NDArray[np.int32],
        targets: Targets | None = None,
        ages: Floats | None = None,
        vectors: Floats | None = None,
    ) -> Floats:
        """Features of candidates.

        Args:
            requests: n requests.
            candidates: item rows int32 [n, m], -1 padded.
            targets: for training page views: what happened on them, left out of every count.
            ages: ages of the candidates at the time of each request [n, m]; the ages at ``now`` when None.
            vectors: query vectors [n, d] of training page views, held out of encoder training; the encoder's when None.

        Returns:
            float32 [n, m, features] in the order of :data:`FEATURES`; rows of padding have no meaning.
        """
        found = {
            **self._match(requests, candidates, vectors),
            **self._click_features(requests, candidates, targets),
            **self._taste(requests, candidates),
            **self._affinities(requests, candidates, targets),
            "age": self.items.age[candidates] if ages is None else ages,
        }
        # "item clicks" is log(1 + clicks): back to the count, then smoothed as in BM25 x popularity.
        popularity = np.log(1 + self.smoothing + np.expm1(found["item clicks"]))
        found["bm25 x popularity"] = found["bm25"] * popularity
        return np.stack(
            [np.broadcast_to(found[name], candidates.shape) for name in FEATURES], axis=-1, dtype=np.float32
        )

    def _match(self, requests: Requests, candidates: NDArray[np.int32], vectors: Floats | None) -> dict[str, Floats]:
        bm25 = self.lexical.scores(requests.query, candidates)
        if vectors is None:
            dense = self.dense.scores(requests.query, candidates)
        else:
            dense = self.dense.vector_scores(vectors, candidates)
        # Of the query alone: the same for all candidates, [n, 1].
        words = np.array([len(self._analyze(query)) for query in requests.query], np.float32)
        return {
            "bm25": bm25,
            "bm25 place": _places(bm25, candidates),
            "dense": dense,
            "dense place": _places(dense, candidates),
            "query words": words[:, None],
        }

    def _click_features(
        self, requests: Requests, candidates: NDArray[np.int32], targets: Targets | None
    ) -> dict[str, Floats]:
        statistics, items = self.statistics, self.items
        shown, clicked, ordered = (
            statistics.shown[candidates],
            statistics.clicked[candidates],
            statistics.ordered[candidates],
        )
        row = statistics.query_numbers(requests.query)
        # Counts of the training log: clicks of query and item, of all items of the query, page views of the query.
        pair = statistics.pair_counts(row, candidates, targets.clicked if targets else None)
        asked = statistics.query_clicks[row]
        searched = np.where(row >= 0, statistics.searched[row], 0).astype(np.float32)
        out: dict[str, Floats] = {}
        # Of a training page view, what happened on it is taken out of every count.
        if targets is not None:
            shown = shown - contained(targets.shown, candidates)
            clicked = clicked - contained(targets.clicked, candidates)
            ordered = ordered - contained(targets.ordered, candidates)
            asked, searched = asked - targets.clicked.lengths, searched - (targets.clicked.lengths > 0)
        for name, group in (("brand CTR", items.brand), ("seller CTR", items.seller)):
            # The rate of all items of the brand or seller.
            group_shown, group_clicked = self._group_totals(name, group)
            # Shows and clicks of the page view itself on items of the same brand or seller.
            own_shown = own_clicked = np.zeros((), np.float32)
            if targets is not None:
                own_shown = counted(_grouped(targets.shown, group), group[candidates])
                own_clicked = counted(_grouped(targets.clicked, group), group[candidates])
            out[name] = _rate(
                group_clicked[group[candidates]] - own_clicked,
                group_shown[group[candidates]] - own_shown,
                self._click_rate,
                20,
            )
        return out | {
            "query clicks": np.log1p(pair),
            "query click share": pair / np.maximum(asked, 1)[:, None],
            "item clicks": np.log1p(np.maximum(clicked, 0)),
            "item CTR": _rate(clicked, shown, self._click_rate, 20),
            "item orders per click": _rate(ordered, clicked, self._order_rate, 10),
            "query frequency": np.log1p(np.maximum(searched, 0))[:, None],
        }

    def _taste(self, requests: Requests, candidates: NDArray[np.int32]) -> dict[str, Floats]:
        items, history = self.items, requests.clicked
        # Shares of the shopper's clicks on the same brand, category, price band and seller.
        known = history >= 0
        count = np.maximum(known.sum(1), 1).astype(np.float32)[:, None]
        out: dict[str, Floats] = {"history": np.log1p(known.sum(1)).astype(np.float32)[:, None]}
        for name, group in (
            ("same brand", items.brand),
            ("same category", items.category),
            ("same price band", items.band),
            ("same seller", items.seller),
        ):
            seen = Ragged.from_lengths(group[history[known]].astype(np.int32), known.sum(1))
            out[name] = counted(seen, group[candidates]) / count
        # Log prices against the mean of the page and the mean of what the shopper clicked.
        price = items.price[candidates]
        usual = _mean(items.price[history], known & np.isfinite(items.price[history]))
        middle = _mean(price, np.isfinite(price) & (candidates >= 0))
        out |= {"price": price, "price in page": price - middle, "price to taste": price - usual}
        out |= self._similarities(history[:, -_RECENT:], candidates)
        for name, earlier in (("clicked before", history), ("ordered before", requests.ordered)):
            lists = Ragged.from_lengths(earlier[earlier >= 0], (earlier >= 0).sum(1))
            out[name] = counted(lists, candidates)
        return out

    def _similarities(self, history: NDArray[np.int32], candidates: NDArray[np.int32]) -> dict[str, Floats]:
        """Inner products of candidates with the shopper's last clicks, nan without any."""
        empty = np.full(candidates.shape, np.nan, np.float32)
        if not history.shape[1]:
            return dict.fromkeys(("last click similarity", "mean click similarity", "largest click similarity"), empty)
        # Candidates against clicks, [n, m, clicks], a few requests at once.
        each = np.empty((*candidates.shape, history.shape[1]), np.float32)
        for first in range(0, len(candidates), _TOGETHER):
            part = slice(first, first + _TOGETHER)
            each[part] = self._item_vectors[candidates[part]] @ self._item_vectors[history[part]].transpose(0, 2, 1)
        known = (history >= 0)[:, None, :]
        some = known.any(2)
        mean = np.where(known, each, 0).sum(2) / np.maximum(known.sum(2), 1)
        return {
            "last click similarity": np.where(known[..., -1], each[..., -1], empty),
            "mean click similarity": np.where(some, mean, empty).astype(np.float32),
            "largest click similarity": np.where(some, np.where(known, each, -1).max(2), empty),
        }

    def _affinities(
        self, requests: Requests, candidates: NDArray[np.int32], targets: Targets | None
    ) -> dict[str, Floats]:
        out: dict[str, Floats] = {}
        # Log lifts: how much more often this profile, or a word of the query, goes with clicks on the thing.
        profile, word = self._profile_numbers(requests)[:, None], self._word_numbers(requests.query)
        words = np.maximum((word >= 0).sum(1), 1)[:, None]
        for name, numbers in self._tables.items():
            things = np.where(candidates >= 0, numbers[candidates], -1)
            own = own_total = None
            if targets is not None:
                own = counted(_grouped(targets.clicked, numbers), things)
                own_total = targets.clicked.lengths.astype(np.float32)[:, None]
            out[f"profile {name}"] = self._lifts[f"profile {name}"].score(profile, things, own, own_total)
            total = np.zeros(candidates.shape, np.float32)
            for column in range(_WORDS):
                total += self._lifts[f"word {name}"].score(word[:, column, None], things, own, own_total, words)
            out[f"word {name}"] = total / words
        # How much of the page is of the candidate's category: a query's main category stands out.
        category = np.where(candidates >= 0, self.items.category[candidates], -1)
        lists = Ragged.from_lengths(category[category >= 0].astype(np.int32), (category >= 0).sum(1))
        out["category share"] = counted(lists, category) / np.maximum((candidates >= 0).sum(1), 1)[:, None]
        return out

    def _profile_numbers(self, requests: Requests) -> NDArray[np.int64]:
        get = self._profiles.get
        return np.fromiter((get(profile, -1) for profile in requests.profile), np.int64, len(requests))

    def _word_numbers(self, queries: Sequence[str]) -> NDArray[np.int32]:
        """Numbers of the first distinct known words of each query, int32 [n, 8], -1 padded."""
        get = self._words.get
        rows = [list(dict.fromkeys(get(word, -1) for word in self._analyze(query))) for query in queries]
        return Ragged.from_lists([[number for number in row if number >= 0] for row in rows]).padded(
            _WORDS, newest=False
        )

    def _group_totals(self, name: str, group: NDArray[np.int64]) -> tuple[Floats, Floats]:
        if name not in self._totals:
            size = int(group.max()) + 1
            self._totals[name] = (
                np.bincount(group, self.statistics.shown, size).astype(np.float32),
                np.bincount(group, self.statistics.clicked, size).astype(np.float32),
            )
        return self._totals[name]

    @cached_property
    def _totals(self) -> dict[str, tuple[Floats, Floats]]:
        return {}

    @cached_property
    def _item_vectors(self) -> Floats:
        """Item vectors by item row, zeros for items that are not in the dense index."""
        out = np.zeros((len(self.items.brand), self.dense.vectors.shape[1]), np.float32)
        out[self.dense.rows] = self.dense.vectors
        return out

    @cached_property
    def _click_rate(self) -> float:
        return float(self.statistics.clicked.sum() / max(self.statistics.shown.sum(), 1))

    @cached_property
    def _order_rate(self) -> float:
        return float(self.statistics.ordered.sum() / max(self.statistics.clicked.sum(), 1))


def _grouped(lists: Ragged, group: Ints) -> Ragged:
    return Ragged(group[lists.values].astype(np.int32), lists.offsets)


def _rate(part: Any, whole: Any, prior: float, weight: float) -> Floats:
    return np.asarray((np.maximum(part, 0) + prior * weight) / (np.maximum(whole, 0) + weight), np.float32)


def _mean(values: Floats, valid: NDArray[np.bool_]) -> Floats:
    """Mean of the valid values of each row [n, 1], nan without any."""
    count = valid.sum(1, keepdims=True)
    total = np.where(valid, values, 0).sum(1, keepdims=True)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _places(scores: Floats, candidates: NDArray[np.int32]) -> Floats:
    """log(1 + place) of each candidate by its score among the request's candidates."""
    # Equal scores keep the order of recall; padding comes last.
    order = np.argsort(np.where(candidates >= 0, -scores, np.inf), axis=1, kind="stable")
    out = np.empty(scores.shape, np.float32)
    places = np.broadcast_to(np.log1p(np.arange(1, scores.shape[1] + 1, dtype=np.float32)), scores.shape)
    np.put_along_axis(out, order, places, 1)
    return out
