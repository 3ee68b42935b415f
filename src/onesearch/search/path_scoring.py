"""Log-probabilities of given SIDs, teacher-forced: what training minimises and what candidates from elsewhere get."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from onesearch.index.sid_index import SidIndex
from onesearch.model.evidence import EvidenceMemory, with_evidence
from onesearch.model.generator import Generator, GeneratorMemory


def ragged_ranges(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """All integers of M ranges ``[first, first + count)``, flat, and the range each belongs to; int64 [T] both."""
    owner = torch.repeat_interleave(count)
    within = torch.arange(len(owner), device=first.device) - (torch.cumsum(count, 0) - count)[owner]
    return first[owner] + within, owner


def padded_by_owner(values: Tensor, owner: Tensor, n: int, fill: float = -1) -> Tensor:
    """Rows [M, ...] of n owners, int64 [M] ascending, side by side: [n, T, ...], T the most of one, at least 1."""
    count = torch.bincount(owner, minlength=n)
    place = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
    out = values.new_full((n, max(int(count.max()), 1), *values.shape[1:]), fill)
    out[owner, place] = values
    return out


def segment_logsumexp(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """``log Σ exp`` of flat values [T] per segment; differentiable; float [n]."""
    with torch.no_grad():
        peak = torch.full((n,), float("-inf"), dtype=values.dtype, device=values.device)
        peak = peak.scatter_reduce(0, owner, values, "amax")
    total = torch.zeros(n, dtype=values.dtype, device=values.device)
    total = total.index_add(0, owner, (values - peak[owner]).exp())
    return total.log() + peak


@dataclass(frozen=True)
class LevelDistribution:
    """The model's choices at one SID level, on M paths.

    Only ``n`` of the paths have a choice there (a lone child is certain). Shapes: ``choosing`` int64 [n] those paths;
    ``count`` int64 [n] their candidates and ``log_probs`` float32 [T] of all of these, one path after the other;
    ``target`` int64 [n] the place in ``log_probs`` of the token that was chosen.
    """

    choosing: Tensor
    count: Tensor
    log_probs: Tensor
    target: Tensor

    @cached_property
    def segment(self) -> Tensor:
        """Which of the n paths each entry of ``log_probs`` belongs to, int64 [T]; only divergences ask for it."""
        return torch.repeat_interleave(self.count)


@dataclass(frozen=True)
class OwnClicks:
    """What page views that are learnt have added to rows of the index, by clicks of their own (docs/method.md, 5.3a).

    Shapes, of n page views, or of n paths after :meth:`select`: ``nodes`` int64 [n, T, L], the paths of up to T items
    that were clicked there, -1 for none; ``numbers`` float32 [n, T, F], what the page view added to the last F columns
    of each item's head row.
    """

    nodes: Tensor
    numbers: Tensor

    @classmethod
    def from_items(cls, paths: Tensor, numbers: Tensor, owner: Tensor, n: int) -> "OwnClicks":
        """Of n page views: paths int64 [M, L] and numbers float32 [M, F] of items, page view of each int64 [M]."""
        return cls(padded_by_owner(paths, owner, n), padded_by_owner(numbers, owner, n, 0.0))

    def select(self, rows: Tensor) -> "OwnClicks":
        """Of the given page views, in the given order."""
        return OwnClicks(self.nodes[rows], self.numbers[rows])

    def logits(self, state: Tensor, index: SidIndex, level: int) -> Tensor:
        """What they add to the logit of each item's node, [n, T], for states [n, R]: a row's change over its items."""
        counts = index.counts(level, self.nodes[:, :, level].clamp(min=0))
        share = self.numbers.to(state.dtype) / counts.clamp(min=1).unsqueeze(-1)
        return (state[:, None, -share.shape[-1] :] * share).sum(-1)


def score_paths(
    model: Generator,
    memory: GeneratorMemory,
    paths: Tensor,
    owner: Tensor,
    index: SidIndex,
    legal_softmax: bool = True,
    leave_out: OwnClicks | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each node of M paths among its legal siblings, with gradients.

    Shapes: ``paths`` int64 [M, L] node ids per level, ``owner`` int64 [M] request of each path. Returns
    log-probabilities float32 [M, L] and the decoder's hidden states before each token, [M, L, d] (other heads read
    them too). With ``legal_softmax`` off the softmax runs over each level's whole codebook (the paper's plain form):
    what a model in that form is trained by; what it decodes by is the same head over the legal children alone.
    ``leave_out``, of M paths, is what the page views that are learnt added to the rows of what was clicked in them; it
    is taken off wherever one of their nodes is a candidate, so that no target is told by the clicks of its page view.
    """
    levels, hidden = path_distributions(model, memory, paths, owner, index, legal_softmax, leave_out)
    return chosen_log_probs(levels, len(paths)), hidden


