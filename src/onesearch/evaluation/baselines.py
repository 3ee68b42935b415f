"""The baselines of every results table, with settings chosen on validation data only."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.common.settings import Settings
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.metrics import hit_rate, mrr
from onesearch.data.requests import Requests
from onesearch.data.text import item_texts
from onesearch.search.dense_search import DenseSearcher, DenseSettings, Encode
from onesearch.search.hits import Searcher
from onesearch.search.lexical_index import LexicalSettings
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.popularity_search import MostClickedSearcher, PopularitySearcher
from onesearch.search.score_fusion import FusedSearcher, candidate_scores, fuse_scores
from onesearch.search.term_counts import TermCounts
from onesearch.search.text_analyzer import Analyzer

_T = TypeVar("_T")

BM25, DENSE, FUSED, POPULAR, MOST_CLICKED, TOGETHER, CASCADE = (
    "BM25",
    "dense",
    "BM25 + dense",
    "BM25 x popularity",
    "most clicked",
    "taken together",
    "cascade",
)
"""Names of the baselines in reports; the cascade is in ``cascade.py``."""


class BaselineSettings(Settings):
    """What tuning found; frozen, and kept in the report."""

    lexical: LexicalSettings = LexicalSettings()
    """Fields and weighting of BM25."""
    smoothing: float = 1.0
    """Of BM25 x log(1 + smoothing + clicks)."""
    normalisation: Literal["minmax", "z"] = "minmax"
    """Of the scores in BM25 + dense."""
    dense_weight: float = 0.5
    """Weight of the dense score in BM25 + dense; BM25 has the rest to 1."""
    depth: int = 200
    """Candidates each searcher gives to the fusion."""
    dense: DenseSettings = DenseSettings()
    """The dense index."""


class Baselines:
    """The single searchers and their combinations over one catalogue and one training log."""

    def __init__(
        self,
        items: pl.DataFrame,
        statistics: ClickStatistics,
        vectors: NDArray[np.float32],
        encode: Encode,
        settings: BaselineSettings | None = None,
        lexical: LexicalSearcher | None = None,
    ) -> None:
        """Build the indexes.

        Args:
            items: the item table.
            statistics: of the training page views.
            vectors: item vectors [N, d] of the aligned encoder.
            encode: the same encoder for queries.
            settings: from :func:`tune`.
            lexical: a ready BM25 index with the settings' configuration.
        """
        self.settings = settings or BaselineSettings()
        # Single searchers first; the others combine them.
        self.lexical = lexical or LexicalSearcher.build(items, self.settings.lexical)
        self.dense = DenseSearcher(vectors, encode, config=self.settings.dense)
        self.popular = PopularitySearcher(self.lexical, statistics.clicked, self.settings.smoothing)
        self.most_clicked = MostClickedSearcher(statistics, self.popular)
        weight = self.settings.dense_weight
        self.fused = FusedSearcher(
            {BM25: self.lexical, DENSE: self.dense},
            {BM25: 1 - weight, DENSE: weight},
            self.settings.normalisation,
            self.settings.depth,
        )

    def methods(self) -> dict[str, Searcher]:
        """Name -> searcher, for :func:`~onesearch.evaluation.evaluate.evaluate`."""
        return {
            BM25: self.lexical,
            DENSE: self.dense,
            FUSED: self.fused,
            POPULAR: self.popular,
            MOST_CLICKED: self.most_clicked,
        }


def tuning_score(items: NDArray[np.int32], clicked: Ragged) -> float:
    """What tuning maximises: the mean of HR@10 and MRR@10 over validation page views with a click."""
    return float(np.nanmean(hit_rate(items, clicked, 10)) + np.nanmean(mrr(items, clicked, 10))) / 2


def tune(
    items: pl.DataFrame,
    statistics: ClickStatistics,
    vectors: NDArray[np.float32],
    encode: Encode,
    validation: Requests,
    clicked: Ragged,
    base: BaselineSettings | None = None,
    most: int = 2000,
    seed: int = 0,
    lexical: LexicalSearcher | None = None,
) -> BaselineSettings:
    """Choose every setting of the single searchers and the fusion on validation page views.

    Args:
        items: the item table.
        statistics: of the training page views.
        vectors: item vectors [N, d].
        encode: texts to query vectors.
        validation: validation requests.
        clicked: their clicked items.
        base: settings to start from.
        most: page views drawn from the validation part.
        seed: of the draw.
        lexical: BM25 that was tuned before, on the same page views; tuned here without it.

    Raises:
        ValueError: no validation page view has a click.
    """
    settings = base or BaselineSettings()
    # Only page views with a click say which setting is better.
    rows = np.flatnonzero(clicked.lengths > 0)
    if not len(rows):
        raise ValueError("no validation page view has a click to tune on; enlarge the validation part")
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    requests, wanted = validation.select(rows), clicked.select(rows)
    # One after the other: BM25, the smoothing of popularity over it, then the fusion of BM25 with dense search.
    if lexical is None:
        lexical = tune_lexical(items, settings.lexical, requests, wanted)
    smoothing = _best(
        {
            value: tuning_score(PopularitySearcher(lexical, statistics.clicked, value).rank(requests, 10).items, wanted)
            for value in (0.3, 1.0, 3.0, 10.0, 30.0)
        }
    )
    dense = DenseSearcher(vectors, encode, config=settings.dense)
    # Candidates of both searchers are found once; only their fusion is tried in 42 ways.
    candidates, scores = candidate_scores([lexical, dense], requests, settings.depth)
    hows: tuple[Literal["minmax", "z"], ...] = ("minmax", "z")
    how, weight = _best(
        {
            (how, weight): tuning_score(fuse_scores(candidates, scores, [1 - weight, weight], how, 10).items, wanted)
            for how, weight in product(hows, np.round(np.linspace(0, 1, 21), 2).tolist())
        }
    )
    return settings.updated(
        lexical=lexical.config.model_dump(), smoothing=smoothing, normalisation=how, dense_weight=weight
    )


def tune_lexical(items: pl.DataFrame, base: LexicalSettings, requests: Requests, wanted: Ragged) -> LexicalSearcher:
    """BM25 tuned on validation requests: fields first, then saturation and length; the first of equals stays."""

    def counted(config: LexicalSettings) -> TermCounts:
        return TermCounts.of(item_texts(items, config.fields, distinct=False), Analyzer(config.stemmer))

    # A change is kept if it helps, and the next one starts from there.
    counts = counted(base)
    best = LexicalSearcher.from_counts(counts, base)
    figure = tuning_score(best.rank(requests, 10).items, wanted)
    fields: Sequence[tuple[str, ...]] = (
        ("title",),
        ("title", "brand"),
        ("title", "brand", "category"),
        ("title", "brand", "category", "attributes"),
    )
    # Saturation and length, coarsely.
    changes: list[dict[str, object]] = [{"fields": one} for one in fields if _adds(items, one)]
    changes += [{"k1": k1, "b": b} for k1, b in ((0.6, 0.75), (1.2, 0.4), (0.6, 0.4), (2.0, 0.75))]
    for change in changes:
        config = best.config.updated(**change)
        if config == best.config:
            continue
        # Other weights of the same fields need no text: its terms are counted already.
        of_these = counted(config) if config.fields != best.config.fields else counts
        tried = LexicalSearcher.from_counts(of_these, config)
        reached = tuning_score(tried.rank(requests, 10).items, wanted)
        if reached > figure:
            best, figure, counts = tried, reached, of_these
    return best


def _adds(items: pl.DataFrame, fields: tuple[str, ...]) -> bool:
    """Whether the last field has any value, so that it is worth a try."""
    column = items[fields[-1]]
    if column.dtype == pl.String:
        return column.null_count() < len(column)
    return bool((column.list.len() > 0).any())


def _best(figures: Mapping[_T, float]) -> _T:
    return max(figures, key=lambda key: figures[key])
