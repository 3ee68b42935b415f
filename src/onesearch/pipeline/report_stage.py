"""The last stages of a run: baselines tuned on validation data, and the report on the test part."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.array_files import map_array
from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.data.requests import LeaveOut
from onesearch.data.text import normalise_query
from onesearch.evaluation.baselines import (
    BM25,
    CASCADE,
    DENSE,
    FUSED,
    MOST_CLICKED,
    POPULAR,
    TOGETHER,
    Baselines,
    BaselineSettings,
    tune,
)
from onesearch.evaluation.cascade import Cascade, CascadeSettings, page_view_lags
from onesearch.evaluation.cascade_features import CascadeFeatures
from onesearch.evaluation.evaluate import MeasureSettings, TrueMetrics, measure, rank_all, valid_sid_share
from onesearch.evaluation.report import MILLISECONDS, Report
from onesearch.evaluation.slices import standard_slices
from onesearch.evaluation.verdict import Question
from onesearch.market.market import Market
from onesearch.market.world_files import FOLDER as MARKET_FOLDER
from onesearch.pipeline.engine_stage import ONE_MODEL, WITHOUT_GENERATOR, WITHOUT_LEXICAL, controls_of
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.engine import SearchEngine
from onesearch.search.engine_file import ENGINE
from onesearch.search.hits import Searcher
from onesearch.search.popularity_search import TogetherSearcher
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.run_parts import need

Ranked = tuple[str, NDArray[np.int32], float]
"""A method: its name, ranked items [n, k], milliseconds per request."""
RankRows = Callable[[NDArray[np.int64]], Sequence[Ranked]]
"""Page views by their numbers in a part of the split, [n] → what every method of the report ranks for them."""
TIMED_BY_WORKERS = "by a worker with one thread, beside others that may have slowed it down"
GENERATOR_ALONE, ENGINE_NAME = "generator alone", "engine"
V2 = "V2 "  # before the names of V2's methods
BASELINES = (BM25, DENSE, FUSED, POPULAR, MOST_CLICKED, TOGETHER, CASCADE)
LEGEND = {
    BM25: "words that query and item have in common, weighted by how rare they are",
    DENSE: "items whose vectors are nearest to the query's, by the run's text encoder",
    FUSED: "the scores of both, added",
    POPULAR: "BM25 times the logarithm of an item's clicks",
    MOST_CLICKED: "what was clicked most for the same query; where nothing was, BM25 x popularity",
    TOGETHER: "what others took together with the shopper's items; for requests without a query",
    CASCADE: "candidates of the searches above, ordered by boosted trees over words, clicks and histories: the usual"
    " search in several stages",
    GENERATOR_ALONE: "items that the model generates, by its probability of their semantic IDs",
    ONE_MODEL: "the same candidates, ordered by that probability and the model's item score",
    WITHOUT_GENERATOR: "the engine's other candidates and features, weights fitted anew",
    WITHOUT_LEXICAL: "the engine with no candidates and features of BM25, weights fitted anew",
    ENGINE_NAME: "what is served: candidates of the model, of clicks and of words, in a fitted order",
    "ndcg@10": "true relevance of the first ten, less the lower they stand, over that of the best order",
    "ehr@10": "share of all that would be clicked in the catalogue, were it seen, that is among the first ten",
    "order_ehr@10": "the same of orders",
    "clicks@10": "clicks expected on the first ten, each place seen less often than the one above",
    "orders@10": "the same of orders",
}
"""What methods and the market's true metrics are, for readers of a report."""


def build_baselines(
    run_data: RunData, context: StageContext, baselines: bool, cascade: CascadeSettings, relevance: float
) -> Mapping[str, Any]:
    """Tune the plain searchers and train the cascade; validation data decides everything.

    ``relevance`` is the weight of judgments: what the engine learns from, its strongest rival learns from, too.
    """
    if not baselines:
        return {}
    # The plain searchers' settings, by what they find of the validation part's clicks.
    dataset, parts = run_data.dataset, run_data.split
    valid = run_data.requests(parts.valid)
    outcomes = run_data.targets(parts.valid)
    encode = run_data.encoder.encode
    vectors = map_array(need(run_data.run, "encoder") / "item_vectors.npy")
    start = BaselineSettings().updated(lexical=run_data.lexical.config.model_dump())
    settings = tune(
        dataset.items,
        run_data.statistics,
        vectors,
        encode,
        valid,
        outcomes.clicked,
        start,
        seed=context.seed,
        lexical=run_data.lexical,  # tuned by its stage on the same page views
    )
    write_json(context.folder / "settings.json", settings.model_dump(mode="json"))
    # The cascade on top of them, from all training page views.
    features = _cascade_features(run_data, _baselines(run_data, settings), settings)
    trained = Cascade.train(
        features,
        run_data.requests(parts.train),
        run_data.targets(parts.train),
        valid,
        outcomes,
        cascade,
        page_view_lags(parts.train),
        vectors=_held_out_for_cascade(run_data),
        folder=context.folder,
    )
    # Judged items of training queries, a list for each query; items that have left the catalogue are left out.
    if relevance:
        judged = run_data.training_judgments.with_columns(row=dataset.rows_of(run_data.training_judgments["item_id"]))
        lists = judged.filter(pl.col("row") >= 0).group_by("query", maintain_order=True).agg("row", "level")
        items, levels = (Ragged.from_lists(lists[name].to_list()) for name in ("row", "level"))
        trained = trained.with_judge(lists["query"].to_list(), items, levels, relevance)
    trained.save(context.folder / "cascade")
    return {"settings": settings.model_dump(mode="json"), "cascade_importances": trained.importances()}


