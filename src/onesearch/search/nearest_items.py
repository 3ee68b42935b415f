"""The items nearest to the item score's query state, found through the trie: its first level is the coarse quantizer.

The beam search commits to a prefix; one wrong token loses the item. The item score reads the same state against whole
items, so the few nodes of the first level that lie nearest are opened and all items below them compared (an inverted
file search without a second index). With ``probes`` at or above the number of first-level nodes it is exact.
"""

import torch
from torch import Tensor

from onesearch.index.item_filters import ItemMask
from onesearch.index.sid_index import SidIndex
from onesearch.search.ragged_scores import Children, best, pad_rows, ragged_products


def nearest_items(states: Tensor, index: SidIndex, k: int, probes: int, mask: ItemMask | None = None) -> Tensor:
    """Item rows with the highest ``state · item row``, best first; int64 [B, k], -1 where there are fewer.

    Args:
        states: of the item score, float [B, R].
        index: the catalogue.
        k: items per request.
        probes: first-level nodes opened per request.
        mask: a filter; it changes which items are returned, never which nodes are opened.
    """
    b = len(states)
    if not len(index) or not k:
        return torch.full((b, k), -1, dtype=torch.long, device=states.device)
    states = states.float()
    size = index.size(0)
    # Open the first-level nodes whose mean vector is nearest.
    near = states @ index.vector_block(0, 0, size).T
    nodes = near.topk(min(probes, size), dim=1, sorted=False).indices
    # All items below them: ranges of positions, as one list [T].
    ranges = index.ranges(0, nodes)
    first, end = (torch.cat(bounds, 1) for bounds in zip(*ranges, strict=True))
    below = Children.from_ranges(first.flatten(), (end - first).flatten())
    request = below.beam // first.shape[1]
    of_request = Children(below.nodes, request, below.offsets[:: first.shape[1]].contiguous())
    scores = ragged_products(states, index.table, index.item_slots(below.nodes), of_request)
    if (present := index.present(below.nodes)) is not None:
        scores = scores.masked_fill(~present, float("-inf"))
    # The k best of each request, allowed ones only.
    positions, padded = pad_rows(request, b, [(below.nodes, -1), (scores, float("-inf"))])
    allowed = None if mask is None else lambda at, _: mask.items_allowed(at)
    column, found = best(padded, positions, k, index.item_order_of, allowed)
    rows = index.item_rows(positions.gather(1, column)).masked_fill(found == float("-inf"), -1)
    return torch.nn.functional.pad(rows, (0, k - rows.shape[1]), value=-1)
