"""The classical cascade: recall by several searchers, ranking by gradient-boosted trees (LambdaMART), equation (8.11).

::

    recall(request)  = most clicked for the query, BM25 x popularity, dense, BM25; one after the other, each item once
    features         = 35 of each candidate: text match, clicks, item quality, the shopper's taste       [n, m, 35]
    ranker           = LambdaMART on clicks (gain 1) and orders (gain 3) of training page views, whose own clicks
                       are left out of recall and features
    judge            = LambdaMART on levels of judged items of training queries (gain 2^level - 1), where wished
    search(request)  = the k best candidates by the ranker's score + relevance x the judge's

The strongest baseline: the ranker sees text match, clicks, item quality and the shopper's taste. It is trained
on training page views with leave-one-out statistics; rounds and settings are chosen on validation page views.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from onesearch.common.artefact import read_json, write_json
from onesearch.common.boosted_trees import read_trees
from onesearch.common.extras import from_extra
from onesearch.common.progress import track
from onesearch.common.ragged import Ragged
from onesearch.common.settings import Settings
from onesearch.data.histories import Targets
from onesearch.data.metrics import hit_rate, mrr
from onesearch.data.pair_counts import Floats, contained
from onesearch.data.records import LEVELS
from onesearch.data.requests import Requests
from onesearch.evaluation.cascade_features import FEATURES, CascadeFeatures
from onesearch.search.hits import Hits
from onesearch.search.popularity_search import PopularitySearcher
from onesearch.search.ranked_lists import NONE, chained, padded_hits, top_k

with from_extra("train"):
    import lightgbm

_CHUNK: Final = 256
# Depths of recall: by BM25, by dense search, by BM25 x popularity, most clicked for the query.
_LEXICAL, _DENSE, _POPULAR, _CLICKED = 80, 80, 40, 40
_PATIENCE = 30  # rounds without improvement before stopping
_SEED = 0


class CascadeSettings(Settings):
    """How the ranker of the cascade is trained."""

    page_views: int | None = Field(
        None, ge=1, description="training page views drawn for the ranker, at most; empty: all with a click"
    )
    validation_page_views: int = Field(
        3_000, description="validation page views drawn for early stopping and for choosing settings"
    )
    negatives: int = Field(80, description="candidates without a click kept per training page view")
    trees: int = Field(600, description="most rounds; early stopping on validation NDCG@10 usually ends sooner")
    learning_rate: float = Field(0.07, description="of boosting")
    leaves: int = Field(31, description="of a tree, at most")
    min_leaf: int = Field(50, description="fewest candidates of a leaf")
    order_gain: float = Field(3.0, description="gain of an ordered item; a clicked one has 1")
    threads: int = Field(2, description="threads of LightGBM while training")


class Recall:
    """Candidates of the cascade: the four lists one after the other, without repetitions."""

    def __init__(self, features: CascadeFeatures, config: CascadeSettings) -> None:
        self.features, self.config = features, config
        self._popular = PopularitySearcher(features.lexical, features.statistics.clicked, features.smoothing)

    def __call__(
        self, requests: Requests, leave_out: Ragged | None = None, vectors: Floats | None = None
    ) -> NDArray[np.int32]:
        """int32 [n, m] with m at most the sum of the depths, -1 padded.

        Args:
            requests: n requests.
            leave_out: for training page views: their own clicks.
            vectors: for training page views: query vectors [n, d] held out of encoder training.
        """
        features = self.features
        if vectors is None:
            near = features.dense.rank(requests, _DENSE).items
        else:
            near = features.dense.search_vectors(vectors, _DENSE).items
        lists = [
            features.statistics.most_clicked(features.statistics.query_numbers(requests.query), _CLICKED, leave_out),
            self._popular.rank(requests, _POPULAR).items,
            near,
            features.lexical.rank(requests, _LEXICAL).items,
        ]
        return chained(lists, sum(part.shape[1] for part in lists))


@dataclass(frozen=True)
class RankingTable:
    """Candidates of page views as rows of the ranker's table: ``features`` [R, F], ``labels`` [R], ``groups`` [n]."""

    features: Floats
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]


