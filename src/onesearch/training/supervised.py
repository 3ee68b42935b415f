"""What supervised training minimises: one forward turns a task batch into the losses of docs/method.md, (5.10)-(5.14).

Also what all objectives share: they learn on one index snapshot, and some keep copies of the generator.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from onesearch.index.sid_index import SidIndex
from onesearch.model.evidence import EvidenceMemory
from onesearch.model.generator import Generator, GeneratorMemory
from onesearch.model.token_vocabulary import PAD
from onesearch.search.path_scoring import LevelDistribution, chosen_log_probs, path_distributions
from onesearch.training.held_model import Sharding
from onesearch.training.supervised_losses import codebook_nll, item_nll, legal_means, score_nll, text_nll
from onesearch.training.tasks import ItemTargets, TaskBatch


class IndexedModule(nn.Module):
    """A module that learns on one snapshot of the index, which follows it from device to device."""

    generator: Generator
    index: SidIndex
    without_dropout: tuple[str, ...] = ()
    """Names of the generators among the attributes that stay in evaluation mode while training."""
    sharding: Sharding | None = None
    """How processes may hold a part of it each; None: every one needs all of it."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What .to() and .cuda() come down to; an index is no tensor that a module would know of.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.index = self.index.to(self.generator.begin.device)
        return self

    def train(self, mode: bool = True) -> Self:
        """As usual, except for the generators without dropout."""
        super().train(mode)
        for name in self.without_dropout:
            generator = getattr(self, name)
            if generator is not None:
                generator.eval()
        return self


def constant_copy(generator: Generator) -> Generator:
    """A reference, a teacher or a behaviour policy as the generator is now.

    As a submodule it is in the checkpoints; without gradients it is not in the optimizer.
    """
    return copy.deepcopy(generator).requires_grad_(False).eval()


def add_term(terms: dict[str, Tensor], name: str, weight: float | Tensor, value: Tensor) -> None:
    """Add ``weight · value`` to ``terms["loss"]`` and log the value under its name."""
    terms["loss"] = terms["loss"] + weight * value
    terms[name] = value.detach()


