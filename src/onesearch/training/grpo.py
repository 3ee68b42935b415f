"""Policy optimisation on rollouts: TPMA-GRPO, and plain GRPO beside it (docs/method.md, section 7).

A step draws G SIDs for each of P prompts under the constraint, asks what they are worth, and moves the
log-probabilities of their tokens.

Differences from the paper:

1. All policies are the item head's softmax over legal children, not over the vocabulary.
2. The policy has no dropout: the probabilities that were drawn from are the ones that learn.
3. A match counts only while all tokens before it match (``gate: position`` is the release).
4. w_item is 0.3, where the release has 0 and so no composite reward in TPMA (``item_weight: 0``).
5. The likelihood that anchors the policy comes with stage 3's losses of the other heads: they read the states that the
   policy moves, and the engine ranks by them.
6. The KL to the reference is exact over legal children along the rollouts, not an estimate; it is off by default.
7. The weights before the first step compete with all later ones by validation HR@10 (``loop.best``).
8. One of the G rollouts is no draw but a SID that was clicked or ordered (``expert``), as in arXiv 2605.14434, so that
   no group is without a hit.
9. Own clicks of the page view are taken off the rows of all its paths (docs/method.md, 5.3a): see the class.
"""

from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from onesearch.common.processes import place
from onesearch.common.ragged import Ragged
from onesearch.common.settings import Settings
from onesearch.index.sid_index import SidIndex
from onesearch.model.generator import Generator, GeneratorMemory
from onesearch.search.beam_search import beam_search
from onesearch.search.path_sampling import sample_paths
from onesearch.search.path_scoring import (
    LevelDistribution,
    OwnClicks,
    chosen_log_probs,
    padded_by_owner,
    path_distributions,
)
from onesearch.training.distillation_losses import kl_per_path
from onesearch.training.loop_settings import PreferenceLoopSettings
from onesearch.training.rewards import Rewards, best_of_sids, items_of_sids
from onesearch.training.supervised import SupervisedObjective, add_term, constant_copy
from onesearch.training.supervised_losses import item_nll
from onesearch.training.tasks import TaskBatch
from onesearch.training.tpma import (
    Gate,
    boosted_worth,
    gates,
    grpo_loss,
    matches,
    normalise,
    position_weights,
    tpma_advantages,
    tpma_loss,
)

_SEEDS_APART: Final = 1_000_003  # so that no two of a run's seeds share the draws of a step
_PROCESSES_APART: Final = 15_485_863  # nor two processes


class GrpoSettings(Settings):
    """One stage of policy optimisation."""

    algorithm: Literal["tpma", "grpo"] = Field("tpma", description="token-position advantages, or plain GRPO")
    steps: int = Field(0, ge=0, description="0 leaves the stage out")
    prompts: int = Field(64, ge=1, description="P, page views of a step")
    rollouts: int = Field(8, ge=2, description="G, SIDs drawn for each")
    expert: int = Field(
        1, ge=0, description="how many of the G are SIDs clicked or ordered in the page view itself, and not drawn"
    )
    decoding: Literal["sample", "beam"] = Field(
        "sample", description="how rollouts are drawn: independent samples, or the G best of a beam search"
    )
    temperature: float = Field(1.0, gt=0, description="of the draws")
    gate: Gate = Field("prefix", description="which levels of a rollout TPMA credits; see ``tpma_advantages``")
    item_weight: float = Field(0.3, ge=0, description="w_item; 0, the release's value, switches the reward off in TPMA")
    clip: float = Field(0.2, gt=0, description="of plain GRPO")
    sync_steps: int = Field(1, ge=1, description="steps after which the behaviour policy becomes the one that learns")
    policy: float = Field(1.0, ge=0, description="weight of the policy's loss; 0 for a control that fits clicks only")
    sft: float = Field(0.1, ge=0, description="weight of the likelihood of what was clicked")
    kl: float = Field(0.0, ge=0, description="weight of KL(policy ‖ reference) along the rollouts")
    validate_requests: int = Field(1000, ge=1, description="validation page views that guard the weights, at most")
    patience: int = Field(3, ge=0, description="validations without a better HR@10 that end the stage; 0: none do")
    loop: PreferenceLoopSettings = PreferenceLoopSettings()

    @model_validator(mode="after")
    def _some_are_drawn(self) -> "GrpoSettings":
        if self.expert >= self.rollouts:
            raise ValueError(f"expert is {self.expert} of {self.rollouts} rollouts; at least one must be drawn")
        return self


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
        # A pair (page view, item) is one number, of the items asked for and of those in the log.
        out = []
        for lists in (self.clicked, self.ordered):
            picked = lists.select(rows)
            width = int(max(items.max(initial=0), picked.values.max(initial=0))) + 1
            out.append(np.isin(owner * width + items, picked.owners * width + picked.values))
        return out[0], out[1]


