"""Sampling SIDs under the constraint: G independent paths of every request, drawn from the model's own distribution."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onesearch.index.sid_index import SidIndex
from onesearch.search.ragged_scores import Children, ragged_logsumexp
from onesearch.search.trie_expansion import Expansion, TrieScorer


@dataclass(frozen=True)
class Samples:
    """G paths of B requests.

    Shapes: ``nodes`` int64 [B, G, L], the path's node at every level; ``log_probs`` float32 [B, G, L] of each node
    among its siblings, at temperature 1, 0 where there was no choice.
    """

    nodes: Tensor
    log_probs: Tensor


def sample_paths(
    model: TrieScorer,
    memory: Any,
    index: SidIndex,
    count: int,
    temperature: float = 1.0,
    draw: torch.Generator | None = None,
) -> Samples:
    """``count`` paths of every request in ``memory``, drawn independently: the same path may come more than once.

    Args:
        model: in eval mode; no gradients are taken.
        memory: what ``model.encode`` gave for B requests.
        index: legal children; a path is drawn level by level among them.
        count: G.
        temperature: of the softmax that is drawn from; below 1 likely paths come more often.
        draw: random numbers; torch's own by default.

    Raises:
        ValueError: nothing to draw: ``count`` or ``temperature`` is not positive, or the index is empty.
    """
    if count < 1 or temperature <= 0:
        raise ValueError(f"count must be >= 1 and temperature > 0, got {count} and {temperature}")
    if not len(index):
        raise ValueError("the index has no item to draw")
    with torch.no_grad():
        expansion = Expansion(model, memory, index, count)
        # Level 0: one distribution per request, drawn from G times by inverting its cumulative sum; [B, G].
        logits = expansion.root()
        b = expansion.batch
        node = (logits / temperature).softmax(1).double().cumsum(1)
        node = torch.searchsorted(node, _uniform((b, count), node, draw) * node[:, -1:], right=True)
        node = node.clamp(max=logits.shape[1] - 1)
        nodes, log_probs = [node], [logits.log_softmax(1).gather(1, node)]
        for level in range(1, index.levels):
            # Deeper levels: a ragged softmax over the children of each of the B * G nodes.
            first, size = index.children(level, node)
            if bool((index.counts(level - 1, node) == 1).all()):  # nothing left to choose, here and below
                node, chosen = first, torch.zeros_like(log_probs[0])
            else:
                children = Children.from_ranges(first.flatten(), size.flatten())
                logits = expansion.children(level, node, None, children)
                # The draw is tempered, the log-probability is not: it is the policy's own.
                at = _drawn(logits / temperature, children, draw)
                chosen = (logits[at] - ragged_logsumexp(logits, children)).view(b, count)
                node = children.nodes[at].view(b, count)
            nodes.append(node)
            log_probs.append(chosen)
    return Samples(torch.stack(nodes, 2), torch.stack(log_probs, 2).float())


def _drawn(logits: Tensor, children: Children, draw: torch.Generator | None) -> Tensor:
    """For each beam the place in ``logits`` [T] of one child, drawn from their softmax; int64 [M]."""
    share = (logits - ragged_logsumexp(logits, children).index_select(0, children.beam)).exp()
    # Sums of all beams lie one after the other on one line; a beam's number falls within its own stretch of it.
    line = share.double().cumsum(0)
    begin, end = children.offsets[:-1], children.offsets[1:]
    low = torch.where(begin > 0, line[(begin - 1).clamp(min=0)], 0.0)
    high = line[end - 1]
    at = torch.searchsorted(line, low + _uniform(low.shape, low, draw) * (high - low), right=True)
    return torch.minimum(torch.maximum(at, begin), end - 1)


def _uniform(shape: tuple[int, ...] | torch.Size, like: Tensor, draw: torch.Generator | None) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, device=like.device, generator=draw)
