"""Whether anything fits a query: how well its best item matches, beside searches that ended in a click.

Every search has a nearest item, also one for nonsense. What tells them apart is how near it is. The *match* of a search
is the largest likeness of the query's vector and an item's among its candidates; its *confidence* is the share of
validation searches with a click whose match is no better. This is a conformal p-value: where confidence below α is
shown as "nothing fits", about a share α of the searches that would have ended in a click see that sign.
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
    """Quantiles of the match of searches that ended in a click, ascending, evenly spaced from 0 to 1."""

    quantiles: tuple[float, ...]

    @classmethod
    def fit(cls, matches: Floats) -> Self | None:
        """From matches [n] of searches that ended in a click; None without any."""
        finite = matches[np.isfinite(matches)]
        return cls(tuple(np.quantile(finite, _QUANTILES).tolist())) if len(finite) else None

    def of(self, matches: Floats | Sequence[float]) -> Floats:
        """Confidence of searches in 0 to 1, float32 [n], from their matches [n]."""
        no_better = np.searchsorted(self.quantiles, matches, side="right")
        return (no_better / len(self.quantiles)).astype(np.float32)
