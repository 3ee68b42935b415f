import numpy as np
import pytest
from scipy.optimize import minimize

from onesearch.search.ranking_weights import GENERATOR_ALONE, RankingWeights, fit_weights


def test_the_fit_finds_the_feature_that_explains_the_clicks():
    rng = np.random.default_rng(0)
    features = {name: rng.normal(size=(2000, 6)).astype(np.float32) for name in ("useful", "noise")}
    logits = 2.0 * features["useful"]
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    chosen = (rng.random((2000, 1)) > np.cumsum(share, 1)).sum(1)
    positive = np.arange(6) == chosen[:, None]
    weights = fit_weights(features, np.ones((2000, 6), bool), positive)
    assert weights.values["useful"] == pytest.approx(2.0, abs=0.15)
    assert weights.values["noise"] == pytest.approx(0.0, abs=0.1)


def test_padding_has_no_say():
    rng = np.random.default_rng(1)
    feature = rng.normal(size=(500, 4)).astype(np.float32)
    positive = np.arange(4) == feature.argmax(1)[:, None]
    valid = np.ones((500, 4), bool)
    plain = fit_weights({"f": feature}, valid, positive)
    wide = np.concatenate([feature, np.full((500, 3), 1e6, np.float32)], 1)
    padded = fit_weights({"f": wide}, np.pad(valid, ((0, 0), (0, 3))), np.pad(positive, ((0, 0), (0, 3))))
    assert padded.values["f"] == pytest.approx(plain.values["f"], rel=1e-3)


def test_no_positive_candidate_is_an_error():
    nothing = np.zeros((3, 2), bool)
    with pytest.raises(ValueError, match="no validation request"):
        fit_weights({"f": np.zeros((3, 2), np.float32)}, ~nothing, nothing)


def test_the_generator_alone_ranks_by_log_probability():
    features = {"log_prob": np.array([[-1.0, -2.0]], np.float32), "item_score": np.array([[0.0, 9.0]], np.float32)}
    np.testing.assert_array_equal(GENERATOR_ALONE.score(features), features["log_prob"])


def test_a_weight_may_grow_with_a_context():
    rng = np.random.default_rng(2)
    n = 4000
    feature, context = rng.normal(size=(n, 5)).astype(np.float32), (np.arange(n) % 2).astype(np.float32)
    logits = (0.5 + 1.5 * context)[:, None] * feature
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    positive = np.arange(5) == (rng.random((n, 1)) > np.cumsum(share, 1)).sum(1)[:, None]
    weights = fit_weights({"f": feature}, np.ones((n, 5), bool), positive, {"c": context}, ridge=1e-6)
    assert weights.values["f"] == pytest.approx(0.5, abs=0.1)
    assert weights.values["f * c"] == pytest.approx(1.5, abs=0.15)
    plain = fit_weights({"f": feature}, np.ones((n, 5), bool), positive, {"c": context}, plain=["f"])
    assert set(plain.values) == {"f"}


def test_scores_by_hand():
    weights = RankingWeights({"a": 2.0, "a * c": 0.5, "b": -1.0, "absent": 9.0})
    features = {
        "a": np.array([[1.0, 2.0], [3.0, 0.0]], np.float32),
        "b": np.array([[0.0, 1.0], [1.0, 1.0]], np.float32),
    }
    score = weights.score(features, {"c": np.array([0.0, 2.0], np.float32)})
    np.testing.assert_allclose(score, [[2, 3], [8, -1]])


def test_the_minimum_is_that_of_a_general_optimiser():
    rng = np.random.default_rng(3)
    valid = rng.random((300, 6)) < 0.8
    valid[:, 0] = True
    features = {name: rng.normal(size=(300, 6)).astype(np.float32) * 3 for name in "ab"}
    gain = np.where(rng.random((300, 6)) < 0.3, rng.random((300, 6)), 0).astype(np.float32)
    found = fit_weights(features, valid, gain, ridge=0.01)
    keep = (np.where(valid, gain, 0) > 0).any(1)
    scale = np.array([features[n][keep][valid[keep]].std() for n in "ab"])
    x = np.stack([features[n] for n in "ab"], -1)[keep] / scale
    share = np.where(valid, gain, 0)[keep]
    share = share / share.sum(1, keepdims=True)

    def loss(w):
        logits = np.where(valid[keep], x @ w, -np.inf)
        return np.mean(np.log(np.exp(logits).sum(1)) - (share * (x @ w)).sum(1)) + 0.01 * w @ w

    best = minimize(loss, np.zeros(2)).x / scale
    np.testing.assert_allclose([found.values["a"], found.values["b"]], best, atol=2e-3)


def test_two_linear_scores_add_up_to_one():
    features = {"a": np.array([[1.0, 2]], np.float32), "b": np.array([[3.0, -1]], np.float32)}
    first, second = RankingWeights({"a": 2.0}), RankingWeights({"a": 1.0, "b": -1.0})
    both = first.plus(second, 0.5)
    np.testing.assert_allclose(both.score(features), first.score(features) + 0.5 * second.score(features))
