"""Policy optimisation on rollouts: TPMA-GRPO, and plain GRPO beside it (specification section 7).

A step draws G SIDs for each of P prompts under the constraint, asks what they are worth, and moves the
log-probabilities of their tokens. Policy and reference alike are the item head's softmax over legal children. The
policy has no dropout: the probabilities that were drawn from are the ones that are moved.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from onesearch.common.ragged import Ragged
from onesearch.common.settings import Settings
from onesearch.index.sid_index import SidIndex
from onesearch.model.generator import Generator
from onesearch.search.beam_search import beam_search
from onesearch.search.path_sampling import sample_paths
from onesearch.search.path_scoring import LevelDistribution, chosen_log_probs, path_distributions
from onesearch.training.distillation_losses import kl_per_path
from onesearch.training.loop_settings import PreferenceLoopSettings
from onesearch.training.rewards import Rewards, best_of_sids, items_of_sids
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.supervised_losses import item_nll
from onesearch.training.tasks import TaskBatch
from onesearch.training.tpma import (
    Gate,
    gates,
    grpo_loss,
    matches,
    normalise,
    position_weights,
    tpma_advantages,
    tpma_loss,
)


class GrpoSettings(Settings):
    """One stage of policy optimisation."""

    algorithm: Literal["tpma", "grpo"] = "tpma"
    steps: int = Field(0, ge=0, description="0 leaves the stage out")
    prompts: int = Field(64, ge=1, description="P, page views of a step")
    rollouts: int = Field(8, ge=2, description="G, SIDs drawn for each")
    decoding: Literal["sample", "beam"] = Field(
        "sample", description="independent draws, or the G best of a beam search"
    )
    temperature: float = Field(1.0, gt=0, description="of the draws")
    gate: Gate = "prefix"
    item_weight: float = Field(0.3, ge=0, description="w_item; 0, the release's value, switches the reward off in TPMA")
    clip: float = Field(0.2, gt=0, description="of plain GRPO")
    sync_steps: int = Field(1, ge=1, description="steps after which the policy that draws becomes the one that learns")
    policy: float = Field(1.0, ge=0, description="weight of the policy's loss; 0 for a control that fits clicks only")
    sft: float = Field(0.1, ge=0, description="weight of the likelihood of what was clicked")
    kl: float = Field(0.0, ge=0, description="weight of KL(policy ‖ reference) along the rollouts")
    validate_requests: int = Field(1000, ge=1, description="validation page views that guard the weights, at most")
    patience: int = Field(3, ge=0, description="validations without a better HR@10 that end the stage; 0: none do")
    loop: PreferenceLoopSettings = PreferenceLoopSettings()


class RolloutOutcomes:
    """What became of n page views.

    Args:
        query: number of each one's query in the rewards' features, int [n].
        clicked: item rows clicked in each, n rows.
        ordered: item rows ordered in each, n rows.
    """

    def __init__(self, query: NDArray[np.integer], clicked: Ragged, ordered: Ragged) -> None:
        self.query, self.clicked, self.ordered = np.asarray(query, np.int64), clicked, ordered

    def clicked_and_ordered(
        self, rows: NDArray[np.integer], owner: NDArray[np.integer], items: NDArray[np.integer]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether items [m] were clicked and ordered in the page views ``rows[owner]``; bool [m] each."""
        out = []
        for lists in (self.clicked, self.ordered):
            picked = lists.select(rows)
            width = int(max(items.max(initial=0), picked.values.max(initial=0))) + 1
            out.append(np.isin(owner * width + items, picked.owners * width + picked.values))
        return out[0], out[1]


