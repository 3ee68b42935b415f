"""Searchers that use the click log: BM25 x log popularity, and the most clicked items of a query.

The second, backed off to the first, is the bar that a head-heavy log sets for every engine.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.item_pairs import ItemPairs
from onesearch.data.requests import LeaveOut, Requests
from onesearch.search.hits import Hits
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.ranked_lists import NONE, chained, padded_hits


class QueryClicks(Protocol):
    """What the click log knows of queries (``onesearch.data.click_statistics.ClickStatistics``)."""

    def query_numbers(self, queries: Sequence[str]) -> NDArray[np.int64]:
        """The log's number of each query, -1 for a query without clicks, [n]."""
        ...

    def most_clicked(self, rows: NDArray[np.int64], k: int, leave_out: Ragged | None = None) -> NDArray[np.int32]:
        """Items most clicked for each query, best first, -1 padded, [n, k]."""
        ...


class PopularitySearcher:
    """BM25 x log(1 + smoothing + clicks): relevant *and* popular; then the most clicked items fill the page.

    Only matching items have a positive score. An empty query gives the most clicked items.
    """

    def __init__(self, lexical: LexicalSearcher, clicks: NDArray[np.float32], smoothing: float = 1.0) -> None:
        """``clicks`` [items] come from the training log; ``smoothing`` keeps never-clicked items findable."""
        self.lexical, self.clicks, self.smoothing = lexical, clicks, smoothing
        self._weights = np.log(1.0 + smoothing + clicks).astype(np.float32)
        self._head = np.flatnonzero(clicks > 0)[np.argsort(-clicks[clicks > 0], kind="stable")]

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` items with the largest product, filled up with the most clicked ones of the catalogue."""
        # Items that match come first, the most clicked ones of the catalogue fill the page.
        hits = self.lexical.top_items(requests.query, k, self._weights)
        head = self._head[:k].astype(np.int32)
        items = chained([hits.items, np.broadcast_to(head, (len(requests), len(head)))], k)
        filled = -np.arange(1, items.shape[1] + 1, dtype=np.float32)
        return padded_hits(
            items, np.where(hits.items[:, : items.shape[1]] == NONE, filled, hits.scores[:, : items.shape[1]]), k
        )

    def scores(self, queries: Sequence[str], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """The product for given candidates [n, m]; 0 for -1."""
        weights = np.where(items == NONE, np.float32(0), self._weights[items])
        return self.lexical.scores(queries, items) * weights


class MostClickedSearcher:
    """The items most clicked for exactly this query; the list is filled up by a back-off searcher."""

    def __init__(self, clicks: QueryClicks, backoff: PopularitySearcher | LexicalSearcher) -> None:
        self.clicks, self.backoff = clicks, backoff

    def rank(self, requests: Requests, k: int) -> Hits:
        """Clicked items first, then those of the back-off that are not among them; scores only state the order."""
        clicked = self.clicks.most_clicked(self.clicks.query_numbers(requests.query), k)
        items = chained([clicked, self.backoff.rank(requests, k).items], k)
        scores = np.broadcast_to(-np.arange(items.shape[1], dtype=np.float32), items.shape)
        return padded_hits(items, scores, k)


class TogetherSearcher:
    """The items that other shoppers took with those of the history (co-purchase counts): the bar for recommendations.

    It reads no query; the list is filled up with the most clicked items.
    """

    def __init__(self, pairs: ItemPairs, clicks: NDArray[np.float32], leave_out: LeaveOut = "nothing") -> None:
        """``clicks`` [items] come from the training log; ``leave_out`` as in :class:`SearchSettings`."""
        self.pairs, self.leave_out = pairs, leave_out
        self._head = np.argsort(-clicks, kind="stable").astype(np.int32)

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` items that go best with each history."""
        taken = requests.taken(self.leave_out)
        items, _, _ = self.pairs.top(requests.clicked, k, without=taken)
        # Where there are fewer: the most clicked items, without those taken.
        head = np.broadcast_to(
            self._head[: k + taken.shape[1]], (len(requests), min(k + taken.shape[1], len(self._head)))
        )
        head = np.where((head[:, :, None] == taken[:, None, :]).any(2), np.int32(NONE), head)
        chain = chained([items, head], k)
        scores = np.broadcast_to(-np.arange(chain.shape[1], dtype=np.float32), chain.shape)
        return padded_hits(chain, scores, k)
