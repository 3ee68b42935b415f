"""What every searcher gives: the best items of each request as two arrays."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onesearch.data.requests import Requests


@dataclass(frozen=True)
class Hits:
    """Ranked items of ``n`` requests, best first.

    Shapes: ``items`` int32 [n, k] (rows of the item table, -1 where a request has fewer hits), ``scores`` float32
    [n, k] (-inf there). ``match`` float32 [n]: how well the best item matches the query
    (:mod:`onesearch.search.confidence`), None where nobody asked.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    match: NDArray[np.float32] | None = None


def followed_by(hits: Hits, rows: NDArray[np.integer], others: NDArray[np.integer], taken: NDArray[np.integer]) -> None:
    """Fill the free places of some requests with other items, in their order; in place.

    Those that are among the hits already or ``taken`` are left out. Their scores only say the order: each is one less
    than the score before it.

    Args:
        hits: as they are, with free places at the end.
        rows: of the requests that ``others`` and ``taken`` belong to, [n].
        others: item rows, best first, -1 for none, [n, E].
        taken: item rows that are not shown, -1 for none, [n, T].
    """
    for row, more, gone in zip(rows.tolist(), others, taken, strict=True):
        items, scores = hits.items[row], hits.scores[row]
        used = int((items >= 0).sum())
        fresh = more[(more >= 0) & ~np.isin(more, items[:used]) & ~np.isin(more, gone)][: len(items) - used]
        last = scores[used - 1] if used else np.float32(0)
        items[used : used + len(fresh)] = fresh
        scores[used : used + len(fresh)] = last - np.arange(1, len(fresh) + 1, dtype=np.float32)


class Searcher(Protocol):
    """Anything that ranks the catalogue for requests: BM25, dense, popularity, the cascade, the engine."""

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` best items of each request."""
        ...