class GrpoObjective(SupervisedObjective):
    """The policy, its reference, and one step's loss.

    ::

        o_1 … o_G  = SIDs drawn from the behaviour policy for each prompt, under the constraint; the last a clicked one
        R_item     = R_C&O + R_CTR + R_Rel of each SID, the best of its items;  Â^item = R_item normalised over the G
        ρ          = 1 for clicked SIDs, min(1, R_item / mean R_item of the clicked) for rollouts with a boosted item
        R_l        = max over these SIDs of ρ · weights of the first l tokens while they match;  ΔR_l = R_l - R_(l-1)
        TPMA: Â_l  = ΔR_l normalised over the G + w_item · Â^item;  g_l = matched share of the first l - 1 tokens
              loss = -mean of g_l · π/π_old · Â_l
        GRPO: loss = -mean of min(π/π_old · Â^item, clip(π/π_old) · Â^item)
        loss += sft · loss of stage 3 on what was clicked + kl · KL(π ‖ π_ref) along the rollouts

    The behaviour policy is the policy itself, or with ``sync_steps`` above 1 what it was some steps ago. Its
    log-probability of a SID is π_old, whether the SID was drawn or clicked.

    Rows of items count clicks, also those of the page view that is learnt. All policies score a page view's paths as if
    it had never been counted: where a path ends at a clicked item, and where one is only a candidate beside it. Else
    the policy would learn that what was clicked is what the numbers say, and the reward would praise it for that. What
    draws are made from is the policy as it serves; the page view's own clicks make them a little likelier to hit.

    Args:
        generator: trained in place, without dropout.
        index: one snapshot for the whole round.
        item_head_rows: float32 [N, R], in item-row order.
        rewards: of pairs.
        outcomes: of the training page views.
        settings: of the stage.
        score_weight: of the item score's loss beside the likelihood.
        codebook_weight: of the codebook head's.
        seed: of the draws.
    """

    without_dropout = ("generator", "reference", "behaviour_policy")
    sharding = None

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
        self.reference = constant_copy(generator) if settings.kl > 0 else None
        self.behaviour_policy = constant_copy(generator) if settings.sync_steps > 1 else None
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor
        self.seed = seed
        self.weights: Tensor
        self.register_buffer("weights", position_weights(generator.levels), persistent=False)

    def forward(self, batch: TaskBatch) -> dict[str, Tensor]:
        """Losses and figures of one batch of page views (:func:`~onesearch.training.tasks.search_task`).

        Raises:
            ValueError: the batch has no page views to draw for.
        """
        if batch.items is None or batch.rows is None:
            raise ValueError(f"the batch of task '{batch.task}' has no page views to draw for")
        settings, model = self.settings, self.generator
        # Rollouts, and one pass over them and the M clicked and ordered items: paths int64 [P · G + M, L].
        memory, items = model.encode(batch.prompt), batch.items
        behaviour, read = (model, memory) if self.behaviour_policy is None else self._behaviour(batch)
        targets = self.index.path(items.rows)
        nodes = self._draw(behaviour, read, padded_by_owner(targets, items.owner, len(batch.prompt)))
        p, g, levels = nodes.shape
        rollouts, prompt = nodes.flatten(0, 1), torch.arange(p, device=nodes.device).repeat_interleave(g)
        paths, owner = torch.cat([rollouts, targets]), torch.cat([prompt, items.owner])
        own = items.own_clicks(targets, p)
        own = None if own is None else own.select(owner)
        distributions, hidden = path_distributions(model, memory, paths, owner, self.index, leave_out=own)
        all_log_probs = chosen_log_probs(distributions, len(paths))
        log_probs = all_log_probs[: p * g].view(p, g, levels)
        old = log_probs.detach()
        if behaviour is not model:
            with torch.no_grad():
                others, _ = path_distributions(behaviour, read, paths, owner, self.index, leave_out=own)
            old = chosen_log_probs(others, len(paths))[: p * g].view(p, g, levels)

        # What the rollouts are worth: rewards float32 [P, G], matches bool [P, G, T, L], gate float32 [P, G, L].
        rewards = self._rollout_rewards(batch, rollouts, prompt)
        item_rewards = rewards["total"].view(p, g)
        codes = self._codes(rollouts).view(p, g, levels)
        hits = matches(codes, self._targets(batch, p), settings.gate)
        boosted = self._boosted(batch, rollouts, item_rewards) if settings.algorithm == "tpma" else None
        matched, worth = hits, None
        if boosted is not None:
            # Rollouts with a boosted item are further targets behind the clicked SIDs, each of its own worth.
            further = codes.masked_fill((boosted <= 0).unsqueeze(-1), -1)
            matched = torch.cat([hits, matches(codes, further, settings.gate)], 2)
            worth = functional.pad(boosted, (hits.shape[2], 0), value=1.0)
        gate = gates(matched, settings.gate)

        # The policy's loss.
        if settings.algorithm == "tpma":
            advantages = tpma_advantages(matched, self.weights, item_rewards, settings.item_weight, worth)
            policy = tpma_loss(log_probs, old, advantages, gate)
        else:
            advantages = normalise(item_rewards).unsqueeze(-1).expand_as(gate)
            policy = grpo_loss(log_probs, old, item_rewards, settings.clip)

        # The anchor: stage 3's losses on what was clicked; then the reference.
        nll, _ = item_nll(all_log_probs[p * g :], items.weights)
        anchor = {"loss": nll}
        if settings.sft > 0:
            self._heads(anchor, memory, hidden[p * g :], targets, items)
        loss = settings.policy * policy + settings.sft * anchor.pop("loss")
        terms = {"loss": loss, "policy": policy.detach(), "sft": nll.detach(), **anchor}
        if self.reference is not None:
            kl = self._kl(self.reference, batch, paths, owner, own, distributions, p * g)
            add_term(terms, "kl", settings.kl, kl)

        # Figures for the log.
        with torch.no_grad():
            terms.update({f"reward_{name}": value.mean() for name, value in rewards.items()})
            terms["hit"] = hits[..., -1].any(2).float().mean()
            if boosted is not None:
                terms["boosted"] = (boosted > 0).float().mean()
            for level in range(levels):
                terms[f"entropy_{level + 1}"] = -log_probs[..., level].mean()  # of the draws, so an estimate
                terms[f"gate_{level + 1}"] = gate[..., level].mean()
                terms[f"advantage_{level + 1}"] = advantages[..., level].abs().mean()
            self.steps += 1
        return terms

    @torch.no_grad()
    def _behaviour(self, batch: TaskBatch) -> tuple[Generator, GeneratorMemory]:
        """The behaviour policy, which is the learning one every ``sync_steps`` steps, and the batch as it reads it."""
        policy = self.behaviour_policy
        assert policy is not None
        if int(self.steps) % self.settings.sync_steps == 0:
            policy.load_state_dict(self.generator.state_dict())
        return policy, policy.encode(batch.prompt)

    @torch.no_grad()
    def _draw(self, model: Generator, memory: GeneratorMemory, targets: Tensor) -> Tensor:
        """Rollouts int64 [P, G, L], the last ``expert`` ones from ``targets`` int64 [P, T, L], clicked paths or -1."""
        settings, last_level = self.settings, self.index.levels - 1
        draw = torch.Generator(self.steps.device).manual_seed(self._draw_seed())
        if settings.decoding == "sample":
            nodes = sample_paths(model, memory, self.index, settings.rollouts, settings.temperature, draw).nodes
        else:
            # The G best SIDs; where there are fewer, the best one again. A beam's path is that of its first item.
            last = beam_search(model, memory, self.index, settings.rollouts).nodes
            last = torch.where(last < 0, last[:, :1], last)
            first, _ = self.index.positions(last_level, last.flatten())
            nodes = self.index.path(self.index.item_rows(first)).view(*last.shape, self.index.levels)
        # Of each prompt's targets some in turn, from a drawn one on; a prompt without any keeps all its draws.
        count = (targets[..., 0] >= 0).sum(1, keepdim=True)
        start = (torch.rand(count.shape, generator=draw, device=count.device) * count).long()
        turn = torch.arange(settings.expert, device=count.device)
        chosen = targets[torch.arange(len(targets), device=count.device)[:, None], (start + turn) % count.clamp(min=1)]
        drawn = settings.rollouts - settings.expert
        expert = torch.where(count.unsqueeze(-1) > 0, chosen, nodes[:, drawn:])
        return torch.cat([nodes[:, :drawn], expert], 1)

    def _draw_seed(self) -> int:
        """Of this step's draws, and of this process's: others draw for other prompts."""
        return self.seed * _SEEDS_APART + place()[0] * _PROCESSES_APART + int(self.steps)

    def _codes(self, nodes: Tensor) -> Tensor:
        """SIDs int64 [n, L] of paths int64 [n, L]."""
        return self.index.sids(self.index.levels - 1, nodes[:, -1])

    def _targets(self, batch: TaskBatch, prompts: int) -> Tensor:
        """SIDs of the clicked and ordered items of each prompt, padded with -1: int64 [P, T, L]."""
        assert batch.items is not None
        return padded_by_owner(self._codes(self.index.path(batch.items.rows)), batch.items.owner, prompts)

    def _rollout_rewards(self, batch: TaskBatch, flat: Tensor, owner: Tensor) -> dict[str, Tensor]:
        """Each term of the reward and their total for every rollout, float32 [P · G]; the best of a SID's items."""
        # Every item of every rollout's SID: item rows, their rollouts, and the page views these were drawn for.
        items, of_sid = items_of_sids(self.index, flat[:, -1])
        found = self._item_rewards(batch, items, owner[of_sid])
        return {name: best_of_sids(value, of_sid, len(flat)) for name, value in found.items()}

    def _item_rewards(self, batch: TaskBatch, items: Tensor, owner: Tensor) -> dict[str, Tensor]:
        """Each term of the reward and their total for items int64 [m] and their prompts int64 [m], float32 [m]."""
        assert batch.rows is not None
        rows, of_prompt, item = batch.rows.cpu().numpy(), owner.cpu().numpy(), items.cpu().numpy()
        clicked, ordered = self.outcomes.clicked_and_ordered(rows, of_prompt, item)
        found = self.rewards.compute(self.outcomes.query[rows[of_prompt]], item, clicked, ordered)
        return {name: torch.from_numpy(value).to(items.device) for name, value in found.items()}

    def _boosted(self, batch: TaskBatch, flat: Tensor, rewards: Tensor) -> Tensor | None:
        """(7.10a) What each rollout with a boosted item is worth as a target, 0 for others, float32 [P, G].

        ``flat`` int64 [P · G, L], ``rewards`` float32 [P, G]; None where no boost raises anything.
        """
        raised = self.rewards.boosts.raised
        if raised is None:
            return None
        assert batch.items is not None
        # Rollouts with a boosted item among those of their SID, bool [P, G].
        items, of_sid = items_of_sids(self.index, flat[:, -1])
        among = torch.from_numpy(raised).to(flat.device)[items].float()
        boosted = best_of_sids(among, of_sid, len(flat)).view_as(rewards) > 0
        # The mean reward of what was clicked or ordered, float32 [P].
        owner = batch.items.owner
        found = self._item_rewards(batch, batch.items.rows, owner)["total"]
        total = torch.zeros(len(rewards), device=flat.device).index_add(0, owner, found)
        return boosted_worth(boosted, rewards, total / torch.bincount(owner, minlength=len(rewards)).clamp(min=1))

    def _kl(
        self,
        reference: Generator,
        batch: TaskBatch,
        paths: Tensor,
        owner: Tensor,
        own: OwnClicks | None,
        levels: list[LevelDistribution],
        rollouts: int,
    ) -> Tensor:
        """``KL(π_θ ‖ π_ref)`` summed over positions, mean over the rollouts: exact over legal children."""
        with torch.no_grad():
            memory = reference.encode(batch.prompt)
            other, _ = path_distributions(reference, memory, paths, owner, self.index, leave_out=own)
        pairs = zip(levels, other, strict=True)
        return torch.stack([kl_per_path(one, two, len(paths))[:rollouts] for one, two in pairs]).sum(0).mean()
