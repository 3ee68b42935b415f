"""Exploration: some places of a page are drawn from the policy that orders it, so that items without clicks are met.

The order's score is the utility of a conditional logit, so that exp(score) are odds of a click::

    for place j = 0, 1, ...
        if u(seed, j) < share:  the item is drawn among those left, P(i) ∝ exp(score_i)      # arg max score + Gumbel
        else:                   the best item left

Draws are a request's own, by its seed, and the same however long the page is. Only candidates are drawn, which a filter
and rules allow; the first :data:`DEPTH` of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.search.hits import Hits

DEPTH: Final = 200
"""Places that may be explored, and candidates that may come there."""


@dataclass(frozen=True)
class Exploration:
    """How a request explores: the share of its places, and the seed of its draws, of 64 bits."""

    share: float
    seed: int

    def places(self) -> NDArray[np.int64]:
        """Those that are drawn, ascending."""
        return np.flatnonzero(np.random.default_rng([self.seed, 0]).random(DEPTH) < self.share)


def explore(hits: Hits, asked: Sequence[Exploration | None]) -> list[NDArray[np.int32]]:
    """Draw places of the pages of those requests that ask for it, in place; the item rows that were drawn, of each.

    Args:
        hits: at least the first :data:`DEPTH` candidates of each request, best first, n requests.
        asked: by request, n.
    """
    drawn = [np.zeros(0, np.int32) for _ in asked]
    for row, exploration in enumerate(asked):
        if exploration is None:
            continue
        items, scores = hits.items[row, :DEPTH], hits.scores[row, :DEPTH]
        many = int((items >= 0).sum())
        rows = []
        # Place by place: the drawn one moves up, those between move down by one.
        for place in exploration.places().tolist():
            if place >= many:
                break
            noise = np.random.default_rng([exploration.seed, 1 + place]).gumbel(size=many - place)
            chosen = place + int(np.argmax(scores[place:many] + noise))
            for values in (items, scores):
                values[place : chosen + 1] = np.roll(values[place : chosen + 1], 1)
            rows.append(items[place])
        drawn[row] = np.array(rows, np.int32)
    return drawn
