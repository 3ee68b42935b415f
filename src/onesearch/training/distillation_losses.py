"""Self-distillation and its regularisers as plain functions (docs/method.md, section 6).

A pass over M paths gives one :class:`~onesearch.search.path_scoring.LevelDistribution` per SID level. Two passes over
the same paths have the same candidates, so they are compared entry by entry. The cross-entropy of this code is a sum
over the SID's L positions (:func:`~onesearch.training.supervised_losses.item_nll`), and so are the divergences here:
the paper takes means of both, so its weights carry over.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from onesearch.search.path_scoring import LevelDistribution

_SHORT = 0.1  # rows well below this length count as none in `row_loss`


def kl_per_path(first: LevelDistribution, second: LevelDistribution, paths: int, temperature: float = 1.0) -> Tensor:
    """``KL(first ‖ second) · τ²`` at one level (6.1), float32 [M]; both softmaxes at temperature τ.

    The sum runs over the support of the softmax; a path without a choice has 0.
    """
    p, q = first.log_probs, second.log_probs
    if temperature != 1.0:
        p, q = _tempered(first, temperature), _tempered(second, temperature)
    # Entries are candidates of all paths in a row; first their sum by path with a choice, then zeros for the others.
    terms = p.exp() * (p - q) * temperature**2
    of_choosing = torch.zeros(len(first.choosing), dtype=terms.dtype, device=terms.device)
    of_choosing = of_choosing.index_add(0, first.segment, terms)
    return torch.zeros(paths, dtype=terms.dtype, device=terms.device).index_put((first.choosing,), of_choosing)


def _tempered(level: LevelDistribution, temperature: float) -> Tensor:
    """The candidates' log-probabilities at another temperature, normalised per path again."""
    scaled = level.log_probs / temperature
    total = torch.zeros(len(level.choosing), dtype=scaled.dtype, device=scaled.device)
    # Log-probabilities are at most 0 and the largest of n candidates is at least -log n: no shift is needed.
    total = total.index_add(0, level.segment, scaled.exp())
    return scaled - total.log()[level.segment]


