"""Policy optimisation on a tiny generator: what is drawn, what is learnt, what stays as it was."""

import numpy as np
import pytest
import torch

from onesearch.common.ragged import Ragged
from onesearch.data.records import Item, items_frame
from onesearch.index.sid_index import SidIndex
from onesearch.search.boosts import Boost
from onesearch.search.path_scoring import padded_by_owner, path_distributions, score_paths
from onesearch.training import grpo
from onesearch.training.distillation_losses import kl_per_path
from onesearch.training.grpo import GrpoObjective, GrpoSettings, RolloutOutcomes
from onesearch.training.rewards import Rewards, RewardSettings
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.tasks import TaskBatch, item_targets
from onesearch.training.tpma import (
    gates,
    marginal_rewards,
    matches,
    normalise,
    position_weights,
    tpma_advantages,
    tpma_loss,
)
from small_models import CODEBOOKS, catalogue, generator, prompts

N, P = 60, 4
ITEMS = items_frame([Item(str(n), f"item {n}") for n in range(N)])
CLICKED = Ragged.from_lists([[3], [10, 11], [20], [30]])
ORDERED = Ragged.from_lists([[], [11], [], []])


def parts(judged=None, seed: int = 0, heads=(0.0, 0.0), boosts=(), **settings):
    """An objective and one batch of its four page views."""
    model, index = generator(dtype=torch.float32), catalogue(N)
    rewards = Rewards(RewardSettings(boosts=boosts), ITEMS, judged=judged)
    item_head_rows = torch.randn(N, index.dimension, generator=torch.Generator().manual_seed(0))
    outcomes = RolloutOutcomes(np.zeros(P), CLICKED, ORDERED)
    objective = GrpoObjective(model, index, item_head_rows, rewards, outcomes, GrpoSettings(**settings), *heads, seed)
    rows = np.arange(P)
    targets = item_targets(CLICKED.values, CLICKED.owners, np.ones(5), N, N, rows)
    return objective.train(), TaskBatch("search", prompts(P), items=targets, rows=torch.from_numpy(rows))


def drawn(objective: GrpoObjective, batch: TaskBatch) -> torch.Tensor:
    """The rollouts of the step that comes."""
    model = objective.generator if objective.behaviour_policy is None else objective.behaviour_policy
    targets = padded_by_owner(objective.index.path(batch.items.rows), batch.items.owner, P)
    return objective._draw(model, model.encode(batch.prompt), targets)


def of_items(objective: GrpoObjective, batch: TaskBatch, items: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    memory = objective.generator.encode(batch.prompt)
    return score_paths(objective.generator, memory, objective.index.path(items), owner, objective.index)[0].sum(1)


def of_targets(objective: GrpoObjective, batch: TaskBatch) -> torch.Tensor:
    return of_items(objective, batch, batch.items.rows, batch.items.owner)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def learn(objective: GrpoObjective, batch: TaskBatch, steps: int, rate: float = 3e-3) -> list[dict[str, float]]:
    optimizer = torch.optim.Adam(objective.generator.parameters(), rate)
    log = []
    for _ in range(steps):
        terms = objective(batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        log.append({name: float(value) for name, value in terms.items()})
    return log


@pytest.mark.parametrize("decoding", ["sample", "beam"])
def test_the_policy_loss_of_a_batch(decoding):
    objective, batch = parts(decoding=decoding, rollouts=6, item_weight=0.5, sft=0.0)
    nodes = drawn(objective, batch)
    assert nodes.shape == (P, 6, 5)
    objective.steps.zero_()
    terms = objective(batch)
    # The same from plain lists: codes of the drawn paths, targets, who was clicked, who was ordered.
    codes = objective.index.sids(4, nodes[..., -1])
    loss = 0.0
    for p in range(P):
        targets = objective.index.sids(4, objective.index.path(torch.from_numpy(CLICKED[p].astype(np.int64)))[:, -1])
        matched = matches(codes[p : p + 1], targets.unsqueeze(0))
        worth = []
        for g in range(6):
            first, last = objective.index.positions(4, nodes[p, g, -1])
            items = objective.index.item_rows(torch.arange(int(first), int(last))).tolist()
            worth.append(max(4.0 if i in ORDERED[p] else 3.0 if i in CLICKED[p] else 0.0 for i in items))
        advantage = normalise(marginal_rewards(matched, position_weights(5)))
        advantage = advantage + 0.5 * normalise(torch.tensor([worth])).unsqueeze(-1)
        loss -= float((gates(matched) * advantage).mean()) / P
    assert float(terms["policy"]) == pytest.approx(loss, abs=1e-5)
    assert float(terms["loss"].detach()) == float(terms["policy"])  # nothing else is switched on
    objective.steps.zero_()
    objective.settings = objective.settings.model_copy(update={"policy": 0.5, "sft": 2.0})
    terms = objective(batch)
    assert float(terms["loss"]) == pytest.approx(0.5 * float(terms["policy"]) + 2.0 * float(terms["sft"]))


@pytest.mark.parametrize("boosted", [False, True])
def test_the_anchor_is_the_loss_of_stage_3(boosted):
    boosts = (Boost(name="all", column="item_id", values=tuple(map(str, range(N))), times=2.0),) if boosted else ()
    objective, batch = parts(heads=(1.0, 0.03), boosts=boosts, sft=0.1, rollouts=4)
    terms = objective(batch)
    plain = SupervisedObjective(objective.generator, objective.index, objective.item_head_rows, 1.0, 0.03).eval()(batch)
    assert float(terms["score"]) == pytest.approx(float(plain["score"]), rel=1e-5)
    assert float(terms["loss"] - terms["policy"]) == pytest.approx(0.1 * float(plain["loss"]), rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"algorithm": "grpo"},
        {"gate": "position"},
        {"gate": "hard"},
        {"sync_steps": 3},
        {"kl": 0.01},
        {"algorithm": "grpo", "sync_steps": 4},
    ],
)
def test_what_was_clicked_becomes_likelier(settings):
    objective, batch = parts(rollouts=16, **{"sft": 0.0, **settings})
    before = of_targets(objective, batch).exp().sum()
    log = learn(objective, batch, 60)
    assert of_targets(objective, batch).exp().sum() > 2 * before
    for figure, times in (("reward_total", 1.5), ("hit", 1.0)):
        first, last = ([one[figure] for one in part] for part in (log[:10], log[-10:]))
        assert np.mean(last) > times * np.mean(first)


