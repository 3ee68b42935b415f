import math

import numpy as np
import torch

from onesearch.model.behaviour_sequences import LongBehaviour, recency_weights, uid_codes


def test_recency_weights_follow_the_formula_and_skip_missing_items():
    weights = recency_weights(np.array([[False, True, True], [False, False, False]]))
    old, new = math.exp(1), math.exp(math.sqrt(2))
    np.testing.assert_allclose(weights, [[0, old / (old + new), new / (old + new)], [0, 0, 0]])


def test_uid_is_the_weighted_code_rounded_up():
    sids = np.array([[[-1, -1], [2, 10], [4, 20]]])
    share = math.exp(math.sqrt(2)) / (math.exp(1) + math.exp(math.sqrt(2)))
    expected = [math.ceil(2 + 2 * share), math.ceil(10 + 10 * share)]
    assert uid_codes(sids).tolist() == [expected]


def test_uid_of_one_item_is_its_sid_and_of_none_is_missing():
    one = np.array([[[-1] * 5, [7, 3, 1, 250, 9]]])
    assert uid_codes(one).tolist() == [[7, 3, 1, 250, 9]]
    assert uid_codes(np.full((1, 3, 5), -1)).tolist() == [[-1] * 5]


def test_long_behaviour_sums_centroids_per_stream_and_layer():
    centroids = [torch.eye(3), 10 * torch.eye(3)]
    module = LongBehaviour(centroids, d_model=8, n_vectors=2)
    codes = torch.full((1, 3, 4, 2), -1)
    codes[0, 0, 2] = torch.tensor([0, 1])
    codes[0, 0, 3] = torch.tensor([2, 1])
    sums = module.sums(codes)
    root = math.sqrt(2)
    torch.testing.assert_close(sums[0, 0], torch.tensor([1.0, 0, 1]) / root)
    torch.testing.assert_close(sums[0, 1], torch.tensor([0.0, 20, 0]) / root)
    assert sums[0, 2:].abs().sum() == 0
    assert module(codes).shape == (1, 2, 8)


def test_long_behaviour_ignores_order_within_a_stream_and_padding():
    torch.manual_seed(0)
    module = LongBehaviour([torch.randn(4, 6) for _ in range(3)], d_model=8, n_vectors=3).eval()
    codes = torch.randint(0, 4, (1, 3, 5, 3))
    padded = torch.cat([torch.full((1, 3, 2, 3), -1), codes.flip(2)], 2)
    torch.testing.assert_close(module(codes), module(padded))


def test_a_history_of_one_item_again_and_again_has_its_sid_as_uid():
    """Weights sum to one only up to rounding; that must not lift a code."""
    for n in range(1, 60):
        assert uid_codes(np.tile(np.array([7, 3, 1, 250, 9]), (1, n, 1))).tolist() == [[7, 3, 1, 250, 9]]