def chosen_log_probs(levels: Sequence[LevelDistribution], paths: int) -> Tensor:
    """Log-probability of the token chosen at each level, float32 [M, L]; 0 where there was no choice."""
    out = []
    for level in levels:
        none = torch.zeros(paths, dtype=torch.float32, device=level.log_probs.device)
        out.append(none.index_put((level.choosing,), level.log_probs[level.target]))
    return torch.stack(out, 1)


def path_distributions(
    model: Generator,
    memory: GeneratorMemory,
    paths: Tensor,
    owner: Tensor,
    index: SidIndex,
    legal_softmax: bool = True,
    leave_out: OwnClicks | None = None,
) -> tuple[list[LevelDistribution], Tensor]:
    """Teacher-forced distributions along M paths, one entry per level, and the hidden states [M, L, d].

    Arguments as :func:`score_paths`. The candidates of a path depend on the path alone, so that two passes over the
    same paths can be compared entry by entry.
    """
    levels, own = paths.shape[1], leave_out
    # Teacher forcing: the decoder reads the begin token, then the first L - 1 tokens of each path.
    codes = [index.codes(level, paths[:, level]).long() for level in range(levels)]
    vectors = [index.vectors(level, paths[:, level]) if model.anchored else None for level in range(levels - 1)]
    inputs = [model.token_embedding(-1, codes[0])]
    inputs += [model.token_embedding(level, codes[level], vectors[level]) for level in range(levels - 1)]
    hidden = model.backbone.decode(memory.prompts, torch.stack(inputs, 1), owner)
    out = []
    evidence = _EvidencePaths.from_memory(memory, owner, index)
    for level in range(levels):
        state = hidden[:, level]
        if not legal_softmax:
            out.append(_dense(model.codebook_logits(level, state), codes[level]))
        elif level == 0:
            logits = _root_logits(model, memory, state, owner, index, evidence)
            if model.anchored and own is not None:
                # The fill of a page view with fewer items adds nothing.
                added = own.logits(model.item_state(0, state, memory, owner), index, 0)
                logits = logits.scatter_add(1, own.nodes[:, :, 0].clamp(min=0), -added.to(logits.dtype))
            out.append(_dense(logits, paths[:, 0]))
        else:
            out.append(_children(model, memory, state, owner, paths, level, index, evidence, own))
    return out, hidden


@dataclass(frozen=True)
class _EvidencePaths:
    """The evidence of B requests, the request int64 [M] of each path, and of its evidence the nodes, int64 [M, E, L].

    A node is -1 for items that are not in the index.
    """

    memory: EvidenceMemory
    owner: Tensor
    paths: Tensor

    @classmethod
    def from_memory(cls, memory: GeneratorMemory, owner: Tensor, index: SidIndex) -> "_EvidencePaths | None":
        if memory.evidence is None:
            return None
        # Nodes are looked up once per request, then handed to its paths.
        nodes = memory.evidence.nodes(index)
        return cls(memory.evidence, owner, nodes[owner])


def _dense(logits: Tensor, chosen: Tensor) -> LevelDistribution:
    """All paths choose among the same K candidates: logits [M, K]."""
    n, k = logits.shape
    rows = torch.arange(n, device=logits.device)
    log_probs = logits.float().log_softmax(1).reshape(-1)
    return LevelDistribution(rows, torch.full_like(rows, k), log_probs, rows * k + chosen)


