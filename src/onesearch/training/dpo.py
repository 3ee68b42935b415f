"""Listwise preference optimisation (DPO) on logged page views, V1's PARS (docs/method.md, section 7).

Differences from the paper:

1. log π is taken over the legal children of each SID prefix, as in training and search, not over the vocabulary.
2. Neither policy nor reference has dropout, so that both start from the same probabilities.
3. A page view may have several chosen items; each is compared with all rejected ones of its page view.
4. A rejected item that shares the SID of the chosen one is skipped: the policy cannot tell them apart.
5. The weights before the first step compete with all later ones by validation HR@10 (``loop.best``).
6. Own clicks are taken off the rows of all paths (docs/method.md, 5.3a): see :class:`DpoObjective`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from onesearch.common.ragged import Ragged
from onesearch.common.settings import Settings
from onesearch.index.sid_index import SidIndex
from onesearch.model.generator import Generator
from onesearch.model.prompt import PromptBuilder
from onesearch.model.prompt_batch import PromptBatch
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.search.path_scoring import OwnClicks, score_paths
from onesearch.training.loop_settings import PreferenceLoopSettings
from onesearch.training.supervised import IndexedModule, constant_copy
from onesearch.training.tasks import Task, TaskBatch

ORDERED, ORDERED_ELSEWHERE, CLICKED, SHOWN, SAME_CATEGORY, OTHER = range(6)
"""The six levels of behaviour: ordered in the search, ordered in the same category elsewhere, clicked; shown and not
clicked, of the same category and not shown, of another category. Chosen are items of the first three levels, rejected
those of the others.
"""
LEVEL_WEIGHTS: Final = (2.0, 1.5, 1.0, 0.5, 0.2, 0.0)


class DpoSettings(Settings):
    """One stage of listwise preference optimisation."""

    steps: int = Field(0, ge=0, description="0 leaves the stage out")
    batch_size: int = Field(128, ge=1, description="page views of a step")
    chosen: int = Field(3, ge=1, description="chosen items of a page view, at most; the best ones")
    shown: int = Field(4, ge=0, description="rejected items that were shown and not clicked")
    same_category: int = Field(2, ge=0, description="rejected items of the chosen one's category that were not shown")
    other: int = Field(2, ge=0, description="rejected items of other categories")
    beta: float = Field(0.1, gt=0, description="β")
    sft: float = Field(1.0, ge=0, description="α, weight of the chosen item's likelihood; the release has 1")
    validate_requests: int = Field(1000, ge=1, description="validation page views that guard the weights, at most")
    patience: int = Field(3, ge=0, description="validations without a better HR@10 that end the stage; 0: none do")
    loop: PreferenceLoopSettings = PreferenceLoopSettings()


def gap_weights(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``rw_l = 1 + (max(R_w, 1) - R_l)^(-1.5)``: the closer two rewards, the larger the weight of the pair.

    Shapes: rewards float32 [W] of chosen items and [W, N] of their rejected ones, to [W, N]. Rejected items have less
    than 1 and no more than the chosen one, so the base is positive.
    """
    return 1.0 + (chosen.clamp(min=1.0).unsqueeze(1) - rejected).pow(-1.5)


