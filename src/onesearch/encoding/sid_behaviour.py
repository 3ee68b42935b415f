"""SIDs that know behaviour as well as text: vectors drawn towards what was clicked (docs/method.md, 2.10a to 2.10c).

Ours, and off by default: the papers' SIDs are made of texts. Only training page views may be counted. The vectors that
searches and head rows read stay as they are; so does the SID of a query, and of an item that is new or has a new text:
it is that of its text alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onesearch.data.click_statistics import ClickStatistics
from onesearch.encoding.khqe import KHQE, KHQESettings

Floats = NDArray[np.float32]
_HALF = 3.0  # clicks with which a vector is drawn by half of the most weight


def fit_sids(
    items: Floats,
    queries: Floats,
    statistics: ClickStatistics,
    categories: Sequence[Sequence[str] | None],
    settings: KHQESettings,
) -> tuple[KHQE, Floats]:
    """The quantizer, fitted on items and queries together, and the vectors [N, d] that the items are coded from.

    Args:
        items: fused vectors of the catalogue, [N, d].
        queries: those of the queries of ``statistics``, [Q, d].
        statistics: clicks of the training part.
        categories: path of each of the N items, None where it has none.
        settings: of the quantizer; without ``co_click`` items are coded from ``items``.
    """
    coded, first = items, None
    if settings.co_click or settings.first_by_clicks or settings.first_by_category:
        clicks = _clicks(statistics, len(items))
        of_queries = unit(clicks @ items)  # [Q, d]
        coded = drawn(items, unit(clicks.T @ of_queries), settings.co_click * _trust(clicks.sum(0)))
        # What the first codebook is fitted on, [N + Q, d]: what is left over from it is still that of the vectors.
        in_category = settings.first_by_category * np.array([bool(path) for path in categories])
        by_clicks = settings.first_by_clicks * _trust(clicks.sum(1))
        first = np.concatenate(
            [
                drawn(coded, category_means(coded, categories), in_category),
                drawn(queries, of_queries, by_clicks),
            ]
        )
    # A query weighs as much as an item, all queries together no more than all items, times the weight that is set.
    weight = settings.query_weight * min(1.0, len(items) / max(len(queries), 1))
    weights = np.concatenate([np.ones(len(items)), np.full(len(queries), weight)]).astype(np.float32)
    quantizer = KHQE.fit(np.concatenate([coded, queries]), settings, weights, first)
    return quantizer, coded


def drawn(vectors: Floats, towards: Floats, weights: NDArray[np.floating]) -> Floats:
    """``unit((1 - w) v + w m)`` row by row (2.10b): unit vectors [n, d] drawn towards others by ``weights`` [n]."""
    w = np.asarray(weights, np.float32)[:, None]
    return np.where(w > 0, unit((1 - w) * vectors + w * towards), vectors)


def unit(vectors: Floats) -> Floats:
    """Rows at length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def category_means(vectors: Floats, categories: Sequence[Sequence[str] | None]) -> Floats:
    """For each item the unit mean vector of all items with its category path, [N, d]."""
    _, number = np.unique([" > ".join(path or ()) for path in categories], return_inverse=True)
    sums = np.zeros((int(number.max(initial=-1)) + 1, vectors.shape[1]), np.float32)
    np.add.at(sums, number, vectors)
    return unit(sums)[number]


def _clicks(statistics: ClickStatistics, n_items: int) -> sparse.csr_matrix:
    """Clicks of each query on each item, float32 [Q, N]; none of the empty query, which says nothing of its items."""
    said = np.array([query != "" for query in statistics.queries], np.float32)
    counts = statistics.counts * said[statistics.items.owners]
    shape = (len(statistics.queries), n_items)
    return sparse.csr_matrix((counts, statistics.items.values, statistics.items.offsets), shape=shape)


def _trust(clicks: NDArray[np.floating]) -> Floats:
    """What clicks are worth as evidence, ``n / (n + 3)`` row by row: nothing where nobody clicked."""
    n = np.asarray(clicks, np.float32).ravel()
    return n / (n + _HALF)
