"""A/B tests of search engines: who is in which arm, what each arm earned, and how sure that is, docs/method.md (9.6).

Everything starts from an exposure log, a page-view table of the kind that a service writes or a market's shoppers
produce. What belongs together is the shopper: arms are dealt by shopper, and all intervals resample shoppers, since
page views of one of them are alike. A metric is a ratio of two sums over shoppers.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from onesearch.evaluation.slices import Labels

Floats = NDArray[np.float64]
SUMS: Final = (
    "shoppers",
    "pages",
    "impressions",
    "clicks",
    "clicked pages",
    "ordered pages",
    "orders",
    "buyers",
    "GMV",
)
"""What is summed per shopper; ``buyers`` is 1 with an order, ``shoppers`` is 1."""
METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "item CTR": ("clicks", "impressions"),
    "page CTR": ("clicked pages", "pages"),
    "conversion": ("ordered pages", "pages"),
    "buyers": ("buyers", "shoppers"),
    "orders": ("orders", "shoppers"),
    "GMV": ("GMV", "shoppers"),
}
GROUP_METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "exposure": ("impressions", "pages"),
    "item CTR": ("clicks", "impressions"),
    "orders": ("orders", "shoppers"),
}
"""Metrics of a group of items alone (:func:`keep_items`); exposure is how many of them a page shows."""
_ALL: Final = {**METRICS, **GROUP_METRICS}
_CELLS: Final = 4_000_000  # random numbers held at once
_GROUPS: Final = 4096  # drawn in place of shoppers where there are more of them


def assign_arms(shoppers: Sequence[str], salt: str, arms: int = 2) -> NDArray[np.int64]:
    """The arm of each shopper, 0 to ``arms`` - 1: a hash of salt and id, the same on every machine and day.

    Another salt deals all shoppers anew, independently of any earlier test.
    """
    # Eight bytes of a keyless hash: not Python's own, which differs between processes.
    digests = (hashlib.blake2b(f"{salt}\x1f{name}".encode(), digest_size=8).digest() for name in shoppers)
    return np.fromiter((int.from_bytes(digest, "big") % arms for digest in digests), np.int64, len(shoppers))


@dataclass(frozen=True)
class ShopperSums:
    """Sums per shopper.

    Attributes:
        shoppers: ids, S of them.
        values: float64 [S, len(SUMS)].
    """

    shoppers: list[str]
    values: Floats

    @classmethod
    def from_page_views(
        cls,
        page_views: pl.DataFrame,
        prices: Mapping[str, float] | None = None,
        shoppers: Sequence[str] | None = None,
        kept: NDArray[np.bool_] | None = None,
    ) -> "ShopperSums":
        """Sum an exposure log up; page views without a shopper cannot be dealt to an arm and are left out.

        Args:
            page_views: columns user_id, shown, clicked, ordered.
            prices: of items, for GMV; unknown ones count 0.
            shoppers: whose totals are wanted, in this order, also of those without a page view; else all of the log.
            kept: bool [n], one per page view: a slice of the log. A shopper outside of it has zeros, and is counted as
                a shopper all the same, so that arms stay comparable.
        """
        # GMV needs the price of each ordered item.
        known = pl.DataFrame(
            {"item": list(prices or {}), "price": [float(p) for p in (prices or {}).values()]},
            schema={"item": pl.String, "price": pl.Float64},
        )
        # One row per page view: its counts, and the prices of what was ordered.
        log = page_views if kept is None else page_views.filter(pl.Series(kept))
        log = log.filter(pl.col("user_id").is_not_null()).with_row_index("view")
        bought = log.select("view", item="ordered").explode("item").drop_nulls("item")
        worth = bought.join(known, on="item", how="left").group_by("view").agg(pl.col("price").sum().alias("GMV"))
        counted = log.join(worth, on="view", how="left").select(
            "user_id",
            pages=pl.lit(1.0),
            impressions=pl.col("shown").list.len().cast(pl.Float64),
            clicks=pl.col("clicked").list.len().cast(pl.Float64),
            **{
                "clicked pages": (pl.col("clicked").list.len() > 0).cast(pl.Float64),
                "ordered pages": (pl.col("ordered").list.len() > 0).cast(pl.Float64),
            },
            orders=pl.col("ordered").list.len().cast(pl.Float64),
            GMV=pl.col("GMV").fill_null(0.0),
        )
        # One row per wanted shopper, zeros for those without a page view.
        sums = counted.group_by("user_id", maintain_order=True).sum()
        if shoppers is None:
            ids = page_views["user_id"].drop_nulls().unique(maintain_order=True).cast(pl.String).to_list()
        else:
            ids = list(shoppers)
        table = pl.DataFrame({"user_id": pl.Series(ids, dtype=pl.String)}).join(
            sums.cast({"user_id": pl.String}), on="user_id", how="left", maintain_order="left"
        )
        # A shopper counts once, whether a slice holds a page view of them or not.
        bought_any = (pl.col("orders") > 0).cast(pl.Float64)
        table = table.with_columns(pl.lit(1.0).alias("shoppers"), bought_any.alias("buyers"))
        return cls(ids, table.select(pl.col(name).fill_null(0.0) for name in SUMS).to_numpy().astype(np.float64))

    def __len__(self) -> int:
        return len(self.shoppers)

    def column(self, name: str) -> Floats:
        """One of :data:`SUMS`, [S]."""
        return np.asarray(self.values[:, SUMS.index(name)])

    def ratio(self, metric: str) -> float:
        """A metric of :data:`METRICS` or :data:`GROUP_METRICS`; nan where nothing is counted below the line."""
        above, below = (self.column(name) for name in _ALL[metric])
        total = float(below.sum())
        return float(above.sum()) / total if total else float("nan")


@dataclass(frozen=True)
class MetricLift:
    """B over A in one metric.

    Attributes:
        a: value of the metric in arm A.
        b: in arm B.
        lift: b / a - 1.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        p: two-sided, from the bootstrap's spread of log(b / a).
    """

    a: float
    b: float
    lift: float
    low: float
    high: float
    p: float


def split_lifts(
    log: ShopperSums,
    arm: NDArray[np.integer],
    before: ShopperSums | None = None,
    resamples: int = 1000,
    seed: int = 0,
    metrics: Iterable[str] = METRICS,
) -> dict[str, MetricLift]:
    """Lifts of arm 1 over arm 0 of a split by shopper (equations 9.6 and 9.7 of docs/method.md).

    ::

        per arm:  sums[r] = sums over the arm's shoppers, each counted Poisson(1) times    r = 1 .. R; r = 0: once each
                  metric[r] = Y / X;  with CUPED (Y - theta . (D - mean D)) / X
        lift = metric B / metric A - 1 of r = 0, interval and p from r = 1 .. R

    Args:
        log: totals of the test.
        arm: 0 or 1 of each shopper, [S]; others are left out.
        before: totals of the same shoppers, in the same order, before the test: CUPED takes out what they explain.
        resamples: of the bootstrap.
        seed: of its draws.
        metrics: which ones; CUPED knows those of :data:`METRICS`.

    Raises:
        ValueError: an arm has no shopper, or ``before`` has other shoppers.
    """
    if before is not None and before.shoppers != log.shoppers:
        raise ValueError("CUPED needs the same shoppers before and during the test, in the same order")
    # Each arm is resampled by itself; CUPED's theta comes from both together.
    parts = []
    for number in (0, 1):
        rows = np.flatnonzero(arm == number)
        if not len(rows):
            raise ValueError(f"no shopper is in arm {number}")
        parts.append(rows)
    drawn = [
        _resampled_sums(log.values[rows], before, rows, resamples, [seed, number]) for number, rows in enumerate(parts)
    ]
    adjust = _CupedAdjustment(log, before) if before is not None else None
    return {name: _lift(*(_ratios(sums, name, adjust) for sums in drawn)) for name in metrics}


def paired_lifts(
    a: ShopperSums, b: ShopperSums, resamples: int = 1000, seed: int = 0, metrics: Iterable[str] = METRICS
) -> dict[str, MetricLift]:
    """Lifts of B over A where every shopper met both on the same fate (a counterfactual; only a market can tell).

    Raises:
        ValueError: the shoppers differ.
    """
    if a.shoppers != b.shoppers:
        raise ValueError("a paired estimate needs the same shoppers in both arms, in the same order")
    # Both worlds are drawn together, so that a shopper's habits cancel out: [1 + R, 2 columns].
    both = _resampled_sums(np.concatenate([a.values, b.values], 1), None, None, resamples, [seed, 2])
    width = len(SUMS)
    return {name: _lift(_ratios(both[:, :width], name, None), _ratios(both[:, width:], name, None)) for name in metrics}


def aa_p_values(
    log: ShopperSums, splits: int = 200, resamples: int = 400, seed: int = 0
) -> tuple[dict[str, Floats], dict[str, float]]:
    """A/A: one log dealt to two arms again and again, where nothing differs.

    Returns:
        The p-values of every metric, [splits], and how well each metric's agree with a uniform distribution
        (Kolmogorov–Smirnov p).
    """
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for number in range(splits):
        # A salt of its own per split.
        arm = assign_arms(log.shoppers, f"a/a {seed} {number}")
        for name, lift in split_lifts(log, arm, resamples=resamples, seed=number).items():
            found[name].append(lift.p)
    values = {name: np.asarray(ps) for name, ps in found.items()}
    return values, {name: float(kstest(ps, "uniform").pvalue) for name, ps in values.items()}


def detectable_lift(log: ShopperSums, metric: str, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true lift that a split of these shoppers into two halves would find with this power."""
    above, below = (log.column(name) for name in METRICS[metric])
    ratio = log.ratio(metric)
    # Delta method: the standard deviation of Y - M.X over the mean of X, relative to M (equation 9.8).
    spread = np.std((above - ratio * below) / below.mean()) / max(ratio, 1e-12)
    error = 2 * spread / np.sqrt(len(log))  # of the difference of two halves
    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * error)


