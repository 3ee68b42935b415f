"""Preference alignment after stage 3 (docs/method.md, section 7): what rewards are made of, listwise DPO, GRPO.

Everything is learnt from the training part; the validation part calibrates click rates and guards the policy: a stage
whose validation HR@10 only falls leaves the weights that it was given.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.artefact import write_json
from onesearch.common.extras import from_extra
from onesearch.data.text import normalise_query
from onesearch.evaluation.charts import save_figure
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.training_stages import (
    fit_metrics,
    fit_objective,
    frequency_weights,
    keep,
    mixture_of,
    searches,
    validator,
)
from onesearch.pipeline.understanding_stage import WORDS
from onesearch.search.run_parts import need
from onesearch.training.batching import TaskMixture
from onesearch.training.click_rates import RATES, ClickRates, Impressions, Reliability
from onesearch.training.dpo import Behaviour, DpoObjective, DpoSettings, orders_elsewhere, preference_task
from onesearch.training.grpo import GrpoObjective, GrpoSettings, RolloutOutcomes
from onesearch.training.relevance import PairFeatures, Relevance, held_out_queries
from onesearch.training.rewards import Rewards, RewardSettings
from onesearch.training.sft_settings import PersonalisationSettings
from onesearch.training.tasks import search_task
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary

with from_extra("train"):
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]
RELEVANCE = "relevance"


def build_rewards(run_data: RunData, context: StageContext) -> Mapping[str, Any]:
    """Click rates and a relevance model, each measured on what it has not seen; a part without data is left out."""
    figures: dict[str, Any] = {}
    items = run_data.dataset.items["item_id"]
    shown, held_out = (
        Impressions.from_page_views(part, items) for part in (run_data.split.train, run_data.split.valid)
    )
    if len(shown):
        rates = ClickRates.from_impressions(shown, len(items)).calibrated(held_out)
        rates.save(context.folder / RATES)
        found = rates.reliability(Impressions.from_page_views(run_data.split.test, items))
        figures |= {"impressions": len(shown), "calibration_error": found.error}
        _draw(found, context)
    judged = run_data.training_judgments
    if len(judged):
        pairs, queries = pair_features(run_data, sorted(set(judged["query"].to_list())))
        x = pairs.compute(*_numbers(judged, queries, run_data))
        levels = judged["level"].to_numpy()
        out = held_out_queries(judged["query"].to_list())
        if out.any() and not out.all():
            agreement = Relevance.fit(x[~out], levels[~out]).agreement(x[out], levels[out])
            figures |= {f"relevance_{name}": value for name, value in vars(agreement).items()}
        Relevance.fit(x, levels).save(context.folder / RELEVANCE)
    write_json(context.folder / "rewards.json", figures)
    return figures


def _draw(found: Reliability, context: StageContext) -> None:
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes: Any = figure.add_subplot()
    top = float(max(found.predicted.max(initial=0), found.observed.max(initial=0))) * 1.05 or 1.0
    error = 1.96 * np.sqrt(found.observed * (1 - found.observed) / np.maximum(found.n, 1))
    axes.plot([0, top], [0, top], color="0.7", linewidth=1)
    axes.errorbar(found.predicted, found.observed, error, fmt="o-", markersize=4)
    axes.set(xlabel="predicted click rate", ylabel="clicks per impression", xlim=(0, top), ylim=(0, top))
    axes.set_title(f"test part, {found.n.sum():,} impressions", fontsize=10)
    save_figure(figure, context.folder / "reliability.png")


def pair_features(run_data: RunData, queries: list[str]) -> tuple[PairFeatures, dict[str, int]]:
    """Features of pairs of these queries with all items, and the number of each normalised query."""
    number = {query: place for place, query in enumerate(dict.fromkeys(map(normalise_query, queries)))}
    texts = list(number)
    understanding = need(run_data.run, "understanding")
    thoughts, words = run_data.thoughts, CatalogueVocabulary.load(understanding / WORDS)
    # Held-out vectors: the encoder was aligned with clicks and judgments of these queries, and must not tell them on.
    vectors, found = run_data.training_vectors(texts), thoughts.keywords(texts)
    phrases = sorted({phrase for row in found for phrase in row})
    of_phrase = dict(zip(phrases, run_data.featurizer.vectors(phrases), strict=True)) if phrases else {}
    keywords = np.zeros_like(vectors)
    for place, row in enumerate(found):
        if row:
            mean = np.mean([of_phrase[phrase] for phrase in row], 0)
            keywords[place] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    features = PairFeatures(run_data.dataset.items, run_data.item_vectors, texts, vectors, words, thoughts, keywords)
    return features, number


def _numbers(
    judged: pl.DataFrame, number: Mapping[str, int], run_data: RunData
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the query and the item of each judgment."""
    row = run_data.dataset.item_rows
    queries = np.fromiter((number[normalise_query(text)] for text in judged["query"]), np.int64, len(judged))
    return queries, np.fromiter((row[item] for item in judged["item_id"]), np.int64, len(judged))