class GrpoObjective(SupervisedObjective):
    """The policy, its frozen reference, and one step's loss.

    The likelihood that anchors the policy comes with the losses of the other heads, as in stage 3: they read the same
    states, which the policy moves, and the engine ranks by them.

    Args:
        generator: trained in place, without dropout.
        index: one frozen snapshot for the whole round.
        item_head_rows: float32 [N, R], in item-row order.
        rewards: of pairs.
        outcomes: of the training page views.
        settings: of the stage.
        score_weight: of the item score's loss beside the likelihood.
        codebook_weight: of the codebook head's.
        seed: of the draws.
    """

    def __init__(
        self,
        generator: Generator,
        index: SidIndex,
        item_head_rows: Tensor,
        rewards: Rewards,
        outcomes: RolloutOutcomes,
        settings: GrpoSettings,
        score_weight: float = 0.0,
        codebook_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(generator, index, item_head_rows, score_weight, codebook_weight)
        self.settings, self.rewards, self.outcomes = settings, rewards, outcomes
        copy_of_policy: Callable[[], Generator] = lambda: copy.deepcopy(generator).requires_grad_(False).eval()  # noqa: E731
        # Submodules, so that checkpoints hold them; without gradients, so that the optimizer does not.
        self.reference = copy_of_policy() if settings.kl > 0 else None
        self.behaviour_policy = copy_of_policy() if settings.sync_steps > 1 else None
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor
        self.seed = seed
        self.weights: Tensor
        self.register_buffer("weights", position_weights(generator.levels), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """As usual, but the models have no dropout."""
        super().train(mode)
        for model in (self.generator, self.reference, self.behaviour_policy):
            if model is not None:
                model.eval()
        return self

    def forward(self, batch: TaskBatch) -> dict[str, Tensor]:
        """Losses and figures of one batch of page views (:func:`~onesearch.training.tasks.search_task`)."""
        if batch.items is None or batch.rows is None:
            raise ValueError(f"the batch of task '{batch.task}' has no page views to draw for")
        settings, model = self.settings, self.generator
        memory = model.encode(batch.prompt)
        nodes, old = self._draw(batch, memory)
        p, g, levels = nodes.shape
        owner = torch.arange(p, device=nodes.device).repeat_interleave(g)
        flat = nodes.flatten(0, 1)
        targets = self.index.path(batch.items.rows)
        every, owners = torch.cat([flat, targets]), torch.cat([owner, batch.items.owner])
        distributions, hidden = path_distributions(model, memory, every, owners, self.index)
        every_log_prob = chosen_log_probs(distributions, len(every))
        log_probs = every_log_prob[: p * g].view(p, g, levels)
        old = log_probs.detach() if old is None else old

        rewards = self._rollout_rewards(batch, flat, owner)
        item_rewards = rewards["total"].view(p, g)
        matched = matches(self._codes(flat).view(p, g, levels), self._targets(batch, p), settings.gate)
        gate = gates(matched, settings.gate)
        if settings.algorithm == "tpma":
            advantages = tpma_advantages(matched, self.weights, item_rewards, settings.item_weight)
            policy = tpma_loss(log_probs, old, advantages, gate)
        else:
            advantages = normalise(item_rewards).unsqueeze(-1).expand_as(gate)
            policy = grpo_loss(log_probs, old, item_rewards, settings.clip)
        nll, _ = item_nll(every_log_prob[p * g :], batch.items.weights)
        anchor = {"loss": nll}
        if settings.sft > 0:
            self._heads(anchor, memory, hidden[p * g :], targets, batch.items)
        loss = settings.policy * policy + settings.sft * anchor.pop("loss")
        terms = {"loss": loss, "policy": policy.detach(), "sft": nll.detach(), **anchor}
        if self.reference is not None:
            kl = self._kl(batch, every, owners, distributions, p * g)
            terms["loss"] = terms["loss"] + settings.kl * kl
            terms["kl"] = kl.detach()
        with torch.no_grad():
            terms.update({f"reward_{name}": value.mean() for name, value in rewards.items()})
            terms["hit"] = matched[..., -1].any(2).float().mean()
            for level in range(levels):
                terms[f"entropy_{level + 1}"] = -log_probs[..., level].mean()  # of the draws, so an estimate
                terms[f"gate_{level + 1}"] = gate[..., level].mean()
                terms[f"advantage_{level + 1}"] = advantages[..., level].abs().mean()
            self.steps += 1
        return terms

    @torch.no_grad()
    def _draw(self, batch: TaskBatch, memory: Any) -> tuple[Tensor, Tensor | None]:
        """Rollouts int64 [P, G, L], and their log-probabilities if another policy than the learning one drew them."""
        settings = self.settings
        model, step = self.generator, int(self.steps)
        if self.behaviour_policy is not None:
            if step % settings.sync_steps == 0:
                self.behaviour_policy.load_state_dict(self.generator.state_dict())
            model, memory = self.behaviour_policy, self.behaviour_policy.encode(batch.prompt)
        if settings.decoding == "beam":
            last = beam_search(model, memory, self.index, settings.rollouts).nodes
            last = torch.where(last < 0, last[:, :1], last)  # fewer SIDs than rollouts: the best one again
            first, _ = self.index.positions(self.index.levels - 1, last.flatten())
            nodes = self.index.path(self.index.item_rows(first)).view(*last.shape, self.index.levels)
            if self.behaviour_policy is None:
                return nodes, None
            owner = torch.arange(len(nodes), device=nodes.device).repeat_interleave(settings.rollouts)
            levels, _ = path_distributions(model, memory, nodes.flatten(0, 1), owner, self.index)
            return nodes, chosen_log_probs(levels, len(owner)).view(nodes.shape)
        draw = torch.Generator(self.steps.device).manual_seed(self.seed * 1_000_003 + step)
        samples = sample_paths(model, memory, self.index, settings.rollouts, settings.temperature, draw)
        return samples.nodes, None if self.behaviour_policy is None else samples.log_probs

    def _codes(self, nodes: Tensor) -> Tensor:
        """SIDs int64 [n, L] of paths int64 [n, L]."""
        return self.index.sids(self.index.levels - 1, nodes[:, -1])

    def _targets(self, batch: TaskBatch, prompts: int) -> Tensor:
        """SIDs of the clicked and ordered items of each prompt, padded with -1: int64 [P, T, L]."""
        assert batch.items is not None
        owner = batch.items.owner
        codes = self._codes(self.index.path(batch.items.rows))
        count = torch.bincount(owner, minlength=prompts)
        place = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
        out = torch.full((prompts, max(int(count.max()), 1), codes.shape[1]), -1, device=owner.device)
        out[owner, place] = codes
        return out

    def _rollout_rewards(self, batch: TaskBatch, flat: Tensor, owner: Tensor) -> dict[str, Tensor]:
        """Each term of the reward and their total for every rollout, float32 [P · G]; the best of a SID's items."""
        assert batch.rows is not None
        items, of_sid = items_of_sids(self.index, flat[:, -1])
        rows, of_prompt = batch.rows.cpu().numpy(), owner[of_sid].cpu().numpy()
        item = items.cpu().numpy()
        clicked, ordered = self.outcomes.clicked_and_ordered(rows, of_prompt, item)
        found = self.rewards.compute(self.outcomes.query[rows[of_prompt]], item, clicked, ordered)
        return {
            name: best_of_sids(torch.from_numpy(value).to(flat.device), of_sid, len(flat))
            for name, value in found.items()
        }

    def _kl(
        self, batch: TaskBatch, paths: Tensor, owner: Tensor, levels: list[LevelDistribution], rollouts: int
    ) -> Tensor:
        """``KL(π_θ ‖ π_ref)`` summed over positions, mean over the rollouts: exact over legal children."""
        reference = self.reference
        assert reference is not None
        with torch.no_grad():
            memory = reference.encode(batch.prompt)
            other, _ = path_distributions(reference, memory, paths, owner, self.index)
        pairs = zip(levels, other, strict=True)
        return torch.stack([kl_per_path(one, two, len(paths))[:rollouts] for one, two in pairs]).sum(0).mean()
