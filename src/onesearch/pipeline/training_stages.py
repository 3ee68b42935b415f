"""The training stages of a run: SFT 1 to 3, and the engine's weights."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from onesearch.common.ragged import Ragged
from onesearch.data.metrics import hit_rate, mrr
from onesearch.data.requests import Requests
from onesearch.encoding.pseudo_queries import pseudo_queries
from onesearch.model.generator import Generator, Sizes
from onesearch.model.initialise import initialise
from onesearch.model.numeric_item_features import FEATURE_NAMES
from onesearch.model.prompt import PromptInputs
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.teacher import cot_task_set, keyword_source
from onesearch.search.candidates import Candidates
from onesearch.search.engine import BEAMS_ONLY, SearchEngine
from onesearch.search.ranking_weights import GENERATOR_ALONE, RankingWeights, fit_weights
from onesearch.search.run_parts import GENERATOR, Keywords, save_engine
from onesearch.search.search_settings import SearchSettings
from onesearch.training.batching import BatchSource, TaskMixture
from onesearch.training.cot_tasks import COT
from onesearch.training.loop import FitReport, LoopSettings, fit
from onesearch.training.self_distillation import SelfDistillationObjective, distillation_loss
from onesearch.training.sft_settings import PersonalisationSettings, SemanticTaskSettings
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.tasks import (
    STAGE_1,
    STAGE_2,
    Task,
    TaskItems,
    category_tokens,
    example_weights,
    search_task,
    semantic_tasks,
)
from onesearch.understanding.thought_table import Thoughts

log = logging.getLogger("onesearch")
# Features whose weight is the same for every request; the others' depends on how well the query is known.
PLAIN = ("text", "taste", *(f"item_{name}" for name in FEATURE_NAMES))
BARE = SearchSettings(**BEAMS_ONLY)


def new_generator(run_data: RunData, config: RunSettings, seed: int) -> Generator:
    """A generator that starts in the geometry of the encoder and the quantizer."""
    sizes = Sizes(
        run_data.vocabulary.text_size,
        run_data.vocabulary.codebook_sizes,
        run_data.item_vectors.shape[1],
        int(run_data.item_head_rows.shape[1]),
        1.0 / config.encoder.align.temperature,
    )
    torch.manual_seed(seed)
    centroids = [torch.from_numpy(table) for table in run_data.khqe.centroids[:3]]
    generator = Generator(config.model, sizes, centroids)
    initialise(generator, run_data.vocabulary, run_data.encoder, run_data.khqe, run_data.item_vectors, seed)
    return generator


def run_semantic_tasks(
    run_data: RunData, config: RunSettings, context: StageContext, before: str | None
) -> Mapping[str, Any]:
    """SFT stage 1 (``before`` None) or 2 (``before`` names stage 1)."""
    settings: SemanticTaskSettings = config.sft1 if before is None else config.sft2
    generator = new_generator(run_data, config, context.seed) if before is None else run_data.generator(before)
    names = STAGE_1 if before is None else STAGE_2
    tasks = semantic_task_set(run_data, config, generator, settings)
    shares = settings.tasks or dict.fromkeys(names, 1.0)
    chosen = {name: tasks[name] for name, share in shares.items() if share > 0 and name in tasks}
    if settings.steps == 0 or not chosen:
        generator.save(context.folder / GENERATOR)
        return {"steps": 0}
    shares = {name: shares[name] for name in chosen}
    mixture = mixture_of(chosen, shares, settings.batch_size, settings.steps, context.seed)
    objective = SupervisedObjective(
        generator, run_data.index, run_data.item_head_rows, settings.score_weight, settings.codebook_weight
    )
    report = fit_objective(objective, mixture, settings.loop, context)
    generator.save(context.folder / GENERATOR)
    return fit_metrics(report)


def semantic_task_set(
    run_data: RunData, config: RunSettings, generator: Generator, settings: SemanticTaskSettings
) -> dict[str, Task]:
    """The tasks of stages 1 and 2 over the training part."""
    statistics, vocabulary = run_data.statistics, run_data.vocabulary
    texts = list(statistics.queries)
    queries = run_data.training_text_features(texts, config.sft3.held_out_vectors)
    titles = run_data.featurizer.text_features(run_data.item_texts, run_data.item_vectors)
    paths = [list(path or ()) for path in run_data.dataset.items["category"].to_list()]
    categories = category_tokens(vocabulary, paths, settings.text_tokens)
    pairs = np.stack([statistics.items.owners, statistics.items.values.astype(np.int64)], 1)
    counts = statistics.counts.astype(np.float64)
    totals = np.bincount(pairs[:, 0], counts, len(texts))
    weights = counts / np.sqrt(np.maximum(totals[pairs[:, 0]], 1e-9))
    of_query = _main_category(pairs, counts, paths, len(texts))
    query_categories = category_tokens(vocabulary, of_query, settings.text_tokens)
    return semantic_tasks(
        run_data.builder(generator.config.prompt),
        TaskItems(run_data.sids, titles, categories),
        queries,
        pairs,
        weights,
        query_categories,
        settings.text_tokens,
        settings.score_negatives,
    )


def _main_category(
    pairs: NDArray[np.int64], counts: NDArray[np.float64], paths: list[list[str]], queries: int
) -> list[list[str]]:
    """For each query the category path that most of its clicks fell in."""
    frame = pl.DataFrame(
        {
            "query": pairs[:, 0],
            "path": [" > ".join(paths[item]) for item in pairs[:, 1].tolist()],
            "count": counts,
        }
    )
    best = (
        frame.filter(pl.col("path") != "")
        .group_by("query", "path")
        .agg(pl.col("count").sum())
        .sort("query", "count", "path", descending=[False, True, False])
        .unique("query", keep="first")
    )
    out: list[list[str]] = [[] for _ in range(queries)]
    for query, path, _ in best.iter_rows():
        out[query] = [path]
    return out


def run_cot(run_data: RunData, config: RunSettings, context: StageContext, before: str) -> Mapping[str, Any]:
    """The four CoT tasks of stage 1, beside other tasks of it, on the weights that V1's stage 2 left.

    They come after stage 2 so that V2 shares V1's first two stages.
    """
    settings = config.cot
    generator = run_data.generator(before)
    shares = settings.tasks or dict.fromkeys(COT, 1.0)
    if settings.steps == 0:
        generator.save(context.folder / GENERATOR)
        return {"steps": 0}
    tasks = cot_task_set(run_data, config, generator)
    if not set(shares) <= set(COT):
        tasks |= semantic_task_set(run_data, config, generator, settings)
    chosen = {name: tasks[name] for name, share in shares.items() if share > 0 and name in tasks}
    mixture = mixture_of(
        chosen, {name: shares[name] for name in chosen}, settings.batch_size, settings.steps, context.seed
    )
    objective = SupervisedObjective(
        generator, run_data.index, run_data.item_head_rows, settings.score_weight, settings.codebook_weight
    )
    report = fit_objective(objective, mixture, settings.loop, context)
    generator.save(context.folder / GENERATOR)
    return fit_metrics(report)


def run_personalisation(
    run_data: RunData, config: RunSettings, context: StageContext, before: str, distilled: bool = False
) -> Mapping[str, Any]:
    """SFT stage 3: the full input to clicked and ordered items, and pseudo-queries for items nobody searched.

    ``distilled`` trains V2's form of it, as ``config.distill`` says: with a teacher that reads the keywords of the
    ``understanding`` stage, or one of the alternatives.
    """
    settings: PersonalisationSettings = config.sft3
    generator = run_data.generator(before)
    thoughts = run_data.thoughts if distilled else None
    if distilled and config.distill.think:
        prompt = generator.config.prompt.updated(think=config.distill.think)
        generator.config = generator.config.updated(prompt=prompt.model_dump())
    tasks = search_tasks(run_data, config, generator, thoughts)
    pseudo = settings.pseudo_share if "pseudo" in tasks else 0.0
    writing = cot_task_set(run_data, config, generator) if distilled and config.distill.cot else {}
    cot = config.distill.cot if writing else 0.0
    per_epoch = max(1, round(len(tasks["search"].lengths) / settings.batch_size / (1 - pseudo - cot)))
    steps = round(settings.epochs * per_epoch)
    if steps == 0:
        generator.save(context.folder / GENERATOR)
        return {"steps": 0}
    shares = {"search": 1 - pseudo - cot, **({"pseudo": pseudo} if pseudo else {})}
    shares |= {name: cot / len(writing) for name in writing}
    every = {**tasks, **writing}
    mixture = mixture_of({name: every[name] for name in shares}, shares, settings.batch_size, steps, context.seed)
    parts = (generator, run_data.index, run_data.item_head_rows, settings.score_weight, settings.codebook_weight)
    has_teacher = distilled and config.distill.keywords == "teacher"
    objective = SelfDistillationObjective(*parts, config.distill) if has_teacher else SupervisedObjective(*parts)
    keywords = run_data.keyword_reader(config.distill.reads if distilled else None)
    report = fit_objective(objective, mixture, settings.loop, context, validator(run_data, generator, config, keywords))
    generator.save(context.folder / GENERATOR)
    return fit_metrics(report)


def search_tasks(
    run_data: RunData, config: RunSettings, generator: Generator, thoughts: Thoughts | None = None
) -> dict[str, Task]:
    """The two tasks of stage 3: real page views, and pseudo-queries cut from item texts.

    With ``thoughts`` the page views that ``distill.teach`` names and that have keywords have a teacher, too; or read
    the keywords themselves.
    """
    settings, prompt, distill = config.sft3, generator.config.prompt, config.distill
    builder = run_data.builder(prompt)
    page_views, targets, weights = searches(run_data, config)
    use = thoughts if distill.keywords != "none" else None
    columns = run_data.training_columns(
        page_views, prompt, settings.held_out_vectors, None if use is None else keyword_source(run_data, config, use)
    )
    taught = None if columns.keywords is None else np.asarray((columns.keywords >= 0).any(1))
    n_items = len(run_data.item_head_rows)
    as_input = use is not None and distill.keywords == "input"
    search = search_task(
        "search",
        builder,
        columns,
        targets,
        weights,
        n_items,
        settings.score_negatives,
        frequency_weights(columns.query, settings.frequency_power),
        None if as_input else taught,
        as_input,
    )
    if not settings.pseudo_share:
        return {"search": search}
    texts = pseudo_queries(run_data.item_texts, config.seed + 101)
    made = PromptInputs.from_requests(Requests.anonymous(texts), run_data.featurizer.text_features, prompt)
    own = Ragged.from_lengths(np.arange(n_items, dtype=np.int32), np.ones(n_items, np.int64))
    pseudo = search_task("pseudo", builder, made, own, np.ones(n_items, np.float32), n_items, settings.score_negatives)
    return {"search": search, "pseudo": pseudo}


def searches(run_data: RunData, config: RunSettings) -> tuple[pl.DataFrame, Ragged, NDArray[np.float32]]:
    """Training page views with a click or an order, their targets, and the weight of each target."""
    settings, page_views = config.sft3, run_data.split.train
    outcome = run_data.targets(page_views)
    targets, weights = example_weights(outcome.clicked, outcome.ordered, settings.order_weight, settings.max_targets)
    rows = np.flatnonzero(targets.lengths > 0)
    return page_views[rows], targets.select(rows), weights[np.isin(targets.owners, rows)]


def frequency_weights(query: NDArray[np.int32], power: float) -> NDArray[np.float64]:
    """Weights under which a query seen n times is drawn n^power times as often as one seen once (finding 6)."""
    counts = np.bincount(query + 1)[query + 1].astype(np.float64)
    return np.asarray(counts ** (power - 1.0))


def mixture_of(
    tasks: Mapping[str, Task], shares: Mapping[str, float], batch_size: int, steps: int, seed: int
) -> TaskMixture:
    """Batches of tasks by their shares."""
    sources = {
        name: BatchSource(task.lengths, task.batch, batch_size, weights=task.weights, seed=seed, name=name)
        for name, task in tasks.items()
    }
    return TaskMixture(sources, shares, steps, seed)


def fit_objective(
    objective: nn.Module,
    batches: TaskMixture,
    loop: LoopSettings,
    context: StageContext,
    validate: Any = None,
    patience: int | None = None,
) -> FitReport:
    """The loop over an objective, with the run's seed and the stage's folder."""
    loss = distillation_loss if isinstance(objective, SelfDistillationObjective) else _losses
    return fit(
        objective,
        batches,
        loss,
        loop,
        context.folder,
        validate,
        seed=context.seed,
        label=context.name,
        patience=patience,
    )


def _losses(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = model(batch)
    return out


def validator(
    run_data: RunData, generator: Generator, config: RunSettings, keywords: Keywords | None = None, most: int = 400
) -> Any:
    """Validation figures of the generator alone on a fixed sample of validation page views.

    ``keywords`` are those that serving would read as well (RAG).
    """
    page_views, clicked = _with_clicks(run_data, run_data.split.valid, most, config.seed)
    if not len(page_views):
        return None
    requests = run_data.requests(page_views)
    search = BARE.updated(width=min(32, config.search.width))

    snapshot = run_data.snapshot(generator.config.prompt, lexical=False)

    def validate(_: nn.Module) -> dict[str, float]:
        engine = SearchEngine(
            generator, run_data.featurizer, snapshot, run_data.click_features, search, keywords=keywords
        )
        items = engine.rank(requests, 10).items
        generator.train(False)
        return {"hr10": float(np.nanmean(hit_rate(items, clicked))), "mrr10": float(np.nanmean(mrr(items, clicked)))}

    return validate


def _with_clicks(run_data: RunData, page_views: pl.DataFrame, most: int, seed: int) -> tuple[pl.DataFrame, Ragged]:
    """At most ``most`` page views that have a click, drawn once, and what was clicked in them."""
    clicked = run_data.targets(page_views).clicked
    rows = np.flatnonzero(clicked.lengths > 0)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    return page_views[rows], clicked.select(rows)


def fit_engine(
    run_data: RunData, engine: SearchEngine, page_views: pl.DataFrame, most: int, seed: int
) -> RankingWeights:
    """Weights of the engine's features, fitted on validation clicks (an ordered item has twice the gain)."""
    sample, clicked = _with_clicks(run_data, page_views, most, seed)
    if not len(sample):
        log.warning("no validation page view has a click: the engine ranks by the generator alone")
        return GENERATOR_ALONE
    found = engine.candidates(run_data.requests(sample))
    gain = positives(found, clicked) + positives(found, run_data.targets(sample).ordered).astype(np.float32)
    return fit_weights(found.features, found.items >= 0, gain, found.contexts, PLAIN)


