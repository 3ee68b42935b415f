import math

import pytest
import torch

from onesearch.encoding.encoder_alignment import contrastive, rank_margin, relevance_regression

A = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def test_contrastive_by_hand():
    # Cosines are 1 on the diagonal and 0 off it; with temperature 0.5 each row has logits (2, 0).
    expected = math.log(1 + math.exp(-2))
    assert contrastive(A, A, 0.5).item() == pytest.approx(expected, rel=1e-6)


def test_contrastive_weights_and_directions_by_hand():
    right = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # logits (t=1): row 0 (1, .6), row 1 (0, .8); columns: (1, 0), (.6, .8)
    rows = [math.log(1 + math.exp(-0.4)), math.log(1 + math.exp(-0.8))]
    columns = [math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(-0.2))]
    both = [(rows[i] + columns[i]) / 2 for i in range(2)]
    assert contrastive(A, right, 1.0).item() == pytest.approx(sum(both) / 2, rel=1e-6)
    weighted = contrastive(A, right, 1.0, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * both[0] + both[1]) / 4, rel=1e-6)


def test_equal_texts_are_no_negatives():
    same = torch.tensor([[True, True], [True, True]])
    assert contrastive(A, A, 0.1, None, same).item() == pytest.approx(0.0, abs=1e-7)


def test_rank_margin_by_hand():
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    better, worse = torch.tensor([[0.6, 0.8], [1.0, 0.0]]), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    # .1 - .6 + .8 = .3 and max(0, .1 - 1 + 0) = 0
    assert rank_margin(query, better, worse, 0.1).item() == pytest.approx(0.15)


def test_relevance_by_hand():
    query, item = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    loss = relevance_regression(query, item, torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.1]))
    # (2 * .6 + .1 - 1)^2 = .09 and (.1 - 0)^2 = .01
    assert loss.item() == pytest.approx(0.05)
