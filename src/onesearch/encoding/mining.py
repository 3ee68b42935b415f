"""Alignment pairs from a training log: clicks give q2i, shared clicks give q2q and i2i, page views give the ranking."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from onesearch.data.dataset import ragged_rows, rows_of
from onesearch.data.ragged import Ragged
from onesearch.data.statistics import ClickStatistics
from onesearch.data.text import normalise_queries
from onesearch.encoding.pairs import (
    Edges,
    Pairs,
    cooccurring_queries,
    query_weights,
    ranked_triples,
    sqrt_frequency,
    swing,
)

_MOST_TRIPLES = 500_000


def mine_pairs(
    page_views: pl.DataFrame,
    items: pl.DataFrame,
    item_texts: Sequence[str],
    judgments: pl.DataFrame | None = None,
    seed: int = 0,
) -> Pairs:
    """All pairs that L_align trains on.

    Args:
        page_views: *training* page views only.
        items: the item table.
        item_texts: what the encoder reads of each item, by row.
        judgments: relevance labels; only those of training queries are used.
        seed: of the drawing of ranking triples.
    """
    statistics = ClickStatistics.of(page_views, items)
    queries, n_items = statistics.queries, len(items)
    left, right = statistics.items.owners, statistics.items.values.astype(np.int64)
    clicks = Edges(left, right, statistics.counts)
    q2i = Edges(left, right, query_weights(left, statistics.counts))
    q2q = cooccurring_queries(clicks, len(queries), n_items)
    i2i = swing(_baskets(page_views, items), n_items)
    names = pl.Series(queries, dtype=pl.String)
    ranked, levels = _levels(page_views, items, names)
    return Pairs(
        queries=queries,
        items=item_texts,
        q2i=q2i,
        q2q=Edges(q2q.left, q2q.right, sqrt_frequency(q2q.weight)),
        i2i=Edges(i2i.left, i2i.right, sqrt_frequency(i2i.weight)),
        rank=ranked_triples(ranked, levels, min(_MOST_TRIPLES, 10 * len(page_views)), seed),
        relevance=_relevance(judgments, items, names),
    )


def _baskets(page_views: pl.DataFrame, items: pl.DataFrame) -> Ragged:
    """Clicked items of each user; of each query where the user is unknown."""
    who = pl.coalesce(pl.lit("u:") + pl.col("user_id"), pl.lit("q:") + normalise_queries(page_views["query"]))
    flat = page_views.select(who=who, item=pl.col("clicked")).explode("item").drop_nulls()
    flat = flat.with_columns(row=rows_of(flat["item"], items["item_id"]).cast(pl.Int64)).filter(pl.col("row") >= 0)
    grouped = flat.unique(["who", "row"], maintain_order=True).sort("who", maintain_order=True)
    lengths = grouped.group_by("who", maintain_order=True).agg(n=pl.len())["n"].to_numpy().astype(np.int64)
    return Ragged.from_lengths(grouped["row"].to_numpy().astype(np.int32), lengths)


def _levels(page_views: pl.DataFrame, items: pl.DataFrame, queries: pl.Series) -> tuple[Edges, np.ndarray]:
    """Distinct (query, item) with the highest level it reached: 0 shown, 1 clicked, 2 ordered."""
    number = rows_of(normalise_queries(page_views["query"]), queries).to_numpy()
    parts = []
    for level, column in enumerate(("shown", "clicked", "ordered")):
        rows = ragged_rows(page_views[column], items["item_id"])
        parts.append((number[rows.owners], rows.values, np.full(len(rows.values), level)))
    query, item, level_of = (np.concatenate(columns).astype(np.int64) for columns in zip(*parts, strict=True))
    known = (query >= 0) & (item >= 0)
    table = pl.DataFrame({"query": query[known], "item": item[known], "level": level_of[known]})
    best = table.group_by("query", "item", maintain_order=True).agg(pl.col("level").max())
    ones = np.ones(len(best), np.float32)
    return Edges(best["query"].to_numpy(), best["item"].to_numpy(), ones), best["level"].to_numpy()


def _relevance(judgments: pl.DataFrame | None, items: pl.DataFrame, queries: pl.Series) -> Edges:
    if judgments is None or not len(judgments):
        return Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    query = rows_of(normalise_queries(judgments["query"]), queries).to_numpy().astype(np.int64)
    item = rows_of(judgments["item_id"], items["item_id"]).to_numpy().astype(np.int64)
    known = (query >= 0) & (item >= 0)
    return Edges(query[known], item[known], judgments["level"].to_numpy()[known].astype(np.float32))