def distillation_kl(
    teacher: Sequence[LevelDistribution],
    student: Sequence[LevelDistribution],
    weights: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """``L_KL``: teacher to student, summed over levels, weighted mean over paths; ``weights`` [M], a scalar out.

    Whoever calls it detaches the teacher (:func:`detach`), or does not (joint training).
    """
    per_level = [kl_per_path(t, s, len(weights), temperature) for t, s in zip(teacher, student, strict=True)]
    share = weights / weights.sum().clamp(min=1e-9)
    return (torch.stack(per_level).sum(0) * share).sum()


def r_drop(first: Sequence[LevelDistribution], second: Sequence[LevelDistribution], weights: Tensor) -> Tensor:
    """``½ [KL(P1 ‖ P2) + KL(P2 ‖ P1)]`` of two passes with independent dropout (R-Drop, 6.3); a scalar."""
    return 0.5 * (distillation_kl(first, second, weights) + distillation_kl(second, first, weights))


def detach(levels: Sequence[LevelDistribution]) -> list[LevelDistribution]:
    """The same distributions as constants."""
    return [LevelDistribution(one.choosing, one.count, one.log_probs.detach(), one.target) for one in levels]


def select_paths(levels: Sequence[LevelDistribution], rows: Tensor, paths: int) -> list[LevelDistribution]:
    """The distributions of some of M paths, ``rows`` int64 [m] strictly ascending; afterwards numbered 0 to m - 1."""
    number = torch.full((paths,), -1, dtype=torch.int64, device=rows.device)
    number[rows] = torch.arange(len(rows), device=rows.device)
    out = []
    for level in levels:
        kept = number[level.choosing] >= 0  # of the paths that have a choice at this level
        entries = kept[level.segment]  # of all their candidates
        place = torch.cumsum(entries, 0) - 1  # of an entry among those that stay
        out.append(
            LevelDistribution(
                number[level.choosing[kept]],
                level.count[kept],
                level.log_probs[entries],
                place[level.target[kept]],
            )
        )
    return out


def focal_nll(log_probs: Tensor, weights: Tensor, alpha: float = 2.0, gamma: float = 3.0) -> Tensor:
    """``α (1 - p)^γ · CE`` per position (6.4), summed over levels, weighted mean over paths; ``log_probs`` [M, L].

    α = 1 and γ = 0 is the plain cross-entropy.
    """
    share = weights / weights.sum().clamp(min=1e-9)
    # log p = 0 is exact where there is no choice; the power's gradient at 0 would be infinite for γ < 1.
    rest = (-torch.expm1(log_probs)).clamp(min=1e-12)
    focused = -alpha * rest.pow(gamma) * log_probs
    return (focused.sum(1) * share).sum()


def hidden_l1(teacher: Tensor, student: Tensor, weights: Tensor) -> Tensor:
    """CODI (6.10): mean absolute difference of hidden states [M, L, d], over the teacher's deviation; a scalar."""
    # Without the scale a teacher could make the distance small by shrinking its states.
    scale = teacher.std().clamp(min=1e-6)
    share = weights / weights.sum().clamp(min=1e-9)
    return ((student - teacher).abs().mean((1, 2)) / scale * share).sum()


def keyword_rows(rows: Tensor, fused: Tensor) -> Tensor:
    """The unit rows k [b, R] that ``fused`` = unit(``rows`` + k) was made of (6.8): ``rows`` mirrored in ``fused``."""
    return 2 * (rows * fused).sum(1, keepdim=True) * fused - rows


def row_loss(rows: Tensor, gate: Tensor, wanted: Tensor, with_teacher: Tensor) -> Tensor:
    """How far what queries' words stand for is from their keywords (6.8); a scalar.

    The cross-entropy of ``gate`` [B], logits that a query has keywords, and 1 - cosine between ``rows`` [B, R] and the
    unit rows ``wanted`` [b, R] of the queries ``with_teacher`` int64 [b] that have.
    """
    has = torch.zeros_like(gate)
    has[with_teacher] = 1.0
    loss = functional.binary_cross_entropy_with_logits(gate, has)
    if len(with_teacher):
        learnt = rows[with_teacher]
        # Rows start at zero, where a cosine has no gradient that an optimizer could live with.
        cosine = (learnt * wanted).sum(1) * (learnt.square().sum(1) + _SHORT**2).rsqrt()
        loss = loss + (1 - cosine).mean()
    return loss


@torch.no_grad()
@torch.no_grad()
def update_average(average: Mapping[str, Tensor], live: Mapping[str, Tensor], decay: float) -> None:
    """EMA teacher (6.11): ``a ← decay · a + (1 - decay) · w`` in place, for every name of ``average``."""
    for name, value in average.items():
        value.lerp_(live[name].to(value.dtype), 1.0 - decay)


def fgm_step(gradients: Sequence[Tensor], epsilon: float) -> list[Tensor]:
    """``r = ε · g / ‖g‖`` with the norm over all tables together (FGM, 6.5); zeros where the gradient vanishes."""
    # One norm over all tables: a table with small gradients moves little.
    norm = torch.stack([gradient.float().norm() for gradient in gradients]).norm()
    # A gradient that is not finite must reach the loop's check as a loss, not as a broken table.
    factor = torch.where(torch.isfinite(norm) & (norm > 0), epsilon / norm.clamp(min=1e-30), torch.zeros_like(norm))
    return [torch.nan_to_num(gradient) * factor.to(gradient.dtype) for gradient in gradients]


@contextmanager
def perturb(tables: Sequence[Tensor], steps: Sequence[Tensor]) -> Iterator[None]:
    """Tables moved by ``steps`` inside, restored bit by bit outside, also after an error."""
    kept = [table.detach().clone() for table in tables]
    with torch.no_grad():
        for table, step in zip(tables, steps, strict=True):
            table.add_(step)
    try:
        yield
    finally:
        with torch.no_grad():
            for table, value in zip(tables, kept, strict=True):
                table.copy_(value)