def ranking_table(
    recall: Recall,
    requests: Requests,
    targets: Targets,
    negatives: int | None,
    leave_out: bool,
    seed: int,
    lags: NDArray[np.floating] | None = None,
    vectors: Floats | None = None,
    file: Path | None = None,
) -> RankingTable:
    """Rows of page views that have a clicked candidate; labels 0 (no click), 1 (click), 2 (order).

    Args:
        recall: gives candidates and features.
        requests: page views with what was known before them.
        targets: what happened on them.
        negatives: unclicked candidates kept per page view, drawn at random; all when None.
        leave_out: True for training page views: their own events are left out of every statistic.
        seed: of the draw.
        lags: days from each page view to the moment item ages are counted to, [n]; items that were not listed yet at
            the page view are left out.
        vectors: query vectors [n, d] held out of encoder training.
        file: where the features are written and read from as they are needed; in memory without it.
    """
    generator = np.random.default_rng(seed)
    features = _Rows(file)
    labels: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    groups: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for first in track(range(0, len(requests), _CHUNK), "candidates and features"):
        rows = np.arange(first, min(first + _CHUNK, len(requests)))
        # 256 page views at once bound the memory of their candidates.
        asked, happened = requests.select(rows), targets.select(rows)
        held = None if vectors is None else vectors[rows]
        # Candidates [n, m] and their labels.
        items = recall(asked, happened.clicked if leave_out else None, held)
        label = contained(happened.clicked, items).astype(np.int32)
        label[contained(happened.ordered, items)] = 2
        # Which of them become rows: those listed by then, a few without a click, and only page views with a click.
        keep = items != NONE
        ages = None
        if lags is not None:
            # Ages at the page view: what was not listed yet could not be shown.
            ages = recall.features.items.age[items] - lags[rows, None].astype(np.float32)
            keep &= ~(ages < 0) | (label > 0)
            ages = np.maximum(ages, 0)
        if negatives is not None:
            # Clicked ones first, then candidates in random order, padding last: ranks below the limit stay.
            draw = np.where(label > 0, -1.0, np.where(keep, generator.random(items.shape), 2.0))
            keep &= np.argsort(np.argsort(draw, axis=1), axis=1) < negatives + (label > 0).sum(1, keepdims=True)
        keep &= (label > 0).any(1, keepdims=True)
        # Columns are dropped only after the features: places and shares are those of all candidates, as in serving.
        found = recall.features.compute(asked, items, happened if leave_out else None, ages, held)
        features.add(found[keep])
        labels.append(label[keep])
        groups.append(keep.sum(1)[keep.any(1)])
    return RankingTable(features.all(), np.concatenate(labels), np.concatenate(groups))


