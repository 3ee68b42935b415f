"""Supervised stages: a generator, a mixture of tasks, and the loop."""

import numpy as np
from numpy.typing import NDArray

from onesearch.data.ragged import Ragged


def example_weights(
    clicked: Ragged, ordered: Ragged, order_weight: float, limit: int
) -> tuple[Ragged, NDArray[np.float32]]:
    """Targets of each page view with weights: ordered items ``order_weight``, clicked ones 1; at most ``limit`` each.

    An ordered item counts once, with the higher weight. Returns the targets and float32 [total] weights.
    """
    owners = np.concatenate([ordered.owners, clicked.owners])
    items = np.concatenate([ordered.values, clicked.values])
    weight = np.concatenate([np.full(len(ordered.values), order_weight), np.ones(len(clicked.values))])
    order = np.lexsort((np.arange(len(items)), items, owners))  # ordered items come first among equals
    owners, items, weight = owners[order], items[order], weight[order]
    fresh = np.ones(len(items), bool)
    fresh[1:] = (owners[1:] != owners[:-1]) | (items[1:] != items[:-1])
    owners, items, weight = owners[fresh], items[fresh], weight[fresh]
    order = np.lexsort((-weight, owners))
    owners, items, weight = owners[order], items[order], weight[order]
    starts = np.searchsorted(owners, np.arange(len(clicked)))
    keep = np.arange(len(owners)) - starts[owners] < limit
    lengths = np.bincount(owners[keep], minlength=len(clicked))
    return Ragged.from_lengths(items[keep], lengths.astype(np.int64)), weight[keep].astype(np.float32)
