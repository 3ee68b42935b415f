import math

import torch
from torch.testing import assert_close

from onesearch.training.dpo import LEVEL_WEIGHTS, gap_weights, listwise_dpo_loss


def test_gap_weights_by_hand():
    found = gap_weights(torch.tensor([2.0, 1.0]), torch.tensor([[0.5, 0.0], [0.2, 0.0]]))
    assert_close(found, torch.tensor([[1 + 1.5**-1.5, 1 + 2**-1.5], [1 + 0.8**-1.5, 2.0]]))
    assert len(LEVEL_WEIGHTS) == 6 and list(LEVEL_WEIGHTS) == sorted(LEVEL_WEIGHTS, reverse=True)


def test_loss_by_hand():
    winner, winner_reference = torch.tensor([-2.0]), torch.tensor([-3.0])
    losers, losers_reference = torch.tensor([[-4.0, -5.0, 0.0]]), torch.tensor([[-4.0, -4.0, 0.0]])
    gaps, valid = torch.tensor([[2.0, 1.5, 9.0]]), torch.tensor([[True, True, False]])
    found = listwise_dpo_loss(winner, winner_reference, losers, losers_reference, gaps, valid, 0.5, 0.1)
    # ρ_w = 0.5, ρ_l = 0, -0.5: rw·(ρ_l - ρ_w) = -1, -1.5; log Σ exp = log(e^-1 + e^-1.5).
    z = math.log(math.exp(-1.0) + math.exp(-1.5))
    preference = -math.log(1 / (1 + math.exp(z)))
    assert_close(found["preference"].item(), preference, rtol=1e-5, atol=1e-6)
    assert_close(found["loss"].item(), preference + 0.1 * 2.0, rtol=1e-5, atol=1e-6)
    assert found["nll"].item() == 2.0 and found["accuracy"].item() == 1.0


def test_the_gradient_raises_winners_and_lowers_losers():
    winner, losers = torch.tensor([-2.0, -1.0], requires_grad=True), torch.full((2, 2), -2.0, requires_grad=True)
    valid = torch.tensor([[True, False], [False, False]])
    gaps = torch.full((2, 2), 2.0)
    found = listwise_dpo_loss(winner, winner.detach(), losers, losers.detach(), gaps, valid, 1.0, 0.0)
    found["loss"].backward()
    assert winner.grad[0] < 0 < losers.grad[0, 0]
    assert winner.grad[1] == 0 and losers.grad[0, 1] == 0 and (losers.grad[1] == 0).all()


def test_without_losers_only_the_likelihood_is_left():
    winner = torch.tensor([-2.0], requires_grad=True)
    none = torch.zeros(1, 0)
    found = listwise_dpo_loss(winner, winner.detach(), none, none, none, none.bool(), 1.0, 1.0)
    assert found["loss"].item() == 2.0 and found["preference"].item() == 0.0
    found["loss"].backward()
    assert winner.grad.item() == -1.0