def listwise_dpo_loss(
    chosen: Tensor,
    chosen_reference: Tensor,
    rejected: Tensor,
    rejected_reference: Tensor,
    gaps: Tensor,
    valid: Tensor,
    beta: float,
    sft: float,
) -> dict[str, Tensor]:
    """``-log σ(-log Σ_l exp(rw_l·(ρ_l - ρ_w))) + α·(-log π(w|x))`` with ``ρ = β·(log π - log π_ref)``.

    Args:
        chosen: log-probabilities [W] of the chosen items' SIDs under the policy, summed over their tokens.
        chosen_reference: the same under the reference.
        rejected: log-probabilities of the rejected items of each chosen one, [W, N].
        rejected_reference: the same under the reference.
        gaps: ``rw_l`` of :func:`gap_weights`, [W, N].
        valid: bool [W, N]; False fills up, or stands where rejected and chosen item share a SID.
        beta: β.
        sft: α.

    Returns:
        ``loss``; ``preference`` and ``nll``, its two terms; ``accuracy``, the share of pairs with ρ_w > ρ_l. A chosen
        item without rejected ones has only the second term.
    """
    # Log-ratios to the reference [W], [W, N], and the weighted margin of each pair; no pair adds exp(-inf) = 0.
    rho_w = beta * (chosen - chosen_reference.detach())
    rho_l = beta * (rejected - rejected_reference.detach())
    margin = (gaps * (rho_l - rho_w.unsqueeze(1))).masked_fill(~valid, float("-inf"))
    # Mean over the chosen items that have a pair at all.
    has = valid.any(1)
    per_chosen = torch.zeros_like(chosen)
    if has.any():
        # -log σ(-z) is softplus(z).
        per_chosen = per_chosen.masked_scatter(has, F.softplus(margin[has].logsumexp(1)))
    preference = per_chosen.sum() / has.sum().clamp(min=1)
    nll = -chosen.mean()
    better = ((rho_w.unsqueeze(1) > rho_l) & valid).sum() / valid.sum().clamp(min=1)
    return {
        "loss": preference + sft * nll,
        "preference": preference.detach(),
        "nll": nll.detach(),
        "accuracy": better.float(),
    }


@dataclass(frozen=True)
class Behaviour:
    """What shoppers did on n page views, and what the items are.

    Attributes:
        shown: item rows shown in each page view, n rows; empty where a log has none.
        clicked: item rows clicked there.
        ordered: item rows ordered there.
        ordered_elsewhere: items of the same category that the shopper ordered in other searches, of the same part of
            the log.
        category: number of each item's category, int [N]; -1 where unknown.
    """

    shown: Ragged
    clicked: Ragged
    ordered: Ragged
    ordered_elsewhere: Ragged
    category: NDArray[np.integer]

    @cached_property
    def by_category(self) -> "_Categories":
        """Items by category, to draw from."""
        return _Categories(self.category)


@dataclass
class Preferences:
    """Chosen items of a batch's prompts, and the rejected items of each prompt.

    Shapes: ``chosen`` int64 [W] item rows, ``owner`` int64 [W] the prompt of each, ``chosen_reward`` float32 [W];
    ``rejected`` int64 [P, N] item rows, -1 for none, ``rejected_reward`` float32 [N], which depends on the kind alone.
    ``leave_out`` float32 [W, F], what the click or order that makes an item a chosen one added to its head row.
    """

    chosen: Tensor
    owner: Tensor
    chosen_reward: Tensor
    rejected: Tensor
    rejected_reward: Tensor
    leave_out: Tensor | None = None


@dataclass
class PreferenceBatch(TaskBatch):
    """A batch whose targets are preferences."""

    preferences: Preferences | None = None


def orders_elsewhere(
    user: NDArray[np.integer], clicked: Ragged, ordered: Ragged, category: NDArray[np.integer], most: int = 4
) -> Ragged:
    """For each page view what its shopper ordered in others, of the category that was clicked first here.

    ``user`` int [n], -1 for anonymous ones, who have nothing elsewhere.
    """
    # Every order with its shopper and category; of each page view the shopper and the category clicked first.
    orders = pl.DataFrame({"other": ordered.owners, "item": ordered.values}).with_columns(
        user=np.asarray(user, np.int64)[ordered.owners], category=np.asarray(category, np.int64)[ordered.values]
    )
    views = np.flatnonzero(clicked.lengths)
    first = clicked.values[clicked.offsets[:-1][views]]
    wanted = pl.DataFrame({"view": views}).with_columns(
        user=np.asarray(user, np.int64)[views], category=np.asarray(category, np.int64)[first]
    )
    known = (pl.col("user") >= 0) & (pl.col("category") >= 0)
    found = wanted.filter(known).join(orders.filter(known), on=["user", "category"], maintain_order="left_right")
    # Neither orders of this page view nor items that were clicked here.
    here = pl.DataFrame({"view": clicked.owners, "item": clicked.values})
    found = found.filter(pl.col("other") != pl.col("view")).join(
        here, on=["view", "item"], how="anti", maintain_order="left"
    )
    # Each item once, the first ``most`` of a page view.
    found = found.unique(["view", "item"], keep="first", maintain_order=True)
    found = found.group_by("view", maintain_order=True).head(most)
    lengths = np.bincount(found["view"].to_numpy().astype(np.int64), minlength=len(clicked))
    return Ragged.from_lengths(found["item"].to_numpy(), lengths)


