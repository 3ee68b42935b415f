"""Candidates of a request with the features that order them.

Beams give most candidates; evidence (items most clicked for the query, BM25) may add some, whose log-probability the
model computes exactly along their path. So every candidate carries the same features, wherever it came from.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.index.item_filters import ItemMask
from onesearch.model.generator import Generator, GeneratorMemory
from onesearch.search.beam_search import Beams
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.path_scoring import score_paths

Floats = NDArray[np.float32]
NOTHING = np.float32(-1e9)  # a score below every real one that still survives arithmetic


@dataclass(frozen=True)
class Candidates:
    """C candidates of each of n requests.

    Shapes: ``items`` int64 [n, C] item rows, -1 for none; every feature float32 [n, C], 0 where there is no item;
    ``generated`` bool [n, C] whether a beam found the item; every context float32 [n].
    """

    items: NDArray[np.int64]
    features: dict[str, Floats]
    generated: NDArray[np.bool_]
    contexts: dict[str, Floats]


def from_beams(
    beams: Beams, snapshot: Snapshot, mask: ItemMask | None, per_sid: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Items below the beams' nodes: rows int64 [B, W * per_sid] (-1 for none) and their log-probabilities."""
    index, last = snapshot.index, snapshot.index.levels - 1
    known = beams.nodes >= 0
    first, end = index.positions(last, beams.nodes.clamp(min=0))
    within = torch.arange(per_sid, device=first.device)
    positions = first.unsqueeze(-1) + within
    inside = (positions < end.unsqueeze(-1)) & known.unsqueeze(-1)
    positions = positions.clamp(max=max(len(index) - 1, 0))
    if mask is not None:
        inside &= mask.items_allowed(positions)
    rows = torch.where(inside, index.item_rows(positions).long(), -1)
    # SIDs with several items are rare: drop the columns that no request uses.
    log_probs = beams.log_probs.unsqueeze(-1).expand(*rows.shape)
    used = inside.any(0).any(0)
    return rows[..., used].flatten(1), log_probs[..., used].flatten(1)


def add_extra(items: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
    """Extra candidates [n, E] without those already present in ``items`` [n, C] and without repeats; -1 for none."""
    seen = (extra.unsqueeze(2) == items.unsqueeze(1)).any(2)
    earlier = torch.ones(extra.shape[1], extra.shape[1], dtype=torch.bool, device=extra.device).tril(-1)
    repeat = ((extra.unsqueeze(2) == extra.unsqueeze(1)) & earlier).any(2)
    return extra.masked_fill(seen | repeat, -1)


def score_extra(
    model: Generator, memory: GeneratorMemory, snapshot: Snapshot, extra: torch.Tensor, mask: ItemMask | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact log-probabilities of extra candidates [n, E]; items that left the index or the filter become -1."""
    paths = snapshot.index.path(extra.clamp(min=0).flatten()).reshape(*extra.shape, -1)
    alive = (extra >= 0) & (paths[..., 0] >= 0)
    if mask is not None:
        alive &= mask.allowed(snapshot.index.levels - 1, paths[..., -1].clamp(min=0))
        alive &= mask.items_allowed(snapshot.index.position_of(extra.clamp(min=0)).clamp(min=0))
    log_probs = torch.full(extra.shape, float(NOTHING), device=extra.device)
    picked = alive.nonzero()
    if len(picked):
        each, _ = score_paths(model, memory, paths[alive], picked[:, 0], snapshot.index)
        log_probs[alive] = each.sum(1)
    return torch.where(alive, extra, -1), log_probs