def _held_out_for_cascade(run_data: RunData) -> NDArray[np.float32] | None:
    """Training page views' query vectors from encoders that never saw the query, [n, d]; None without cross-fitting.

    A ranker trained on vectors that have seen its training clicks trusts the dense score too much: a weaker baseline.
    """
    folder = need(run_data.run, "encoder")
    path = folder / "held_out_queries.parquet"
    if not path.is_file():
        return None
    held = map_array(folder / "held_out_vectors.npy")
    number = {text: row for row, text in enumerate(pl.read_parquet(path)["query"].to_list())}
    texts = run_data.split.train["query"].fill_null("").to_list()
    vectors = run_data.encoder.encode(texts)
    rows = np.fromiter((number.get(normalise_query(text), -1) for text in texts), np.int64, len(texts))
    vectors[rows >= 0] = held[rows[rows >= 0]]
    return vectors


def _baselines(run_data: RunData, settings: BaselineSettings) -> Baselines:
    vectors = map_array(need(run_data.run, "encoder") / "item_vectors.npy")
    # BM25 as its stage left it, of which the settings are a copy.
    encode, lexical = run_data.encoder.encode, run_data.lexical
    return Baselines(run_data.dataset.items, run_data.statistics, vectors, encode, settings, lexical)


def _cascade_features(run_data: RunData, base: Baselines, settings: BaselineSettings) -> CascadeFeatures:
    train = run_data.split.train
    now = train["time"].max() if train["time"].null_count() < len(train) else None
    return CascadeFeatures(
        run_data.dataset.items,
        run_data.statistics,
        base.lexical,
        base.dense,
        run_data.requests(train),
        run_data.targets(train),
        now,
        settings.smoothing,
    )


def baseline_methods(run_data: RunData, leave_out: LeaveOut = "nothing") -> dict[str, Searcher]:
    """The run's tuned baselines by name; where the run has switched these off, what needs no tuning alone.

    Where page views without a query are recommendations, what goes with the shopper's items is one of them;
    ``leave_out`` holds for it as for the engine.
    """
    methods: dict[str, Searcher] = {}
    if (run_data.split.train["query"].fill_null("").str.strip_chars() == "").any():
        methods[TOGETHER] = TogetherSearcher(run_data.item_pairs, run_data.statistics.clicked, leave_out)
    folder = need(run_data.run, "baselines")
    if not (folder / "settings.json").is_file():
        return methods
    settings = BaselineSettings.model_validate(read_json(folder / "settings.json"))
    base = _baselines(run_data, settings)
    features = _cascade_features(run_data, base, settings)
    return {**base.methods(), **methods, CASCADE: Cascade.load(folder / "cascade", features)}


def engine_of(run_data: RunData, folder: Path) -> SearchEngine:
    """The engine that an ``engine`` stage chose."""
    return SearchEngine.from_about(run_data, read_json(folder / ENGINE))


def engine_methods(engine: SearchEngine, folder: Path) -> dict[str, Searcher]:
    """The generator alone, the engine's controls, and the engine."""
    weights = read_json(folder / ENGINE)["controls"]
    controls = {
        name: engine.with_settings(settings, RankingWeights(weights[name]))
        for name, settings in controls_of(engine.config).items()
    }
    return {GENERATOR_ALONE: engine.alone(), **controls, ENGINE_NAME: engine}


def build_report(
    run_data: RunData, context: StageContext, measures: MeasureSettings, test_requests: int, has_v2: bool, run_seed: int
) -> Mapping[str, Any]:
    """All methods on the test part."""
    report = write_report(
        run_data, context.folder, "test", measures, test_requests, has_v2, run_seed, loaded=context.all_loaded
    )
    figures = {}
    for method, row in report.methods.items():
        figures[method] = {name: row[name].mean for name in report.main_metrics() if name in row}
    return figures


