"""Evidence at the input: items that cheap searches found for a request, for the model to read and to point at.

Every item is one token: its head row, and a few numbers that say who found it and how surely. The model's encoder
compares them with the query, the shopper and each other; the pointer (:class:`EvidencePointer`) then adds what it
thinks of each to the item head and to the item score (docs/method.md, 3.6 and 5.9a to 5.9c).

The paper has no such part; it fills missing history with the items most clicked for the query, which is the nearest to
it. What an item's own page view adds to a number is left out in training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from onesearch.index.sid_index import SidIndex

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

EVIDENCE_NUMBERS: Final = (
    "lexical_share",  # BM25, as a share of the best item's
    "lexical_place",  # 1 / place by BM25
    "clicks",  # log(1 + clicks for the query) / 3
    "click_share",  # of the query's clicks
    "similarity",  # of the query's head row and the item's
    "together",  # taken with the history's items, sum of cosines
    "following",  # taken right after them, sum of shares
    "popularity",  # log(1 + clicks) / 5
    "in_history",  # 1 if the shopper has taken it already
    "word_item",  # log lift of the query's words on the item (1.3), mean over them, / 3
    "word_category",  # and on its category
)


@dataclass(frozen=True)
class Evidence:
    """Items int32 [n, E], -1 for none, and their numbers float32 [n, E, F] in the order of ``EVIDENCE_NUMBERS``."""

    items: Ints
    numbers: Floats


FindEvidence = Callable[[NDArray[np.integer]], Evidence]
"""The evidence of the requests with the given numbers."""


def zero_linear(width: int, out: int) -> nn.Linear:
    """A linear map that starts at zero."""
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def products_with(states: Tensor, rows: Tensor, owner: Tensor | None = None) -> Tensor:
    """Products of n states [n, R] with the rows [B, E, R] of the request of each, ``owner`` int64 [n]: [n, E].

    The states of a request stand side by side, so that its rows are read where they lie, not copied for every state.
    """
    if owner is None:
        return torch.einsum("nr,ner->ne", states, rows)
    if len(rows) == 1:
        return states @ rows[0].T
    # The place of each state among those of its request, in whatever order they come.
    order = owner.argsort(stable=True)
    count = torch.bincount(owner, minlength=len(rows))
    place = torch.empty_like(owner)
    place[order] = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner[order]]
    beside = states.new_zeros(len(rows), int(count.max()) if len(owner) else 0, states.shape[1])
    beside = beside.index_put((owner, place), states)
    return torch.bmm(beside, rows.transpose(1, 2))[owner, place]


class EvidencePointer(nn.Module):
    """What the model thinks of each evidence item, at each level of the SID and for the item score.

    ::

        k_e = W v_e                      # v_e: what the encoder's last layer gives the decoder at the item's token
        a_l(e) = Q_l h · k_e + w · numbers_e + c_l        # l = 1 .. L, and 0 for the item score
        logit of a node n    = logaddexp(logit of n, logsumexp over evidence e below n of (state_l · row_e + a_l(e)))
        item score of item e = state_0 · row_e + a_0(e)

    So an evidence item counts below each of its nodes with its own logit, where other items count by the node's mean
    row. ``Q`` and ``w`` are zero at the start: an untrained pointer thinks alike of all.
    """

    def __init__(self, d_model: int, width: int, levels: int) -> None:
        super().__init__()
        size = min(width, 64)
        self.key = nn.Linear(width, size)
        self.query = nn.ModuleList(zero_linear(d_model, size) for _ in range(levels + 1))
        self.numbers = nn.Parameter(torch.zeros(levels + 1, len(EVIDENCE_NUMBERS)))
        self.start = nn.Parameter(torch.zeros(levels + 1))

    def forward(self, level: int, hidden: Tensor, keys: Tensor, numbers: Tensor, owner: Tensor | None = None) -> Tensor:
        """``hidden`` [n, d], ``keys`` [B, E, p], ``numbers`` [B, E, F] to [n, E]; level -1 is the item score's.

        ``owner`` int64 [n] is the request of each state; None for one state a request.
        """
        asked: Tensor = self.query[level + 1](hidden)
        told = numbers.to(asked.dtype) @ self.numbers[level + 1].to(asked.dtype) + self.start[level + 1]
        return products_with(asked, keys, owner) + (told if owner is None else told[owner])


@dataclass
class EvidenceMemory:
    """What the decoder needs to know of B requests' evidence: items int64 [B, E] (-1 for none), keys [B, E, p], numbers
    [B, E, F], head rows [B, E, R].
    """

    items: Tensor
    keys: Tensor
    numbers: Tensor
    head_rows: Tensor

    def nodes(self, index: SidIndex) -> Tensor:
        """The node of each item at every level, int64 [B, E, L]; -1 for none and for items outside the index."""
        found = index.path(self.items.clamp(min=0).flatten()).view(*self.items.shape, -1)
        return torch.where((self.items >= 0).unsqueeze(-1), found, -1)

    @classmethod
    def concatenate(cls, parts: "Sequence[EvidenceMemory]") -> "EvidenceMemory":
        """Several batches as one, with as many entries a request as the widest has."""
        width = max(part.items.shape[1] for part in parts)

        def wide(of: Callable[[EvidenceMemory], Tensor]) -> Tensor:
            return torch.cat([F.pad(of(part), (0, 0, 0, width - part.items.shape[1])) for part in parts])

        items = [F.pad(part.items, (0, width - part.items.shape[1]), value=-1) for part in parts]
        return cls(torch.cat(items), wide(lambda p: p.keys), wide(lambda p: p.numbers), wide(lambda p: p.head_rows))


def with_evidence(logits: Tensor, at: Tensor, values: Tensor, valid: Tensor) -> Tensor:
    """A flat list of logits [T] in which the evidence [n, E] below some of its entries is counted in.

    ``at`` int64 [n, E] is the place of the node of each evidence item in ``logits``, where ``valid``; differentiable.
    """
    # The v items that count, and the u entries of the list that they lie below.
    places, below = at[valid].unique(return_inverse=True)
    counted = values[valid].to(logits.dtype)
    own = logits[places]
    with torch.no_grad():
        peak = own.scatter_reduce(0, below, counted, "amax")
    total = (own - peak).exp().index_add(0, below, (counted - peak[below]).exp())
    return logits.index_put((places,), total.log() + peak)
