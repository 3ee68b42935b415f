"""Scores of ragged candidates: every beam has its own number of legal children, all in flat tensors.

Candidates of M beams lie one beam after the other; ``offsets`` [M + 1] says where each beam's begin.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onesearch.index.vector_table import VectorTable

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

_CHUNK = 1 << 16  # rows gathered at a time where no fused product exists


@dataclass(frozen=True)
class Children:
    """The T legal children of M beams.

    Shapes: ``nodes`` int64 [T]; ``beam`` int64 [T] whose child each is; ``offsets`` int64 [M + 1].
    """

    nodes: Tensor
    beam: Tensor
    offsets: Tensor

    @classmethod
    def from_ranges(cls, first: Tensor, count: Tensor) -> "Children":
        """From the range of children of each beam: first [M] and how many [M]."""
        offsets = torch.zeros(len(count) + 1, dtype=torch.long, device=count.device)
        torch.cumsum(count, 0, out=offsets[1:])
        total = int(offsets[-1])
        beam = torch.repeat_interleave(count, output_size=total)
        shift = first - offsets[:-1]
        nodes = torch.arange(total, device=count.device) + shift.index_select(0, beam)
        return cls(nodes, beam, offsets)


def ragged_products(states: Tensor, table: VectorTable, rows: Tensor, children: Children) -> Tensor:
    """``states[beam] · table[rows]`` for every child: states [M, R], rows int [T]; returns [T].

    In float32 on a CPU this is one sampled matrix product, which reads each row where it lies.
    """
    wide = torch.float64 if states.dtype == torch.float64 else torch.float32
    states = states.to(wide)
    if not len(rows):
        return states.new_empty(0)
    if table.data.dtype == wide and states.device.type == "cpu":
        sample = torch.sparse_csr_tensor(
            children.offsets.to(rows.dtype),
            rows,
            states.new_zeros(len(rows)),
            (len(states), len(table.data)),
            check_invariants=False,
        )
        product: Tensor = torch.sparse.sampled_addmm(sample, states, table.data.T, beta=0.0)
        return product.values()
    parts = []
    for at, beam in zip(rows.split(_CHUNK), children.beam.split(_CHUNK), strict=True):
        parts.append((table.read(at, wide) * states.index_select(0, beam)).sum(1))
    return torch.cat(parts)


def ragged_logsumexp(logits: Tensor, children: Children) -> Tensor:
    """``log Σ exp`` over the children of each beam, [T] to [M]; -inf for beams without children."""
    m = len(children.offsets) - 1
    # log Σ exp per beam, with the largest logit taken off first.
    peak = logits.new_full((m,), float("-inf")).scatter_reduce_(0, children.beam, logits, "amax")
    above = (logits - peak.index_select(0, children.beam)).exp_()
    return logits.new_zeros(m).index_add_(0, children.beam, above).log_().add_(peak)


def pad_rows(row: Tensor, n: int, values: list[tuple[Tensor, float]]) -> list[Tensor]:
    """Flat values of ``n`` rows to padded matrices: ``row`` int64 [T] sorted; values [T] and paddings to [n, C]."""
    if n == 1:
        return [value.unsqueeze(0) for value, _ in values]
    counts = torch.bincount(row, minlength=n)
    width = int(counts.max()) if len(row) else 0
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row] + row * width
    out = []
    for value, padding in values:
        padded = torch.full((n * width,), padding, dtype=value.dtype, device=value.device)
        out.append(padded.index_copy_(0, place, value).view(n, width))
    return out


def best(
    scores: Tensor,
    nodes: Tensor,
    width: int,
    order_of: Callable[[Tensor], Tensor],
    allowed: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``width`` best finite scores of each row: best first, equal ones in the order of SIDs.

    Args:
        scores: [B, C].
        nodes: int64 [B, C], distinct in a row.
        width: how many.
        order_of: numbers of nodes [T] that sort them as their SIDs.
        allowed: tells of nodes [T] and their rows [T] which may be returned; it is asked about the best ones only, and
            about more of them where too few are allowed.

    Returns:
        Columns int64 [B, K] and scores [B, K] with K <= width; rows with fewer finite scores are filled with -inf.
    """
    b, c = scores.shape
    # Cut to the best ``take`` of each row; more only where the filter leaves too few of them.
    take = width if allowed is None else 2 * width
    while True:
        lowest = scores.new_full((b, 1), torch.finfo(scores.dtype).min)
        if c > take:
            # Everything level with the last one stays in, so that ties are broken by node and not by chance.
            lowest = scores.topk(take, sorted=False).values.amin(1, keepdim=True).maximum(lowest)
        row, column = (scores >= lowest).nonzero(as_tuple=True)
        if allowed is None:
            break
        flat = row * c + column
        # The filter is asked about these alone, not about all C.
        keep = allowed(nodes.flatten().index_select(0, flat), row)
        row, column = row[keep], column[keep]
        if c <= take or bool((torch.bincount(row, minlength=b) >= width).all()):
            break
        take *= 8
    # Order what is left: by node first, then stably by score, so that equal scores stay in node order.
    flat = row * c + column
    found, ties = (x.flatten().index_select(0, flat) for x in (scores, nodes))
    ties = order_of(ties)
    columns, found, ties = pad_rows(row, b, [(column, 0), (found, float("-inf")), (ties, torch.iinfo(torch.long).max)])
    by_node = ties.argsort(1)
    order = by_node.gather(1, found.gather(1, by_node).argsort(dim=1, descending=True, stable=True))[:, :width]
    return columns.gather(1, order), found.gather(1, order)
