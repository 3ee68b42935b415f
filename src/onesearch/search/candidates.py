"""Candidates of a request with the features that order them.

Beams give most candidates; other channels (items most clicked for the query, best by BM25, nearest by the item score)
add some, whose log-probability the model computes exactly along their path. So every candidate carries the same
features, wherever it came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.layered_table import LayeredTable
from onesearch.index.item_filters import ItemMask
from onesearch.model.generator import Generator, GeneratorMemory
from onesearch.search.beam_search import Beams
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.hits import Hits
from onesearch.search.path_scoring import score_paths
from onesearch.search.ranked_lists import padded_hits
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.shards import Shards, side_by_side

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

    def of(self, requests: NDArray[np.bool_]) -> "Candidates":
        """The candidates of some of the requests, bool [n]."""
        features = {name: values[requests] for name, values in self.features.items()}
        contexts = {name: values[requests] for name, values in self.contexts.items()}
        return Candidates(self.items[requests], features, self.generated[requests], contexts)


def from_beams(
    beams: Beams, snapshot: Snapshot, mask: ItemMask | None, per_sid: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Items below the beams' nodes: rows int64 [B, W * per_sid] (-1 for none) and their log-probabilities."""
    index, last = snapshot.index, snapshot.index.levels - 1
    known = beams.nodes >= 0
    # A last-level node is a range of items that share a SID: the first ``per_sid`` of each, [B, W, per_sid].
    first, end = index.positions(last, beams.nodes.clamp(min=0))
    within = torch.arange(per_sid, device=first.device)
    positions = first.unsqueeze(-1) + within
    inside = (positions < end.unsqueeze(-1)) & known.unsqueeze(-1)
    positions = torch.where(inside, positions, first.unsqueeze(-1))
    if mask is not None:
        inside &= mask.items_allowed(positions)
    rows = torch.where(inside, index.item_rows(positions).long(), -1)
    # SIDs with several items are rare: drop the columns that no request uses.
    log_probs = beams.log_probs.unsqueeze(-1).expand(*rows.shape)
    used = inside.any(0).any(0)
    return rows[..., used].flatten(1), log_probs[..., used].flatten(1)


def without_repeats(items: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """``more`` items [n, E] with -1 for those that are among ``items`` [n, C] already, and for repeats."""
    seen = (more.unsqueeze(2) == items.unsqueeze(1)).any(2)
    # A repeat is an entry that equals an earlier one of its row: compare all pairs, [n, E, E].
    earlier = torch.ones(more.shape[1], more.shape[1], dtype=torch.bool, device=more.device).tril(-1)
    repeat = ((more.unsqueeze(2) == more.unsqueeze(1)) & earlier).any(2)
    return more.masked_fill(seen | repeat, -1)


def paths_of(items: torch.Tensor, snapshot: Snapshot) -> torch.Tensor:
    """Nodes per level that lead to items [n, E] of the index: int64 [n, E, L], -1 for none."""
    return snapshot.index.path(items.flatten()).view(*items.shape, snapshot.index.levels)


def score_items(model: Generator, memory: GeneratorMemory, snapshot: Snapshot, items: torch.Tensor) -> torch.Tensor:
    """Exact log-probabilities [n, E] of items of the index along their paths."""
    log_probs = torch.full(items.shape, float(NOTHING), device=items.device)
    picked = (items >= 0).nonzero()
    if len(picked):
        paths = snapshot.index.path(items[items >= 0])
        each, _ = score_paths(model, memory, paths, picked[:, 0], snapshot.index)
        log_probs[items >= 0] = each.sum(1)
    return log_probs


def searchable(items: torch.Tensor, snapshot: Snapshot, mask: ItemMask | None) -> torch.Tensor:
    """``items`` [n, E] with -1 for those outside the index or the filter."""
    position = snapshot.index.position_of(items.clamp(min=0))
    alive = (items >= 0) & (position >= 0)
    if mask is not None:
        alive &= mask.items_allowed(position.clamp(min=0))
    return torch.where(alive, items, -1)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of several batches of requests, as wide as the widest."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.items.shape[1] for part in parts)

    def widen(values: NDArray[Any], fill: Any) -> NDArray[Any]:
        return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)

    return Candidates(
        np.concatenate([widen(part.items, -1) for part in parts]),
        {name: np.concatenate([widen(p.features[name], 0) for p in parts]) for name in parts[0].features},
        np.concatenate([widen(part.generated, False) for part in parts]),
        {name: np.concatenate([part.contexts[name] for part in parts]) for name in parts[0].contexts},
    )


def of_all_shards(found: Candidates, shards: Shards) -> Candidates:
    """The candidates of all shards, given those of this one."""
    if shards.count == 1:
        return found
    names = sorted(found.features)
    features = np.stack([found.features[name] for name in names], 2)
    items, features, generated = side_by_side(shards, [found.items, features, found.generated], [-1, 0, False])
    columns = {name: np.ascontiguousarray(features[..., i]) for i, name in enumerate(names)}
    return Candidates(items, columns, generated, found.contexts)


def ordered(found: Candidates, weights: RankingWeights, k: int, popularity: Floats | LayeredTable) -> Hits:
    """The ``k`` best items by weighted features; ties go to the item score, to popularity float32 [N], to the row."""
    valid = found.items >= 0
    scores = np.where(valid, weights.score(found.features, found.contexts), NOTHING).astype(np.float32)
    # numpy's last key is the first to sort by.
    second = found.features.get("item_score", np.zeros_like(scores))
    keys = (found.items, -popularity.take(np.maximum(found.items, 0)), -second, -scores)
    order = np.lexsort(keys, axis=1)[:, :k]
    items, best = np.take_along_axis(found.items, order, 1), np.take_along_axis(scores, order, 1)
    return padded_hits(items, best, k)
