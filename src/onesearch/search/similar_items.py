"""Items like a given one: those with a similar text, and those that shoppers took together with it.

::

    score(i) = 1 / (60 + place of i by likeness of texts) + 1 / (60 + place of i by items taken together (1.5))

The sum of reciprocal ranks (Cormack et al. 2009) has no weight to be fitted: a log says which items are clicked after a
search, and little of which a shopper would take in place of another.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.index.item_filters import ItemMask
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.nearest_items import nearest_items
from onesearch.search.ranked_lists import padded_hits

_RANK = 60  # Cormack et al.'s constant
_DEPTH = 100  # places of each list that count, or as many as are asked for


def similar_items(
    snapshot: Snapshot, row: int, k: int, numbers: int, mask: ItemMask | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ``k`` items most like the one of a row, without itself: rows int32 [k], -1 padded, and scores float32 [k].

    Args:
        snapshot: the catalogue.
        row: of the item.
        k: items wanted.
        numbers: entries at the end of a head row that are not text.
        mask: a filter.
    """
    index, depth = snapshot.index, min(max(_DEPTH, k) + 1, len(snapshot.number))
    # By text: the item's own vector, without the numbers that say its price and clicks.
    state = snapshot.item_head_rows[torch.tensor([row], device=index.device)].clone()
    if numbers:
        state[:, -numbers:] = 0
    every = index.codebook_sizes[0]
    by_text = nearest_items(state, index, depth, every, mask, snapshot.shards)[0].cpu().numpy()
    # By what others took with it; pairs know the items of the log alone.
    together = np.zeros(0, np.int64)
    if snapshot.pairs is not None:
        scores = snapshot.pairs.beside(np.array([[row]], np.int32)).together.getrow(0)
        found = scores.indices[np.lexsort((scores.indices, -scores.data))].astype(np.int64)
        together = found[snapshot.there(found, mask)]
    # Both lists without the item itself, as reciprocal ranks.
    total: dict[int, float] = {}
    for places in (by_text, together):
        others = places[(places >= 0) & (places != row)][:depth]
        for place, other in enumerate(others.tolist(), 1):
            total[other] = total.get(other, 0.0) + 1 / (_RANK + place)
    best = sorted(total, key=lambda other: (-total[other], other))
    hits = padded_hits(np.array([best], np.int64), np.array([[total[one] for one in best]], np.float32), k)
    return hits.items[0], hits.scores[0]
