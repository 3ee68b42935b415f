"""Click rates that do not depend on where an item was shown: what ``R_CTR`` is made of (docs/method.md, 7.3 and 7.5).

A position-based model: a click needs that the rank is examined and that the item attracts. Attraction is a posterior
mean, so that an item shown twice is close to the average; isotonic calibration on page views that were not counted
makes it a probability.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.artefact import read_json, read_manifest, write_json
from onesearch.common.extras import from_extra
from onesearch.data.dataset import ragged_rows

Floats = NDArray[np.float64]
RATES = "click_rates"  # below the stage ``rewards``


@dataclass(frozen=True)
class Impressions:
    """Items as they were shown, one entry each: row of the item, rank from 0, clicked or not."""

    item: NDArray[np.int64]
    rank: NDArray[np.int64]
    clicked: NDArray[np.bool_]

    @classmethod
    def from_page_views(cls, page_views: pl.DataFrame, item_ids: pl.Series) -> "Impressions":
        """Of a log, over the catalogue whose ids in row order are given."""
        # Ranks count within a page view; a click belongs to the impression of its item there.
        shown, clicked = (ragged_rows(page_views[name], item_ids) for name in ("shown", "clicked"))
        rank = np.arange(len(shown.values)) - np.repeat(shown.offsets[:-1], shown.lengths)
        n = len(item_ids)
        hit = np.isin(shown.owners * n + shown.values, clicked.owners * n + clicked.values)
        return cls(shown.values.astype(np.int64), rank, hit)

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed click rates of impressions in bins of equal size; float64 [bins] each, ``n`` int64."""

    predicted: Floats
    observed: Floats
    n: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by impressions."""
        return float((np.abs(self.predicted - self.observed) * self.n).sum() / max(self.n.sum(), 1))


@dataclass(frozen=True)
class ClickRates:
    """P(click | examined) of items.

    ::

        P(click) = η_rank · a_item                            # examined, and attracted
        repeat:  examined = clicks + (shows - clicks) · η (1 - a) / (1 - η a)      # per (item, rank)
                 a = (clicks + prior · mean) / (examined + prior);  η = examined / shows, η of the first rank 1
        rate     = isotonic f(a), fitted to clicks / η of impressions that were not counted

    Attributes:
        examination: P(examined) of each rank, 1 at the first, float64 [K]; deeper ranks have the last one's.
        attraction: posterior mean of each item, before calibration, float64 [N].
        knots: attractions at which the calibration is given, rising; empty before calibration.
        values: what they are calibrated to.
    """

    examination: Floats
    attraction: Floats
    knots: Floats
    values: Floats

    @classmethod
    def from_impressions(cls, shown: Impressions, items: int, prior: float = 20.0, rounds: int = 500) -> "ClickRates":
        """Fit by expectation maximisation over counts of (item, rank).

        Args:
            shown: impressions of the training part.
            items: N.
            prior: strength of the average as a prior, in examined impressions.
            rounds: of expectation and maximisation, at most.

        Raises:
            ValueError: nothing was shown.
        """
        if not len(shown):
            raise ValueError("the log has no impressions, so there are no click rates; set the weight of R_CTR to 0")
        # Counts by cell, an (item, rank) pair that occurs: n shows and the clicks among them.
        ranks = int(shown.rank.max()) + 1
        cell, inverse = np.unique(shown.item * ranks + shown.rank, return_inverse=True)
        item, rank = cell // ranks, cell % ranks
        n = np.bincount(inverse).astype(np.float64)
        clicks = np.bincount(inverse, shown.clicked)
        # Start: examination as the ranks' click rates, every item as attractive as the average at the top.
        of_rank, of_item = np.bincount(rank, n, ranks), np.bincount(item, clicks, items)
        rate = np.bincount(rank, clicks, ranks) / np.maximum(of_rank, 1)
        mean = max(float(rate[0]), 1e-6)
        examination, attraction = np.clip(rate / mean, 0.01, 1.0), np.full(items, mean)
        for _ in range(rounds):
            # Expectation: a click was examined for certain; the others with P(examined | no click).
            e, a = examination[rank], attraction[item]
            examined = clicks + (n - clicks) * e * (1 - a) / np.maximum(1 - e * a, 1e-9)
            # Maximisation: clicks over examined shows, of items with the prior, of ranks over all shows.
            seen = np.bincount(item, examined, items)
            mean = max(float(of_item.sum() / seen.sum()), 1e-6)
            before = np.concatenate([examination, attraction])
            attraction = (of_item + prior * mean) / (seen + prior)
            examination = np.bincount(rank, examined, ranks) / np.maximum(of_rank, 1)
            examination = np.clip(examination / max(examination[0], 1e-9), 1e-3, 1.0)
            if np.abs(np.concatenate([examination, attraction]) - before).max() < 1e-5:
                break
        return cls(examination, attraction, np.zeros(0), np.zeros(0))

    def seen(self, rank: NDArray[np.integer]) -> Floats:
        """P(examined) of ranks from 0."""
        return np.asarray(self.examination[np.minimum(rank, len(self.examination) - 1)])

    def rate(self, items: NDArray[np.integer], low: float = 0.0, high: float = 1.0) -> Floats:
        """Calibrated P(click | examined) of item rows of any shape, clipped to [low, high]; -1 gives ``low``."""
        # Linear between the knots of the calibration, constant outside of them.
        raw = self.attraction[np.maximum(items, 0)]
        found = np.interp(raw, self.knots, self.values) if len(self.knots) else raw
        return np.where(items >= 0, np.clip(found, low, high), low)

    def calibrated(self, held_out: Impressions) -> "ClickRates":
        """These rates with an isotonic calibration on impressions that were not counted (the validation part)."""
        with from_extra("train"):
            from sklearn.isotonic import IsotonicRegression

        if not len(held_out):
            return self
        seen = self.seen(held_out.rank)
        # Least squares of click - P(examined)·rate, written for the rate.
        fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(
            self.attraction[held_out.item], held_out.clicked / seen, sample_weight=seen**2
        )
        return replace(self, knots=np.asarray(fitted.X_thresholds_), values=np.asarray(fitted.y_thresholds_))

    def reliability(self, shown: Impressions, bins: int = 10) -> Reliability:
        """Predicted P(click) at the rank shown against clicks, in bins of equally many impressions."""
        # Sorted by prediction and cut into parts of equal size.
        predicted = self.rate(shown.item) * self.seen(shown.rank)
        order = np.argsort(predicted, kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
        return Reliability(
            np.array([predicted[part].mean() for part in parts]),
            np.array([shown.clicked[part].mean() for part in parts]),
            np.array([len(part) for part in parts], np.int64),
        )

    def save(self, folder: Path) -> None:
        """Write ``click_rates.json`` and ``attraction.npy``."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "attraction.npy", self.attraction, allow_pickle=False)
        lines = {name: getattr(self, name).tolist() for name in ("examination", "knots", "values")}
        write_json(folder / "click_rates.json", lines)

    @classmethod
    def load(cls, folder: Path) -> "ClickRates":
        """Read what :meth:`save` wrote."""
        lines = {name: np.asarray(line, float) for name, line in read_json(folder / "click_rates.json").items()}
        return cls(attraction=np.load(folder / "attraction.npy", allow_pickle=False), **lines)


def examination_of(run: Path) -> Floats:
    """P(a rank is examined) by rank, as the run's stage ``rewards`` found it; [0] where it found none."""
    folder = run / "rewards" / RATES
    found = read_manifest(folder.parent) is not None and folder.is_dir()
    return ClickRates.load(folder).examination if found else np.zeros(0)