def test_the_item_reward_steers_where_nothing_was_clicked():
    # Item 40 is excellent for the query, says a judgment; no gate is in plain GRPO's way.
    judged = {(0, 40): 3}
    for weight in (0.0, 1.0):
        objective, batch = parts(judged, rollouts=32, algorithm="grpo", sft=0.0)
        objective.rewards.config = RewardSettings(behaviour=0.0, relevance=weight)
        wanted = torch.full((P,), 40), torch.arange(P)
        before = of_items(objective, batch, *wanted).exp().mean().item()
        learn(objective, batch, 60)
        after = of_items(objective, batch, *wanted).exp().mean().item()
        assert after > 2 * before if weight else after == before  # no reward, no gradient


BOOSTED = (8, 22, 43)  # drawn now and then
JUDGED = {(0, item): 1 for item in range(N)}


def boost(times: float) -> Boost:
    return Boost(name="few", column="item_id", values=tuple(map(str, BOOSTED)), times=times)


def test_the_policy_loss_with_boosted_items():
    objective, batch = parts(JUDGED, boosts=(boost(2.0),), rollouts=24, item_weight=0.0, sft=0.0)
    nodes = drawn(objective, batch)
    objective.steps.zero_()
    terms = objective(batch)
    # A click is worth 3 + 1, an order 4 + 1; of the four page views the second has one of each. A boosted item has 2.
    worth_of_clicks = [4.0, 4.5, 4.0, 4.0]
    codes, loss, held = objective.index.sids(4, nodes[..., -1]), 0.0, 0
    for p in range(P):
        targets = objective.index.sids(4, objective.index.path(torch.from_numpy(CLICKED[p].astype(np.int64)))[:, -1])
        rows, worth = list(targets), [1.0] * len(targets)
        for g in range(24):
            first, last = objective.index.positions(4, nodes[p, g, -1])
            items = objective.index.item_rows(torch.arange(int(first), int(last))).tolist()
            if set(items) & set(BOOSTED):
                rows.append(codes[p, g])
                worth.append(2.0 / worth_of_clicks[p])
                held += 1
        matched = matches(codes[p : p + 1], torch.stack(rows).unsqueeze(0))
        advantage = normalise(marginal_rewards(matched, position_weights(5), torch.tensor([worth])))
        loss -= float((gates(matched) * advantage).mean()) / P
    assert float(terms["policy"]) == pytest.approx(loss, abs=1e-5)
    assert 0 < held / (P * 24) == pytest.approx(float(terms["boosted"]))
    # Of any rollouts: what a reward of 2 is of what the page view's clicks are worth on average.
    paths = objective.index.path(torch.tensor([8, 43, 3, 40]).repeat(P))
    shares = torch.tensor([[2 / of_clicks] * 2 + [0.0] * 2 for of_clicks in worth_of_clicks])
    torch.testing.assert_close(objective._boosted(batch, paths, torch.full((P, 4), 2.0)), shares)
    objective.steps.zero_()
    plain, _ = parts(JUDGED, rollouts=24, item_weight=0.0, sft=0.0)
    assert torch.equal(terms["hit"], plain(batch)["hit"]), "a hit is one of what was clicked"


