"""Sets of ids in eight bytes each, for files whose ids do not fit in memory as text.

An id is known by a 64-bit hash. Two different ids of a set of n share one with probability n^2 / 2^65: one in 90,000
for 20 million ids. Such an id would be taken for a duplicate and be set aside, where it can be seen.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def hashes(ids: pl.Series) -> Hashes:
    """64-bit hashes of a String column; the same within one process, not between versions of polars."""
    return ids.hash(seed=17).to_numpy()


def combined(frame: pl.DataFrame) -> Hashes:
    """64-bit hashes of whole rows."""
    return frame.hash_rows(seed=17).to_numpy()


class IdSet:
    """A growing set of hashes: sorted runs that are merged as they grow, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def add(self, new: Hashes) -> NDArray[np.bool_]:
        """Add hashes; True where one was not in the set before, nor earlier in ``new``."""
        # Of equal new hashes the first counts; of these only those that no run holds.
        distinct, first = np.unique(new, return_index=True)
        fresh = ~self._contains_sorted(distinct)
        is_new = np.zeros(len(new), bool)
        is_new[first[fresh]] = True
        self._append(distinct[fresh])
        return is_new

    def contains(self, wanted: Hashes) -> NDArray[np.bool_]:
        """True where a hash is in the set."""
        distinct, inverse = np.unique(wanted, return_inverse=True)
        return self._contains_sorted(distinct)[inverse]

    def copy(self) -> "IdSet":
        """The set as it is now."""
        copied = IdSet()
        copied._runs = list(self._runs)
        return copied

    def shared(self, other: "IdSet") -> int:
        """How many of this set's hashes are in another one."""
        return sum(int(other._contains_sorted(run).sum()) for run in self._runs)

    def _append(self, run: Hashes) -> None:
        if not len(run):
            return
        # Merging a run only when it has doubled sorts each hash about log2(n) times in all.
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate(self._runs[-2:])
            merged.sort()
            self._runs[-2:] = [merged]

    def _contains_sorted(self, wanted: Hashes) -> NDArray[np.bool_]:
        found = np.zeros(len(wanted), bool)
        # One binary search per run, and there are about log2(n) of them.
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, wanted), len(run) - 1)
            found |= run[at] == wanted
        return found
