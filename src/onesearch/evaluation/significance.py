"""How sure a figure is: bootstrap intervals over page views and the paired sign-flip permutation test.

Both work on per-request values; nan marks a request for which the metric is not defined (no click, no order), and a
metric's mean is taken over the others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CELLS = 4_000_000  # random numbers held at once


@dataclass(frozen=True)
class Interval:
    """Means of several metrics with percentile bootstrap intervals; every array is float64 [M]."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]


@dataclass(frozen=True)
class PairedTest:
    """Comparison of two methods on the same requests, for several metrics; every array has shape [M].

    ``difference`` is the mean of a - b with its bootstrap interval ``low``..``high``; ``p`` is the two-sided
    permutation p-value; ``wins`` counts requests where a is better, ``losses`` where b is.
    """

    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    wins: NDArray[np.int64]
    ties: NDArray[np.int64]
    losses: NDArray[np.int64]


def bootstrap(values: NDArray[np.floating], resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap over requests (rows are drawn with replacement, all metrics together).

    ::

        repeat R times:  times[r] = how often each of the n requests is drawn      [R, n]
                         sample[r] = sum(times . values) / sum(times . defined)    [R, M]
        interval = percentiles (1 - level) / 2 and (1 + level) / 2 of the samples

    Args:
        values: per-request values [n, M], nan where undefined.
        resamples: number of bootstrap samples.
        level: coverage of the interval.
        seed: seed of the draws.
    """
    n, metrics = values.shape
    defined = np.isfinite(values)
    count = defined.sum(0)
    total = np.where(defined, values, 0).astype(np.float32)
    mean = np.where(count > 0, total.sum(0, dtype=np.float64) / np.maximum(count, 1), np.nan)
    if n == 0:
        return Interval(mean, mean.copy(), mean.copy(), count)
    # Metrics with the same undefined requests share one denominator.
    masks, which = np.unique(np.packbits(defined, axis=0), axis=1, return_inverse=True)
    weights = np.unpackbits(masks, axis=0, count=n).astype(np.float32)
    samples = np.empty((resamples, metrics), np.float64)
    generator = np.random.default_rng(seed)
    size = max(1, _CELLS // n)
    # A block of resamples at once: counts of the drawn requests times values is one matrix product.
    for first in range(0, resamples, size):
        rows = min(size, resamples - first)
        drawn = generator.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)
        below = (times @ weights)[:, which.reshape(-1)]
        with np.errstate(invalid="ignore", divide="ignore"):
            samples[first : first + rows] = np.where(below > 0, (times @ total) / below, np.nan)
    low, high = _quantiles(samples, level)
    return Interval(mean, low, high, count)


def permutation_test(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    flips: int = 10_000,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedTest:
    """Paired sign-flip test: were the two methods equal, each request's difference could as well have the other sign.

    Equation (9.5) of docs/method.md; the same flips serve all metrics::

        d = a - b per request, observed = |sum d|
        repeat B times:  signs = random +1 or -1 per request;  extreme += |sum signs . d| >= observed
        p = (1 + extreme) / (1 + B), which is never 0

    Args:
        a: per-request values of the first method, [n, M].
        b: those of the second method on the same requests, [n, M].
        flips: number of random sign vectors.
        resamples: bootstrap samples for the interval of the difference.
        level: coverage of that interval.
        seed: seed of flips and draws.

    Raises:
        ValueError: the two arrays have different shapes, or are undefined for different requests.
    """
    if a.shape != b.shape:
        raise ValueError(f"cannot pair values of shapes {a.shape} and {b.shape}; evaluate both on the same requests")
    if (np.isfinite(a) != np.isfinite(b)).any():
        raise ValueError("the two methods are undefined for different requests; evaluate both on the same targets")
    difference = a.astype(np.float64) - b
    interval = bootstrap(difference, resamples, level, seed)
    defined = np.isfinite(difference)
    filled = np.where(defined, difference, 0)
    # Requests without a difference in any metric change no sum, whatever their sign.
    kept = filled[(filled != 0).any(axis=1)]
    observed = np.abs(kept.sum(0))
    slack = 1e-6 * np.abs(kept).sum(0)  # float32 sums of the same numbers in another order are still 'as extreme'
    extreme = np.zeros(difference.shape[1], np.int64)
    generator = np.random.default_rng(seed + 1)
    values, total = kept.astype(np.float32), kept.sum(0)
    size = max(1, _CELLS // max(len(kept), 1))
    for first in range(0, flips, size):
        rows = min(size, flips - first)
        packed = generator.integers(0, 256, (rows, (len(kept) + 7) // 8), dtype=np.uint8)
        heads = np.unpackbits(packed, axis=1, count=len(kept)).astype(np.float32)
        sums = 2.0 * (heads @ values) - total  # sum of sign . d, where heads keep their sign: [flips, M]
        extreme += (np.abs(sums) >= observed - slack).sum(0)
    return PairedTest(
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p=(1 + extreme) / (1 + flips),
        wins=(filled > 0).sum(0),
        ties=(defined & (filled == 0)).sum(0),
        losses=(filled < 0).sum(0),
    )


def _quantiles(samples: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper percentile of each column, nan for columns without any defined sample."""
    empty = np.isnan(samples).all(axis=0)
    low, high = np.nanquantile(np.where(empty, 0, samples), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
