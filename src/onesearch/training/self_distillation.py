"""SFT 3 with self-distillation (V2; docs/method.md, section 6): teacher and student are the same weights.

The teacher's input has the keywords, the student's has not; serving uses the student's. Both go through one pass of the
decoder. What each term is stands in :mod:`onesearch.training.distillation_losses`.

Differences from the paper, each with the setting that gives the paper's form:

1. Softmaxes are over the legal children along the target's path, not over the whole vocabulary.
2. Cross-entropy and divergences are sums over the SID's positions, not means: their relation is the same.
3. The teacher has a cross-entropy of its own (``teacher_ce: 0``). Its logits are constants in the divergence, so that
   nothing else teaches a small model from scratch to read keywords.
4. α_KL is 1 (``kl: 0.1``), which a small model needs.
5. Only complex queries with keywords have a teacher (``teach: all``), so the teacher's terms carry the share of the
   targets' weight that has one.
6. No keywords of the clicked item are added (``inject: true``): they leak the label.
7. The student learns rows of words, what the teacher's query row gets from its keywords (``row: 0``).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, distributed, nn

from onesearch.common.processes import exchanged, place
from onesearch.common.settings import Settings
from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import PromptMemory
from onesearch.model.evidence import EvidenceMemory
from onesearch.model.generator import Generator, GeneratorMemory
from onesearch.model.prompt_batch import PromptBatch
from onesearch.search.path_scoring import LevelDistribution, OwnClicks, chosen_log_probs, path_distributions
from onesearch.training.distillation_losses import (
    detach,
    distillation_kl,
    fgm_step,
    focal_nll,
    hidden_l1,
    keyword_rows,
    perturb,
    r_drop,
    row_loss,
    select_paths,
    update_average,
)
from onesearch.training.supervised import SupervisedObjective, add_term, constant_copy
from onesearch.training.supervised_losses import item_nll
from onesearch.training.tasks import ItemTargets, TaskBatch


class DistillationSettings(Settings):
    """The terms of ``L_SDFT`` (docs/method.md, 6.9), which queries have a teacher, and what it reads.

    The alternatives that the article compares with are settings of it: ``think`` (special reasoning token), ``kl: 0``
    with ``hidden`` (CODI), ``ema`` (EMA teacher), ``detach: false`` (joint training), ``keywords: input`` (RAG).
    """

    keywords: Literal["teacher", "input", "none"] = Field(
        "teacher", description="who reads keywords: the teacher; every input, in serving as well (RAG); nobody"
    )
    personal: bool = Field(False, description="step 3: keywords calibrated by the shopper's history")
    inject: bool = Field(False, description="add keywords of the clicked item, as the paper does: leaks the label")
    shuffle: bool = Field(False, description="placebo: every query gets the keywords of another one")
    cot: float = Field(0.0, ge=0, lt=1, description="share of the batches that write keywords (the four CoT tasks)")
    think: int = Field(0, ge=0, description="special reasoning tokens at the end of the student's input")
    kl: float = Field(1.0, ge=0, description="α_KL; the paper's 0.1 is too little for a small model from scratch")
    row: float = Field(1.0, ge=0, description="weight of learning the teacher's query row (with model.word_rows)")
    temperature: float = Field(1.0, gt=0, description="τ of the teacher's and the student's softmax in the KL")
    teacher_ce: float = Field(1.0, ge=0, description="weight of the teacher's own cross-entropy; the paper has 0")
    detach: bool = Field(True, description="the KL sends no gradient to the teacher; off: joint training")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of an EMA teacher; 0: the teacher has the live weights")
    hidden: float = Field(0.0, ge=0, description="weight of CODI's L1 between hidden states")
    teach: Literal["complex", "all"] = Field("complex", description="queries with a teacher, where keywords are known")
    r_drop: float = Field(0.5, ge=0, description="α_R; 0 leaves the second student pass out")
    fgm: float = Field(0.6, ge=0, description="ε of the adversarial step on the embeddings; 0 leaves it out")
    focal: bool = Field(True, description="focal loss in place of the cross-entropy of the student")
    focal_alpha: float = Field(2.0, gt=0, description="α of the focal loss")
    focal_gamma: float = Field(3.0, ge=0, description="γ of the focal loss")

    @property
    def reads(self) -> Literal["complex", "all"] | None:
        """Queries whose keywords the model reads in serving, too: none, unless it was trained to need them (RAG)."""
        return self.teach if self.keywords == "input" else None


class SelfDistillationObjective(SupervisedObjective):
    """Learns item targets under ``L_SDFT``; arguments as in :class:`SupervisedObjective`, and the settings.

    ::

        one pass over [student copy 1, student copy 2 (R-Drop), teacher of the prompts that have one]
        loss  = focal CE of the copies + losses of the other heads + row · distance of the words' rows (6.8)
        loss += T̄ · (teacher_ce · CE of the teacher + kl · mean over copies of KL(teacher ‖ copy))
        loss += r_drop · ½ [KL(copy 1 ‖ copy 2) + KL(copy 2 ‖ copy 1)]

    T̄ is the share of the targets' weight whose prompt has a teacher. ``base``, which is no term of its own, is what FGM
    follows: CE and KL of the same pass, with their graph. FGM makes a second pass (:meth:`forward` with
    ``adversarial``) on one copy, against the teacher of the first.
    """

    without_dropout = ("average",)

    def __init__(
        self,
        generator: Generator,
        index: SidIndex,
        item_head_rows: Tensor,
        score_weight: float,
        codebook_weight: float,
        settings: DistillationSettings,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(generator, index, item_head_rows, score_weight, codebook_weight, label_smoothing)
        self.settings = settings
        self._teacher: tuple[list[LevelDistribution], Tensor] | None = None
        self.average = constant_copy(generator) if settings.ema else None  # the EMA teacher
        # Some processes' rows may have no teacher, so that they go through the layers less often. The input embeddings
        # that FGM moves, and an EMA teacher, are whole in every process.
        self.sharding = None if settings.fgm or settings.ema else "whole"

    @property
    def tables(self) -> list[Tensor]:
        """The input embedding matrix, which FGM perturbs: subwords, and marks and SID tokens."""
        return [self.generator.text_embedding.weight, self.generator.extra_embedding.weight]

    def forward(self, batch: TaskBatch, adversarial: bool = False) -> dict[str, Tensor]:
        """All terms of the batch; with ``adversarial`` ``L_adv`` against the teacher of the call before.

        With FGM the first call's terms have ``base`` beside them, for :func:`distillation_loss` to take out.
        """
        if batch.items is None:
            return super().forward(batch)
        return self._adversarial(batch, batch.items) if adversarial else self._distill(batch, batch.items)

    def _ce(self, log_probs: Tensor, weights: Tensor) -> Tensor:
        settings = self.settings
        if settings.focal:
            return focal_nll(log_probs, weights, settings.focal_alpha, settings.focal_gamma)
        return item_nll(log_probs, weights)[0]

    def _targets_with_teacher(self, batch: TaskBatch, items: ItemTargets) -> tuple[Tensor, Tensor]:
        """Targets whose prompt has a teacher, int64 [k] ascending, and the teacher prompt of each, int64 [k]."""
        # The teacher's number of every prompt [B], then of every target's prompt [M]; -1 where there is none.
        number = torch.full((len(batch.prompt),), -1, dtype=torch.int64, device=items.owner.device)
        if batch.with_teacher is not None:
            number[batch.with_teacher] = torch.arange(len(batch.with_teacher), device=number.device)
        of_target = number[items.owner]
        targets = (of_target >= 0).nonzero()[:, 0]
        return targets, of_target[targets]

    def _distill(self, batch: TaskBatch, items: ItemTargets) -> dict[str, Tensor]:
        """``L_base`` and R-Drop; in comments B prompts, M targets, c student copies, k targets with a teacher."""
        settings, model = self.settings, self.generator
        copies = 2 if settings.r_drop > 0 and self.training else 1
        prompts, m = len(batch.prompt), len(items.rows)
        has_teacher, of_teacher = self._targets_with_teacher(batch, items)

        # One pass: the M targets of each copy, then the k of the teacher, whose prompts stand behind the c · B copies.
        memory = encode_both(model, PromptBatch.concatenate([batch.prompt] * copies), batch.teacher)
        paths = self.index.path(items.rows)  # int64 [M, L]
        students = repeat_targets(items, copies, prompts)
        owner = torch.cat([students.owner, of_teacher + copies * prompts])
        every = torch.cat([paths.repeat(copies, 1), paths[has_teacher]])  # int64 [c · M + k, L]
        # Students and teacher are without the clicks of the page view alike.
        clicks, legal = items.own_clicks(paths, prompts), model.config.legal_softmax
        page_view = torch.cat([items.owner.repeat(copies), items.owner[has_teacher]])
        own = None if clicks is None else clicks.select(page_view)
        levels, hidden = path_distributions(model, memory, every, owner, self.index, legal, own)
        log_probs = chosen_log_probs(levels, len(every))  # [c · M + k, L]
        numbers = torch.arange(len(every), device=every.device)
        passes = [select_paths(levels, numbers[i * m : (i + 1) * m], len(every)) for i in range(copies)]

        # The students' terms, as in stage 3 without a teacher.
        plain, per_level = item_nll(log_probs[: copies * m], students.weights)
        base = self._ce(log_probs[: copies * m], students.weights)
        base = self._smoothed(base, levels, len(every), students.weights)
        terms = {"loss": base, "ce": plain.detach()}
        terms.update({f"level_{i + 1}": value for i, value in enumerate(per_level.detach())})
        self._heads(terms, memory, hidden[: copies * m], paths.repeat(copies, 1), students)
        if model.config.word_rows and settings.row > 0:
            add_term(terms, "row", settings.row, self._row(batch))

        # The teacher's terms; T̄ is the share of the targets' weight that has one.
        self._teacher = None
        if self.average is not None and self.training and any(exchanged(len(has_teacher))):
            # The EMA teacher moves in all processes or in none, so that it stays the same in all.
            update_average(dict(self.average.named_parameters()), dict(model.named_parameters()), settings.ema)
        if len(has_teacher):
            teacher = select_paths(levels, numbers[copies * m :], len(every))
            weights = items.weights[has_teacher]
            share = weights.sum() / items.weights.sum().clamp(min=1e-9)
            if settings.teacher_ce > 0:
                teacher_ce, _ = item_nll(log_probs[copies * m :], weights)
                add_term(terms, "teacher_ce", settings.teacher_ce * share, teacher_ce)
            if self.average is not None:
                assert batch.teacher is not None
                own = None if clicks is None else clicks.select(items.owner[has_teacher])
                teacher = self._averaged(batch.teacher, paths[has_teacher], of_teacher, own)
            # Every copy learns from the same teacher.
            target = detach(teacher) if settings.detach else teacher
            of_copies = [select_paths(one, has_teacher, m) for one in passes]
            kl = torch.stack([distillation_kl(target, one, weights, settings.temperature) for one in of_copies]).mean()
            add_term(terms, "kl", settings.kl * share, kl)
            base = base + settings.kl * share * kl
            if settings.hidden > 0:
                state = hidden[copies * m :].detach() if settings.detach else hidden[copies * m :]
                distance = hidden_l1(state, hidden[:m][has_teacher], weights)
                add_term(terms, "hidden", settings.hidden * share, distance)
            self._teacher = (detach(teacher), share.detach())

        if copies == 2:
            add_term(terms, "r_drop", settings.r_drop, r_drop(passes[0], passes[1], items.weights))
        return {**terms, "base": base} if settings.fgm else terms

    def _row(self, batch: TaskBatch) -> Tensor:
        """The loss of the words' rows against what the teacher's query rows are fused with."""
        rows, gate = self.generator.words(batch.prompt)
        with_teacher, wanted = torch.arange(0, device=gate.device), rows[:0]
        if batch.teacher is not None and batch.with_teacher is not None:
            with_teacher = batch.with_teacher
            wanted = keyword_rows(batch.prompt.query_head_rows[with_teacher], batch.teacher.query_head_rows)
        return row_loss(rows, gate, wanted, with_teacher)

    @torch.no_grad()
    def _averaged(
        self, prompt: PromptBatch, paths: Tensor, owner: Tensor, leave_out: OwnClicks | None
    ) -> list[LevelDistribution]:
        """The distributions of the EMA teacher, whose weights have moved towards the live ones."""
        average = self.average
        assert average is not None
        memory = average.encode(prompt)
        return path_distributions(average, memory, paths, owner, self.index, average.config.legal_softmax, leave_out)[0]

    def _adversarial(self, batch: TaskBatch, items: ItemTargets) -> dict[str, Tensor]:
        """``L_adv``: cross-entropy and KL of one student copy on the perturbed input, the teacher's logits reused."""
        settings, model = self.settings, self.generator
        memory = model.encode(batch.prompt)
        paths = self.index.path(items.rows)
        legal, own = model.config.legal_softmax, items.own_clicks(paths, len(batch.prompt))
        own = None if own is None else own.select(items.owner)
        levels, _ = path_distributions(model, memory, paths, items.owner, self.index, legal, own)
        loss = self._ce(chosen_log_probs(levels, len(paths)), items.weights)
        loss = self._smoothed(loss, levels, len(paths), items.weights)
        if self._teacher is not None:
            has_teacher, _ = self._targets_with_teacher(batch, items)
            teacher, share = self._teacher
            student = select_paths(levels, has_teacher, len(paths))
            kl = distillation_kl(teacher, student, items.weights[has_teacher], settings.temperature)
            loss = loss + settings.kl * share * kl
        return {"loss": loss}