def test_a_boost_brings_its_items_up_under_tpma():
    after = {}
    for times in (1.0, 0.5, 4.0):
        objective, batch = parts(JUDGED, boosts=(boost(times),), rollouts=32, sft=0.0)
        wanted = torch.tensor(BOOSTED).repeat(P), torch.arange(P).repeat_interleave(len(BOOSTED))
        before = of_items(objective, batch, *wanted).exp().sum().item()
        log = learn(objective, batch, 40)
        after[times] = of_items(objective, batch, *wanted).exp().sum().item() / before
        assert ("boosted" in log[0]) == (times > 1), "what is worth less than before is no target"
    assert after[4.0] > 1.5 and after[4.0] > 2 * after[1.0]
    # Plain GRPO has no gate, and so no targets to add to.
    objective, batch = parts(JUDGED, boosts=(boost(4.0),), algorithm="grpo")
    assert "boosted" not in objective(batch)


def test_the_reference_holds_the_policy():
    free, batch = parts(rollouts=16, sft=0.0)
    held, _ = parts(rollouts=16, sft=0.0, kl=20.0)
    first = learn(held, batch, 40)
    learn(free, batch, 40)
    assert first[0]["kl"] == pytest.approx(0.0, abs=1e-6) and first[-1]["kl"] > 0
    start, _ = parts()
    distance = [(of_targets(one, batch) - of_targets(start, batch)).abs().mean() for one in (held, free)]
    assert distance[0] < 0.5 * distance[1]
    assert equal(held.reference, start.generator)


def test_draws_repeat_and_differ_by_step_and_seed():
    objective, batch = parts(rollouts=8)
    first = drawn(objective, batch)
    assert torch.equal(first, drawn(objective, batch))
    objective.steps += 1
    assert not torch.equal(first, drawn(objective, batch))
    other, _ = parts(rollouts=8, seed=1)
    assert not torch.equal(first, drawn(other, batch))
    objective.steps.zero_()
    objective.settings = objective.settings.updated(expert=0)
    free = drawn(objective, batch)
    assert torch.equal(free[:, :7], first[:, :7]), "an expert takes the place of the last draw and changes no other"
    assert not torch.equal(free[:, 7:], first[:, 7:])


def test_each_process_draws_for_itself(monkeypatch):
    objective, batch = parts(rollouts=8)
    alone = drawn(objective, batch)
    found = []
    for rank in range(2):
        monkeypatch.setattr(grpo, "place", lambda rank=rank: (rank, 2))
        found.append(drawn(objective, batch))
    assert torch.equal(found[0], alone) and not torch.equal(found[1], alone)


@pytest.mark.parametrize("decoding", ["sample", "beam"])
def test_experts_are_what_was_clicked_or_ordered_there_each_in_turn(decoding):
    objective, batch = parts(rollouts=6, expert=3, decoding=decoding)
    of_item = objective.index.path(torch.arange(N))
    first = set()
    for step in range(12):
        objective.steps.fill_(step)
        nodes = drawn(objective, batch)[:, 3:]
        for p, items in enumerate([[3], [10, 11], [20], [30]]):
            found = [[of_item[item].tolist() for item in items].index(path) for path in nodes[p].tolist()]
            assert found == [(found[0] + turn) % len(items) for turn in range(3)]
        first.add(items_of(objective, nodes[1, 0]))
    assert first == {(10,), (11,)}, "drawn anew in each step"
    assert float(objective(batch)["hit"]) >= 0.5
    # A page view without a target keeps its draws.
    nodes = objective._draw(objective.generator, objective.generator.encode(batch.prompt), torch.full((P, 1, 5), -1))
    assert (nodes >= 0).all()
    with pytest.raises(ValueError, match="expert is 6 of 6 rollouts"):
        GrpoSettings(rollouts=6, expert=6)


def items_of(objective: GrpoObjective, path: torch.Tensor) -> tuple[int, ...]:
    first, last = objective.index.positions(4, path[-1])
    return tuple(objective.index.item_rows(torch.arange(int(first), int(last))).tolist())


