"""Training pairs of the encoder alignment, mined from the training log only: which texts belong together (2.2).

Differences from the paper, which names ItemCF and Swing without their settings:

1. Swing's inner sum over second baskets is replaced by its mean field, so that one sparse product computes all pairs.
2. Pairs are drawn by the square root of their frequency, so that rare queries are seen more often than in the log.
3. Through an item only its 1,000 most frequent queries become pairs, so that a log costs what it holds.
4. Of a log that showed more than 20 million items, ranked triples come from some queries, drawn at random.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.dataset import ragged_rows, rows_of
from onesearch.data.text import normalise_queries

Numbers = NDArray[np.int64]
_MOST_TRIPLES = 500_000
_MOST_QUERIES = 1000  # of an item, through which queries are compared: among more of them none says much of another
_MOST_EVENTS = 20_000_000  # items shown that are held at once
_PRODUCTS_AT_ONCE = 20_000_000  # terms of a sparse product that are there at a time, about a gigabyte at most


# -- what alignment trains on ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edges:
    """Weighted pairs of text numbers, each array [m]; ``weight`` > 0 is how often a pair is drawn."""

    left: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    right: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    weight: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.left)

    def select(self, kept: NDArray[np.bool_] | NDArray[np.integer]) -> "Edges":
        """The given pairs only."""
        return Edges(self.left[kept], self.right[kept], self.weight[kept])


@dataclass(frozen=True)
class Triples:
    """Query, better item, worse item: text numbers, each array [m]."""

    query: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    better: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    worse: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.query)

    def select(self, kept: NDArray[np.bool_] | NDArray[np.integer]) -> "Triples":
        """The given triples only."""
        return Triples(self.query[kept], self.better[kept], self.worse[kept])


@dataclass(frozen=True)
class Pairs:
    """Everything alignment trains on; numbers are positions in ``queries`` and ``items``.

    Attributes:
        queries: distinct training query texts.
        items: item texts; every item of the catalogue, so that pseudo-queries cover it.
        q2i: query to clicked (ordered, relevant) item.
        q2q: queries that led to the same items.
        i2i: items chosen by the same shoppers or for the same queries.
        rank: ordered above clicked above shown for one query.
        relevance: query to item with ``weight`` = relevance level 0-3.
    """

    queries: Sequence[str]
    items: Sequence[str]
    q2i: Edges
    q2q: Edges = field(default_factory=Edges)
    i2i: Edges = field(default_factory=Edges)
    rank: Triples = field(default_factory=Triples)
    relevance: Edges = field(default_factory=Edges)

    def with_queries(self, kept: NDArray[np.bool_]) -> "Pairs":
        """The pairs that touch only the kept queries, bool [n_queries] (query texts keep their numbers)."""
        return replace(
            self,
            q2i=self.q2i.select(kept[self.q2i.left]),
            q2q=self.q2q.select(kept[self.q2q.left] & kept[self.q2q.right]),
            rank=self.rank.select(kept[self.rank.query]),
            relevance=self.relevance.select(kept[self.relevance.left]),
        )


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
    statistics = ClickStatistics.from_page_views(page_views, items)
    queries, n_items = statistics.queries, len(items)
    left, right = statistics.items.owners, statistics.items.values.astype(np.int64)
    # counts of distinct (query, clicked item) give q2i and q2q
    q2q = cooccurring_queries(Edges(left, right, statistics.counts), len(queries), n_items)
    # baskets of shoppers give i2i, whatever the queries were
    i2i = swing(_baskets(page_views, items), n_items)
    names = pl.Series(queries, dtype=pl.String)
    # what was shown and not clicked is known for rank only
    ranked, levels = _levels(page_views, items, names, seed)
    return Pairs(
        queries=queries,
        items=item_texts,
        q2i=Edges(left, right, query_weights(left, statistics.counts)),
        q2q=replace(q2q, weight=sqrt_frequency(q2q.weight)),
        i2i=replace(i2i, weight=sqrt_frequency(i2i.weight)),
        rank=ranked_triples(ranked, levels, min(_MOST_TRIPLES, 10 * len(page_views)), seed),
        relevance=_relevance(judgments, items, names),
    )


# -- weights and similarities ------------------------------------------------------------------------------------------


def sqrt_frequency(counts: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float32]:
    """Drawing weights sqrt(count): rare pairs are seen more often than in the log."""
    return np.sqrt(np.asarray(counts, np.float32))


def query_weights(left: Numbers, counts: NDArray[np.floating]) -> NDArray[np.float32]:
    """Drawing weights of query-item pairs so that a *query* is drawn by the square root of its frequency.

    Within a query, items are drawn in proportion to their counts.

    Args:
        left: query number of each pair, [m].
        counts: clicks of each pair, [m].
    """
    totals = np.bincount(left, counts)
    return (counts / np.sqrt(np.maximum(totals[left], 1e-12))).astype(np.float32)


def swing(baskets: Ragged, n_items: int, per_item: int = 10, alpha: float = 1.0, largest_basket: int = 50) -> Edges:
    """Swing similarity: two items are close if *different* baskets, which share little else, hold both.

    ::

        exact:  sim(i, j) = Σ over basket pairs u < v that hold both of 1 / (α + |u ∩ v|)
        here:   w_u = 1 / (α + mean overlap of u with the other baskets) / √|u|
                sim(i, j) = Σ_{u holds i, j} w_u / √(baskets with i · baskets with j)        one sparse product

    Args:
        baskets: items of a user, a session or a query, per basket.
        n_items: number of items.
        per_item: neighbours kept per item.
        alpha: damping.
        largest_basket: larger baskets keep only their first items.

    Returns:
        Pairs left < right with their similarity as weight.
    """
    # incidence matrix [baskets, items]; an item that a basket holds twice counts once
    values, owners = baskets.values, baskets.owners
    within = np.arange(len(values)) - baskets.offsets[:-1][owners]
    kept = (values >= 0) & (within < largest_basket)
    ones = np.ones(int(kept.sum()), np.float32)
    matrix = sp.csr_matrix((ones, (owners[kept], values[kept])), shape=(len(baskets), n_items))
    matrix.data[:] = 1.0
    # what a basket counts: less, the more it shares with others and the larger it is
    holders = np.asarray(matrix.sum(0)).ravel()
    size = np.maximum(np.asarray(matrix.sum(1)).ravel(), 1.0)
    overlap = (matrix @ np.maximum(holders - 1, 0)) / np.maximum(len(baskets) - 1, 1)
    damped = sp.diags((1.0 / (alpha + overlap) / np.sqrt(size)).astype(np.float32)) @ matrix
    # cosine-like damping of popular items, as in ItemCF
    return _strongest_products(damped.T.tocsr(), matrix, per_item, holders)


def cooccurring_queries(q2i: Edges, n_queries: int, n_items: int, per_query: int = 10) -> Edges:
    """Pairs of queries whose clicks fall on the same items: cosine of click vectors, damped as in ItemCF.

    Memory and time are linear in the pairs of the log: of an item that more queries clicked only the most frequent ones
    count, and of the matrix of all cosines only some rows are there at a time.
    """
    # click vectors [queries, items]: root of the clicks, over the root of how many queries clicked the item
    clicks = sp.csr_matrix((np.sqrt(q2i.weight), (q2i.left, q2i.right)), shape=(n_queries, n_items))
    holders = np.maximum(np.diff(clicks.tocsc().indptr), 1)
    damping = sp.diags((1.0 / np.sqrt(holders)).astype(np.float32))
    vectors = clicks @ damping
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(1)).ravel())
    compared = _most_frequent(clicks, _MOST_QUERIES) @ damping
    vectors = sp.diags((1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)) @ compared
    return _strongest_products(vectors, vectors.T.tocsr(), per_query)


def _most_frequent(clicks: sp.csr_matrix, most: int) -> sp.csr_matrix:
    """At most so many entries of each column: the largest, of equal ones those of the lowest rows."""
    if clicks.nnz == 0 or np.bincount(clicks.indices).max() <= most:
        return clicks
    table = clicks.tocoo()
    order = np.lexsort((table.row, -table.data, table.col))
    columns = table.col[order]
    kept = order[np.arange(len(order)) - np.searchsorted(columns, columns) < most]
    return sp.csr_matrix((table.data[kept], (table.row[kept], table.col[kept])), shape=clicks.shape)


def _strongest_products(
    left: sp.csr_matrix, right: sp.csr_matrix, per_end: int, holders: NDArray[np.floating] | None = None
) -> Edges:
    """Pairs i < j of the symmetric ``left @ right`` [n, n] that are among the ``per_end`` strongest of i or of j.

    Some rows of it are there at a time. With ``holders`` [n] an entry is divided by the root of both ends' product, and
    pairs come in the order of their larger ends, else of their smaller ones.

    ::

        first time:   in each row the strongest on the right of the diagonal and on the left of it
        second time:  the pairs on one of these sides that are among these, in the order of the product
    """
    n = left.shape[0]
    # How many terms each row's products have: the entries of the rows of ``right`` that it meets.
    terms = sp.csr_matrix((np.ones(left.nnz), left.indices, left.indptr), left.shape) @ np.diff(right.indptr)
    part = (np.cumsum(terms) // _PRODUCTS_AT_ONCE).astype(np.int64)
    bounds = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), n]

    def products() -> Iterator[tuple[Numbers, Numbers, NDArray[np.float32]]]:
        for start, end in pairwise(bounds):
            together = (left[start:end] @ right).tocoo()
            row, column, weight = together.row.astype(np.int64) + start, together.col.astype(np.int64), together.data
            if holders is not None:
                weight = weight / np.sqrt(holders[row] * holders[column])
            yield row, column, weight.astype(np.float32)

    on_side = np.less if holders is None else np.greater
    strongest = [np.zeros(0, np.int64)]
    for row, column, weight in products():
        for side in (np.flatnonzero(row < column), np.flatnonzero(row > column)):
            # Of equal pairs the first as the product has them; on the other side that of the lowest other end.
            ties = np.where(on_side(row, column), np.arange(len(row)), column)[side]
            order = side[np.lexsort((ties, -weight[side], row[side]))]
            rank = np.arange(len(order)) - np.searchsorted(row[order], row[order])
            kept = order[rank < per_end]
            strongest.append(np.minimum(row, column)[kept] * n + np.maximum(row, column)[kept])
    pairs = np.unique(np.concatenate(strongest))
    found = [Edges()]
    for row, column, weight in products():
        low, high = np.minimum(row, column), np.maximum(row, column)
        kept = np.flatnonzero(on_side(row, column) & np.isin(low * n + high, pairs))
        found.append(Edges(low[kept], high[kept], weight[kept]))
    return Edges(*(np.concatenate([getattr(one, name) for one in found]) for name in ("left", "right", "weight")))


def ranked_triples(edges: Edges, levels: NDArray[np.integer], limit: int, seed: int) -> Triples:
    """Random (query, better, worse) triples with level(better) > level(worse).

    Args:
        edges: query-item pairs; the weight is not used.
        levels: 0 shown, 1 clicked, 2 ordered, for each pair.
        limit: about so many triples at most.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(edges.left, kind="stable")
    query, item, level = edges.left[order], edges.right[order], np.asarray(levels)[order]
    if not len(query):
        return Triples()
    # two random pairs of the same query; kept where the first one is better
    starts = np.searchsorted(query, query)
    sizes = np.searchsorted(query, query, side="right") - starts
    first = rng.integers(0, len(query), 3 * limit)
    second = starts[first] + (rng.random(len(first)) * sizes[first]).astype(np.int64)
    kept = np.flatnonzero(level[first] > level[second])[:limit]
    return Triples(query[first[kept]], item[first[kept]], item[second[kept]])


