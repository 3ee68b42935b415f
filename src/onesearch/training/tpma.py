"""Token-position marginal advantage (TPMA) and plain GRPO as functions of tensors (docs/method.md, 7.9 to 7.16).

P prompts have G rollouts each, SIDs of L tokens; the T targets of a prompt are the SIDs clicked or ordered there, with
boosts also rollouts that hold a boosted item, padded with rows of -1. What a rollout earned is compared within its
group of G only::

    matched   = which tokens of a rollout match a target
    ρ         = worth of a target: 1 where clicked or ordered, min(1, R_item / mean R_item of these) where boosted
    R_l       = max over targets of ρ · Σ_(k ≤ l) [token k matches] · w_k;  ΔR_l = R_l - R_(l-1)
    advantage = ΔR_l normalised over the group + w_item · R_item normalised over the group
    gate      = 1 for the first token, then matched tokens among the first l - 1, over l - 1
    loss      = -mean of gate · π/π_old · advantage

Differences from the paper:

1. A match counts only while all tokens before it match, in reward and gate: our reading of the article. The release
   counts position by position, so that a rollout with a wrong first token keeps an open gate (``gate: position``).
2. Where the rewards of a group are equal (standard deviation under 1e-6) the advantage is 0, not 0 / δ.
3. Rollouts that hold a boosted item are targets, too: the gate would else shut behind the first token of every item
   that nobody clicked, and a boost could not reach it.
"""

from typing import Literal

import torch
from torch import Tensor

Gate = Literal["prefix", "position", "hard"]
"""How a wrong token bears on the tokens after it.

``prefix``: a match counts only while all earlier tokens match, in reward and gate (our reading of the article).
``position``: tokens match position by position, as the released snippet counts. ``hard``: rewards as ``prefix``, the
gate is 1 behind a prefix that matches as a whole and 0 behind any other.
"""

_FLAT = 1e-6  # a group whose rewards vary less than this has no better and worse
_DELTA = 1e-6


def position_weights(levels: int) -> Tensor:
    """(7.9) ``w_l = [l < 3]·2 + [3 <= l < L]·1``, l from 1: 2, 2, 1, 1, 0 for five tokens; float32 [L]."""
    place = torch.arange(1, levels + 1)
    return (place < 3) * 2.0 + ((place >= 3) & (place < levels)) * 1.0


def matches(rollouts: Tensor, targets: Tensor, by: Gate = "prefix") -> Tensor:
    """Which tokens of rollouts int64 [P, G, L] match which targets int64 [P, T, L]: bool [P, G, T, L]."""
    same = (rollouts.unsqueeze(2) == targets.unsqueeze(1)) & (targets >= 0).unsqueeze(1)
    return same if by == "position" else same.cumprod(-1).bool()


def boosted_worth(boosted: Tensor, rewards: Tensor, clicked: Tensor) -> Tensor:
    """(7.10a) ``ρ = min(1, R_item / R_clicked)`` of rollouts that hold a boosted item, 0 of others: float32 [P, G].

    ``boosted`` bool [P, G]; ``rewards`` float32 [P, G] of the rollouts; ``clicked`` float32 [P], the mean reward of
    what was clicked or ordered.
    """
    share = rewards / clicked.clamp(min=_DELTA).unsqueeze(1)
    return torch.where(boosted, share.clamp(max=1.0), 0.0)


def marginal_rewards(matched: Tensor, weights: Tensor, worth: Tensor | None = None) -> Tensor:
    """(7.10) What token l adds to ``R_{i,l} = max_t ρ_t·Σ_{k<=l} [o_{i,k} = t_k]·w_k``: ``ΔR`` float32 [P, G, L].

    ``matched`` is that of :func:`matches`, ``weights`` float32 [L]; ``worth`` float32 [P, T] are the ρ_t, all 1 where
    it is None. A prompt without targets has zeros.
    """
    reward = torch.zeros(*matched.shape[:2], matched.shape[3], dtype=weights.dtype, device=matched.device)
    if matched.shape[2]:
        earned = (matched * weights.to(matched.device)).cumsum(-1)
        reward = (earned if worth is None else earned * worth[:, None, :, None]).amax(2)
    return reward.diff(dim=-1, prepend=torch.zeros_like(reward[..., :1]))


def gates(matched: Tensor, by: Gate = "prefix") -> Tensor:
    """(7.13) ``g_{i,1} = 1``, ``g_{i,l}`` = matched tokens among the first l - 1, over l - 1: float32 [P, G, L].

    The target that matches best counts, whatever it is worth.
    """
    levels = matched.shape[3]
    # The first token has nothing before it; without targets all later gates are shut.
    out = torch.zeros(*matched.shape[:2], levels, device=matched.device)
    out[..., 0] = 1.0
    if levels > 1 and matched.shape[2]:
        before = matched[..., :-1].float().cumsum(-1).amax(2) / torch.arange(1, levels, device=matched.device)
        out[..., 1:] = (before == 1.0).float() if by == "hard" else before
    return out


def normalise(values: Tensor) -> Tensor:
    """(7.11) Values less the mean of their group (dimension 1), over its deviation; 0 where that is under 1e-6."""
    # The standard deviation of the group itself (divided by G, not G - 1).
    centred = values - values.mean(1, keepdim=True)
    std = centred.square().mean(1, keepdim=True).sqrt()
    return torch.where(std < _FLAT, 0.0, centred / (std + _DELTA))


def tpma_advantages(
    matched: Tensor, weights: Tensor, item_rewards: Tensor, item_weight: float, worth: Tensor | None = None
) -> Tensor:
    """(7.12) ``Â^final = Â_{i,l} + w_item·Â^item_i``: float32 [P, G, L].

    ``item_rewards`` float32 [P, G] is the composite reward of each rollout's item, ``item_weight`` w_item; the other
    arguments as in :func:`marginal_rewards`.
    """
    per_token = normalise(marginal_rewards(matched, weights, worth))
    return per_token + item_weight * normalise(item_rewards).unsqueeze(-1)


def tpma_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, gate: Tensor) -> Tensor:
    """(7.15) ``L_TPMA = -1/G Σ_i 1/L Σ_l g·ratio·Â``, mean over prompts; all arguments float32 [P, G, L].

    ``ratio = π_θ/π_old`` with π_old detached, not clipped: the gate regularises.
    """
    return -(gate * (log_probs - old.detach()).exp() * advantages).mean()


def grpo_loss(log_probs: Tensor, old: Tensor, rewards: Tensor, clip: float) -> Tensor:
    """(7.16) Plain GRPO: one advantage per rollout, the ratio of each token clipped to ``1 ± clip``; a mean over all.

    ``rewards`` float32 [P, G]: of the whole SID; the other arguments as in :func:`tpma_loss`.
    """
    advantage = normalise(rewards).unsqueeze(-1)
    ratio = (log_probs - old.detach()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
