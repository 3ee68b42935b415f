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


class Searcher(Protocol):
    """Anything that ranks the catalogue for requests: BM25, dense, popularity, the cascade, the engine."""

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` best items of each request."""
        ...