def preferences(behaviour: Behaviour, page_views: NDArray[np.integer], settings: DpoSettings) -> Preferences:
    """Chosen and rejected items of page views int64 [P]; which ones are drawn depends on ``page_views`` alone."""
    rng = np.random.default_rng(np.asarray(page_views, np.int64).astype(np.uint32)[:16])
    n_items = len(behaviour.category)
    kinds = (SHOWN,) * settings.shown + (SAME_CATEGORY,) * settings.same_category + (OTHER,) * settings.other
    rejected = np.full((len(page_views), len(kinds)), -1, np.int64)
    chosen: list[tuple[int, int, float]] = []
    for place, view in enumerate(page_views.tolist()):
        # The level of each item: the best of what happened to it, which is looked at last.
        level: dict[int, int] = {}
        for kind, lists in (
            (CLICKED, behaviour.clicked),
            (ORDERED_ELSEWHERE, behaviour.ordered_elsewhere),
            (ORDERED, behaviour.ordered),
        ):
            level.update(dict.fromkeys(lists[view].tolist(), kind))
        best = sorted(level, key=lambda item: level[item])[: settings.chosen]
        chosen += [(item, place, LEVEL_WEIGHTS[level[item]]) for item in best]
        # Shown and not clicked: some of them, without repetition.
        shown = behaviour.shown[view].tolist()
        not_clicked = [item for item in shown if item not in level]
        taken = rng.permutation(len(not_clicked))[: settings.shown]
        rejected[place, : len(taken)] = [not_clicked[at] for at in taken]
        # Not shown: of the category of the best item, and of any other; a draw of a wrong kind leaves its place empty.
        known = {*shown, *level}
        category = int(behaviour.category[best[0]]) if best else -1
        near = behaviour.by_category.draw(category, settings.same_category, rng)
        far = rng.integers(0, n_items, settings.other).tolist()
        rejected[place, settings.shown :] = [
            *(item if item not in known else -1 for item in near),
            *(item if item not in known and behaviour.category[item] != category else -1 for item in far),
        ]
    items, owner, reward = (np.asarray(column) for column in zip(*chosen, strict=True))
    return Preferences(
        torch.from_numpy(items.astype(np.int64)),
        torch.from_numpy(owner.astype(np.int64)),
        torch.from_numpy(reward.astype(np.float32)),
        torch.from_numpy(rejected),
        torch.tensor([LEVEL_WEIGHTS[kind] for kind in kinds]),
    )


class _Categories:
    """Items by category."""

    def __init__(self, category: NDArray[np.integer]) -> None:
        self.order = np.argsort(category, kind="stable")
        self.sorted = np.asarray(category)[self.order]

    def draw(self, category: int, count: int, rng: np.random.Generator) -> list[int]:
        """``count`` items of a category, with repetitions; -1 each where the category is unknown."""
        first, last = np.searchsorted(self.sorted, [category, category + 1]) if category >= 0 else (0, 0)
        if first == last:
            return [-1] * count
        return [int(item) for item in self.order[rng.integers(first, last, count)]]


