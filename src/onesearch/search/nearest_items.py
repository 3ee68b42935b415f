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
from onesearch.search.shards import WHOLE, Shards, best_of_all, kept_of_all


def nearest_items(
    states: Tensor, index: SidIndex, k: int, probes: int, mask: ItemMask | None = None, shards: Shards = WHOLE
) -> Tensor:
    """Item rows with the highest ``state · item row``, best first; int64 [B, k], -1 where there are fewer.

    Args:
        states: of the item score, float [B, R].
        index: the catalogue.
        k: items per request.
        probes: first-level nodes opened per request.
        mask: a filter; it changes which items are returned, never which nodes are opened.
        shards: the engines that search together; ``k`` and ``probes`` are those of all of them, and so is the result.
    """
    b = len(states)
    if not k or (not len(index) and shards.count == 1):
        return torch.full((b, k), -1, dtype=torch.long, device=states.device)
    states = states.float()
    size = index.size(0)
    # Open the first-level nodes whose mean vector is nearest.
    near = states @ index.vector_block(0, 0, size).T
    near, nodes = near.topk(min(probes, size), dim=1, sorted=shards.count > 1)
    ranges = index.ranges(0, nodes)
    if shards.count > 1:
        opened = kept_of_all(shards, near, probes, lambda: index.codes(0, nodes))
        if not len(index):
            return best_of_all(shards, k, near[:, :0], nodes[:, :0])[1]
        ranges = [(first, torch.where(opened, end, first)) for first, end in ranges]
    # All items below them: ranges of positions, as one list [T].
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
    return best_of_all(shards, k, found, rows)[1]
