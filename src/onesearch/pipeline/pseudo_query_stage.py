"""Searches that nobody made, and how the engine without generator answers them (docs/method.md, 5.16).

A log has few queries, and few right answers to each. What the shop's other knowledge says of a query that it never saw
(BM25, vectors, clicks of words and traits) is worth learning by the model that shall serve alone: the student reads
the same evidence as in serving, and learns the teacher's whole ranking::

    queries  = pieces of titles + traits of items + queries of the log put together anew
    shopper  = one of a training page view, drawn anew for each
    teacher  = engine without generator, its weights fitted on validation clicks
    targets  = its k best items, weighted by softmax(score / temperature)

The paper has no such stage. The teacher does not rank the training page views: its statistics count their clicks.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.data.text import item_texts, normalise_query
from onesearch.encoding.pseudo_queries import pseudo_queries, rewritten_queries, trait_queries
from onesearch.pipeline.engine_stage import fit_engine
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.candidates import ordered
from onesearch.search.engine import SearchEngine
from onesearch.search.ranking_weights import GENERATOR_ALONE
from onesearch.search.run_parts import need
from onesearch.search.search_settings import SearchSettings
from onesearch.training.sft_settings import PseudoQuerySettings

_FILE = "pseudo_queries.parquet"
_AT_ONCE = 2048  # searches whose candidates are in memory


def build_pseudo_queries(
    run_data: RunData,
    context: StageContext,
    before: str,
    pseudo: PseudoQuerySettings,
    search: SearchSettings,
    fit_requests: int,
    run_seed: int,
) -> Mapping[str, Any]:
    """Write the searches and the teacher's answers.

    Args:
        run_data: of the run.
        context: of the stage.
        before: stage whose model says how prompts are made; its weights are not read.
        pseudo: how many, from what.
        search: of the engine; the teacher is this without generator.
        fit_requests: validation page views that its weights are fitted on, at most.
        run_seed: draws these.
    """
    texts, source = written(run_data, pseudo, context.seed)
    requests, page_view = _by_shoppers(run_data, texts, context.seed)
    # The teacher: what the report calls the engine without generator.
    settings = search.updated(generator=False)
    teacher = SearchEngine.from_parts(run_data, before, settings, GENERATOR_ALONE)
    weights, _ = fit_engine(run_data, teacher, run_data.split.valid, fit_requests, run_seed)
    items, shares = [], []
    for begin in range(0, len(texts), _AT_ONCE):
        rows = np.arange(begin, min(begin + _AT_ONCE, len(texts)))
        found = teacher.candidates(requests.select(rows))
        hits = ordered(found, weights, pseudo.items, teacher.snapshot.popularity)
        items.append(hits.items)
        shares.append(softmax(hits.scores / pseudo.temperature, hits.items >= 0))
    table = pl.DataFrame(
        {
            "query": texts,
            "source": source,
            "page_view": page_view,
            "items": np.concatenate(items).astype(np.int32),
            "weights": np.concatenate(shares).astype(np.float32),
        }
    )
    table.write_parquet(context.folder / _FILE)
    return {"searches": len(table), **{name: n for name, n in table["source"].value_counts().sort("source").rows()}}


def softmax(scores: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Row by row over the valid entries [n, k]; 0 elsewhere, and in rows without any."""
    if not scores.shape[1]:
        return scores
    top = np.where(valid, scores, -np.inf).max(1, keepdims=True)
    weight = np.where(valid, np.exp(scores - np.where(np.isfinite(top), top, 0)), 0)
    return np.asarray(weight / np.maximum(weight.sum(1, keepdims=True), 1e-30))


def written(run_data: RunData, pseudo: PseudoQuerySettings, seed: int) -> tuple[list[str], list[str]]:
    """Queries and the source of each; what the log's validation or test part asks is not among them."""
    shares = {"titles": pseudo.titles, "traits": pseudo.traits, "rewritten": pseudo.rewritten}
    total = sum(shares.values())
    if not total:
        raise ValueError("pseudo.titles, pseudo.traits and pseudo.rewritten are all 0; give one of them a share")
    rng = np.random.default_rng([seed, 1])
    items, log = run_data.dataset.items, list(run_data.statistics.queries)
    later = [run_data.split.valid, run_data.split.test]
    asked = {normalise_query(text) for part in later for text in part["query"].fill_null("").to_list()}
    texts: list[str] = []
    source: list[str] = []
    for name, share in shares.items():
        n = round(pseudo.searches * share / total)
        if name == "rewritten":
            made = rewritten_queries(log, n, seed)
        else:
            drawn = items[rng.integers(0, len(items), n)]
            made = (
                trait_queries(drawn, seed)
                if name == "traits"
                else pseudo_queries(item_texts(drawn, run_data.fields), seed)
            )
        made = [text for text in made if text and normalise_query(text) not in asked]
        texts += made
        source += [name] * len(made)
    return texts, source


def _by_shoppers(run_data: RunData, texts: list[str], seed: int) -> tuple[Requests, NDArray[np.int64]]:
    """The queries asked by the shoppers of training page views drawn with ``seed``, with what each knew then."""
    train = run_data.split.train
    page_view = np.random.default_rng([seed, 2]).integers(0, len(train), len(texts))
    return asked_by(run_data, texts, train[page_view]), page_view


def asked_by(run_data: RunData, texts: list[str], page_views: pl.DataFrame) -> Requests:
    """Page views [n] as requests for other queries."""
    return replace(run_data.requests(page_views), query=texts)


def load_pseudo_queries(run_data: RunData, folder: Path) -> tuple[Requests, Ragged, NDArray[np.float32]]:
    """The searches that a stage wrote, their targets and the weight of each target; those without any are left out."""
    table = pl.read_parquet(need(folder.parent, folder.name) / _FILE)
    items, weights = table["items"].to_numpy(), table["weights"].to_numpy()
    kept = (items >= 0) & (weights > 0)
    rows = np.flatnonzero(kept.any(1))
    targets = Ragged.from_lengths(items[rows][kept[rows]], kept[rows].sum(1))
    chosen = table[rows]
    # Numbers of the run's own training part, which is not what the final engine trains on.
    shoppers = RunData(run_data.run).split.train[chosen["page_view"].to_numpy()]
    return (
        asked_by(run_data, chosen["query"].to_list(), shoppers),
        targets,
        weights[rows][kept[rows]].astype(np.float32),
    )
