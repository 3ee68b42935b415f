import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from onesearch.evaluation.significance import bootstrap, permutation_test


def test_interval_matches_the_normal_approximation():
    values = np.random.default_rng(0).normal(3, 2, (4000, 1))
    found = bootstrap(values, resamples=2000)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean[0] == pytest.approx(values.mean(), abs=1e-6)
    assert found.low[0] == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert found.high[0] == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_about_95_percent_of_intervals_hold_the_true_mean():
    generator = np.random.default_rng(1)
    values = (generator.random((300, 400)) < 0.3).astype(np.float32)  # 400 repetitions as 400 metrics
    found = bootstrap(values, resamples=600)
    assert 0.90 <= ((found.low <= 0.3) & (found.high >= 0.3)).mean() <= 0.98


def test_undefined_requests_are_left_out_and_the_seed_decides():
    values = np.array([[1, np.nan], [0, np.nan], [np.nan, np.nan], [1, np.nan]])
    found = bootstrap(values, 200)
    assert found.mean[0] == pytest.approx(2 / 3) and found.n.tolist() == [3, 0]
    assert np.isnan([found.mean[1], found.low[1], found.high[1]]).all()
    again = bootstrap(values, 200)
    np.testing.assert_array_equal(found.low, again.low)
    assert np.isnan(bootstrap(np.zeros((0, 2))).mean).all()


def test_undefined_requests_do_not_narrow_or_shift_the_interval():
    """Half of the requests undefined: the interval is that of the other half."""
    half = np.random.default_rng(3).normal(3, 2, 1000)
    values = np.full((2000, 2), np.nan)
    values[::2, 0], values[:, 1] = half, 0
    with_nan, alone = bootstrap(values, 2000), bootstrap(half[:, None], 2000)
    assert with_nan.low[0] == pytest.approx(alone.low[0], abs=0.02)
    assert with_nan.high[0] == pytest.approx(alone.high[0], abs=0.02)


def test_small_p_values_equal_the_exact_enumeration():
    difference = np.array([0.5, 0.25, 1.0, -0.25, 0.75, 0.5, 0.0, 1.0, -0.5])
    moved = difference[difference != 0]
    sums = np.array([np.dot(signs, moved) for signs in product([-1, 1], repeat=len(moved))])
    exact = (np.abs(sums) >= abs(moved.sum()) - 1e-9).mean()
    found = permutation_test(difference[:, None], np.zeros((9, 1)), flips=40_000)
    assert found.p[0] == pytest.approx(exact, abs=0.01)
    assert (found.wins[0], found.ties[0], found.losses[0]) == (6, 1, 2)
    assert found.difference[0] == pytest.approx(difference.mean())


def test_binary_metrics_agree_with_the_binomial_test():
    generator = np.random.default_rng(2)
    a, b = (generator.random((2000, 1)) < 0.52).astype(float), (generator.random((2000, 1)) < 0.48).astype(float)
    found = permutation_test(a, b, flips=20_000)
    exact = stats.binomtest(int(found.wins[0]), int(found.wins[0] + found.losses[0])).pvalue
    assert found.p[0] == pytest.approx(exact, abs=0.01)


def test_equal_methods_have_p_one_and_clear_winners_the_smallest():
    same = np.random.default_rng(0).random((50, 2))
    assert permutation_test(same, same, 500).p.tolist() == [1, 1]
    assert permutation_test(same + 1, same, 999).p.tolist() == [0.001, 0.001]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_swapping_the_methods_mirrors_the_result(seed):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 2, (2, 40, 3)).astype(float)
    forth, back = permutation_test(a, b, 300), permutation_test(b, a, 300)
    np.testing.assert_allclose(forth.difference, -back.difference)
    np.testing.assert_array_equal(forth.p, back.p)
    np.testing.assert_array_equal(forth.wins, back.losses)


def test_wrong_pairs_are_refused():
    with pytest.raises(ValueError, match="same requests"):
        permutation_test(np.zeros((3, 1)), np.zeros((4, 1)))
    with pytest.raises(ValueError, match="same targets"):
        permutation_test(np.zeros((3, 1)), np.array([[0], [np.nan], [0]]))


def test_ten_thousand_flips_of_ten_thousand_requests_take_about_a_second():
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 10_000, 1))
    start = time.process_time()
    permutation_test(a, b)
    assert time.process_time() - start < 3  # 0.5 s on an idle core
