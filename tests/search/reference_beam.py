"""The beam search as one would explain it: one request, dicts and loops, every path scored by a fresh decoder pass.

For tests only; :mod:`onesearch.search.beam_search` gives the same result fast.
"""

import math
from typing import Any

import torch

from onesearch.index.sid_index import SidIndex

Path = tuple[int, ...]  # node numbers, one per level


def reference_beam_search(
    model: Any, memory: Any, request: int, index: SidIndex, width: int, mask: Any = None
) -> list[tuple[int, float]]:
    """The ``width`` best (node of the last level, log-probability) of one request of ``memory``, best first."""
    beams: dict[Path, float] = {(): 0.0}
    with torch.no_grad():
        for level in range(index.levels):
            longer: dict[Path, float] = {}
            for path, log_prob in beams.items():
                nodes = _children(index, path)
                for node, logit in _log_probs(model, memory, request, index, path, nodes).items():
                    if mask is None or bool(mask.allowed(level, torch.tensor([node]))[0]):
                        longer[(*path, node)] = log_prob + logit
            ranking = sorted(longer.items(), key=lambda entry: (-entry[1], entry[0][-1]))
            beams = dict(ranking[:width])
    return [(path[-1], log_prob) for path, log_prob in beams.items()]


def _children(index: SidIndex, path: Path) -> list[int]:
    parent = torch.tensor([path[-1] if path else 0])
    first, count = index.children(len(path), parent)
    return list(range(int(first), int(first) + int(count)))


def _log_probs(
    model: Any, memory: Any, request: int, index: SidIndex, path: Path, nodes: list[int]
) -> dict[int, float]:
    """Log-softmax over the legal children of a path."""
    inputs = [model.token_embedding(-1, torch.zeros(1, dtype=torch.long))]
    for level, node in enumerate(path):
        at = torch.tensor([node])
        vectors = index.vectors(level, at) if model.anchored else None
        inputs.append(model.token_embedding(level, index.codes(level, at), vectors))
    owner = torch.tensor([request])
    hidden = model.backbone.decode(memory.prompts, torch.stack(inputs, 1), owner)[:, -1]
    level, at = len(path), torch.tensor(nodes)
    if model.anchored:
        state = model.item_state(level, hidden, memory, owner)[0]
        bias = model.node_bias(level, index.counts(level, at))
        logits = [float(row.to(state) @ state) for row in index.vectors(level, at)]
        logits = [logit + float(term) for logit, term in zip(logits, bias, strict=True)]
    else:
        of_code = model.codebook_logits(level, hidden)[0]
        logits = [float(of_code[code]) for code in index.codes(level, at).tolist()]
    total = max(logits) + math.log(sum(math.exp(logit - max(logits)) for logit in logits))
    return {node: logit - total for node, logit in zip(nodes, logits, strict=True)}
