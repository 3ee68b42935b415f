"""Listwise preference optimisation on logged page views, V1's PARS (specification section 7)."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

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
from onesearch.model.prompt import PromptBatch, PromptBuilder, PromptInputs
from onesearch.search.path_scoring import score_paths
from onesearch.training.loop_settings import PreferenceLoopSettings
from onesearch.training.supervised import IndexedModule
from onesearch.training.tasks import Task, TaskBatch

ORDERED, ORDERED_ELSEWHERE, CLICKED, SHOWN, SAME_CATEGORY, OTHER = range(6)
"""The six levels of behaviour: ordered in the search, ordered in the same category elsewhere, clicked; shown and not
clicked, of the same category and not shown, of another category. Winners are of the first three, losers of the others.
"""
LEVEL_WEIGHTS: Final = (2.0, 1.5, 1.0, 0.5, 0.2, 0.0)


class DpoSettings(Settings):
    """One stage of listwise preference optimisation."""

    steps: int = Field(0, ge=0, description="0 leaves the stage out")
    batch_size: int = Field(128, ge=1, description="page views of a step")
    winners: int = Field(3, ge=1, description="winners of a page view, at most; the best ones")
    shown: int = Field(4, ge=0, description="losers that were shown and not clicked")
    same_category: int = Field(2, ge=0, description="losers of the winner's category that were not shown")
    other: int = Field(2, ge=0, description="losers of other categories")
    beta: float = Field(0.1, gt=0, description="β")
    sft: float = Field(1.0, ge=0, description="α, weight of the winner's likelihood; the release has 1")
    validate_requests: int = Field(1000, ge=1, description="validation page views that guard the weights, at most")
    patience: int = Field(3, ge=0, description="validations without a better HR@10 that end the stage; 0: none do")
    loop: PreferenceLoopSettings = PreferenceLoopSettings()


def gap_weights(winner: Tensor, losers: Tensor) -> Tensor:
    """``rw_l = 1 + (max(R_w, 1) - R_l)^(-1.5)``: rewards float32 [W] of winners and [W, N] of their losers, to [W, N].

    Losers have less than 1 and no more than their winner, so the base is positive.
    """
    return 1.0 + (winner.clamp(min=1.0).unsqueeze(1) - losers).pow(-1.5)


def listwise_dpo_loss(
    winner: Tensor,
    winner_reference: Tensor,
    losers: Tensor,
    losers_reference: Tensor,
    gaps: Tensor,
    valid: Tensor,
    beta: float,
    sft: float,
) -> dict[str, Tensor]:
    """``-log σ(-log Σ_l exp(rw_l·(ρ_l - ρ_w))) + α·(-log π(w|x))`` with ``ρ = β·(log π - log π_ref)``.

    Args:
        winner: log-probabilities [W] of the winners' SIDs under the policy, summed over their tokens.
        winner_reference: the same under the frozen reference.
        losers: log-probabilities of each winner's losers, [W, N].
        losers_reference: the same under the frozen reference.
        gaps: ``rw_l`` of :func:`gap_weights`, [W, N].
        valid: bool [W, N]; False fills up, or stands where loser and winner share a SID.
        beta: β.
        sft: α.

    Returns:
        ``loss``; ``preference`` and ``nll``, its two terms; ``accuracy``, the share of pairs with ρ_w > ρ_l. A winner
        without losers has only the second term.
    """
    rho_w = beta * (winner - winner_reference.detach())
    rho_l = beta * (losers - losers_reference.detach())
    margin = (gaps * (rho_l - rho_w.unsqueeze(1))).masked_fill(~valid, float("-inf"))
    has = valid.any(1)
    pull = torch.zeros_like(winner)
    if has.any():
        # -log σ(-z) is softplus(z).
        pull = pull.masked_scatter(has, F.softplus(margin[has].logsumexp(1)))
    preference = pull.sum() / has.sum().clamp(min=1)
    nll = -winner.mean()
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
        elsewhere: items of the same category that the shopper ordered in other searches of the same part of the log.
        category: number of each item's category, int [N]; -1 where unknown.
    """

    shown: Ragged
    clicked: Ragged
    ordered: Ragged
    elsewhere: Ragged
    category: NDArray[np.integer]

    @cached_property
    def by_category(self) -> "_Categories":
        """Items by category, to draw from."""
        return _Categories(self.category)


@dataclass
class Preferences:
    """Winners of a batch's prompts and their losers.

    Shapes: ``rows`` int64 [W] item rows of the winners, ``owner`` int64 [W] prompt of each, ``reward`` float32 [W];
    ``losers`` int64 [P, N] item rows, -1 for none, ``loser_reward`` float32 [N], which depends on the kind alone.
    """

    rows: Tensor
    owner: Tensor
    reward: Tensor
    losers: Tensor
    loser_reward: Tensor


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
    here = pl.DataFrame({"view": clicked.owners, "item": clicked.values})
    found = found.filter(pl.col("other") != pl.col("view")).join(
        here, on=["view", "item"], how="anti", maintain_order="left"
    )
    kept = found.unique(["view", "item"], keep="first", maintain_order=True).group_by("view", maintain_order=True)
    rows = kept.head(most)
    lengths = np.bincount(rows["view"].to_numpy(), minlength=len(clicked)) if len(rows) else np.zeros(len(clicked))
    return Ragged.from_lengths(rows["item"].to_numpy(), lengths.astype(np.int64))


