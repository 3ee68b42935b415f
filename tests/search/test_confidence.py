"""Whether anything fits a query, by hand."""

import numpy as np
import pytest

from onesearch.search.candidates import Candidates
from onesearch.search.confidence import Confidence, best_match


def candidates(items: list[list[int]], **features: list[list[float]]) -> Candidates:
    columns = {name: np.array(values, np.float32) for name, values in features.items()}
    return Candidates(np.array(items), columns, np.zeros(np.shape(items), bool), {})


def fit(matches: np.ndarray) -> Confidence | None:
    """Searches of one candidate each, which was clicked; none where the match is -inf."""
    found = candidates(np.where(np.isfinite(matches), 7, -1)[:, None], text=np.nan_to_num(matches, neginf=0)[:, None])
    return Confidence.fit(found, found.items >= 0)


def test_the_match_is_the_largest_likeness_of_a_candidate_that_exists():
    found = candidates([[3, 5, -1], [-1, -1, -1], [1, -1, -1]], text=[[0.2, 0.7, 0.0], [0, 0, 0], [-0.3, 0, 0]])
    np.testing.assert_allclose(best_match(found), np.array([0.7, -np.inf, -0.3], np.float32))
    assert best_match(candidates([[3]], log_prob=[[0.0]])) is None
    assert best_match(candidates([[]], text=[[]])).tolist() == [-np.inf]


def test_confidence_is_the_share_of_good_searches_that_match_no_better():
    fitted = fit(np.linspace(0, 1, 1001, dtype=np.float32))
    found = fitted.of([-0.5, 0.0, 0.25, 0.999, 1.0, 7.0])
    np.testing.assert_allclose(found, [0, 0.005, 0.255, 0.995, 1, 1], atol=0.006)
    assert fitted.of([-np.inf]) == [0]


def test_equal_matches_have_the_highest_share_and_infinite_ones_do_not_count():
    fitted = fit(np.array([0.5] * 8 + [0.9, 0.9, -np.inf], np.float32))
    np.testing.assert_allclose(fitted.of(np.array([0.4, 0.5, 0.9], np.float32)), [0, 0.8, 1], atol=0.11)
    assert fitted.quantiles[0] == 0.5
    assert fit(np.array([-np.inf], np.float32)) is None and fit(np.zeros(0, np.float32)) is None


def test_relevant_are_items_as_near_to_the_best_as_nine_of_ten_clicked_ones():
    likeness = np.tile(np.array([[0.9, 0.8, 0.5]], np.float32), (10, 1))
    clicked = np.zeros((10, 3), bool)
    clicked[:, 0], clicked[0, 1], clicked[1, 2] = True, True, True
    found = candidates([[1, 2, 3]] * 10, text=likeness.tolist())
    # Behind the best by 0 (ten times), 0.1 and 0.4: nine of ten lie within the quantile 0.9.
    assert Confidence.fit(found, clicked).margin == pytest.approx(np.quantile([0] * 10 + [0.1, 0.4], 0.9), abs=1e-6)
    assert Confidence.fit(candidates([[1, 2, 3]] * 10, other=likeness.tolist()), clicked) is None


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_so_many_of_other_good_searches_fall_below_a_threshold(share: float):
    rng = np.random.default_rng(0)
    fitted = fit(rng.normal(0.6, 0.1, 4000).astype(np.float32))
    assert (fitted.of(rng.normal(0.6, 0.1, 4000).astype(np.float32)) < share).mean() == pytest.approx(share, abs=0.02)
