"""Fusion of searchers by their scores: every searcher scores the union of all candidates, weighted sums decide."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from onesearch.data.requests import Requests
from onesearch.search.hits import Hits
from onesearch.search.ranked_lists import NONE, normalised, padded_hits, top_k, union

Normalisation = Literal["minmax", "z"]
_REQUESTS = 2048  # requests fused at once


class ItemScorer(Protocol):
    """A searcher that can also score given candidates by the query alone."""

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` best items of each request."""
        ...

    def scores(self, queries: Sequence[str], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores of candidates [n, m], 0 for -1."""
        ...


def candidate_scores(
    searchers: Sequence[ItemScorer], requests: Requests, depth: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Union of the first ``depth`` items of all searchers [n, m], and every searcher's score of each [s, n, m]."""
    items = union([searcher.rank(requests, depth).items for searcher in searchers])
    return items, np.stack([searcher.scores(requests.query, items) for searcher in searchers])


def fuse_scores(
    items: NDArray[np.int32], scores: NDArray[np.float32], weights: Sequence[float], how: Normalisation, k: int
) -> Hits:
    """Items ranked by the weighted sum of normalised scores.

    Args:
        items: candidates, int32 [n, m], -1 padded.
        scores: scores of each searcher, float32 [s, n, m].
        weights: weight of each searcher, [s].
        how: normalisation over the candidates of one request, ``minmax`` or ``z``.
        k: length of the result.
    """
    if len(weights) != len(scores):
        raise ValueError(f"{len(scores)} searchers but {len(weights)} weights; give one weight per searcher")
    valid = items != NONE
    total = np.zeros(items.shape, np.float32)
    for weight, score in zip(weights, scores, strict=True):
        total += np.float32(weight) * normalised(score, valid, how)
    columns, best = top_k(np.where(valid, total, np.float32(-np.inf)), k)
    return padded_hits(np.take_along_axis(items, columns, 1), best, k)


class FusedSearcher:
    """Several searchers as one."""

    def __init__(
        self,
        searchers: Mapping[str, ItemScorer],
        weights: Mapping[str, float],
        how: Normalisation = "minmax",
        depth: int = 200,
    ) -> None:
        """``weights`` has the names of ``searchers``; tune both weights and ``how`` on validation data."""
        if set(searchers) != set(weights):
            raise ValueError(f"searchers {sorted(searchers)} and weights {sorted(weights)} must have the same names")
        self.searchers, self.weights, self.how, self.depth = dict(searchers), dict(weights), how, depth

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` items with the largest fused score."""
        names = list(self.searchers)
        searchers, weights = [self.searchers[name] for name in names], [self.weights[name] for name in names]
        parts: list[Hits] = []
        for first in range(0, len(requests), _REQUESTS):
            # Each searcher's candidates, all of them scored by every searcher, fused.
            part = requests.select(np.arange(first, min(first + _REQUESTS, len(requests))))
            items, scores = candidate_scores(searchers, part, max(self.depth, k))
            parts.append(fuse_scores(items, scores, weights, self.how, k))
        if not parts:
            return padded_hits(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32), k)
        return Hits(np.concatenate([part.items for part in parts]), np.concatenate([part.scores for part in parts]))