def judged_table(recall: Recall, queries: Sequence[str], items: Ragged, levels: Ragged) -> RankingTable:
    """Rows of judged items, labels their levels; a group per query that has one in the catalogue.

    Args:
        recall: gives the candidates beside which features are computed, since places and shares are those of a page.
        queries: that are judged, n.
        items: item rows judged for each, n lists.
        levels: of these items, 0 to 3.
    """
    features, labels, groups = _Rows(None), [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for first in range(0, len(queries), _CHUNK):
        rows = np.arange(first, min(first + _CHUNK, len(queries)))
        asked, own = Requests.anonymous([queries[int(row)] for row in rows]), items.select(rows)
        # The judged items first, then what recall finds, [n, m].
        lists = [own.padded(int(own.lengths.max(initial=0)), newest=False), recall(asked)]
        candidates = chained(lists, sum(part.shape[1] for part in lists))
        # The level of each candidate by (query, item); only judged ones become rows.
        size = max(int(candidates.max(initial=0)), int(own.values.max(initial=0))) + 1
        wanted = own.owners * size + own.values
        order = np.argsort(wanted, kind="stable")
        keys = np.arange(len(rows))[:, None] * size + candidates
        place = np.searchsorted(wanted[order], keys).clip(max=max(len(order) - 1, 0))
        keep = contained(own, candidates)
        features.add(recall.features.compute(asked, candidates)[keep])
        labels.append(levels.select(rows).values[order[place[keep]]].astype(np.int32))
        groups.append(keep.sum(1)[keep.any(1)])
    return RankingTable(features.all(), np.concatenate(labels), np.concatenate(groups))


class _Rows:
    """Rows of features, float32 [R, F], that need not fit in memory: some gigabytes for a million page views."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._rows = path, 0
        self._held: list[Floats] = [np.zeros((0, len(FEATURES)), np.float32)]
        if path is not None:
            path.write_bytes(b"")

    def add(self, rows: Floats) -> None:
        """Add rows [n, F]."""
        self._rows += len(rows)
        if self._path is None:
            self._held.append(rows)
            return
        with self._path.open("ab") as file:
            np.ascontiguousarray(rows, np.float32).tofile(file)

    def all(self) -> Floats:
        """All rows; those of a file are read when they are looked at."""
        if self._path is None or not self._rows:
            return np.concatenate(self._held)
        return np.memmap(self._path, np.float32, "r", shape=(self._rows, len(FEATURES)))


class Cascade:
    """Recall, features and ranker as one searcher."""

    def __init__(
        self,
        features: CascadeFeatures,
        config: CascadeSettings,
        ranker: lightgbm.Booster,
        judge: lightgbm.Booster | None = None,
        relevance: float = 0.0,
    ) -> None:
        """Use :meth:`train` or :meth:`load`; ``relevance`` is the weight of what ``judge`` says."""
        self.features, self.config, self.ranker = features, config, ranker
        self.judge, self.relevance = judge, relevance
        self._recall = Recall(features, config)

    @classmethod
    def train(
        cls,
        features: CascadeFeatures,
        training: Requests,
        training_targets: Targets,
        validation: Requests,
        validation_targets: Targets,
        config: CascadeSettings | None = None,
        lags: NDArray[np.floating] | None = None,
        vectors: Floats | None = None,
        folder: Path | None = None,
        grid: Sequence[dict[str, Any]] = ({}, {"order_gain": 1.0}, {"leaves": 63, "learning_rate": 0.05}),
    ) -> "Cascade":
        """Train one ranker per entry of ``grid`` (changes of the config) and keep the best on validation.

        "Best" is the mean of HR@10 and MRR@10 over clicks and orders on the drawn validation page views. ``lags``: days
        from each training page view to the end of training, [n]; see :func:`page_view_lags`. ``vectors``: query vectors
        of the training page views [n, d] from encoders that did not see the query's (or the page view's) clicks.
        Without them the dense score knows the labels of training page views, and the ranker trusts it far too much.
        In ``folder`` the training table lies while it is needed, so that memory holds its bins alone, a byte a number.

        Raises:
            ValueError: no training page view has a clicked item among its candidates.
        """
        config = config or CascadeSettings()
        recall = Recall(features, config)
        rows = draw_page_views(training_targets.clicked, config.page_views, _SEED)
        held = draw_page_views(validation_targets.clicked, config.validation_page_views, _SEED)
        targets = validation_targets.select(held)
        asked = validation.select(held)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".cascade.") as temporary:
            table = ranking_table(
                recall,
                training.select(rows),
                training_targets.select(rows),
                config.negatives,
                True,
                _SEED,
                None if lags is None else lags[rows],
                None if vectors is None else vectors[rows],
                Path(temporary) / "features" if folder is not None else None,
            )
            check = ranking_table(recall, asked, targets, None, False, _SEED)
            if not len(table.groups) or not len(check.groups):
                raise ValueError(
                    "the cascade needs training and validation page views with a click on a candidate item"
                )
            # One ranker per setting.
            best, best_figure = None, -np.inf
            for changes in grid:
                tried = config.updated(**changes)
                cascade = cls(features, tried, fit_ranker(table, check, tried))
                items = cascade.rank(asked, 10).items
                # As many figures as there are kinds of targets: HR@10 and MRR@10 of clicks, of orders.
                figures = [
                    metric(items, wanted, 10)
                    for metric in (hit_rate, mrr)
                    for wanted in (targets.clicked, targets.ordered)
                    if wanted.lengths.any()
                ]
                figure = float(np.mean([np.nanmean(one) for one in figures]))
                if figure > best_figure:
                    best, best_figure = cascade, figure
        if best is None:
            raise ValueError("grid is empty; give at least one entry, {} for the config as it is")
        return best

    def with_judge(self, queries: Sequence[str], items: Ragged, levels: Ragged, relevance: float) -> "Cascade":
        """The cascade with a second ranker, fitted on judgments; arguments as :func:`judged_table`, and its weight.

        Every fifth query tells when to stop.

        Raises:
            ValueError: too few queries of the training part are judged.
        """
        held = np.arange(len(queries)) % 5 == 4
        table, check = (
            judged_table(self._recall, [queries[int(row)] for row in rows], items.select(rows), levels.select(rows))
            for rows in (np.flatnonzero(~held), np.flatnonzero(held))
        )
        if not len(table.groups) or not len(check.groups):
            raise ValueError(
                f"search.relevance needs judgments of five training queries or more, not {len(queries)}; set it to 0"
            )
        judge = fit_ranker(table, check, self.config, [2.0**level - 1 for level in LEVELS])
        return Cascade(self.features, self.config, self.ranker, judge, relevance)

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` best candidates by the score."""
        parts: list[Hits] = []
        for first in range(0, len(requests), _CHUNK):
            asked = requests.select(np.arange(first, min(first + _CHUNK, len(requests))))
            items = self._recall(asked)
            valid = items != NONE
            # Padding is never returned.
            scores = np.full(items.shape, -np.inf, np.float32)
            if valid.any():
                found = self.features.compute(asked, items)[valid]
                scores[valid] = self.ranker.predict(found)
                if self.judge is not None:
                    scores[valid] += self.relevance * np.asarray(self.judge.predict(found), np.float32)
            places, best = top_k(scores, k)
            parts.append(padded_hits(np.take_along_axis(items, places, 1), best, k))
        if not parts:
            return padded_hits(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32), k)
        return Hits(np.concatenate([part.items for part in parts]), np.concatenate([part.scores for part in parts]))

    def importances(self) -> dict[str, float]:
        """Share of the training gain that each feature brought, largest first."""
        gains = self.ranker.feature_importance("gain")
        shares = gains / max(float(gains.sum()), 1e-12)
        return {FEATURES[i]: float(shares[i]) for i in np.argsort(-shares)}

    def save(self, folder: Path) -> None:
        """Write the rankers as LightGBM's text and the settings as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ranker.txt").write_text(self.ranker.model_to_string(), encoding="utf-8")
        if self.judge is not None:
            (folder / "judge.txt").write_text(self.judge.model_to_string(), encoding="utf-8")
        about = {"config": self.config.model_dump(), "features": list(FEATURES), "relevance": self.relevance}
        write_json(folder / "cascade.json", about)

    @classmethod
    def load(cls, folder: Path, features: CascadeFeatures) -> "Cascade":
        """Read what :meth:`save` wrote; ``features`` is rebuilt from the training part.

        Raises:
            ValueError: the ranker was trained with other features, or its file does not hold trees.
        """
        description = read_json(folder / "cascade.json")
        if tuple(description["features"]) != FEATURES:
            raise ValueError(f"{folder}: the ranker was trained with other features than today's; train it again")
        relevance = float(description["relevance"])
        ranker = lightgbm.Booster(model_str=read_trees(folder / "ranker.txt"))
        judge = lightgbm.Booster(model_str=read_trees(folder / "judge.txt")) if relevance else None
        return cls(features, CascadeSettings.model_validate(description["config"]), ranker, judge, relevance)


def page_view_lags(page_views: pl.DataFrame) -> NDArray[np.float64] | None:
    """Days from each page view to the last one, [n]; None when a page view has no time."""
    if not len(page_views) or page_views["time"].null_count():
        return None
    lag = (pl.col("time").max() - pl.col("time")).dt.total_microseconds() / 86_400e6
    return np.asarray(page_views.select(lag).to_series().to_numpy(), np.float64)


def draw_page_views(clicked: Ragged, most: int | None, seed: int) -> NDArray[np.int64]:
    """Sorted random page views with a click, at most ``most``; all without it."""
    rows = np.flatnonzero(clicked.lengths > 0)
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    return rows


def fit_ranker(
    table: RankingTable, check: RankingTable, config: CascadeSettings, gains: Sequence[float] | None = None
) -> lightgbm.Booster:
    """LambdaMART on ``table``, stopped on NDCG@10 of ``check``; the booster keeps the best round.

    ``gains`` are those of the labels; without them the labels are 0, 1 for a click and 2 for an order.
    """
    parameters = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [10],
        "label_gain": [0.0, 1.0, config.order_gain] if gains is None else list(gains),
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_leaf,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "lambdarank_truncation_level": 20,
        "seed": _SEED,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": config.threads,
        "verbosity": -1,
    }
    # Seeded, on one row order and a fixed number of threads: the same table gives the same trees.
    data = lightgbm.Dataset(table.features, table.labels, group=table.groups, feature_name=_plain_names())
    held = lightgbm.Dataset(check.features, check.labels, group=check.groups, reference=data)
    # Early stopping looks at NDCG@10 of the check table; the best round is kept, the later ones are dropped.
    booster = lightgbm.train(
        parameters,
        data,
        config.trees,
        valid_sets=[held],
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
    )
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def _plain_names() -> list[str]:
    return [name.replace(" ", "_") for name in FEATURES]