def drop_distant(edges: Edges, left: NDArray[np.float32], right: NDArray[np.float32], least_cosine: float) -> Edges:
    """Pairs whose zero-shot cosine is at least ``least_cosine`` (the paper drops those under 0.6).

    Only sensible for a pretrained encoder; ``left`` and ``right`` are the unit vectors of both sides' texts.
    """
    cosine = np.einsum("md,md->m", left[edges.left], right[edges.right])
    return edges.select(cosine >= least_cosine)


# -- reading the log ---------------------------------------------------------------------------------------------------


def _baskets(page_views: pl.DataFrame, items: pl.DataFrame) -> Ragged:
    """Clicked items of each user; of each query where the user is unknown."""
    who = pl.coalesce(pl.lit("u:") + pl.col("user_id"), pl.lit("q:") + normalise_queries(page_views["query"]))
    flat = page_views.select(who=who, item=pl.col("clicked")).explode("item").drop_nulls()
    flat = flat.with_columns(row=rows_of(flat["item"], items["item_id"]).cast(pl.Int64)).filter(pl.col("row") >= 0)
    grouped = flat.unique(["who", "row"], maintain_order=True).sort("who", maintain_order=True)
    lengths = grouped.group_by("who", maintain_order=True).agg(n=pl.len())["n"].to_numpy().astype(np.int64)
    return Ragged.from_lengths(grouped["row"].to_numpy().astype(np.int32), lengths)


