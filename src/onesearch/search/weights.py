"""The weights that order candidates, fitted on validation clicks as a conditional logit."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RankingWeights:
    """``score = Σ_f weight_f · feature_f``; a feature that is absent has weight 0.

    The generator alone is ``{"log_prob": 1}``; the plain engine adds ``item_score``.
    """

    values: Mapping[str, float]

    def score(self, features: Mapping[str, Floats]) -> Floats:
        """Scores of candidates, float32 in the shape of the features."""
        total = sum(np.float32(weight) * features[name] for name, weight in self.values.items() if weight)
        return np.asarray(total, np.float32)


GENERATOR_ALONE = RankingWeights({"log_prob": 1.0})


def fit_weights(
    features: Mapping[str, Floats], valid: NDArray[np.bool_], positive: NDArray[np.bool_], ridge: float = 1e-3
) -> RankingWeights:
    """Maximise the likelihood of the clicked candidates under a softmax over each request's candidates.

    Shapes: every feature float32 [n, C], ``valid`` and ``positive`` bool [n, C]. Requests without a positive candidate
    say nothing and are left out. The problem is convex; a small ridge on standardised features keeps it bounded.

    Raises:
        ValueError: no request has a positive candidate.
    """
    names = list(features)
    keep = (positive & valid).any(1)
    if not keep.any():
        raise ValueError("no validation request has a clicked item among its candidates; widen the search or add data")
    valid, positive = valid[keep], (positive & valid)[keep]
    x = np.stack([features[name][keep] for name in names], -1).astype(np.float64)
    x = np.where(valid[..., None], x, 0.0)
    scale = np.asarray([x[..., j][valid].std() for j in range(len(names))])
    scale = np.where(scale > 1e-9, scale, 1.0)
    x /= scale
    share = positive / positive.sum(1, keepdims=True)
    mean_positive = np.einsum("nc,ncf->f", share, x)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = np.where(valid, x @ w, -np.inf)
        peak = logits.max(1, keepdims=True)
        exp = np.exp(logits - peak)
        total = exp.sum(1, keepdims=True)
        value = float((np.log(total[:, 0]) + peak[:, 0]).sum() - mean_positive @ w)
        gradient = np.einsum("nc,ncf->f", exp / total, x) - mean_positive
        n = len(x)
        return value / n + ridge * float(w @ w), gradient / n + 2 * ridge * w

    found = minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B")
    return RankingWeights({name: float(w / s) for name, w, s in zip(names, found.x, scale, strict=True)})
