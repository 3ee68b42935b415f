"""The five terms of L_align (specification section 2) on unit vectors, each a plain function."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu


def contrastive(
    left: Tensor, right: Tensor, temperature: float, weight: Tensor | None = None, same: Tensor | None = None
) -> Tensor:
    """Symmetric in-batch contrastive loss (L_q2q, L_i2i, L_q2i): row i of ``left`` belongs to row i of ``right``.

    Args:
        left: unit vectors [n, d].
        right: unit vectors [n, d].
        temperature: cosines are divided by it.
        weight: importance of each pair [n]; equal by default.
        same: bool [n, n], True where ``right[j]`` is no negative of ``left[i]`` (the same text, another positive).

    Returns:
        Half the sum of both directions' weighted mean cross-entropies.
    """
    logits = left @ right.T / temperature
    if same is not None:
        diagonal = torch.eye(len(left), dtype=torch.bool, device=left.device)
        logits = logits.masked_fill(same.to(left.device) & ~diagonal, float("-inf"))
    target = torch.arange(len(left), device=left.device)
    both = 0.5 * (cross_entropy(logits, target, reduction="none") + cross_entropy(logits.T, target, reduction="none"))
    return both.mean() if weight is None else (both * weight).sum() / weight.sum()


def rank_margin(query: Tensor, better: Tensor, worse: Tensor, margin: float) -> Tensor:
    """L_rank: ordered above clicked above shown, ``mean(max(0, margin - cos(q, better) + cos(q, worse)))``.

    All arguments are unit vectors [n, d].
    """
    return relu(margin - (query * better).sum(-1) + (query * worse).sum(-1)).mean()


def relevance_regression(query: Tensor, item: Tensor, level: Tensor, scale: Tensor) -> Tensor:
    """L_rel: squared error of the cosine, on a learned line, against the relevance level 0-3 mapped to 0..1.

    Args:
        query: unit vectors [n, d].
        item: unit vectors [n, d].
        level: relevance levels 0, 1, 2, 3, [n].
        scale: slope and intercept of the line, [2].
    """
    predicted = scale[0] * (query * item).sum(-1) + scale[1]
    return (predicted - level / 3.0).square().mean()