def preferences(behaviour: Behaviour, rows: NDArray[np.integer], settings: DpoSettings) -> Preferences:
    """Winners and losers of page views; which losers are drawn depends on ``rows`` alone."""
    rng = np.random.default_rng(np.asarray(rows, np.int64).astype(np.uint32)[:16])
    n_items = len(behaviour.category)
    kinds = (SHOWN,) * settings.shown + (SAME_CATEGORY,) * settings.same_category + (OTHER,) * settings.other
    losers = np.full((len(rows), len(kinds)), -1, np.int64)
    won: list[tuple[int, int, float]] = []
    for place, view in enumerate(rows.tolist()):
        level: dict[int, int] = {}
        for kind, lists in (
            (CLICKED, behaviour.clicked),
            (ORDERED_ELSEWHERE, behaviour.elsewhere),
            (ORDERED, behaviour.ordered),
        ):
            level.update(dict.fromkeys(lists[view].tolist(), kind))
        best = sorted(level, key=lambda item: level[item])[: settings.winners]
        won += [(item, place, LEVEL_WEIGHTS[level[item]]) for item in best]
        shown = behaviour.shown[view].tolist()
        passed = [item for item in shown if item not in level]
        taken = rng.permutation(len(passed))[: settings.shown]
        losers[place, : len(taken)] = [passed[at] for at in taken]
        known = {*shown, *level}
        category = int(behaviour.category[best[0]]) if best else -1
        near = behaviour.by_category.draw(category, settings.same_category, rng)
        far = rng.integers(0, n_items, settings.other)
        sampled = [item if item not in known else -1 for item in near]
        sampled += [item if item not in known and behaviour.category[item] != category else -1 for item in far.tolist()]
        losers[place, settings.shown :] = sampled
    items, owner, reward = (np.asarray(column) for column in zip(*won, strict=True))
    return Preferences(
        torch.from_numpy(items.astype(np.int64)),
        torch.from_numpy(owner.astype(np.int64)),
        torch.from_numpy(reward.astype(np.float32)),
        torch.from_numpy(losers),
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


def preference_task(builder: PromptBuilder, columns: PromptInputs, behaviour: Behaviour, settings: DpoSettings) -> Task:
    """Page views as preferences; every one of them has a click or an order."""

    def batch(rows: NDArray[np.integer]) -> PreferenceBatch:
        prompt: PromptBatch = builder.search_prompt(columns, rows)
        return PreferenceBatch("dpo", prompt, preferences=preferences(behaviour, rows, settings))

    return Task("dpo", builder.search_lengths(columns), None, batch)


class DpoObjective(IndexedModule):
    """Policy and frozen reference; neither has dropout.

    Args:
        generator: trained in place; the reference is a copy of what it is now.
        index: gives legal children.
        settings: of the stage.
    """

    def __init__(self, generator: Generator, index: SidIndex, settings: DpoSettings) -> None:
        super().__init__()
        self.generator, self.index, self.settings = generator, index, settings
        # A submodule, so that checkpoints hold it; without gradients, so that the optimizer does not.
        self.reference = copy.deepcopy(generator).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As usual, but the models have no dropout."""
        super().train(mode)
        self.generator.eval()
        self.reference.eval()
        return self

    def forward(self, batch: PreferenceBatch) -> Mapping[str, Tensor]:
        """The loss of a batch and its terms."""
        given = batch.preferences
        if given is None:
            raise ValueError(f"the batch of task '{batch.task}' has no preferences")
        prompt, place = (given.losers >= 0).nonzero(as_tuple=True)
        items = torch.cat([given.rows, given.losers[prompt, place]])
        owner = torch.cat([given.owner, prompt])
        paths = self.index.path(items)
        mine = self._log_probs(self.generator, batch.prompt, paths, owner)
        with torch.no_grad():
            frozen = self._log_probs(self.reference, batch.prompt, paths, owner)
        w = len(given.rows)
        shape = given.losers.shape
        at = prompt * shape[1] + place

        def spread(values: Tensor) -> Tensor:
            """Values of losers as [P, N], then for each winner those of its prompt [W, N]."""
            flat = values.new_zeros(shape.numel()).index_put((at,), values)
            return flat.view(shape)[given.owner]

        same = spread(paths[w:, -1]) == paths[:w, -1:]
        valid = (given.losers >= 0)[given.owner] & ~same
        gaps = gap_weights(given.reward, given.loser_reward.expand(w, -1))
        return listwise_dpo_loss(
            mine[:w],
            frozen[:w],
            spread(mine[w:]),
            spread(frozen[w:]),
            gaps,
            valid,
            self.settings.beta,
            self.settings.sft,
        )

    def _log_probs(self, model: Generator, prompt: PromptBatch, paths: Tensor, owner: Tensor) -> Tensor:
        return score_paths(model, model.encode(prompt), paths, owner, self.index)[0].sum(1)
