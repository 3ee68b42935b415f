import math

import torch

from onesearch.search.path_scoring import LevelDistribution
from onesearch.training.supervised_losses import codebook_nll, item_nll, legal_means, score_nll, text_nll


def test_item_nll_weights_targets_and_sums_levels():
    log_probs = torch.log(torch.tensor([[0.5, 0.25], [0.125, 1.0]]))
    total, per_level = item_nll(log_probs, torch.tensor([1.0, 3.0]))
    first = 0.25 * math.log(2) + 0.75 * math.log(8)
    second = 0.25 * math.log(4)
    torch.testing.assert_close(per_level, torch.tensor([first, second]))
    torch.testing.assert_close(total, torch.tensor(first + second))


def test_legal_means_are_over_the_children_of_each_path():
    # Of three paths the first chooses among two tokens and the third among three; the second has no choice.
    logs = torch.log(torch.tensor([0.25, 0.75, 0.5, 0.125, 0.375]))
    level = LevelDistribution(torch.tensor([0, 2]), torch.tensor([2, 3]), logs, torch.tensor([1, 2]))
    found = legal_means([level, level], 3)
    first, third = math.log(0.25 * 0.75) / 2, math.log(0.5 * 0.125 * 0.375) / 3
    torch.testing.assert_close(found, torch.tensor([[first] * 2, [0.0] * 2, [third] * 2]))


def test_codebook_nll_of_uniform_logits_is_the_log_size():
    total, per_level = codebook_nll([torch.zeros(2, 4), torch.zeros(2, 8)], torch.tensor([[0, 7], [3, 0]]))
    torch.testing.assert_close(per_level, torch.tensor([math.log(4), math.log(8)]))
    torch.testing.assert_close(total, torch.tensor(math.log(32)))


def test_text_nll_ignores_padding():
    logits = torch.zeros(1, 2, 4)
    logits[0, 1] = torch.tensor([100.0, 0, 0, 0])
    loss = text_nll(logits, torch.tensor([[2, 0]]), pad=0)
    torch.testing.assert_close(loss, torch.tensor(math.log(4)))


def test_score_nll_does_not_count_other_positives_as_negatives():
    scores = torch.log(torch.tensor([[2.0, 1.0, 1.0]]))
    weights = torch.ones(1)
    plain = score_nll(scores, torch.tensor([0]), weights)
    torch.testing.assert_close(plain, torch.tensor(math.log(2.0)))
    others = torch.tensor([[False, True, False]])
    torch.testing.assert_close(score_nll(scores, torch.tensor([0]), weights, others), torch.tensor(math.log(1.5)))