def write_report(
    run_data: RunData,
    folder: Path,
    part: str,
    measures: MeasureSettings,
    limit: int,
    has_v2: bool,
    seed: int,
    by_workers: RankRows | None = None,
    loaded: Callable[[], None] = lambda: None,
) -> Report:
    """Measure engine, generator alone and baselines on a part of the log; writes ``report.json``, tables and charts.

    Args:
        run_data: a finished run.
        folder: to write to.
        part: ``"test"`` or ``"valid"``.
        measures: how to measure.
        limit: page views at most, drawn with ``seed``.
        has_v2: measure V2 beside V1.
        seed: of the draw.
        by_workers: has others rank the page views with these numbers in the part; None ranks them here.
        loaded: called when all methods are there, before any of them ranks.
    """
    # The same page views for every method.
    page_views = part_of(run_data, part)
    rows = np.arange(len(page_views))
    if len(page_views) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(len(page_views), limit, replace=False))
        page_views = page_views[rows]
    requests, targets = run_data.requests(page_views), run_data.targets(page_views)
    # Ranked lists by method: baselines, V1's, V2's.
    engine = engine_of(run_data, need(run_data.run, "engine"))
    if by_workers is None:
        methods = report_methods(run_data, engine, has_v2)
        loaded()
        names, k = [*methods], max(measures.k)
        lists: Iterable[Ranked] = (
            (name, *rank_all(searcher, requests, k, measures.batch)) for name, searcher in methods.items()
        )
    else:
        lists = by_workers(rows)
        names = [name for name, _, _ in lists]
    slices = standard_slices(
        requests,
        page_views,
        targets.clicked,
        run_data.split.train,
        run_data.statistics.shown,
        run_data.statistics.clicked,
        run_data.dataset.items,
    )
    notes = {
        "part": part,
        "width": engine.config.width,
        "weights": dict(engine.weights.values),
        "valid_sid_share_without_constraint": valid_sid_share(engine, requests, 1000),
        **({} if by_workers is None else {"milliseconds": TIMED_BY_WORKERS}),
    }
    report = measure(lists, targets, slices, truth_of(run_data, page_views), tested_pairs(names), measures, notes)
    second = [name for name in names if name.startswith(V2)]
    before = V2 if second else ""
    report = replace(
        report,
        title=f"{run_data.run.name}: search measured on the {part} part",
        legend=LEGEND
        | {name: f"{name.removeprefix(V2)}, with the model of V2" for name in second}
        | ({} if by_workers is None else {MILLISECONDS: TIMED_BY_WORKERS}),
        question=Question(before + ENGINE_NAME, BASELINES, before + WITHOUT_GENERATOR),
    )
    report.save(folder)
    return report


def part_of(run_data: RunData, part: str) -> pl.DataFrame:
    """The page views of a part of the split, ``"test"`` or ``"valid"``."""
    page_views: pl.DataFrame = getattr(run_data.split, part)
    return page_views


def report_methods(run_data: RunData, engine: SearchEngine, has_v2: bool) -> dict[str, Searcher]:
    """All methods of a report by name: baselines, V1's with ``engine`` last, V2's."""
    methods: dict[str, Searcher] = {
        **baseline_methods(run_data, engine.config.leave_out),
        **engine_methods(engine, need(run_data.run, "engine")),
    }
    if has_v2:
        folder = need(run_data.run, "engine_v2")
        second = engine_methods(engine_of(run_data, folder), folder)
        methods |= {V2 + name: method for name, method in second.items()}
    return methods


def tested_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs that are tested: the engine against all, the generator against the strong baselines, V2 against V1."""
    first = [name for name in names if not name.startswith(V2)]
    second = [name for name in names if name.startswith(V2)]
    against = [name for name in (FUSED, MOST_CLICKED, DENSE, TOGETHER, CASCADE) if name in first]
    ours = [name for name in (GENERATOR_ALONE, ONE_MODEL, WITHOUT_GENERATOR, WITHOUT_LEXICAL) if name in first]
    pairs = [(ENGINE_NAME, name) for name in first if name != ENGINE_NAME]
    pairs += [(one, name) for one in ours for name in against]
    pairs += [(name, name.removeprefix(V2)) for name in second]
    return pairs + ([(V2 + ENGINE_NAME, CASCADE)] if second and CASCADE in first else [])


def truth_of(run_data: RunData, page_views: pl.DataFrame) -> TrueMetrics | None:
    """The market's true metrics for a market's page views; None for real data."""
    folder = need(run_data.run, "data")
    if not (folder / MARKET_FOLDER).is_dir():
        return None
    market = Market.load(folder)
    return lambda ranked: market.evaluate(page_views, ranked[:, :10])