def encode_both(model: Generator, students: PromptBatch, teacher: PromptBatch | None) -> GeneratorMemory:
    """Both inputs in one memory; read one after the other, as teachers' prompts are longer and padding is not free."""
    memory = model.encode(students)
    if teacher is None:
        return memory
    other = model.encode(teacher)
    evidence = [one.evidence for one in (memory, other) if one.evidence is not None]
    return GeneratorMemory(
        PromptMemory.concatenate([memory.prompts, other.prompts]),
        torch.cat([memory.query_head_rows, other.query_head_rows]),
        EvidenceMemory.concatenate(evidence) if evidence else None,
    )


def repeat_targets(items: ItemTargets, copies: int, prompts: int) -> ItemTargets:
    """The targets of ``copies`` copies of a batch of ``prompts`` prompts, one after the other."""
    if copies == 1:
        return items
    return replace(
        items,
        rows=items.rows.repeat(copies),
        owner=torch.cat([items.owner + copy * prompts for copy in range(copies)]),
        weights=items.weights.repeat(copies),
        column=items.column.repeat(copies),
        leave_out=None if items.leave_out is None else items.leave_out.repeat(copies, 1),
    )


def distillation_loss(model: nn.Module, batch: Any) -> Iterator[dict[str, Tensor]]:
    """For :func:`~onesearch.training.loop.fit`: the losses of a batch, one after the other, each with a backward pass.

    ::

        g = ∂(CE + α_KL · T̄ · KL) / ∂E           # of the student's terms alone, whatever else the loss has
        yield all terms of the first pass        # the loop goes backward
        E ← E + ε · g / ‖g‖                      # one norm over all embedding tables
        yield L_adv                              # one student copy, the teacher's logits reused; gradients add up
        E ← E as it was, bit by bit

    A batch without item targets, and ``fgm: 0``, have the second line alone. The gradient costs a backward pass that
    ends at the embeddings, through what has been computed anyway; several processes take the sum of theirs.
    """
    objective: Any = getattr(model, "module", model)
    epsilon = objective.settings.fgm
    if not epsilon or batch.items is None:
        yield model(batch)
        return
    terms = model(batch)
    step = fgm_step(_gradients(terms.pop("base"), objective.tables), epsilon)
    yield terms
    with perturb(objective.tables, step):
        yield model(batch, adversarial=True)


def _gradients(loss: Tensor, tables: list[Tensor]) -> list[Tensor]:
    """The gradient of ``loss`` on each table over all processes; the graph stays, and so do gradients of parameters."""
    with torch.autocast(loss.device.type, enabled=False):
        found = torch.autograd.grad(loss, tables, retain_graph=True, materialize_grads=True)
    if place()[1] > 1:
        for gradient in found:
            distributed.all_reduce(gradient)
    return list(found)