def power(detectable_lift: float, lift: float, level: float = 0.05) -> float:
    """The chance that a split finds a true ``lift``, told from the lift that it finds with 80 % power."""
    # The standard error that belongs to a lift found with 80 % power.
    critical = norm.ppf(1 - level / 2)
    error = detectable_lift / (critical + norm.ppf(0.8))
    return float(norm.sf(critical - lift / error) + norm.cdf(-critical - lift / error))


def _resampled_sums(
    values: Floats, before: ShopperSums | None, rows: NDArray[np.integer] | None, resamples: int, seed: list[int]
) -> Floats:
    """Sums over shoppers: row 0 of the sample itself, then of bootstrap samples; [1 + resamples, columns].

    With ``before`` its columns stand behind the others, drawn together with them.
    """
    if before is not None and rows is not None:
        values = np.concatenate([values, before.values[rows]], 1)
    rng = np.random.default_rng(seed)
    out = [values.sum(0, keepdims=True)]
    if len(values) > _GROUPS:
        # Random groups of shoppers are as independent as shoppers, and a ratio's spread over them is the same: what a
        # resample costs does not grow with the shop.
        dealt = values[rng.permutation(len(values))]
        values = np.add.reduceat(dealt, np.linspace(0, len(values), _GROUPS, endpoint=False).astype(np.int64), axis=0)
    n = len(values)
    size = max(1, _CELLS // max(n, 1))
    for first in range(0, resamples, size):
        count = min(size, resamples - first)
        # How often each shopper is drawn; Poisson counts agree with drawing n of n in all but the total.
        out.append(rng.poisson(1.0, (count, n)).astype(np.float64) @ values)
    return np.concatenate(out)


class _CupedAdjustment:
    """CUPED for ratios, equation (9.7): the part of a shopper's value that the time before explains.

    ::

        y = Y - metric . X                    of each shopper, in the test
        x = Y_before - metric_before . X_before
        theta = cov(x, y) / var(x)
        adjusted metric = sum(Y - theta . (x - mean x)) / sum(X)
    """

    def __init__(self, log: ShopperSums, before: ShopperSums) -> None:
        self.theta: dict[str, float] = {}
        self.pooled: dict[str, tuple[float, float]] = {}
        for name, (above, below) in METRICS.items():
            now, then = log.ratio(name), before.ratio(name)
            then = 0.0 if np.isnan(then) else then
            y = log.column(above) - now * log.column(below)
            x = before.column(above) - then * before.column(below)
            variance = float(x.var())
            self.theta[name] = float(np.cov(x, y, bias=True)[0, 1]) / variance if variance > 0 else 0.0
            self.pooled[name] = then, float(x.mean())

    def ratios(self, sums: Floats, name: str) -> Floats:
        """The adjusted metric from sums [R, 2 · columns]."""
        width = len(SUMS)
        # Columns of the test stand first, those of the time before behind them.
        at = [SUMS.index(part) for part in METRICS[name]]
        then, mean = self.pooled[name]
        above, below = sums[:, at[0]], sums[:, at[1]]
        x = sums[:, width + at[0]] - then * sums[:, width + at[1]]
        shoppers = sums[:, SUMS.index("shoppers")]
        return np.asarray((above - self.theta[name] * (x - mean * shoppers)) / below)


def _ratios(sums: Floats, name: str, adjust: _CupedAdjustment | None) -> Floats:
    if adjust is not None:
        return adjust.ratios(sums, name)
    above, below = (sums[:, SUMS.index(part)] for part in _ALL[name])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above / below)


