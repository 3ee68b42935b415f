"""All that an A/B test estimates: overall, by groups of page views and of items, and an A/A check."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.evaluation.abtest_estimates import (
    GROUP_METRICS,
    METRICS,
    MetricLift,
    PageViewGroups,
    ShopperSums,
    aa_p_values,
    assign_arms,
    detectable_lift,
    keep_items,
    lifts_by_group,
    paired_lifts,
    split_lifts,
)

Lifts = Mapping[str, MetricLift]


@dataclass(frozen=True)
class AbTestAnalysis:
    """What is looked at in exposure logs; results are plain values, as in ``abtest.json``.

    Attributes:
        dimensions: groups of page views.
        groups: ids of the items of each group, by dimension.
        prices: of items, for GMV.
        resamples: of the bootstrap.
        splits: A/A splits of arm A; 0 leaves them out.
    """

    dimensions: Mapping[str, PageViewGroups]
    groups: Mapping[str, Mapping[str, Sequence[str]]]
    prices: Mapping[str, float] | None
    resamples: int
    splits: int

    def paired(self, log_a: pl.DataFrame, log_b: pl.DataFrame, earlier: pl.DataFrame, salt: str) -> dict[str, Any]:
        """From two logs of the same page views, whose shoppers met both engines on the same fate.

        Also deals the shoppers to two arms by ``salt``, to show what a real test of them would have seen. ``earlier``
        is the log before the test, for CUPED.
        """
        # Arms of a real test, taken out of the two worlds: a shopper's sums come from the engine of their arm.
        a, b = self._sums(log_a), self._sums(log_b)
        before = self._sums(earlier, a.shoppers)
        arm = assign_arms(a.shoppers, salt)
        mixed = ShopperSums(a.shoppers, np.where(arm[:, None] == 1, b.values, a.values))

        # Groups of page views, then groups of items: what the same shoppers did there.
        def part(kept: NDArray[np.bool_]) -> Lifts:
            one, two = (self._sums(log, kept=kept) for log in (log_a, log_b))
            return paired_lifts(one, two, self.resamples)

        def part_of_items(ids: Sequence[str]) -> Lifts:
            one, two = (self._sums(keep_items(log, ids)) for log in (log_a, log_b))
            return paired_lifts(one, two, self.resamples, metrics=GROUP_METRICS)

        return {
            "shoppers": len(a),
            "paired": _plain(paired_lifts(a, b, self.resamples)),
            "split": _plain(split_lifts(mixed, arm, resamples=self.resamples)),
            "split_cuped": _plain(split_lifts(mixed, arm, before, self.resamples)),
            "detectable": {name: detectable_lift(a, name) for name in METRICS},
            "slices": self._slices(part, part_of_items),
            **self._check(a),
        }

    def split(
        self,
        log: pl.DataFrame,
        arm_by_shopper: Callable[[Sequence[str]], NDArray[np.integer]],
        earlier: pl.DataFrame | None = None,
    ) -> dict[str, Any]:
        """From one log whose shoppers met one engine each.

        Args:
            log: the exposure log.
            arm_by_shopper: the arm, 0 or 1, of each of S shoppers.
            earlier: the log before the test, for CUPED.
        """
        # Sums of all shoppers, and the arm that each one was served by.
        total = self._sums(log)
        shoppers, arm = total.shoppers, arm_by_shopper(total.shoppers)

        def lifts(part: ShopperSums, metrics: Iterable[str] = METRICS) -> Lifts:
            return split_lifts(part, arm, None, self.resamples, metrics=metrics)

        found: dict[str, Any] = {"shoppers": len(total), "split": _plain(lifts(total))}
        if earlier is not None:
            before = self._sums(earlier, shoppers)
            found["split_cuped"] = _plain(split_lifts(total, arm, before, self.resamples))
        # Arm 0 alone is what the A/A check splits again.
        first = ShopperSums([shoppers[row] for row in np.flatnonzero(arm == 0)], total.values[arm == 0])
        return {
            **found,
            "detectable": {name: detectable_lift(total, name) for name in METRICS},
            "slices": self._slices(
                lambda kept: lifts(self._sums(log, shoppers, kept)),
                lambda ids: lifts(self._sums(keep_items(log, ids), shoppers), GROUP_METRICS),
            ),
            **self._check(first),
        }

    def _sums(
        self, log: pl.DataFrame, shoppers: Sequence[str] | None = None, kept: NDArray[np.bool_] | None = None
    ) -> ShopperSums:
        return ShopperSums.from_page_views(log, self.prices, shoppers, kept)

    def _slices(
        self, part: Callable[[NDArray[np.bool_]], Lifts], part_of_items: Callable[[Sequence[str]], Lifts]
    ) -> dict[str, Any]:
        # Lifts as plain values, by dimension and group; items stand behind page views.
        by_items = {
            name: {group: part_of_items(ids) for group, ids in found.items()} for name, found in self.groups.items()
        }
        return {
            dimension: {group: _plain(lifts) for group, lifts in found.items()}
            for dimension, found in {**lifts_by_group(self.dimensions, part), **by_items}.items()
        }

    def _check(self, log: ShopperSums) -> dict[str, Any]:
        """One arm against itself."""
        if not self.splits:
            return {}
        values, uniform = aa_p_values(log, self.splits)
        shares = {name: float((ps < 0.05).mean()) for name, ps in values.items()}
        return {"a_a": {"splits": self.splits, "uniform_p": uniform, "share_below_0.05": shares}}


def _plain(lifts: Lifts) -> dict[str, dict[str, float]]:
    return {name: asdict(lift) for name, lift in lifts.items()}
