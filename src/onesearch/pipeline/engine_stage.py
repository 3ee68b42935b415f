"""The engine's stage: how candidates are ordered, chosen on validation data."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.model.numeric_item_features import FEATURE_NAMES
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.boosts import Boost
from onesearch.search.candidates import Candidates
from onesearch.search.confidence import Confidence
from onesearch.search.engine import SearchEngine
from onesearch.search.engine_file import save_engine
from onesearch.search.ranking_weights import GENERATOR_ALONE, RankingWeights, fit_weights
from onesearch.search.search_settings import MODEL_ONLY, SearchSettings
from onesearch.understanding.thought_table import Taught

log = logging.getLogger("onesearch")
# Features whose weight is the same for every request; the others' depends on how well the query is known.
PLAIN = (
    "text",
    "taste",
    *(f"item_{name}" for name in FEATURE_NAMES),
    "together",
    "together_root",
    "following",
    "in_history",
)

BOOST = RankingWeights({"boost": 1.0})
ONE_MODEL, WITHOUT_GENERATOR, WITHOUT_LEXICAL = "one model", "engine without generator", "engine without BM25"


def controls_of(search: SearchSettings) -> dict[str, SearchSettings]:
    """The controls of an engine by name, each with weights of its own: the others make up for what is left out.

    *One model* takes candidates and order from the model's forward pass alone, log π + w · item score; the *engine
    without generator* has everything else.
    """
    controls = {ONE_MODEL: search.updated(**MODEL_ONLY, relevance=0.0)}
    controls[WITHOUT_GENERATOR] = search.updated(generator=False)
    if search.lexical:
        controls[WITHOUT_LEXICAL] = search.updated(lexical=False)
    return controls


def fit_engine(
    run_data: RunData, engine: SearchEngine, page_views: pl.DataFrame, most: int, seed: int
) -> tuple[RankingWeights, Confidence | None]:
    """Weights of the engine's features, fitted on validation clicks (an ordered item has twice the gain).

    With them what tells whether anything fits a query: how well these searches' best candidates match.
    """
    sample, clicked = run_data.sample_with_clicks(page_views, most, seed)
    if not len(sample):
        log.warning("no validation page view has a click: the engine ranks by the generator alone")
        return GENERATOR_ALONE, None
    found = engine.candidates(run_data.requests(sample))
    gain = positives(found, clicked) + positives(found, run_data.targets(sample).ordered).astype(np.float32)
    typed = (sample["query"].str.strip_chars() != "").to_numpy()
    confidence = Confidence.fit(found.of(typed), positives(found, clicked)[typed])
    return fit_weights(found.features, found.items >= 0, gain, found.contexts, PLAIN), confidence


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
    run_data: RunData,
    context: StageContext,
    before: str,
    search: SearchSettings,
    fit_requests: int,
    run_seed: int,
    reads: Taught | None = None,
    boosts: Sequence[Boost] = (),
) -> Mapping[str, Any]:
    """Choose the weights of the engine's features on validation data.

    Args:
        run_data: of the run.
        context: of the stage.
        before: training stage whose model the engine has.
        search: beams and candidates.
        fit_requests: validation page views that weights are fitted on, at most.
        run_seed: draws them.
        reads: whose keywords the model reads in serving as well (RAG).
        boosts: groups that pages show more. No fit sees them: how much more is what the shop says, and no click.

    Raises:
        ValueError: the catalogue has no item of a boost's group.
    """
    boosted = {boost.name: int(boost.members(run_data.dataset.items).sum()) for boost in boosts}

    def fitted(search: SearchSettings) -> tuple[RankingWeights, Confidence | None]:
        engine = SearchEngine.from_parts(run_data, before, search, GENERATOR_ALONE, run_data.keyword_reader(reads))
        run_data.targets(run_data.split.valid.head(1))
        context.all_loaded()
        found, confidence = fit_engine(run_data, engine, run_data.split.valid, fit_requests, run_seed)
        if search.relevance:
            found = found.plus(fit_relevance(run_data, engine), search.relevance)
        return found.plus(BOOST, search.boost) if search.boost else found, confidence

    weights, confidence = fitted(search)
    controls = {}
    for name, settings in controls_of(search).items():
        try:
            controls[name], _ = fitted(settings)
        except ValueError as error:  # a control may find nothing that was clicked: that is what it says
            log.warning("%s is ordered by popularity: %s", name, error)
            controls[name] = RankingWeights({"popularity": 1.0})
    save_engine(context.folder, before, search, weights, controls, reads, boosts, confidence)
    found = {"weights": dict(weights.values), "controls": {name: dict(one.values) for name, one in controls.items()}}
    return {**found, "boosted_items": boosted}