def preference_task(
    builder: PromptBuilder,
    inputs: PromptInputs,
    behaviour: Behaviour,
    settings: DpoSettings,
    own_numbers: NDArray[np.float32] | None = None,
) -> Task:
    """Page views as preferences; every one of them has a click or an order.

    ``own_numbers`` float32 [2, N, F] is what a page view adds to the numbers of an item that it clicks, or orders.
    """

    def batch(rows: NDArray[np.integer]) -> PreferenceBatch:
        prompt: PromptBatch = builder.search_prompt(inputs, rows)
        found = preferences(behaviour, rows, settings)
        if own_numbers is not None:
            # An order elsewhere is what makes its item a chosen one, too.
            ordered = (found.chosen_reward > LEVEL_WEIGHTS[CLICKED]).long()
            found.leave_out = torch.from_numpy(own_numbers)[ordered, found.chosen]
            if prompt.items is not None:
                prompt.items = prompt.items.without_own_clicks(found.owner, found.chosen, found.leave_out)
        return PreferenceBatch("dpo", prompt, preferences=found)

    return Task("dpo", builder.search_lengths(inputs), None, batch)


class DpoObjective(IndexedModule):
    """Policy, reference and the loss of a batch of page views.

    ::

        w, l   = items that the shopper chose, items that the shopper rejected; reward of each by its level of behaviour
        ρ(i)   = β·(log π(i) - log π_ref(i)), log π summed over the tokens of i's SID
        rw_l   = 1 + (max(R_w, 1) - R_l)^(-1.5)
        loss   = mean over w of -log σ(-log Σ_l exp(rw_l·(ρ_l - ρ_w))) + α·(-log π(w))

    Rows of items count the very clicks and orders that say what is chosen. Policy and reference score all paths of a
    page view without these, so that the policy does not learn to read its answer off the rows. That a rejected item was
    shown here stays in its numbers; one showing changes a click rate by little.

    Args:
        generator: the policy, trained in place; the reference is a copy of what it is now.
        index: gives legal children.
        settings: of the stage.
    """

    without_dropout = ("generator", "reference")

    def __init__(self, generator: Generator, index: SidIndex, settings: DpoSettings) -> None:
        super().__init__()
        self.generator, self.index, self.settings = generator, index, settings
        self.reference = constant_copy(generator)

    def forward(self, batch: PreferenceBatch) -> Mapping[str, Tensor]:
        """The loss of a batch and its terms; in comments W chosen items, P prompts, N rejected items of each."""
        pairs = batch.preferences
        if pairs is None:
            raise ValueError(f"the batch of task '{batch.task}' has no preferences")
        # One pass scores chosen and rejected items alike: [W + rejected items that there are].
        w, shape = len(pairs.chosen), pairs.rejected.shape
        prompt, place = (pairs.rejected >= 0).nonzero(as_tuple=True)
        items, owner = torch.cat([pairs.chosen, pairs.rejected[prompt, place]]), torch.cat([pairs.owner, prompt])
        paths, own = self.index.path(items), None
        if pairs.leave_out is not None:
            own = OwnClicks.from_items(paths[:w], pairs.leave_out, pairs.owner, shape[0]).select(owner)
        policy = self._log_probs(self.generator, batch.prompt, paths, owner, own)
        with torch.no_grad():
            reference = self._log_probs(self.reference, batch.prompt, paths, owner, own)

        def per_chosen(values: Tensor) -> Tensor:
            """What belongs to rejected items, as [P, N], then for each chosen item those of its prompt: [W, N]."""
            filled = values.new_zeros(shape.numel()).index_put((prompt * shape[1] + place,), values)
            return filled.view(shape)[pairs.owner]

        # Items that share a SID have the same path: no pair.
        same_sid = per_chosen(paths[w:, -1]) == paths[:w, -1:]
        return listwise_dpo_loss(
            policy[:w],
            reference[:w],
            per_chosen(policy[w:]),
            per_chosen(reference[w:]),
            gap_weights(pairs.chosen_reward, pairs.rejected_reward.expand(w, -1)),
            (pairs.rejected >= 0)[pairs.owner] & ~same_sid,
            self.settings.beta,
            self.settings.sft,
        )

    def _log_probs(
        self, model: Generator, prompt: PromptBatch, paths: Tensor, owner: Tensor, own: OwnClicks | None
    ) -> Tensor:
        """Log-probabilities of paths int64 [M, L] for the prompts of their owners, summed over the tokens: [M]."""
        return score_paths(model, model.encode(prompt), paths, owner, self.index, leave_out=own)[0].sum(1)
