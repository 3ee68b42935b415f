"""Counts of (context, thing) pairs of a click log, and how much a context lifts a thing.

Contexts are for instance queries or their words, things are items or their categories. A page view's own clicks are
left out on request.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged

Floats = NDArray[np.float32]
Ints = NDArray[np.integer]
_SPAN = np.int64(1) << 32


def contained(lists: Ragged, values: Ints) -> NDArray[np.bool_]:
    """Whether ``values`` [n, m] are in their request's list; -1 never is."""
    return counted(lists, values) > 0


def counted(lists: Ragged, values: Ints) -> Floats:
    """How often each of ``values`` [n, m] is in its request's list; 0 for -1."""
    return PairCounts.from_lists(np.arange(len(lists)), lists).lookup(np.arange(len(lists))[:, None], values)


@dataclass(frozen=True)
class PairCounts:
    """Sorted keys int64 [P] of the pairs seen and their counts float32 [P]."""

    keys: NDArray[np.int64]
    counts: Floats

    @classmethod
    def from_lists(cls, contexts: Ints, things: Ragged) -> "PairCounts":
        """Count the things of each list under its context [n]; negative contexts and things are not counted."""
        return cls.from_pairs(np.asarray(contexts)[things.owners], things.values)

    @classmethod
    def from_pairs(cls, contexts: Ints, things: Ints, times: Floats | None = None) -> "PairCounts":
        """Count pairs given as two columns [p], each as often as ``times`` [p] says (once by default)."""
        keep = (contexts >= 0) & (things >= 0)
        # Context and thing in one number: things are below 2^32.
        keys, place = np.unique(contexts[keep].astype(np.int64) * _SPAN + things[keep], return_inverse=True)
        counts = np.bincount(place.reshape(-1), None if times is None else times[keep], len(keys))
        return cls(keys, counts.astype(np.float32))

    def lookup(self, contexts: Ints, things: Ints) -> Floats:
        """Counts of pairs, in the shape the two arrays broadcast to; 0 for pairs never seen and for -1."""
        wanted = np.asarray(contexts, np.int64) * _SPAN + things
        if not len(self.keys):
            return np.zeros(wanted.shape, np.float32)
        # Where each pair would stand among the keys; beyond the last one stands none.
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        seen = (self.keys[at] == wanted) & (contexts >= 0) & (things >= 0)
        return np.where(seen, self.counts[at], np.float32(0))


@dataclass(frozen=True)
class Lift:
    """How much likelier a thing is clicked in a context than at large, smoothed: log(P(thing | context) / P(thing)).

        P(thing)           = (clicks of the thing + 1) / (all clicks + number of things)
        P(thing | context) = (clicks of the pair + s * P(thing)) / (clicks of the context + s),  s the smoothing

    ``pairs`` counts (context, thing), ``contexts`` [C] and ``things`` [T] are the marginal counts.
    """

    pairs: PairCounts
    contexts: Floats
    things: Floats
    smoothing: float = 20.0

    @classmethod
    def from_pairs(
        cls,
        contexts: Ints,
        things: Ints,
        n_contexts: int,
        n_things: int,
        smoothing: float = 20.0,
        times: Floats | None = None,
    ) -> "Lift":
        """Count clicks given as two columns [p], each as often as ``times`` [p] says (once by default)."""
        keep = (contexts >= 0) & (things >= 0)
        contexts, things, times = contexts[keep], things[keep], None if times is None else times[keep]
        return cls(
            PairCounts.from_pairs(contexts, things, times),
            np.bincount(contexts, times, n_contexts).astype(np.float32),
            np.bincount(things, times, n_things).astype(np.float32),
            smoothing,
        )

    def score(
        self,
        contexts: Ints,
        things: Ints,
        own: Floats | None = None,
        own_total: Floats | None = None,
        times: Floats | float = 1.0,
    ) -> Floats:
        """Smoothed log lift, 0 where context or thing is -1 or unknown.

        Args:
            contexts: context numbers, broadcastable to the shape of the result.
            things: thing numbers, broadcastable likewise.
            own: the request's own clicks on each thing; with ``own_total`` the result is that of a log without them.
            own_total: the request's own clicks in all.
            times: contexts that each own click is counted under, such as the words of the query: an own click is one
                of its context, and so many of its thing.
        """
        # A number of -1 reads the last entry here; `known` hides it in the end.
        known = (contexts >= 0) & (things >= 0)
        pair, context, thing = self.pairs.lookup(contexts, things), self.contexts[contexts], self.things[things]
        total = self.things.sum()
        if own is not None and own_total is not None:
            pair, thing = np.maximum(pair - own, 0), np.maximum(thing - times * own, 0)
            context, total = np.maximum(context - own_total, 0), np.maximum(total - times * own_total, 0)
        # P(thing), then P(thing | context) / P(thing).
        share = (thing + 1.0) / (total + len(self.things))
        lift = (pair + self.smoothing * share) / ((context + self.smoothing) * share)
        return np.where(known, np.log(lift), 0).astype(np.float32)
