"""The weights that order candidates, fitted on validation clicks as a conditional logit.

How far a feature is to be trusted depends on the request: click counts say much of a frequent query and nothing of a
new one. So a weight may have a part that grows with a *context* (a number per request, such as how often the query was
clicked for). The model stays linear and convex, and its few numbers can be read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_TIMES = " * "
_CELLS = 16_000_000  # numbers of a chunk's temporary array
_MOST_STEPS = 50


@dataclass(frozen=True)
class RankingWeights:
    """``score = Σ_f (w_f + Σ_c w_{f*c} · context_c) · feature_f``; what is absent has weight 0.

    ``values`` maps ``"feature"`` and ``"feature * context"`` to numbers. The generator alone is ``{"log_prob": 1}``;
    the plain engine adds ``item_score``.
    """

    values: Mapping[str, float]

    def score(self, features: Mapping[str, Floats], contexts: Mapping[str, Floats] | None = None) -> Floats:
        """Scores of candidates, float32 [n, C], from features [n, C] and contexts [n]."""
        total = np.zeros(next(iter(features.values())).shape, np.float32)
        for name, feature in features.items():
            weight = self.of(name, len(total), contexts or {})
            if weight.any():
                total += weight[:, None] * feature
        return total

    def of(self, feature: str, n: int, contexts: Mapping[str, Floats]) -> Floats:
        """The weight of a feature for each of n requests with their contexts, float32 [n]."""
        weight = np.full(n, self.values.get(feature, 0.0), np.float32)
        for context, value in contexts.items():
            weight += np.float32(self.values.get(times(feature, context), 0.0)) * value
        return weight

    def plus(self, other: "RankingWeights", share: float) -> "RankingWeights":
        """These weights with ``share`` times the others added: the sum of two linear scores is one."""
        names = dict.fromkeys((*self.values, *other.values))
        return RankingWeights(
            {name: self.values.get(name, 0.0) + share * other.values.get(name, 0.0) for name in names}
        )


def times(feature: str, context: str) -> str:
    """The key of the weight of a feature that grows with a context."""
    return f"{feature}{_TIMES}{context}"


GENERATOR_ALONE = RankingWeights({"log_prob": 1.0})


def fit_weights(
    features: Mapping[str, Floats],
    valid: NDArray[np.bool_],
    positive: NDArray[np.bool_] | Floats,
    contexts: Mapping[str, Floats] | None = None,
    plain: Iterable[str] = (),
    ridge: float = 1e-3,
) -> RankingWeights:
    """Maximise the likelihood of the clicked candidates under a softmax over each request's candidates.

    Args:
        features: every one float32 [n, C].
        valid: which candidates exist, bool [n, C].
        positive: gains of the clicked candidates, [n, C], 0 for the others; each request counts once.
        contexts: numbers per request, float32 [n].
        plain: features whose weight depends on no context.
        ridge: on standardised features; keeps the convex problem bounded.

    Requests without a positive candidate say nothing and are left out.

    Raises:
        ValueError: no request has a positive candidate.
    """
    # Only requests with a clicked candidate say something.
    gain = np.where(valid, positive, 0).astype(np.float32)
    keep = (gain > 0).any(1)
    if not keep.any():
        raise ValueError("no validation request has a clicked item among its candidates; widen the search or add data")
    valid, gain = valid[keep], gain[keep]
    # Columns: every feature, then every feature times every context it may depend on.
    names, context = list(features), {name: value[keep] for name, value in (contexts or {}).items()}
    pairs = sorted((f, c) for f in set(names) - set(plain) for c in context)
    # Candidates of all requests as one list [T], each feature scaled to unit spread.
    lengths = valid.sum(1)
    starts = np.cumsum(lengths) - lengths
    columns = {name: features[name][keep][valid] for name in names}
    scale = {name: _spread(column) for name, column in columns.items()}
    x = np.empty((int(lengths.sum()), len(names) + len(pairs)), np.float32)
    for i, name in enumerate(names):
        x[:, i] = columns[name] / np.float32(scale[name])
    for i, (name, c) in enumerate(pairs, len(names)):
        x[:, i] = x[:, names.index(name)] * np.repeat(context[c], lengths)
    share = (gain / gain.sum(1, keepdims=True))[valid]
    wanted = (share @ x).astype(np.float64) / len(lengths)  # features of what was clicked, mean over requests
    # A convex problem in few unknowns: Newton's method.
    found = _newton(x, starts, lengths, wanted, ridge)
    # Back to the features' own scales.
    values = {name: float(w) / scale[name] for name, w in zip(names, found, strict=False)}
    values |= {times(a, b): float(w) / scale[a] for (a, b), w in zip(pairs, found[len(names) :], strict=True)}
    return RankingWeights(values)


def _newton(
    x: Floats, starts: NDArray[np.int64], lengths: NDArray[np.int64], wanted: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Weights [P] that minimise the mean over requests of ``log Σ exp(x w) - wanted · w``, plus ``ridge |w|²``.

    ``x`` float32 [T, P] holds the candidates of one request after the other, at ``starts`` [n], ``lengths`` [n] each.
    """
    n, width = len(starts), x.shape[1]
    # Requests in chunks that bound the temporary array [candidates, P].
    parts = np.array_split(np.arange(n), max(1, x.size // _CELLS))

    def log_totals(w: NDArray[np.float64]) -> tuple[Floats, NDArray[np.float64]]:
        logits = x @ w.astype(np.float32)
        peak = np.maximum.reduceat(logits, starts)
        return logits, np.log(np.add.reduceat(np.exp(logits - np.repeat(peak, lengths)), starts)) + peak.astype(float)

    def loss(w: NDArray[np.float64]) -> float:
        return float(log_totals(w)[1].mean() - wanted @ w + ridge * w @ w)

    w, value = np.zeros(width), np.inf
    for _ in range(_MOST_STEPS):
        # Gradient: expected features under the softmax minus wanted ones; Hessian: their covariance.
        logits, totals = log_totals(w)
        gradient, hessian = 2 * ridge * w - wanted, 2 * ridge * np.eye(width)
        for part in parts:
            rows = slice(starts[part[0]], starts[part[-1]] + lengths[part[-1]])
            p = np.exp(logits[rows] - np.repeat(totals[part], lengths[part])).astype(np.float32)
            weighted = p[:, None] * x[rows]
            mean = np.add.reduceat(weighted, starts[part] - rows.start).astype(np.float64)
            gradient += mean.sum(0) / n
            hessian += ((x[rows].T @ weighted).astype(np.float64) - mean.T @ mean) / n
        # Newton's step, halved until the loss falls as it promises (Armijo).
        step = np.linalg.solve(hessian, gradient)
        value, length = loss(w), 1.0
        while length > 1e-4 and loss(w - length * step) > value - 1e-4 * length * float(gradient @ step):
            length /= 2
        w = w - length * step
        if float(gradient @ step) < 1e-7:  # twice the distance to the minimum, were the loss quadratic
            break
    return w


def _spread(values: Floats) -> float:
    spread = float(values.std(dtype=np.float64))
    return spread if spread > 1e-9 else 1.0
