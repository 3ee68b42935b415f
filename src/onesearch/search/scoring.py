"""Log-probabilities of given SIDs, teacher-forced: what training minimises and what candidates from elsewhere get."""

import torch
from torch import Tensor

from onesearch.index.sid_index import SidIndex
from onesearch.model.generator import Generator, GeneratorMemory


def ragged_ranges(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """All integers of M ranges ``[first, first + count)``, flat, and the range each belongs to; int64 [T] both."""
    owner = torch.repeat_interleave(count)
    within = torch.arange(len(owner), device=first.device) - (torch.cumsum(count, 0) - count)[owner]
    return first[owner] + within, owner


def segment_logsumexp(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """``log Σ exp`` of flat values [T] per segment; differentiable; float [n]."""
    with torch.no_grad():
        peak = torch.full((n,), float("-inf"), dtype=values.dtype, device=values.device)
        peak = peak.scatter_reduce(0, owner, values, "amax")
    total = torch.zeros(n, dtype=values.dtype, device=values.device)
    total = total.index_add(0, owner, (values - peak[owner]).exp())
    return total.log() + peak


def score_paths(
    model: Generator,
    memory: GeneratorMemory,
    paths: Tensor,
    owner: Tensor,
    index: SidIndex,
    legal_softmax: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each node of M paths among its legal siblings, with gradients.

    Shapes: ``paths`` int64 [M, L] node ids per level, ``owner`` int64 [M] request of each path. Returns
    log-probabilities float32 [M, L] and the decoder's hidden states before each token, [M, L, d] (other heads read
    them too). With ``legal_softmax`` off the softmax runs over each level's whole codebook (the paper's plain form).
    """
    levels = paths.shape[1]
    codes = [index.codes(level, paths[:, level]).long() for level in range(levels)]
    vectors = [index.vectors(level, paths[:, level]) if model.anchored else None for level in range(levels - 1)]
    inputs = [model.token_embedding(-1, codes[0])]
    inputs += [model.token_embedding(level, codes[level], vectors[level]) for level in range(levels - 1)]
    hidden = model.backbone.decode(memory.backbone, torch.stack(inputs, 1), owner)
    out = []
    for level in range(levels):
        state = hidden[:, level]
        if not legal_softmax:
            logits = model.codebook_logits(level, state).float()
            out.append(logits.gather(1, codes[level].unsqueeze(1))[:, 0] - logits.logsumexp(1))
        elif level == 0:
            out.append(_root_log_probs(model, memory, state, owner, paths[:, 0], index))
        else:
            out.append(_child_log_probs(model, memory, state, owner, paths, level, index))
    return torch.stack(out, 1), hidden


def _root_log_probs(
    model: Generator, memory: GeneratorMemory, hidden: Tensor, owner: Tensor, nodes: Tensor, index: SidIndex
) -> Tensor:
    """Level 0: every path chooses among the same nodes, so one dense product serves all."""
    every = torch.arange(index.size(0), device=nodes.device)
    if model.anchored:
        rows = index.vectors(0, every)
        logits = model.item_state(0, hidden, memory, owner) @ rows.to(hidden.dtype).T
        logits = logits + model.node_bias(0, index.counts(0, every)).to(logits.dtype)
    else:
        logits = model.codebook_logits(0, hidden)[:, index.codes(0, every).long()]
    logits = logits.float()
    return logits.gather(1, nodes.unsqueeze(1))[:, 0] - logits.logsumexp(1)


def _child_log_probs(
    model: Generator,
    memory: GeneratorMemory,
    hidden: Tensor,
    owner: Tensor,
    paths: Tensor,
    level: int,
    index: SidIndex,
) -> Tensor:
    """Deeper levels: a ragged softmax over the children of each path's parent; lone children cost nothing."""
    first, count = index.children(level, paths[:, level - 1])
    choosing = (count > 1).nonzero()[:, 0]
    out = torch.zeros(len(paths), dtype=torch.float32, device=paths.device)
    if not len(choosing):
        return out
    nodes, segment = ragged_ranges(first[choosing], count[choosing])
    if model.anchored:
        state = model.item_state(level, hidden[choosing], memory, owner[choosing])
        rows = index.vectors(level, nodes).to(state.dtype)
        logits = (state[segment] * rows).sum(1) + model.node_bias(level, index.counts(level, nodes)).to(state.dtype)
    else:
        logits = model.codebook_logits(level, hidden[choosing])[segment, index.codes(level, nodes).long()]
    logits = logits.float()
    target = torch.cumsum(count[choosing], 0) - count[choosing] + (paths[choosing, level] - first[choosing])
    log_probs = logits[target] - segment_logsumexp(logits, segment, len(choosing))
    return out.index_put((choosing,), log_probs)