def _root_logits(
    model: Generator,
    memory: GeneratorMemory,
    hidden: Tensor,
    owner: Tensor,
    index: SidIndex,
    evidence: _EvidencePaths | None,
) -> Tensor:
    """Level 0: every path chooses among the same nodes, so one dense product serves all; [M, K]."""
    # All nodes of the first level are legal.
    every = torch.arange(index.size(0), device=hidden.device)
    if not model.anchored:
        return model.codebook_logits(0, hidden)[:, index.codes(0, every).long()]
    rows = index.vectors(0, every)
    state = model.item_state(0, hidden, memory, owner)
    logits = state @ rows.to(hidden.dtype).T
    logits = logits + model.node_bias(0, index.counts(0, every)).to(logits.dtype)
    free = model.free_logits(0, hidden)
    if free is not None:
        logits = logits + free.index_select(1, index.codes(0, every).long())
    if evidence is None:
        return logits
    values = model.evidence_logits(0, hidden, state, evidence.memory, evidence.owner)
    nodes = evidence.paths[..., 0]
    start = torch.arange(len(logits), device=logits.device).unsqueeze(1) * logits.shape[1]
    return with_evidence(logits.flatten(), start + nodes, values, nodes >= 0).view_as(logits)


def _children(
    model: Generator,
    memory: GeneratorMemory,
    hidden: Tensor,
    owner: Tensor,
    paths: Tensor,
    level: int,
    index: SidIndex,
    evidence: _EvidencePaths | None,
    own: OwnClicks | None,
) -> LevelDistribution:
    """Deeper levels: a ragged softmax over the children of each path's parent; lone children cost nothing."""
    # A lone child has probability one, so its path is left out here.
    first, count = index.children(level, paths[:, level - 1])
    choosing = (count > 1).nonzero()[:, 0]
    if not len(choosing):
        return LevelDistribution(choosing, choosing, hidden.new_zeros(0, dtype=torch.float32), choosing)
    # Children of all choosing paths as one list [T]; ``segment`` says whose each is.
    nodes, segment = ragged_ranges(first[choosing], count[choosing])
    if model.anchored:
        state = model.item_state(level, hidden[choosing], memory, owner[choosing])
        rows = index.vectors(level, nodes).to(state.dtype)
        logits = (state[segment] * rows).sum(1) + model.node_bias(level, index.counts(level, nodes)).to(state.dtype)
        free = model.free_logits(level, hidden[choosing])
        if free is not None:
            logits = logits + free[segment, index.codes(level, nodes).long()]
    else:
        logits = model.codebook_logits(level, hidden[choosing])[segment, index.codes(level, nodes).long()]
    logits = logits.float()
    # The chosen child's place among all children, and the softmax within each path's segment.
    begin = torch.cumsum(count[choosing], 0) - count[choosing]
    target = begin + (paths[choosing, level] - first[choosing])
    if model.anchored and own is not None:
        # Own clicks count where they lie below the path's parent, so that their node is among the children.
        own = own.select(choosing)
        below = own.nodes[:, :, level - 1] == paths[choosing, level - 1 : level]
        at = (begin - first[choosing]).unsqueeze(1) + own.nodes[:, :, level]
        logits = logits.index_add(0, at[below], -own.logits(state, index, level)[below].float())
    if model.anchored and evidence is not None:
        # Evidence below the path's parent counts at the child that it lies below.
        values = model.evidence_logits(level, hidden[choosing], state, evidence.memory, evidence.owner[choosing])
        below = evidence.paths[choosing, :, level - 1] == paths[choosing, level - 1 : level]
        at = (begin - first[choosing]).unsqueeze(1) + evidence.paths[choosing, :, level]
        logits = with_evidence(logits, at, values, below)
    log_probs = logits - segment_logsumexp(logits, segment, len(choosing))[segment]
    return LevelDistribution(choosing, count[choosing], log_probs, target)