class SupervisedObjective(IndexedModule):
    """Losses of one batch; the keys of the result are logged, ``loss`` is minimised.

    ::

        memory = encode(prompt)
        items: loss = -Σ_l log π(c_l | c_<l, x) over legal children  + score_weight · contrastive loss of the item score
                      + codebook_weight · cross-entropy over whole codebooks
        SIDs:  loss = Σ_l cross-entropy over the codebook of level l
        text:  loss = mean cross-entropy over subwords

    Args:
        generator: the model, trained in place.
        index: the index snapshot that gives legal children and item rows; constant.
        item_head_rows: float32 [N, R], rows of the items in item-row order (the index holds them in SID order).
        score_weight: weight of the item score's contrastive loss.
        codebook_weight: weight of the codebook head on item targets (anchored form only): what lets the model write
            SIDs without the constraint.
        label_smoothing: share of an item target's probability that all legal tokens get alike (5.10a).
    """

    sharding: Sharding | None = "layers"

    def __init__(
        self,
        generator: Generator,
        index: SidIndex,
        item_head_rows: Tensor,
        score_weight: float,
        codebook_weight: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.index = index
        self.score_weight, self.codebook_weight = score_weight, codebook_weight
        self.label_smoothing = label_smoothing
        self.item_head_rows: Tensor
        self.register_buffer("item_head_rows", item_head_rows, persistent=False)

    def forward(self, batch: TaskBatch) -> dict[str, Tensor]:
        """Losses of a batch that lies on the module's device.

        Raises:
            ValueError: the batch has no target.
        """
        model = self.generator
        memory = model.encode(batch.prompt)
        if batch.items is not None:
            return self._items(memory, batch.items)
        owner = batch.owner
        if owner is None:
            owner = torch.arange(len(batch.prompt), device=batch.prompt.tokens.device)
        if batch.sids is not None:
            hidden = model.backbone.decode(memory.prompts, self._sid_inputs(batch.sids), owner)  # [M, L, d]
            total, per_level = codebook_nll(self._codebook_logits(hidden), batch.sids)
            return {"loss": total, **{f"code_{i + 1}": value for i, value in enumerate(per_level.detach())}}
        if batch.text is None:
            raise ValueError(f"the batch of task '{batch.task}' has no target")
        # Each subword is predicted from those before it; among few subwords, targets are places in their list.
        hidden = model.backbone.decode(memory.prompts, model.embed(batch.text[:, :-1]), owner)  # [M, T - 1, d]
        wanted, pad = batch.text[:, 1:], PAD
        if batch.subwords is not None:
            wanted = torch.searchsorted(batch.subwords, wanted.contiguous())
            pad = int(torch.searchsorted(batch.subwords, PAD))
        return {"loss": text_nll(model.text_logits(hidden, batch.subwords), wanted, pad)}

    def _sid_inputs(self, sids: Tensor) -> Tensor:
        """Teacher-forced inputs for codebook targets: begin, then the first L - 1 codes; [M, L, d]."""
        model = self.generator
        begin = model.token_embedding(-1, sids[:, 0])
        codes = [model.token_embedding(level, sids[:, level]) for level in range(model.levels - 1)]
        return torch.stack([begin, *codes], 1)

    def _codebook_logits(self, hidden: Tensor) -> list[Tensor]:
        """Logits [M, K_l] over each level's whole codebook from hidden states [M, L, d]."""
        return [self.generator.codebook_logits(level, hidden[:, level]) for level in range(self.generator.levels)]

    def _items(self, memory: GeneratorMemory, items: ItemTargets) -> dict[str, Tensor]:
        model = self.generator
        # Teacher forcing along the path of each target: log π of its tokens [M, L], hidden states [M, L, d].
        paths = self.index.path(items.rows)  # int64 [M, L]
        legal, own = model.config.legal_softmax, items.own_clicks(paths, len(memory.query_head_rows))
        own = None if own is None else own.select(items.owner)
        levels, hidden = path_distributions(model, memory, paths, items.owner, self.index, legal, own)
        total, per_level = item_nll(chosen_log_probs(levels, len(paths)), items.weights)
        total = self._smoothed(total, levels, len(paths), items.weights)
        terms = {"loss": total, **{f"level_{i + 1}": value for i, value in enumerate(per_level.detach())}}
        self._heads(terms, memory, hidden, paths, items)
        return terms

    def _smoothed(self, loss: Tensor, levels: Sequence[LevelDistribution], paths: int, weights: Tensor) -> Tensor:
        """``loss`` of the first of M paths, those with ``weights`` [m], with label smoothing (5.10a)."""
        if not self.label_smoothing:
            return loss
        spread, _ = item_nll(legal_means(levels, paths)[: len(weights)], weights)
        return (1 - self.label_smoothing) * loss + self.label_smoothing * spread

    def _heads(
        self, terms: dict[str, Tensor], memory: GeneratorMemory, hidden: Tensor, paths: Tensor, items: ItemTargets
    ) -> None:
        """Add the losses of codebook head and item score to the terms; ``hidden`` [M, L, d], ``paths`` int64 [M, L]."""
        model = self.generator
        if self.codebook_weight > 0 and model.anchored:
            sids = self.index.sids(model.levels - 1, paths[:, -1])
            add_term(terms, "codebook", self.codebook_weight, codebook_nll(self._codebook_logits(hidden), sids)[0])
        if model.config.item_score and self.score_weight > 0:
            state = model.score_state(hidden[:, 0], memory, items.owner)  # [M, R]
            candidates = self.item_head_rows[items.candidates]  # [C, R]
            # Other targets of the same request are no negatives: bool [M, C]. The target itself stays, though another
            # one of the request may be the same item.
            same = items.owner.unsqueeze(1) == items.owner.unsqueeze(0)
            pair = same.fill_diagonal_(False).nonzero()
            others = torch.zeros(len(items.rows), len(candidates), dtype=torch.bool, device=candidates.device)
            others[pair[:, 0], items.column[pair[:, 1]]] = True
            others[torch.arange(len(items.rows), device=candidates.device), items.column] = False
            scores = state @ candidates.T
            if model.config.item_memory:
                scores = scores + model.memory_query(hidden[:, 0]) @ model.remembered(items.candidates).T
            if items.leave_out is not None:
                told = (state[:, -items.leave_out.shape[1] :] * items.leave_out.to(state.dtype)).sum(1, keepdim=True)
                scores = scores.scatter_add(1, items.column.unsqueeze(1), -told.to(scores.dtype))
            if memory.evidence is not None:
                scores = self._pointed(scores, hidden[:, 0], memory.evidence, items)
            score = score_nll(scores, items.column, items.weights, others)
            add_term(terms, "score", self.score_weight, score)

    def _pointed(self, scores: Tensor, hidden: Tensor, evidence: EvidenceMemory, targets: ItemTargets) -> Tensor:
        """The scores [M, C] with what the pointer says of evidence among the candidates int64 [C], ascending."""
        told = self.generator.pointer(-1, hidden, evidence.keys, evidence.numbers, targets.owner)
        candidates, items = targets.candidates, evidence.items[targets.owner]
        column = torch.searchsorted(candidates, items.clamp(min=0)).clamp(max=len(candidates) - 1)
        there = (candidates[column] == items) & (items >= 0)
        return scores.scatter_add(1, column, (told * there).to(scores.dtype))
