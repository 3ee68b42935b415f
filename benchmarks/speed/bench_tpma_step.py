"""Seconds of a TPMA step over those of a plain SFT step, as ``python -m benchmarks.speed training`` says.

A TPMA step on P prompts draws G SIDs for each, asks for their rewards (click rates and the relevance trees included)
and learns from them; the SFT step beside it reads P·G prompts and learns one target of each. Both take the path of a
run.
"""

from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.bench_v2_step import step_seconds
from benchmarks.speed.bench_workload import WORDS, Corpus, Workload, corpus
from onesearch.common.ragged import Ragged
from onesearch.data.records import Item, items_frame
from onesearch.model.model_settings import PromptSettings
from onesearch.training.click_rates import ClickRates
from onesearch.training.grpo import GrpoObjective, GrpoSettings, RolloutOutcomes
from onesearch.training.relevance import FEATURES, PairFeatures, Relevance
from onesearch.training.rewards import Rewards, RewardSettings
from onesearch.training.sft_settings import PersonalisationSettings
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.tasks import Task, search_task
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary

ROLLOUTS: Final = 8


def tpma_step_ratio(size: Workload, precision: Literal["no", "bf16"], steps: int, repeats: int) -> dict[str, Any]:
    """Time both kinds of step, the sides taking turns; arguments as in ``v2_step_ratios``.

    Keys: ``tpma_step_over_sft_step``, the median over the steps, and the median milliseconds of each.
    """
    found = corpus(size, PromptSettings())
    prompts = max(1, size.batch_size // ROLLOUTS)
    generator, index, stage = found.generator(), found.index(), PersonalisationSettings()
    rows, heads = torch.from_numpy(found.rows), (stage.score_weight, stage.codebook_weight)
    sft = SupervisedObjective(generator, index, rows, *heads)
    outcomes = RolloutOutcomes(np.arange(size.requests), found.targets, Ragged.from_lists([[]] * size.requests))
    tpma = GrpoObjective(generator, index, rows, _rewards(found), outcomes, GrpoSettings(rollouts=ROLLOUTS), *heads)
    taken: dict[str, list[NDArray[np.float64]]] = {"sft": [], "tpma": []}
    for _ in range(repeats):
        taken["sft"].append(step_seconds(sft, lambda m, b: m(b), _task(found), prompts * ROLLOUTS, precision, steps))
        taken["tpma"].append(step_seconds(tpma, lambda m, b: m(b), _task(found), prompts, precision, steps))
    seconds = {name: np.median(np.stack(of), 0) for name, of in taken.items()}
    return {
        "tpma_step_over_sft_step": round(float(np.median(seconds["tpma"]) / np.median(seconds["sft"])), 3),
        "tpma_step_ms": round(float(1e3 * np.median(seconds["tpma"])), 1),
        "sft_step_of_as_many_samples_ms": round(float(1e3 * np.median(seconds["sft"])), 1),
        "tpma_prompts": prompts,
        "tpma_rollouts": ROLLOUTS,
    }


def _task(found: Corpus) -> Task:
    weights = np.ones(len(found.targets.values), np.float32)
    negatives = PersonalisationSettings().score_negatives
    return search_task("search", found.builder, found.columns, found.targets, weights, found.size.items, negatives)


def _rewards(found: Corpus, seed: int = 0) -> Rewards:
    """Rewards of random items with every term that a run's rewards have."""
    size, rng = found.size, np.random.default_rng(seed)
    titles = np.array(WORDS, object)[rng.integers(0, len(WORDS), (size.items, 4))]
    items = items_frame([Item(str(n), " ".join(words), ("all",)) for n, words in enumerate(titles.tolist())])
    rates = ClickRates(np.ones(1), rng.random(size.items), np.zeros(0), np.zeros(0))
    vectors = rng.normal(size=(size.items + size.requests, 128)).astype(np.float32)
    queries = [" ".join(words) for words in np.array(WORDS)[rng.integers(0, len(WORDS), (size.requests, 2))].tolist()]
    words = CatalogueVocabulary.from_items(items)
    pairs = PairFeatures(items, vectors[: size.items], queries, vectors[size.items :], words)
    judged = rng.random((2000, len(FEATURES))).astype(np.float32)
    trees = Relevance.fit(judged, rng.integers(0, 4, 2000))
    return Rewards(RewardSettings(), items, rates, pairs, trees)
