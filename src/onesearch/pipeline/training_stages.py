"""The supervised training stages of a run: SFT 1 to 3, the CoT tasks, V2's self-distillation."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from onesearch.common.processes import is_first, place, summed
from onesearch.common.ragged import Ragged
from onesearch.data.metrics import hit_rate, mrr
from onesearch.data.requests import Requests
from onesearch.encoding.pseudo_queries import pseudo_queries
from onesearch.model.generator import Generator, Sizes
from onesearch.model.initialise import initialise
from onesearch.model.model_settings import ModelSettings
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.pipeline.pseudo_query_stage import load_pseudo_queries
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.teacher import cot_task_set, keyword_source
from onesearch.search.engine import SearchEngine
from onesearch.search.run_parts import GENERATOR, Keywords, need
from onesearch.search.search_settings import BEAMS_ONLY, SearchSettings
from onesearch.training.batching import BatchSource, TaskMixture
from onesearch.training.cot_tasks import COT
from onesearch.training.loop import FitReport, LoopSettings, fit
from onesearch.training.self_distillation import DistillationSettings, SelfDistillationObjective, distillation_loss
from onesearch.training.sft_settings import CoTSettings, PersonalisationSettings, SemanticTaskSettings
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
from onesearch.understanding.thought_table import Taught

log = logging.getLogger("onesearch")
_MAX_TARGETS = 8  # kept of one page view
BARE = SearchSettings(**BEAMS_ONLY)


def new_generator(run_data: RunData, model: ModelSettings, temperature: float, seed: int) -> Generator:
    """A generator that starts in the geometry of the encoder and the quantizer."""
    sizes = Sizes(
        run_data.vocabulary.text_size,
        run_data.vocabulary.codebook_sizes,
        run_data.item_vectors.shape[1],
        int(run_data.item_head_rows.shape[1]),
        1.0 / temperature,
        len(run_data.item_head_rows),
    )
    torch.manual_seed(seed)
    centroids = [torch.from_numpy(table) for table in run_data.khqe.centroids[:3]]
    generator = Generator(model, sizes, centroids)
    initialise(generator, run_data.vocabulary, run_data.encoder, run_data.khqe, run_data.item_vectors, seed)
    return generator


def run_sft1(
    run_data: RunData,
    context: StageContext,
    sft1: SemanticTaskSettings,
    model: ModelSettings,
    temperature: float,
    held_out: bool,
) -> Mapping[str, Any]:
    """SFT stage 1: a new generator learns the semantic tasks of single texts and SIDs."""
    generator = new_generator(run_data, model, temperature, context.seed)
    tasks = semantic_task_set(run_data, generator, sft1, held_out)
    return _fit_tasks(run_data, context, generator, sft1, tasks, STAGE_1)


def run_sft2(
    run_data: RunData, context: StageContext, before: str, sft2: SemanticTaskSettings, held_out: bool
) -> Mapping[str, Any]:
    """SFT stage 2, from the weights of stage ``before``: the tasks between queries and items."""
    generator = run_data.generator(before)
    tasks = semantic_task_set(run_data, generator, sft2, held_out)
    return _fit_tasks(run_data, context, generator, sft2, tasks, STAGE_2)


def run_cot(
    run_data: RunData,
    context: StageContext,
    before: str,
    cot: CoTSettings,
    teach: Taught,
    shuffle: bool,
    held_out: bool,
    run_seed: int,
) -> Mapping[str, Any]:
    """The four CoT tasks of stage 1, beside other tasks of it, on the weights of stage ``before``: V1's stage 2.

    They come after stage 2 so that V2 shares V1's first two stages.
    """
    generator = run_data.generator(before)
    tasks = {}
    if cot.steps:
        tasks = cot_task_set(run_data, generator, cot, teach, shuffle, held_out, run_seed)
    if cot.steps and not set(cot.tasks) <= set(COT):
        tasks |= semantic_task_set(run_data, generator, cot, held_out)
    return _fit_tasks(run_data, context, generator, cot, tasks, COT)


def _fit_tasks(
    run_data: RunData,
    context: StageContext,
    generator: Generator,
    settings: SemanticTaskSettings,
    tasks: Mapping[str, Task],
    names: Sequence[str],
) -> Mapping[str, Any]:
    """Supervised training on the tasks that ``settings`` names, else on all ``names`` alike; saves the generator."""
    shares = settings.tasks or dict.fromkeys(names, 1.0)
    shares = {name: share for name, share in shares.items() if share > 0 and name in tasks}
    if settings.steps == 0 or not shares:
        keep(generator, context)
        return {"steps": 0}
    chosen = {name: tasks[name] for name in shares}
    mixture = mixture_of(chosen, shares, settings.batch_size, settings.steps, context.seed)
    objective = SupervisedObjective(
        generator, run_data.index, run_data.item_head_rows, settings.score_weight, settings.codebook_weight
    )
    report = fit_objective(objective, mixture, settings.loop, context)
    keep(generator, context)
    return fit_metrics(report)


def semantic_task_set(
    run_data: RunData, generator: Generator, settings: SemanticTaskSettings, held_out: bool
) -> dict[str, Task]:
    """The tasks of stages 1 and 2 over the training part; ``held_out`` as in :meth:`RunData.training_vectors`."""
    statistics, vocabulary = run_data.statistics, run_data.vocabulary
    texts = list(statistics.queries)
    queries = run_data.training_text_features(texts, held_out)
    titles = run_data.featurizer.text_features(run_data.item_texts, run_data.item_vectors)
    paths = [list(path or ()) for path in run_data.dataset.items["category"].to_list()]
    categories = category_tokens(vocabulary, paths, settings.text_tokens)
    # Clicked pairs of query and item, int64 [P, 2]. A pair's weight is its clicks over the root of its query's, so
    # that a query with n clicks is drawn as if it had the root of n.
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


def run_personalisation(
    run_data: RunData,
    context: StageContext,
    before: str,
    sft3: PersonalisationSettings,
    validation_width: int,
    run_seed: int,
    distill: DistillationSettings | None = None,
    cot: CoTSettings | None = None,
    pseudo: str | None = None,
) -> Mapping[str, Any]:
    """SFT stage 3: the full input to clicked and ordered items, and pseudo-queries for items nobody searched.

    They are the searches that the stage ``pseudo`` wrote, or else pieces of titles. With ``distill`` it is V2's
    form of it: with a teacher that reads the keywords of the ``understanding`` stage, or one of the alternatives that
    the settings name, and beside it CoT tasks of ``cot``.
    """
    generator = run_data.generator(before)
    if distill is not None and distill.think:
        prompt = generator.config.prompt.updated(think=distill.think)
        generator.config = generator.config.updated(prompt=prompt.model_dump())

    # Tasks and their shares: pseudo-queries and, for V2, writing keywords have fixed ones, searches the rest.
    tasks = search_tasks(run_data, generator, sft3, run_seed, distill, pseudo)
    made_up = sft3.pseudo_share if "pseudo" in tasks else 0.0
    writing: dict[str, Task] = {}
    if distill is not None and cot is not None and distill.cot:
        writing = cot_task_set(
            run_data, generator, cot, distill.teach, distill.shuffle, sft3.held_out_vectors, run_seed
        )
    written = distill.cot if distill is not None and writing else 0.0
    shares = {"search": 1 - made_up - written, **({"pseudo": made_up} if made_up else {})}
    shares |= {name: written / len(writing) for name in writing}

    # An epoch has seen every search once; the other tasks' batches come on top.
    per_epoch = max(1, round(len(tasks["search"].lengths) / sft3.batch_size / shares["search"]))
    steps = round(sft3.epochs * per_epoch)
    if steps == 0:
        keep(generator, context)
        return {"steps": 0}
    every = {**tasks, **writing}
    mixture = mixture_of({name: every[name] for name in shares}, shares, sft3.batch_size, steps, context.seed)

    parts = (generator, run_data.index, run_data.item_head_rows, sft3.score_weight, sft3.codebook_weight)
    objective: nn.Module
    if distill is not None and distill.keywords == "teacher":
        objective = SelfDistillationObjective(*parts, distill, sft3.label_smoothing)
    else:
        objective = SupervisedObjective(*parts, sft3.label_smoothing)
    # A model that reads keywords in serving, too (RAG), reads them in validation.
    keywords = run_data.keyword_reader(None if distill is None else distill.reads)
    validate = validator(run_data, generator, validation_width, run_seed, keywords)
    report = fit_objective(objective, mixture, sft3.loop, context, validate)
    keep(generator, context)
    return fit_metrics(report)


def search_tasks(
    run_data: RunData,
    generator: Generator,
    sft3: PersonalisationSettings,
    seed: int,
    distill: DistillationSettings | None = None,
    pseudo: str | None = None,
) -> dict[str, Task]:
    """The two tasks of stage 3: real page views, and pseudo-queries: of the stage ``pseudo``, or cut from item texts.

    With ``distill`` the page views that ``distill.teach`` names and that have keywords have a teacher, too; or read
    the keywords themselves. ``seed`` draws the pseudo-queries and the placebo.
    """
    prompt = generator.config.prompt
    builder = run_data.builder(prompt)
    # Real searches, with the keywords that a teacher (or the model itself) reads.
    page_views, targets, weights = searches(run_data, sft3)
    keywords = None
    if distill is not None and distill.keywords != "none":
        keywords = keyword_source(run_data, run_data.thoughts, distill, seed)
    columns = run_data.training_columns(
        page_views, prompt, sft3.held_out_vectors, keywords, sft3.part_dropout, seed, sft3.epochs
    )
    # Which page views have a teacher, bool [n].
    taught = None if columns.keywords is None else np.asarray((columns.keywords >= 0).any(1))
    n_items = len(run_data.item_head_rows)
    as_input = distill is not None and distill.keywords == "input"
    search = search_task(
        "search",
        builder,
        columns,
        targets,
        weights,
        n_items,
        sft3.score_negatives,
        frequency_weights(columns.query, sft3.frequency_power),
        None if as_input else taught,
        as_input,
        run_data.own_numbers,
    )
    if not sft3.pseudo_share:
        return {"search": search}
    if pseudo is not None:
        # Searches that nobody made, with evidence as in serving; a teacher's ranking is their target.
        requests, targets, weights = load_pseudo_queries(run_data, need(run_data.run, pseudo))
        asked = run_data.inputs_with_evidence(requests, prompt, sft3.part_dropout, seed)
        more = search_task("pseudo", builder, asked, targets, weights, n_items, sft3.score_negatives)
        return {"search": search, "pseudo": more}
    # One pseudo-query per item, by an anonymous shopper; its target is the item.
    texts = pseudo_queries(run_data.item_texts, seed + 101)
    made = PromptInputs.from_requests(Requests.anonymous(texts), run_data.featurizer.text_features, prompt)
    own = Ragged.from_lengths(np.arange(n_items, dtype=np.int32), np.ones(n_items, np.int64))
    pieces = search_task("pseudo", builder, made, own, np.ones(n_items, np.float32), n_items, sft3.score_negatives)
    return {"search": search, "pseudo": pieces}


def searches(run_data: RunData, sft3: PersonalisationSettings) -> tuple[pl.DataFrame, Ragged, NDArray[np.float32]]:
    """Training page views with a click or an order, their targets, and the weight of each target."""
    page_views = run_data.split.train
    outcome = run_data.targets(page_views)
    targets, weights = example_weights(outcome.clicked, outcome.ordered, sft3.order_weight, _MAX_TARGETS)
    rows = np.flatnonzero(targets.lengths > 0)
    return page_views[rows], targets.select(rows), weights[np.isin(targets.owners, rows)]


def frequency_weights(query: NDArray[np.int32], power: float) -> NDArray[np.float64]:
    """Weights (docs/method.md (5.15)) by which a query seen n times is drawn n^power times as often as a rare one."""
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
    run_data: RunData, generator: Generator, width: int, seed: int, keywords: Keywords | None = None, most: int = 400
) -> Callable[[nn.Module], dict[str, float]] | None:
    """Validation figures of the generator alone on a fixed sample of validation page views; None without a click.

    Several processes search for a share each; all of them get the figures of the whole sample.

    Args:
        run_data: of the run.
        generator: the model in training.
        width: beams.
        seed: of the sample.
        keywords: those that serving would read as well (RAG).
        most: page views at most.
    """
    page_views, clicked = run_data.sample_with_clicks(run_data.split.valid, most, seed)
    if not len(page_views):
        return None
    rank, world = place()
    own = np.arange(rank, len(page_views), world)
    requests, clicked_here = run_data.requests(page_views[own]), clicked.select(own)
    search = BARE.updated(width=width)
    snapshot = run_data.snapshot(generator, lexical=False)

    def validate(_: nn.Module) -> dict[str, float]:
        # HR@10 and MRR@10 of each page view, [2, n]: those of this process, then of all.
        figures = np.zeros((2, len(page_views)), np.float32)
        if len(own):
            engine = SearchEngine(run_data.featurizer, snapshot, search, keywords=keywords)
            items = engine.rank(requests, 10).items
            generator.train(False)
            figures[:, own] = hit_rate(items, clicked_here), mrr(items, clicked_here)
        hits, places = summed(figures)
        return {"hr10": float(np.nanmean(hits)), "mrr10": float(np.nanmean(places))}

    return validate


def keep(generator: Generator, context: StageContext) -> None:
    """Write what a training stage leaves; all processes have the same weights, and the first one writes them."""
    if is_first():
        generator.save(context.folder / GENERATOR)


def fit_metrics(report: FitReport) -> dict[str, Any]:
    """What a training stage's manifest says of it."""
    shares = {"samples_by_process": report.shares} if len(report.shares) > 1 else {}
    return {
        "steps": report.steps,
        "samples_per_second": report.samples_per_second,
        "loss": report.loss,
        "precision": report.precision,
        "start_mib": report.start_mib,
        **shares,
        **report.metrics,
    }
