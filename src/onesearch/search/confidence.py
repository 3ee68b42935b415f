"""What fits a query: how well its best item matches beside searches that ended in a click, and which others match it.

Every search has a nearest item, also one for nonsense. What tells them apart is how near it is. The *match* of a search
is the largest likeness of the query's vector and an item's among its candidates; its *confidence* is the share of
validation searches with a click whose match is no better. This is a conformal p-value: where confidence below α is
shown as "nothing fits", about a share α of the searches that would have ended in a click see that sign.

An item is *relevant* to a query if its likeness is within a margin of the best one's: within which nine of ten clicked
items of validation searches lie. Their number is what a page calls the total.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from onesearch.search.candidates import Candidates

Floats = NDArray[np.float32]
NOTHING_FITS = 0.02
"""Confidence below which a page says that nothing fits."""
_QUANTILES = np.linspace(0, 1, 201)
_WITHIN = 0.9  # share of clicked items that are relevant


def best_match(found: Candidates) -> Floats | None:
    """The largest likeness of query and candidate of each request, float32 [n], -inf without candidates.

    None where the engine computes no likeness (``search.taste: false``).
    """
    if "text" not in found.features:
        return None
    likeness = np.where(found.items >= 0, found.features["text"], -np.inf)
    return np.asarray(likeness.max(1, initial=-np.inf), np.float32)


@dataclass(frozen=True)
class Confidence:
    """How well searches match that ended in a click.

    Attributes:
        quantiles: of their matches, ascending, evenly spaced from 0 to 1.
        margin: how much less than the best item a relevant one is like the query, at most.
    """

    quantiles: tuple[float, ...]
    margin: float = 0.0

    @classmethod
    def fit(cls, found: Candidates, clicked: NDArray[np.bool_]) -> Self | None:
        """From candidates [n, C] of validation searches, and which of them were clicked; None where none can tell."""
        matches = best_match(found)
        if matches is None or not clicked.any():
            return None
        quantiles = np.quantile(matches[np.isfinite(matches)], _QUANTILES)
        behind = (matches[:, None] - found.features["text"])[clicked]
        return cls(tuple(quantiles.tolist()), float(np.quantile(behind, _WITHIN)))

    def of(self, matches: Floats | Sequence[float]) -> Floats:
        """Confidence of searches in 0 to 1, float32 [n], from their matches [n]."""
        no_better = np.searchsorted(self.quantiles, matches, side="right")
        return (no_better / len(self.quantiles)).astype(np.float32)
