"""Self-distillation terms against arithmetic done by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.search.path_scoring import LevelDistribution, chosen_log_probs
from onesearch.training.distillation_losses import (
    detach,
    distillation_kl,
    fgm_step,
    focal_nll,
    hidden_l1,
    keyword_rows,
    kl_per_path,
    perturb,
    r_drop,
    row_loss,
    select_paths,
    update_average,
)
from onesearch.training.supervised_losses import item_nll


def level(rows, choosing, targets):
    """Ragged rows of probabilities for the paths in ``choosing``."""
    flat = torch.tensor([p for row in rows for p in row]).log()
    count = torch.tensor([len(row) for row in rows])
    starts = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
    return LevelDistribution(torch.tensor(choosing), count, flat, starts + torch.tensor(targets))


TEACHER = level([[0.5, 0.5], [0.2, 0.3, 0.5]], [0, 2], [0, 2])
STUDENT = level([[0.25, 0.75], [0.2, 0.3, 0.5]], [0, 2], [0, 2])
# KL of path 0: .5 ln(.5/.25) + .5 ln(.5/.75)
KL = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
BACK = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)


def test_kl_sums_over_the_support_and_is_zero_without_a_choice():
    assert kl_per_path(TEACHER, STUDENT, 3).tolist() == pytest.approx([KL, 0.0, 0.0], abs=1e-6)


def test_distillation_is_the_weighted_mean_over_paths_of_the_sum_over_levels():
    weights = torch.tensor([1.0, 1.0, 2.0])
    value = distillation_kl([TEACHER, TEACHER], [STUDENT, STUDENT], weights)
    assert value.item() == pytest.approx(2 * KL / 4, abs=1e-6)


def test_temperature_softens_both_and_scales_by_its_square():
    # τ = 2: probabilities ∝ √p; student √.25 : √.75
    a, b = 0.5, math.sqrt(0.75)
    q = [a / (a + b), b / (a + b)]
    wanted = 4 * (0.5 * math.log(0.5 / q[0]) + 0.5 * math.log(0.5 / q[1]))
    assert kl_per_path(TEACHER, STUDENT, 3, 2.0)[0].item() == pytest.approx(wanted, rel=1e-5)


def test_r_drop_is_half_of_both_directions_and_symmetric():
    weights = torch.ones(3)
    assert r_drop([TEACHER], [STUDENT], weights).item() == pytest.approx(0.5 * (KL + BACK) / 3, rel=1e-5)
    assert r_drop([STUDENT], [TEACHER], weights).item() == pytest.approx(0.5 * (KL + BACK) / 3, rel=1e-5)


def test_a_detached_teacher_gets_no_gradient():
    logits = torch.tensor([0.3, -0.2], requires_grad=True)
    student = torch.tensor([0.1, 0.4], requires_grad=True)

    def of(x):
        return LevelDistribution(torch.tensor([0]), torch.tensor([2]), x.log_softmax(0), torch.tensor([0]))

    distillation_kl(detach([of(logits)]), [of(student)], torch.ones(1)).backward()
    assert logits.grad is None
    # d KL / d student logits = softmax(student) - softmax(teacher)
    torch.testing.assert_close(student.grad, student.detach().softmax(0) - logits.detach().softmax(0))


def test_selected_paths_keep_their_own_numbers():
    picked = select_paths([TEACHER], torch.tensor([1, 2]), 3)[0]
    assert picked.choosing.tolist() == [1]
    assert picked.segment.tolist() == [0, 0, 0]
    assert picked.log_probs.exp().tolist() == pytest.approx([0.2, 0.3, 0.5])
    torch.testing.assert_close(chosen_log_probs([picked], 2), torch.tensor([[0.0], [math.log(0.5)]]))


def test_focal_by_hand_and_as_plain_cross_entropy():
    log_probs = torch.tensor([[0.5, 1.0], [0.25, 0.8]]).log()
    weights = torch.tensor([1.0, 3.0])
    hand = (1 * 2 * 0.5**3 * math.log(2) + 3 * 2 * (0.75**3 * math.log(4) + 0.2**3 * math.log(1.25))) / 4
    assert focal_nll(log_probs, weights).item() == pytest.approx(hand, rel=1e-5)
    plain, _ = item_nll(log_probs, weights)
    assert focal_nll(log_probs, weights, alpha=1.0, gamma=0.0).item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 3.0])
def test_focal_has_a_finite_gradient_where_there_is_no_choice(gamma):
    log_probs = torch.zeros(1, 2, requires_grad=True)
    focal_nll(log_probs, torch.ones(1), gamma=gamma).backward()
    assert torch.isfinite(log_probs.grad).all()


def test_the_row_of_keywords_is_found_again_in_the_fused_one():
    torch.manual_seed(0)
    rows, keywords = (torch.nn.functional.normalize(torch.randn(7, 5), dim=1) for _ in range(2))
    fused = torch.nn.functional.normalize(rows + keywords, dim=1)
    torch.testing.assert_close(keyword_rows(rows, fused), keywords, atol=1e-5, rtol=1e-4)


def test_row_loss_by_hand():
    rows = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    gate = torch.tensor([math.log(3.0), 0.0, 0.0])
    loss = row_loss(rows, gate, torch.tensor([[0.6, 0.8]]), torch.tensor([0]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + 2 * math.log(2)) / 3 + 1 - 1.2 / math.sqrt(4.01), rel=1e-5)
    none = row_loss(rows, gate, rows[:0], torch.tensor([], dtype=torch.int64))
    assert none.item() == pytest.approx((math.log(4) + 2 * math.log(2)) / 3, rel=1e-5)


def test_hidden_l1_is_scaled_by_the_teachers_deviation():
    teacher = torch.tensor([[[1.0, -1.0]]])
    student = torch.tensor([[[0.0, 0.0]]])
    assert hidden_l1(teacher, student, torch.ones(1)).item() == pytest.approx(1 / math.sqrt(2))


def test_fgm_moves_by_epsilon_along_the_global_gradient():
    steps = fgm_step([torch.tensor([3.0, 0.0]), torch.tensor([[0.0, 4.0]])], 0.6)
    assert steps[0].tolist() == pytest.approx([0.36, 0.0])
    assert steps[1].tolist() == [pytest.approx([0.0, 0.48])]


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_fgm_stays_put_without_a_usable_gradient(bad):
    assert fgm_step([torch.tensor([bad, 0.0])], 0.6)[0].tolist() == [0.0, 0.0]


def test_perturbed_tables_come_back_bit_by_bit_even_after_an_error():
    table = torch.nn.Parameter(torch.tensor([0.1, 1e8]))
    before = table.detach().clone()
    with pytest.raises(RuntimeError), perturb([table], [torch.tensor([0.3, 0.3])]):
        assert table[0].item() == pytest.approx(0.4)
        raise RuntimeError
    assert torch.equal(table.detach(), before)


def test_average_by_hand():
    average = {"w": torch.tensor([1.0])}
    update_average(average, {"w": torch.tensor([3.0])}, 0.9)
    assert average["w"].tolist() == pytest.approx([1.2])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-4, 4), min_size=2, max_size=5), min_size=1, max_size=4))
def test_kl_is_never_negative_and_zero_of_itself(rows):
    first = level([torch.tensor(row).softmax(0).tolist() for row in rows], list(range(len(rows))), [0] * len(rows))
    other = [torch.tensor(row).flip(0).softmax(0).tolist() for row in rows]
    second = level(other, list(range(len(rows))), [0] * len(rows))
    assert (kl_per_path(first, second, len(rows)) >= -1e-6).all()
    assert kl_per_path(first, first, len(rows)).abs().max() < 1e-6
