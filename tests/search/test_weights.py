import numpy as np
import pytest

from onesearch.search.weights import GENERATOR_ALONE, fit_weights


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
