"""Listwise preference optimisation on logged page views, V1's PARS (specification section 7)."""

import torch
from torch import Tensor
from torch.nn import functional as F

ORDERED, ORDERED_ELSEWHERE, CLICKED, SHOWN, SAME_CATEGORY, OTHER = range(6)
"""The six levels of behaviour: ordered in the search, ordered in the same category elsewhere, clicked; shown and not
clicked, of the same category and not shown, of another category. Winners are of the first three, losers of the others.
"""
LEVEL_WEIGHTS = (2.0, 1.5, 1.0, 0.5, 0.2, 0.0)


def gap_weights(winner: Tensor, losers: Tensor) -> Tensor:
    """``rw_l = 1 + (max(R_w, 1) - R_l)^(-1.5)``: rewards float32 [W] of winners and [W, N] of their losers, to [W, N].

    Losers have less than 1 and no more than their winner, so the base is positive.
    """
    return 1.0 + (winner.clamp(min=1.0).unsqueeze(1) - losers).pow(-1.5)


def listwise_dpo_loss(
    winner: Tensor,
    winner_reference: Tensor,
    losers: Tensor,
    losers_reference: Tensor,
    gaps: Tensor,
    valid: Tensor,
    beta: float,
    sft: float,
) -> dict[str, Tensor]:
    """``-log σ(-log Σ_l exp(rw_l·(ρ_l - ρ_w))) + α·(-log π(w|x))`` with ``ρ = β·(log π - log π_ref)``.

    Args:
        winner: log-probabilities [W] of the winners' SIDs under the policy, summed over their tokens.
        winner_reference: the same under the frozen reference.
        losers: log-probabilities of each winner's losers, [W, N].
        losers_reference: the same under the frozen reference.
        gaps: ``rw_l`` of :func:`gap_weights`, [W, N].
        valid: bool [W, N]; False fills up, or stands where loser and winner share a SID.
        beta: β.
        sft: α.

    Returns:
        ``loss``; ``preference`` and ``nll``, its two terms; ``accuracy``, the share of pairs with ρ_w > ρ_l. A winner
        without losers has only the second term.
    """
    rho_w = beta * (winner - winner_reference.detach())
    rho_l = beta * (losers - losers_reference.detach())
    margin = (gaps * (rho_l - rho_w.unsqueeze(1))).masked_fill(~valid, float("-inf"))
    has = valid.any(1)
    pull = torch.zeros_like(winner)
    if has.any():
        # -log σ(-z) is softplus(z).
        pull = pull.masked_scatter(has, F.softplus(margin[has].logsumexp(1)))
    preference = pull.sum() / has.sum().clamp(min=1)
    nll = -winner.mean()
    better = ((rho_w.unsqueeze(1) > rho_l) & valid).sum() / valid.sum().clamp(min=1)
    return {
        "loss": preference + sft * nll,
        "preference": preference.detach(),
        "nll": nll.detach(),
        "accuracy": better.float(),
    }