def rewards_of(run_data: RunData, settings: RewardSettings, queries: list[str]) -> tuple[Rewards, dict[str, int]]:
    """The rewards of pairs of these queries with all items, and the number of each normalised query."""
    if not settings.click_rate and not settings.relevance:  # what was clicked and ordered needs no stage to say it
        number = {query: place for place, query in enumerate(dict.fromkeys(map(normalise_query, queries)))}
        return Rewards(settings, run_data.dataset.items), number
    folder = need(run_data.run, "rewards")
    rates = ClickRates.load(folder / RATES) if (folder / RATES).is_dir() else None
    pairs, number = pair_features(run_data, queries)
    relevance = Relevance.load(folder / RELEVANCE) if (folder / RELEVANCE).is_dir() else None
    judged = run_data.training_judgments
    judged = judged.filter(pl.Series([normalise_query(text) in number for text in judged["query"]], dtype=pl.Boolean))
    of_query, of_item = _numbers(judged, number, run_data)
    levels = dict(zip(zip(of_query.tolist(), of_item.tolist(), strict=True), judged["level"].to_list(), strict=True))
    return Rewards(settings, run_data.dataset.items, rates, pairs, relevance, levels), number


def run_grpo(
    run_data: RunData,
    context: StageContext,
    before: str,
    grpo: GrpoSettings,
    rewards: RewardSettings,
    sft3: PersonalisationSettings,
    validation_width: int,
    run_seed: int,
) -> Mapping[str, Any]:
    """GRPO or TPMA-GRPO on the training page views, from the weights of stage ``before``."""
    generator = run_data.generator(before)
    prompt = generator.config.prompt
    # The supervised term trains as in stage 3.
    page_views, targets, weights = searches(run_data, sft3)
    drawn = grpo.steps * grpo.prompts / max(len(page_views), 1)
    columns = run_data.training_columns(page_views, prompt, sft3.held_out_vectors, drawn=drawn)
    task = search_task(
        "policy",
        run_data.builder(prompt),
        columns,
        targets,
        weights,
        len(run_data.item_head_rows),
        sft3.score_negatives,
        frequency_weights(columns.query, sft3.frequency_power),
        own_numbers=run_data.own_numbers,
    )
    # What rollouts are worth: by query and item, and by what the shopper did in the page view.
    texts = page_views["query"].fill_null("").to_list()
    worth, number = rewards_of(run_data, rewards, texts)
    query = np.fromiter((number[normalise_query(text)] for text in texts), np.int64, len(texts))
    outcome = run_data.targets(page_views)
    # Prompts of a step are drawn as in stage 3.
    objective = GrpoObjective(
        generator,
        run_data.index,
        run_data.item_head_rows,
        worth,
        RolloutOutcomes(query, outcome.clicked, outcome.ordered),
        grpo,
        sft3.score_weight,
        sft3.codebook_weight,
        context.seed,
    )
    mixture = mixture_of({task.name: task}, {task.name: 1.0}, grpo.prompts, grpo.steps, context.seed)
    return _guarded(run_data, context, grpo, objective, mixture, validation_width, run_seed)


def run_dpo(
    run_data: RunData,
    context: StageContext,
    before: str,
    dpo: DpoSettings,
    sft3: PersonalisationSettings,
    validation_width: int,
    run_seed: int,
) -> Mapping[str, Any]:
    """Listwise DPO on the training page views, from the weights of stage ``before``."""
    generator = run_data.generator(before)
    page_views, _, _ = searches(run_data, sft3)
    prompt, drawn = generator.config.prompt, dpo.steps * dpo.batch_size / max(len(page_views), 1)
    columns = run_data.training_columns(page_views, prompt, sft3.held_out_vectors, drawn=drawn)
    outcome, category = run_data.targets(page_views), _categories(run_data.dataset.items)
    user = page_views["user_id"].rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
    elsewhere = orders_elsewhere(user, outcome.clicked, outcome.ordered, category)
    behaviour = Behaviour(outcome.shown, outcome.clicked, outcome.ordered, elsewhere, category)
    builder = run_data.builder(prompt)
    task = preference_task(builder, columns, behaviour, dpo, run_data.own_numbers)
    objective = DpoObjective(generator, run_data.index, dpo)
    mixture = mixture_of({task.name: task}, {task.name: 1.0}, dpo.batch_size, dpo.steps, context.seed)
    return _guarded(run_data, context, dpo, objective, mixture, validation_width, run_seed)


def _guarded(
    run_data: RunData,
    context: StageContext,
    settings: DpoSettings | GrpoSettings,
    objective: DpoObjective | GrpoObjective,
    mixture: TaskMixture,
    validation_width: int,
    run_seed: int,
) -> Mapping[str, Any]:
    """Train under the watch of validation HR@10: the first weights compete, and a fall ends the stage early.

    ``loop.best: ""`` takes the guard away, for studies of what a reward does.
    """
    generator = objective.generator
    validate = validator(run_data, generator, validation_width, run_seed, most=settings.validate_requests)
    loop = settings.loop if validate else settings.loop.updated(best="")
    report = fit_objective(objective, mixture, loop, context, validate, settings.patience if loop.best else None)
    keep(generator, context)
    return {**fit_metrics(report), "chosen_step": report.chosen_step}


def _categories(items: pl.DataFrame) -> NDArray[np.int64]:
    """The number of each item's category path, int64 [N]; -1 without one."""
    path = items["category"].list.join("\x1f")
    number = path.rank("dense").cast(pl.Int64).to_numpy() - 1
    return np.where((path != "").fill_null(False).to_numpy(), number, -1)
