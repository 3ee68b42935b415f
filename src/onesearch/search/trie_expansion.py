"""One step of constrained decoding, which beam search and sampling share: logits of the legal children of nodes."""

from typing import Any, Protocol

import torch
from torch import Tensor

from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import DecodeState
from onesearch.model.evidence import EvidenceMemory, with_evidence
from onesearch.search.ragged_scores import Children, ragged_products


class TrieScorer(Protocol):
    """What decoding asks of a model (``onesearch.model.generator.Generator``)."""

    @property
    def anchored(self) -> bool:
        """Whether children are scored on their rows in the index, else on codebook rows."""
        ...

    def start(self, memory: Any, width: int) -> DecodeState:
        """Begin decoding."""
        ...

    def step(self, state: DecodeState, embeds: Tensor, parents: Tensor | None) -> Tensor:
        """One decoder step."""
        ...

    def token_embedding(self, level: int, codes: Tensor | None, vectors: Tensor | None = None) -> Tensor:
        """Decoder input after a token of a level."""
        ...

    def item_state(self, level: int, hidden: Tensor, memory: Any) -> Tensor:
        """What rows of children are multiplied with."""
        ...

    def node_bias(self, level: int, counts: Tensor) -> Tensor:
        """The size term of children."""
        ...

    def codebook_logits(self, level: int, hidden: Tensor) -> Tensor:
        """Logits over a level's codebook."""
        ...

    def free_logits(self, level: int, hidden: Tensor) -> Tensor | None:
        """What is added to the logits of anchored rows for each code; None for nothing."""
        ...

    def evidence_logits(
        self, level: int, hidden: Tensor, state: Tensor, evidence: EvidenceMemory, owner: Tensor | None = None
    ) -> Tensor:
        """Logits of evidence items themselves."""
        ...


class Expansion:
    """A decoding of B requests under way, at most ``width`` paths each; without gradients the model is in eval mode."""

    def __init__(self, model: TrieScorer, memory: Any, index: SidIndex, width: int) -> None:
        self.model, self.memory, self.index = model, memory, index
        self.state = model.start(memory, width)
        self.batch = len(self.state.memory)
        self.device = self.state.memory.keys[0].device
        self.evidence: EvidenceMemory | None = getattr(memory, "evidence", None)
        if self.evidence is not None:
            self.nodes = self.evidence.nodes(index)  # int64 [B, E, L]

    def root(self) -> Tensor:
        """Logits of all nodes of level 0: one state per request, [B, N_0]."""
        begin = torch.zeros(self.batch, 1, dtype=torch.long, device=self.index.device)
        hidden = self.model.step(self.state, self.model.token_embedding(-1, begin), None)
        nodes = torch.arange(self.index.size(0), device=begin.device)
        if not self.model.anchored:
            return _wide(self.model.codebook_logits(0, hidden)[:, 0]).index_select(1, self.index.codes(0, nodes))
        state = _wide(self.model.item_state(0, hidden, self.memory)[:, 0])
        rows = self.index.vector_block(0, 0, len(nodes), state.dtype)
        logits = state @ rows.T + self._bias(0, nodes, state.dtype)
        free = self.model.free_logits(0, hidden[:, 0])
        if free is not None:
            logits = logits + _wide(free).index_select(1, self.index.codes(0, nodes))
        if self.evidence is None:
            return logits
        values = _wide(self.model.evidence_logits(0, hidden[:, 0], state, self.evidence))
        start = torch.arange(self.batch, device=logits.device).unsqueeze(1) * logits.shape[1]
        at = self.nodes[..., 0]
        return with_evidence(logits.flatten(), start + at, values, at >= 0).view_as(logits)

    def children(self, level: int, nodes: Tensor, parents: Tensor | None, children: Children) -> Tensor:
        """Logits [T] of the children, at ``level`` >= 1, of nodes int64 [B, A] of the level above: one decoder step.

        ``parents`` int64 [B, A] tells which paths of the step before these descend from, None that every path goes on;
        nodes below 0 are filling.
        """
        nodes = nodes.clamp(min=0)
        # The decoder reads the token that led to each node, with the node's mean vector.
        vectors = self.index.vectors(level - 1, nodes) if self.model.anchored else None
        embeds = self.model.token_embedding(level - 1, self.index.codes(level - 1, nodes), vectors)
        hidden = self.model.step(self.state, embeds, parents if level > 1 else None)
        if not self.model.anchored:
            # Plain form: a logit per code of the level, picked at the codes of the legal children.
            of_code = self.model.codebook_logits(level, hidden).flatten(0, 1)
            at = children.beam * of_code.shape[1] + self.index.codes(level, children.nodes)
            return _wide(of_code.flatten().index_select(0, at))
        # Anchored form: state times the mean row of each child, plus a term for the child's size.
        state = self.model.item_state(level, hidden, self.memory)
        rows = self.index.vector_rows(level, children.nodes)
        logits = ragged_products(state.flatten(0, 1), self.index.table, rows, children)
        logits.add_(self._bias(level, children.nodes, logits.dtype))
        free = self.model.free_logits(level, hidden)
        if free is not None:
            of_code = _wide(free).flatten(0, 1)
            logits += of_code.flatten()[children.beam * of_code.shape[1] + self.index.codes(level, children.nodes)]
        return logits if self.evidence is None else self._counted(level, nodes, hidden, state, logits, children)

    def _counted(
        self, level: int, nodes: Tensor, hidden: Tensor, state: Tensor, logits: Tensor, children: Children
    ) -> Tensor:
        """The logits [T] with the evidence below the children counted in; ``nodes`` int64 [B, A] are their parents.

        Sampled paths may share a parent, so each path has its own evidence: [B · A, E].
        """
        evidence, (b, width) = self.evidence, nodes.shape
        assert evidence is not None
        owner = torch.arange(b, device=nodes.device).repeat_interleave(width)
        below = self.nodes[owner, :, level - 1] == nodes.reshape(-1, 1)
        counts = children.offsets.diff()
        some = (below.any(1) & (counts > 0)).nonzero()[:, 0]
        if not len(some):
            return logits
        # Only paths that have evidence below them, n of them.
        states = hidden.flatten(0, 1)[some], state.flatten(0, 1)[some]
        values = self.model.evidence_logits(level, *states, evidence, owner[some])
        begin = children.offsets[:-1][some]
        at = (begin - children.nodes[begin]).unsqueeze(1) + self.nodes[owner[some], :, level]
        return with_evidence(logits, at, _wide(values), below[some])

    def _bias(self, level: int, nodes: Tensor, dtype: torch.dtype) -> Tensor:
        return self.model.node_bias(level, self.index.counts(level, nodes)).to(dtype)


def _wide(x: Tensor) -> Tensor:
    """Scores are at least float32."""
    return x if x.dtype == torch.float64 else x.float()