def _lift(a: Floats, b: Floats) -> MetricLift:
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = b / a - 1
        logs = np.log(b / a)
    # Row 0 is the sample itself, the others are resamples; log(b / a) is nearly normal where the lift is skewed.
    drawn = logs[1:][np.isfinite(logs[1:])]
    spread = float(drawn.std(ddof=1)) if len(drawn) > 1 else float("nan")
    if not np.isfinite(logs[0]) or not np.isfinite(spread):
        return MetricLift(float(a[0]), float(b[0]), float(lift[0]), float("nan"), float("nan"), float("nan"))
    with np.errstate(invalid="ignore"):  # a group so small that some resamples of it have nothing in A
        low, high = np.nanquantile(lift[1:], [0.025, 0.975])
    p = 2 * norm.sf(abs(logs[0]) / spread) if spread > 0 else float(logs[0] == 0)
    return MetricLift(float(a[0]), float(b[0]), float(lift[0]), float(low), float(high), float(p))


@dataclass(frozen=True)
class PageViewGroups:
    """Groups of page views: their names in the order to show them, and the group of each page view [n], "" for none."""

    groups: Sequence[str]
    labels: Labels


def lifts_by_group(
    dimensions: Mapping[str, PageViewGroups], lifts: Callable[[NDArray[np.bool_]], Mapping[str, MetricLift]]
) -> dict[str, dict[str, Mapping[str, MetricLift]]]:
    """Lifts within the groups of each dimension; groups without a page view are left out.

    Args:
        dimensions: by name.
        lifts: from a selection of page views, bool [n], to lifts.
    """
    return {
        name: {group: lifts(kept) for group in dimension.groups if (kept := dimension.labels == group).any()}
        for name, dimension in dimensions.items()
    }


def keep_items(page_views: pl.DataFrame, item_ids: Sequence[str]) -> pl.DataFrame:
    """The log as if only these items were on its pages: what happened to a group of items."""
    # Each list keeps its wanted items, in order; pages without any stay, empty.
    wanted = pl.DataFrame({"item": pl.Series(list(item_ids), dtype=pl.String)})
    views = page_views.with_row_index("view")
    kept = {}
    for name in ("shown", "clicked", "ordered"):
        # A join: asking of every element whether it is in a list takes time and memory of elements times ids.
        items = views.select("view", item=name).explode("item")
        items = items.join(wanted, on="item", how="semi", maintain_order="left")
        lists = items.group_by("view").agg(pl.col("item").alias(name))
        found = views.select("view").join(lists, on="view", how="left", maintain_order="left")
        kept[name] = found[name].fill_null([])
    return page_views.with_columns(**kept)
