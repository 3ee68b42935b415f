"""One catalogue in several engines, each with a part of the items: what they tell each other, and what comes of it.

Every shard runs the same search over its own items, at the same time, and they meet at few points; each point is one
exchange of small arrays between all of them. A shard has whole first-level nodes of the trie with all that lies below,
so that what follows a first token is normalised within one shard::

    BM25, nearest      the best k of each shard             -> the best k of all; the same list in every shard
    level 0            log Σ exp of each shard's logits     -> the normaliser over all first tokens
    each level         the best W scores of each shard      -> which of its beams are among the best W of all
    candidates         items with their features            -> all candidates in every shard, in order there
    facets, totals     how many of its items have each value -> their sums
    other orders       its first items with their keys       -> the first of all

All of it is what one engine over the whole catalogue computes (numbers of float32 may differ in their last digits, as
between batches of other sizes). Word statistics of BM25, click counts, item rows and prompts are of the whole
catalogue in every shard. Of the tables by item a shard reads its own rows alone, and those of items in prompts.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed


class Shards:
    """The engines that search together: this one, ``number``, of ``count``. Here: one engine with the whole catalogue.

    Attributes:
        exchanges, received: how often the shards met, and the bytes that came from all of them.
        group: the process group in which they meet; None for that of the job, or none at all.
    """

    number, count = 0, 1
    group: Any = None

    def __init__(self) -> None:
        self.exchanges = self.received = 0

    def gathered(self, value: Tensor) -> Tensor:
        """What every shard has, [count, *shape], in the order of their numbers; one shape and type in all of them."""
        return value.unsqueeze(0)

    def arrays(self, value: NDArray[Any]) -> list[NDArray[Any]]:
        """The array of every shard, [m] numbers of one type; each may have another length."""
        if self.count == 1:
            return [value]
        lengths = self.gathered(torch.tensor([len(value)])).ravel().tolist()
        padded = torch.from_numpy(np.pad(value, (0, max(lengths) - len(value))))
        return [one[:length] for one, length in zip(self.gathered(padded).numpy(), lengths, strict=True)]

    def total(self, number: int) -> int:
        """The sum over all shards."""
        return number if self.count == 1 else int(self.gathered(torch.tensor([number])).sum())


WHOLE = Shards()
"""One engine that has all items."""


class ProcessShards(Shards):
    """Shards that are the processes of a torch process group, one each, over gloo or NCCL.

    Args:
        patience: how long one may wait for another where they meet, from now on; None: as long as the job has it.

    Raises:
        RuntimeError: this process is in no process group.
    """

    def __init__(self, patience: timedelta | None = None) -> None:
        super().__init__()
        if not distributed.is_initialized():
            raise RuntimeError("shards are processes of a job: begin with torch.distributed.init_process_group")
        self.number, self.count = distributed.get_rank(), distributed.get_world_size()
        self.group = None if patience is None else distributed.new_group(timeout=patience)

    def gathered(self, value: Tensor) -> Tensor:
        """As above; every process must come to it."""
        # gloo moves memory of the CPU, NCCL that of GPUs.
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        sent = (value.to(torch.uint8) if value.dtype == torch.bool else value).to(device).contiguous()
        found = [torch.empty_like(sent) for _ in range(self.count)]
        distributed.all_gather(found, sent, self.group)
        self.exchanges += 1
        self.received += sent.nbytes * self.count
        return torch.stack(found).to(value)


def shard_of_codes(counts: NDArray[np.integer], shards: int) -> NDArray[np.int32]:
    """The shard of each first code, int32 [K], given how many items have it, [K].

    The codes with the most items go first, each to the shard that has the fewest yet.

    Raises:
        ValueError: there are more shards than first codes with items.
    """
    if shards > (used := int((counts > 0).sum())):
        raise ValueError(f"{shards} shards, but the items have {used} first codes: at most one shard for each")
    load = np.zeros(shards, np.int64)
    owner = np.zeros(len(counts), np.int32)
    for code in np.argsort(-counts, kind="stable").tolist():
        owner[code] = load.argmin()
        load[owner[code]] += counts[code]
    return owner


def log_softmax_of_all(shards: Shards, logits: Tensor) -> Tensor:
    """Log-probabilities of this shard's logits [B, K], among those of all."""
    if shards.count == 1:
        return logits.log_softmax(1)
    return logits - shards.gathered(logits.logsumexp(1)).logsumexp(0).unsqueeze(1)


def kept_of_all(shards: Shards, scores: Tensor, width: int, order: Callable[[], Tensor]) -> Tensor:
    """Which of this shard's scores [B, K <= width] are among the ``width`` best of all: bool [B, K].

    Of equal ones those come first whose ``order()``, int64 [B, K], is smaller; it is asked for where that matters.
    """
    if shards.count == 1:
        return torch.ones_like(scores, dtype=torch.bool)

    def of_all(own: Tensor, fill: float) -> Tensor:
        """Those of all shards side by side, [B, count x width]."""
        padded = torch.nn.functional.pad(own, (0, width - own.shape[1]), value=fill)
        return shards.gathered(padded).movedim(0, 1).flatten(1)

    found = of_all(scores, float("-inf"))
    last = found.topk(width, sorted=False).values.amin(1, keepdim=True)
    # More are level with the last than there is room for: all shards see that, and tell their order.
    if bool(((found >= last).sum(1, keepdim=True) > width).logical_and(last > float("-inf")).any()):
        by_order = of_all(order(), torch.iinfo(torch.int64).max).argsort(dim=1, stable=True)
        best = found.gather(1, by_order).argsort(dim=1, descending=True, stable=True)[:, :width]
        kept = torch.zeros_like(found, dtype=torch.bool).scatter_(1, by_order.gather(1, best), True)
        return kept[:, shards.number * width :][:, : scores.shape[1]]
    return scores >= last


def best_of_all(shards: Shards, k: int, scores: Tensor, items: Tensor, by_row: bool = False) -> tuple[Tensor, Tensor]:
    """The ``k`` best of all shards, from the best of each: scores [B, k] and item rows [B, k], best first.

    Of this shard there are scores float [B, K] and rows int64 [B, K], K <= k; -inf and -1 for none, also in the result.
    Equal scores stay in the order that they have in a shard, and the shards in theirs; or go by row.
    """
    missing = (0, k - scores.shape[1])
    scores = torch.nn.functional.pad(scores, missing, value=float("-inf"))
    items = torch.nn.functional.pad(items, missing, value=-1)
    if shards.count == 1:
        return scores, items
    scores, items = (shards.gathered(one).movedim(0, 1).flatten(1) for one in (scores, items))
    if by_row:
        rows = items.argsort(1)
        scores, items = scores.gather(1, rows), items.gather(1, rows)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, order), items.gather(1, order)


def side_by_side(shards: Shards, values: Sequence[NDArray[Any]], fills: Sequence[float]) -> list[NDArray[Any]]:
    """Arrays [n, C, ...] of all shards next to each other, [n, C of all, ...]; ``fills`` for none, one per array.

    Every shard has its own C; all get those of the widest.
    """
    if shards.count == 1:
        return list(values)
    width = int(shards.gathered(torch.tensor([values[0].shape[1]])).max())
    out = []
    for value, fill in zip(values, fills, strict=True):
        missing = [(0, 0), (0, width - value.shape[1]), *[(0, 0)] * (value.ndim - 2)]
        found = shards.gathered(torch.from_numpy(np.pad(value, missing, constant_values=fill)))
        out.append(found.movedim(0, 1).flatten(1, 2).numpy())
    return out
