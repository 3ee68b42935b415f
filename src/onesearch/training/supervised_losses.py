"""The losses of SFT as plain functions on tensors (docs/method.md, 5.10 to 5.13)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from onesearch.search.path_scoring import LevelDistribution


def item_nll(log_probs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of item SIDs under the softmax over legal children (5.10).

    Shapes: ``log_probs`` [M, L] of the target's token per level, ``weights`` [M]. Returns the weighted mean of the sum
    over levels (scalar) and the weighted mean per level [L].
    """
    share = weights / weights.sum().clamp(min=1e-9)
    per_level = -(log_probs * share.unsqueeze(1)).sum(0)
    return per_level.sum(), per_level


def legal_means(levels: Sequence[LevelDistribution], paths: int) -> Tensor:
    """Mean log-probability of all tokens that a path could take at each level (5.10a), float32 [M, L].

    They are the support of the softmax: the legal children of the path's parent; 0 where there is no choice.
    """
    out = []
    for level in levels:
        total = torch.zeros(len(level.choosing), dtype=torch.float32, device=level.log_probs.device)
        total = total.index_add(0, level.segment, level.log_probs)
        none = torch.zeros(paths, dtype=torch.float32, device=level.log_probs.device)
        out.append(none.index_put((level.choosing,), total / level.count))
    return torch.stack(out, 1)


def codebook_nll(logits: list[Tensor], sids: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over whole codebooks (5.11), for SIDs that need not be an item's.

    Shapes: ``logits`` L tensors [M, K_l], ``sids`` int64 [M, L]. Returns the sum over levels and the mean per level.
    """
    per_level = torch.stack([F.cross_entropy(level.float(), sids[:, i]) for i, level in enumerate(logits)])
    return per_level.sum(), per_level


def text_nll(logits: Tensor, targets: Tensor, pad: int) -> Tensor:
    """Mean cross-entropy of text targets; ``logits`` [M, T, V], ``targets`` int64 [M, T], ``pad`` positions ignored."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=pad)


def score_nll(scores: Tensor, positive: Tensor, weights: Tensor, other_positives: Tensor | None = None) -> Tensor:
    """Contrastive loss of the item score (5.13): softmax over candidate items.

    Shapes: ``scores`` [M, C] of each target's request against C candidates, ``positive`` int64 [M] column of the
    target, ``weights`` [M]; ``other_positives`` bool [M, C] marks further targets of the same request, no negatives.
    """
    scores = scores.float()
    if other_positives is not None:
        scores = scores.masked_fill(other_positives, float("-inf"))
    nll = F.cross_entropy(scores, positive, reduction="none")
    return (nll * weights).sum() / weights.sum().clamp(min=1e-9)