def fit_relevance(run_data: RunData, engine: SearchEngine) -> RankingWeights:
    """Weights of the same features fitted on judgments, the gain of level r being ``2^r - 1``.

    Judgments of queries that occur in the validation or test part, but not in the training part, are left out.

    Raises:
        ValueError: no judgment of a training query is above level 0.
    """
    row = run_data.dataset.item_rows
    judged = run_data.training_judgments.group_by("query", maintain_order=True).agg("item_id", "level")
    kept = list(judged.iter_rows(named=True))
    if not kept:
        raise ValueError("search.relevance needs judgments of training queries, and the data set has none; set it to 0")
    given = Ragged.from_lists([[row.get(item, -1) for item in known["item_id"]] for known in kept])
    gains = Ragged.from_lists([[2**level - 1 for level in known["level"]] for known in kept])
    width = int(given.lengths.max())
    items = given.padded(width, newest=False).astype(np.int64)
    found = engine.candidates(Requests.anonymous([known["query"] for known in kept]), fixed=items)
    # An item judged twice, or no longer searchable, left its place empty; all others kept theirs.
    gain = np.where(found.items == items, gains.padded(width, 0, newest=False), 0).astype(np.float32)
    return fit_weights(found.features, found.items >= 0, gain, found.contexts, PLAIN)


