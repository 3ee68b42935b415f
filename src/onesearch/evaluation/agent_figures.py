"""What sessions of agents come to: orders, searches per order, those that gave up; and two engines on the same needs.

*Searches per order* is all searches over all orders, so that sessions without an order make it worse; *searches* is the
mean of a session, where one without an order counts its whole budget, so that giving up early is no virtue.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onesearch.evaluation.agent_sessions import Session

Floats = NDArray[np.float64]
METRICS: Final = ("searches per order", "orders", "searches", "offers", "gave up")
_RESAMPLES: Final = 2000


def session_sums(sessions: Sequence[Session], budget: int) -> Floats:
    """Of each session: searches, whether it ended in an order, charged searches, offers, whether it gave up; [n, 5]."""
    return np.array(
        [
            [
                len(one.searches),
                one.ordered is not None,
                len(one.searches) if one.ordered is not None else budget,
                one.offered,
                one.gave_up,
            ]
            for one in sessions
        ],
        np.float64,
    ).reshape(-1, 5)


def figures(sums: Floats, seed: int = 0) -> dict[str, Any]:
    """Each of :data:`METRICS` with its 95 % bootstrap interval over sessions, and how many sessions there were."""
    drawn = _metrics(_resampled(sums, seed))
    now = _metrics(_means(sums))
    return {"sessions": len(sums), **{name: _with_interval(now[name][0], drawn[name]) for name in METRICS}}


def paired_figures(a: Floats, b: Floats, seed: int = 0) -> dict[str, Any]:
    """B less A in each of :data:`METRICS`, for the same needs in the same order, resampled together.

    ``p`` is two-sided, from the share of resamples on the other side of zero.

    Raises:
        ValueError: the sessions are not as many.
    """
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} sessions cannot be paired; take the same needs for both")
    both = _resampled(np.concatenate([a, b], 1), seed)
    drawn_a, drawn_b = _metrics(both[:, :5]), _metrics(both[:, 5:])
    now_a, now_b = _metrics(_means(a)), _metrics(_means(b))
    out: dict[str, Any] = {"sessions": len(a)}
    for name in METRICS:
        difference = drawn_b[name] - drawn_a[name]
        known = difference[np.isfinite(difference)]
        below, above = (int((known <= 0).sum()), int((known >= 0).sum())) if len(known) else (0, 0)
        p = min(1.0, 2 * (1 + min(below, above)) / (1 + len(known)))
        out[name] = {**_with_interval(now_b[name][0] - now_a[name][0], difference), "p": p}
    return out


def _means(sums: Floats) -> Floats:
    """Means over the sessions, [1, columns]; nan without any."""
    return sums.mean(0, keepdims=True) if len(sums) else np.full((1, sums.shape[1]), np.nan)


def _resampled(sums: Floats, seed: int) -> Floats:
    """Means over bootstrap samples of the sessions, [resamples, columns]."""
    rng, n = np.random.default_rng(seed), len(sums)
    if not n:
        return _means(sums)
    return np.stack([sums[rng.integers(0, n, n)].mean(0) for _ in range(_RESAMPLES)])


def _metrics(means: Floats) -> dict[str, Floats]:
    searches, orders, charged, offers, gave_up = means.T
    with np.errstate(divide="ignore", invalid="ignore"):
        per_order = np.where(orders > 0, searches / orders, np.nan)
    return dict(zip(METRICS, (per_order, orders, charged, offers, gave_up), strict=True))


def _with_interval(value: float, drawn: Floats) -> dict[str, float | None]:
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return {
        name: float(one) if np.isfinite(one) else None for name, one in (("value", value), ("low", low), ("high", high))
    }