def test_own_clicks_are_taken_off_all_paths_of_their_page_view():
    """As if the page view had never been counted, in the gradients of all terms but the score's negatives."""
    gradients = []
    rows = catalogue(N).item_vectors(catalogue(N).position_of(torch.arange(N))).clone()
    own = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.5, -0.5]])
    rows[[10, 11], -3:] -= own
    sids = catalogue(N).sids(4, catalogue(N).path(torch.arange(N))[:, 4])
    before = SidIndex.build(sids.numpy(), rows.numpy(), CODEBOOKS)
    nodes = None
    for index, leave_out in ((catalogue(N), own), (before, None), (catalogue(N), None)):
        objective, _ = parts(rollouts=8, expert=2, kl=0.5, item_weight=0.5, sync_steps=2)
        objective.index = index
        objective.steps.fill_(
            1
        )  # the behaviour policy stays what it is, other than the policy, and so is the reference
        for number, model in enumerate((objective.generator, objective.behaviour_policy, objective.reference)):
            model.item_head.log_scale.data.add_(0.3 * number)
            model.from_row.weight.requires_grad_(False).zero_()  # what the decoder reads of nodes is not tested here
        items = item_targets(np.array([10, 11]), np.array([0, 0]), np.ones(2), N, N, np.array([1]))
        items.leave_out = leave_out
        batch = TaskBatch("search", prompts(1), items=items, rows=torch.tensor([1]))
        if nodes is None:
            nodes = objective._draw(
                objective.generator, objective.generator.encode(batch.prompt), index.path(torch.tensor([10, 11]))[None]
            )
        objective._draw = lambda *_, fixed=nodes: fixed
        objective(batch)["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in objective.generator.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)
    assert not torch.allclose(gradients[0], gradients[2], atol=1e-3)


def test_the_behaviour_policy_lags_behind():
    objective, batch = parts(rollouts=8, sync_steps=3)
    learn(objective, batch, 3)  # the third step still drew from the first policy
    assert not equal(objective.behaviour_policy, objective.generator)
    objective(batch)
    assert equal(objective.behaviour_policy, objective.generator)


def test_there_is_no_dropout_in_the_policy():
    objective, _ = parts(kl=0.1, sync_steps=2)
    assert objective.training and not any(
        m.training for m in (objective.generator, objective.reference, objective.behaviour_policy)
    )
    assert not any(p.requires_grad for m in (objective.reference, objective.behaviour_policy) for p in m.parameters())


def test_a_batch_without_page_views_is_refused():
    objective, batch = parts()
    with pytest.raises(ValueError, match="page views"):
        objective(TaskBatch("pseudo", batch.prompt, items=batch.items))


@pytest.mark.parametrize("decoding", ["sample", "beam"])
def test_the_ratio_is_that_to_the_policy_that_drew(decoding):
    objective, batch = parts(rollouts=6, expert=2, sync_steps=3, sft=0.0, item_weight=0.5, decoding=decoding)
    learn(objective, batch, 1, rate=0.05)  # the policy has moved, the behaviour policy has not
    behaviour = objective.behaviour_policy
    nodes = drawn(objective, batch)
    paths, owner = nodes.flatten(0, 1), torch.arange(P).repeat_interleave(6)

    def log_probs(model):
        return score_paths(model, model.encode(batch.prompt), paths, owner, objective.index)[0].view(P, 6, 5)

    codes = objective.index.sids(4, nodes[..., -1])
    matched = matches(codes, objective._targets(batch, P))
    rewards = objective._rollout_rewards(batch, paths, owner)["total"].view(P, 6)
    wanted = tpma_loss(
        log_probs(objective.generator),
        log_probs(behaviour),
        tpma_advantages(matched, position_weights(5), rewards, 0.5),
        gates(matched),
    )
    assert float(objective(batch)["policy"]) == pytest.approx(float(wanted.detach()), rel=1e-3)
    assert not torch.allclose(log_probs(objective.generator), log_probs(behaviour), atol=1e-2)


def test_a_low_temperature_draws_one_sid_again_and_again():
    for temperature, distinct in ((1e-3, 1), (1.0, 2)):
        objective, batch = parts(rollouts=12, expert=0, temperature=temperature)
        nodes = drawn(objective, batch)
        counts = [len(set(row.tolist())) for row in nodes[..., -1]]
        assert max(counts) == 1 if distinct == 1 else min(counts) > 1


def test_the_kl_is_that_of_the_rollouts_alone():
    objective, batch = parts(rollouts=4, sft=0.0, kl=0.5)
    learn(objective, batch, 2, rate=0.02)
    nodes = drawn(objective, batch)
    paths, owner = nodes.flatten(0, 1), torch.arange(P).repeat_interleave(4)
    policy, reference = (
        path_distributions(model, model.encode(batch.prompt), paths, owner, objective.index)[0]
        for model in (objective.generator, objective.reference)
    )
    wanted = sum(kl_per_path(one, two, len(paths)) for one, two in zip(policy, reference, strict=True)).mean()
    assert float(objective(batch)["kl"]) == pytest.approx(float(wanted.detach()), rel=1e-3)