def _levels(
    page_views: pl.DataFrame, items: pl.DataFrame, queries: pl.Series, seed: int
) -> tuple[Edges, NDArray[np.integer]]:
    """Distinct (query, item) with the highest level it reached: 0 shown, 1 clicked, 2 ordered.

    Of a log in which more was shown than is held at once, the pairs of some queries, drawn with ``seed``: of these all.
    """
    number = rows_of(normalise_queries(page_views["query"]), queries)
    events = int(page_views["shown"].list.len().sum())
    if events > _MOST_EVENTS:
        share = np.random.default_rng(seed).permutation(len(queries)) < len(queries) * _MOST_EVENTS / events
        drawn = pl.Series(np.append(share, False)[number.to_numpy()])  # -1, a query without clicks, is the last
        page_views, number = page_views.filter(drawn), number.filter(drawn)
    of_page_view = number.to_numpy().astype(np.int32)
    parts = []
    # an ordered item is also shown and clicked; its highest level counts
    for level, column in enumerate(("shown", "clicked", "ordered")):
        item_rows = ragged_rows(page_views[column], items["item_id"])
        numbers = {"query": of_page_view[item_rows.owners], "item": item_rows.values}
        table = pl.DataFrame({**numbers, "level": np.full(len(item_rows.values), level, np.int8)})
        parts.append(table.filter(pl.col("query") >= 0))
    best = pl.concat(parts).group_by("query", "item", maintain_order=True).agg(pl.col("level").max())
    query, item = (best[name].to_numpy().astype(np.int64) for name in ("query", "item"))
    return Edges(query, item, np.ones(len(best), np.float32)), best["level"].to_numpy()


def _relevance(judgments: pl.DataFrame | None, items: pl.DataFrame, queries: pl.Series) -> Edges:
    """Judged pairs of training queries; the weight is the level."""
    if judgments is None or not len(judgments):
        return Edges()
    query = rows_of(normalise_queries(judgments["query"]), queries).to_numpy().astype(np.int64)
    item = rows_of(judgments["item_id"], items["item_id"]).to_numpy().astype(np.int64)
    known = (query >= 0) & (item >= 0)
    return Edges(query[known], item[known], judgments["level"].to_numpy()[known].astype(np.float32))