def positives(found: Candidates, clicked: Ragged) -> NDArray[np.bool_]:
    """Which candidates were clicked, bool [n, C]."""
    n_items = int(max(found.items.max(initial=0), clicked.values.max(initial=0))) + 1
    keys = np.arange(len(clicked))[:, None] * n_items + found.items
    wanted = clicked.owners * n_items + clicked.values
    return np.asarray(np.isin(keys, wanted) & (found.items >= 0))


def run_engine(
    run_data: RunData, config: RunSettings, context: StageContext, model: str, distilled: bool = False
) -> Mapping[str, Any]:
    """Choose the weights of the engine's features on validation data."""
    reads = config.distill.reads if distilled else None

    def fitted(search: SearchSettings) -> RankingWeights:
        engine = SearchEngine.from_parts(run_data, model, search, GENERATOR_ALONE, run_data.keyword_reader(reads))
        found = fit_engine(run_data, engine, run_data.split.valid, config.evaluation.fit_requests, config.seed)
        return found.plus(fit_relevance(run_data, engine), search.relevance) if search.relevance else found

    weights = fitted(config.search)
    bare = fitted(config.search.updated(lexical=False)) if config.search.lexical else weights
    save_engine(context.folder, model, config.search, weights, bare, reads)
    return {"weights": dict(weights.values), "weights_without_lexical": dict(bare.values)}


def fit_metrics(report: FitReport) -> dict[str, Any]:
    """What a training stage's manifest says of it."""
    return {
        "steps": report.steps,
        "samples_per_second": report.samples_per_second,
        "loss": report.loss,
        "precision": report.precision,
        **report.metrics,
    }
