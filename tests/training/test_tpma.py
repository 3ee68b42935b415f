"""Three rollouts of one prompt, worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from onesearch.training.tpma import (
    boosted_worth,
    gates,
    grpo_loss,
    marginal_rewards,
    matches,
    normalise,
    position_weights,
    tpma_advantages,
    tpma_loss,
)

# Target 1-2-3-4-5. The first rollout is it; the second is right for two tokens, wrong in the third and "right" again in
# the fourth; the third is wrong from the first token on, with later tokens that look right.
TARGETS = torch.tensor([[[1, 2, 3, 4, 5], [-1] * 5]])
ROLLOUTS = torch.tensor([[[1, 2, 3, 4, 5], [1, 2, 9, 4, 9], [9, 2, 3, 4, 5]]])
WEIGHTS = position_weights(5)


def test_position_weights():
    assert WEIGHTS.tolist() == [2, 2, 1, 1, 0]
    assert position_weights(3).tolist() == [2, 2, 0]


def test_marginal_rewards_by_hand():
    prefix = marginal_rewards(matches(ROLLOUTS, TARGETS), WEIGHTS)
    assert prefix.tolist() == [[[2, 2, 1, 1, 0], [2, 2, 0, 0, 0], [0, 0, 0, 0, 0]]]
    position = marginal_rewards(matches(ROLLOUTS, TARGETS, "position"), WEIGHTS)
    assert position.tolist() == [[[2, 2, 1, 1, 0], [2, 2, 0, 1, 0], [0, 2, 1, 1, 0]]]


def test_gates_by_hand():
    assert_close(
        gates(matches(ROLLOUTS, TARGETS))[0],
        torch.tensor(
            [
                [1, 1, 1, 1, 1],
                [1, 1, 1, 2 / 3, 2 / 4],
                [1, 0, 0, 0, 0],
            ]
        ),
    )
    assert_close(
        gates(matches(ROLLOUTS, TARGETS, "position"), "position")[0],
        torch.tensor(
            [
                [1, 1, 1, 1, 1],
                [1, 1, 1, 2 / 3, 3 / 4],
                [1, 0, 1 / 2, 2 / 3, 3 / 4],
            ]
        ),
    )
    assert gates(matches(ROLLOUTS, TARGETS, "hard"), "hard")[0].tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]


def test_the_best_of_several_targets_counts():
    targets = torch.tensor([[[1, 2, 8, 8, 8], [1, 7, 7, 7, 7]]])
    rollouts = torch.tensor([[[1, 7, 7, 0, 0], [1, 2, 0, 0, 0]]])
    assert marginal_rewards(matches(rollouts, targets), WEIGHTS).tolist() == [[[2, 2, 1, 0, 0], [2, 2, 0, 0, 0]]]


def test_a_boosted_rollout_is_worth_its_share_of_what_was_clicked():
    rewards = torch.tensor([[6.0, 1.5, 9.0, 2.0], [1.0, 0.0, 2.0, 0.0]])
    boosted = torch.tensor([[False, True, True, True], [True, True, False, False]])
    found = boosted_worth(boosted, rewards, torch.tensor([6.0, 0.0]))
    # Of 6: 1.5 is a quarter, 9 no more than all. Where clicks are worth nothing whatever has a reward is worth all.
    assert_close(found, torch.tensor([[0, 0.25, 1, 1 / 3], [1, 0, 0, 0]]))


def test_boosted_targets_earn_their_worth_and_open_the_gate_by_hand():
    # Clicked 1-2-3-4-5; the second and third rollout hold boosted items of worth 3/4 and 1/10.
    rollouts = torch.tensor([[[1, 2, 3, 4, 5], [1, 8, 8, 8, 8], [7, 7, 7, 7, 7], [1, 8, 8, 6, 6], [6, 7, 7, 7, 7]]])
    targets = torch.cat([TARGETS[:, :1], rollouts[:, 1:3]], 1)
    matched, worth = matches(rollouts, targets), torch.tensor([[1.0, 0.75, 0.1]])
    # R of the second: max(2, 1.5), then 3/4 of 4, 5, 6; the fourth shares three of its tokens, and R so far.
    expected = [[2, 2, 1, 1, 0], [2, 1, 0.75, 0.75, 0], [0.2, 0.2, 0.1, 0.1, 0], [2, 1, 0.75, 0, 0], [0, 0, 0, 0, 0]]
    assert_close(marginal_rewards(matched, WEIGHTS, worth)[0], torch.tensor(expected))
    open_wide = [1, 1, 1, 1, 1]
    assert_close(
        gates(matched)[0],
        torch.tensor([open_wide, open_wide, open_wide, [1, 1, 1, 1, 3 / 4], [1, 0, 0, 0, 0]]),
    )
    advantages = tpma_advantages(matched, WEIGHTS, torch.zeros(1, 5), 1.0, worth)
    assert_close(advantages, normalise(torch.tensor([expected])))


def test_advantages_by_hand():
    advantages = tpma_advantages(matches(ROLLOUTS, TARGETS), WEIGHTS, torch.tensor([[6.0, 0.0, 0.0]]), 0.5)
    # Positions 1 and 2 earn 2, 2, 0: mean 4/3, standard deviation √(8/9); positions 3 and 4 earn 1, 0, 0: mean 1/3,
    # √(2/9); position 5 earns nothing. The items' rewards 6, 0, 0 have the same form as positions 3 and 4.
    two, one = 1 / math.sqrt(2), math.sqrt(2)
    item = torch.tensor([one, -two, -two]) * 0.5
    per_token = torch.tensor([[two, two, one, one, 0], [two, two, -two, -two, 0], [-one, -one, -two, -two, 0]])
    assert_close(advantages[0], per_token + item.unsqueeze(1), atol=1e-5, rtol=1e-5)


def test_loss_by_hand():
    old = torch.log(torch.tensor([[[0.5, 0.5], [0.5, 0.25]]]))
    now = torch.log(torch.tensor([[[0.6, 0.5], [0.4, 0.5]]]))
    advantages, gate = torch.tensor([[[1.0, 2.0], [-1.0, 3.0]]]), torch.tensor([[[1.0, 1.0], [1.0, 0.5]]])
    # g·ratio·Â: 1·1.2·1, 1·1·2; 1·0.8·(-1), 0.5·2·3.
    assert_close(tpma_loss(now, old, advantages, gate), torch.tensor(-(1.2 + 2 - 0.8 + 3) / 4))
    # Rewards 1, 0: advantages 1, -1. Ratios 1.2, 1; 0.8, 2 with clip 0.1: min(1.2, 1.1), 1; min(-0.8, -0.9), -2.
    found = grpo_loss(now, old, torch.tensor([[1.0, 0.0]]), 0.1)
    assert_close(found, torch.tensor(-(1.1 + 1 - 0.9 - 2) / 4), atol=1e-5, rtol=1e-5)


def test_a_wrong_first_token_sends_no_gradient_further():
    log_probs = torch.full((1, 3, 5), -1.0, requires_grad=True)
    matched = matches(ROLLOUTS, TARGETS)
    advantages = tpma_advantages(matched, WEIGHTS, torch.tensor([[6.0, 0.0, 1.0]]), 1.0)
    tpma_loss(log_probs, log_probs.detach(), advantages, gates(matched)).backward()
    gradient = log_probs.grad[0]
    assert gradient[2, 0] != 0 and (gradient[2, 1:] == 0).all()
    assert (gradient[0] != 0).all() and (gradient[1, :3] != 0).all()
    # Position by position the same rollout keeps a gate that is open at three of four later tokens.
    log_probs.grad = None
    matched = matches(ROLLOUTS, TARGETS, "position")
    tpma_loss(log_probs, log_probs.detach(), advantages, gates(matched, "position")).backward()
    assert (log_probs.grad[0, 2, 2:] != 0).all()


def test_a_group_of_equals_has_no_advantage():
    assert normalise(torch.full((2, 4), 3.0)).abs().max() == 0
    assert normalise(torch.tensor([[1.0, 1.0 + 1e-7]])).abs().max() == 0


def test_prompts_without_targets_are_neutral():
    matched = matches(ROLLOUTS, torch.full((1, 1, 5), -1))
    assert not matched.any() and marginal_rewards(matched, WEIGHTS).abs().max() == 0
    matched = matches(ROLLOUTS, torch.zeros(1, 0, 5, dtype=torch.long))
    assert gates(matched).tolist() == [[[1, 0, 0, 0, 0]] * 3]
    assert marginal_rewards(matched, WEIGHTS).shape == (1, 3, 5)


@given(st.integers(0, 10_000), st.sampled_from(["prefix", "position", "hard"]))
def test_rewards_add_up_to_the_best_target(seed: int, by: str):
    draw = torch.Generator().manual_seed(seed)
    rollouts = torch.randint(0, 3, (2, 4, 5), generator=draw)
    targets = torch.randint(-1, 3, (2, 3, 1), generator=draw).sign() * 9  # -9 or 0 or 9: padding, or of code 0
    targets = torch.where(targets < 0, -1, torch.randint(0, 3, (2, 3, 5), generator=draw))
    matched = matches(rollouts, targets, by)
    total = marginal_rewards(matched, WEIGHTS).sum(-1)
    for p in range(2):
        for g in range(4):
            best = 0.0
            for target in targets[p]:
                if target[0] < 0:
                    continue
                earned, right = 0.0, True
                for level in range(5):
                    same = bool(rollouts[p, g, level] == target[level])
                    right &= same
                    earned += float(WEIGHTS[level]) * (same if by == "position" else right)
                best = max(best, earned)
            assert total[p, g] == pytest.approx(best)
    gate = gates(matched, by)
    assert (gate[..., 0] == 1).all() and (gate >= 0).all() and (gate <= 1).all()
    if by != "position":
        assert (gate[..., 1:].diff(dim=-1) <= 1e-6).all()  # once shut, it does not open again


def test_the_policy_of_the_draws_is_a_constant_in_the_ratio():
    """With the policy itself as the old one the ratio is 1 everywhere, and its gradient is the advantage."""
    advantages, gate = torch.tensor([[[1.0, -2.0], [0.5, 3.0]]]), torch.tensor([[[1.0, 0.5], [1.0, 0.0]]])
    log_probs = torch.full((1, 2, 2), -1.0, requires_grad=True)
    tpma_loss(log_probs, log_probs, advantages, gate).backward()
    assert_close(log_probs.grad, -gate * advantages / 4)
    log_probs.grad = None
    grpo_loss(log_probs, log_probs, torch.tensor([[1.0, 0.0]]), 0.2).backward()
    assert_close(log_probs.grad, torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]]) / 4, atol=1e-5, rtol=1e-5)
