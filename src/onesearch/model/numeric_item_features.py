"""A few numbers per item beside its text: what an item's head row says of popularity and price (5.1).

All statistics come from the training part of the log. An item added later has none, and starts with what items of its
brand, category and seller usually have (5.1a).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.artefact import read_json, write_json
from onesearch.data.click_statistics import ClickStatistics

Floats = NDArray[np.float32]

FEATURE_NAMES: Final = ("clicks", "orders", "click_rate", "price", "price_in_category", "never_shown")
_COUNTED: Final = 3  # the first features come from the log; new items get them from others
PRICED: Final = tuple(place for place, name in enumerate(FEATURE_NAMES) if name.startswith("price"))
"""Those that change with an item's price or category alone."""
_TRAITS: Final = ("brand", "category", "seller")
_PRIOR = 5.0  # items of the whole catalogue that are added to those of a trait
_SCALE = 0.25  # head rows are unit text vectors beside these; large features would drown them at the start of training


@dataclass(frozen=True)
class NumericItemFeatures:
    """Standardised features; fitted once, applied to any item table.

    Attributes:
        mean, spread: of each raw feature over the training catalogue, [F].
        category_price: mean log price by category path text.
        offsets: by trait and its value, how far log clicks, log orders and log click rate of such items lie from those
            of all items, shrunk: ``n / (n + 5) · (their mean - mean)``, [3] each.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    category_price: dict[str, float]
    offsets: dict[str, dict[str, list[float]]]

    @classmethod
    def fit(cls, items: pl.DataFrame, statistics: ClickStatistics) -> tuple["NumericItemFeatures", Floats]:
        """Fit on the catalogue and return its features too, float32 [N, F]."""
        # the usual price of a category is a mean of logs: categories differ by factors
        prices = items.select(_path().alias("path"), _log_price().alias("price")).drop_nulls("price")
        by_category = prices.group_by("path").agg(pl.col("price").mean()).sort("path")
        known = dict(zip(by_category["path"].to_list(), by_category["price"].to_list(), strict=True))
        # features before they are standardised
        bare = cls((0.0,) * len(FEATURE_NAMES), (1.0,) * len(FEATURE_NAMES), known, {})
        raw = bare._raw(items, statistics.clicked, statistics.ordered, statistics.shown)
        mean, spread = raw.mean(0), raw.std(0)
        # how each brand, category and seller differs from the whole, as far as its number of items can tell
        offsets = {}
        for trait in _TRAITS:
            table = pl.DataFrame({"value": _trait(items, trait), **{str(i): raw[:, i] for i in range(_COUNTED)}})
            shrunk = pl.len() / (pl.len() + _PRIOR)
            columns = [shrunk * (pl.col(str(i)).mean() - float(mean[i])) for i in range(_COUNTED)]
            found = (
                table.drop_nulls("value").group_by("value").agg(pl.concat_list(columns).alias("offset")).sort("value")
            )
            offsets[trait] = dict(zip(found["value"].to_list(), found["offset"].to_list(), strict=True))
        fitted = cls(tuple(mean.tolist()), tuple(np.where(spread > 1e-6, spread, 1.0).tolist()), known, offsets)
        return fitted, fitted._scaled(raw)

    def for_new_items(self, items: pl.DataFrame) -> Floats:
        """Features of items without any log, float32 [n, F].

        Clicks, orders and click rate are those expected of the item's brand, category and seller (5.1a); a trait that
        the training catalogue does not know says nothing. Zeros, the numbers of an item that shoppers were shown
        nothing of or liked nothing about, would put every new item behind everything that ever sold.

        ``never_shown`` is 0 for the same reason: of an item of the training catalogue it says that the log had every
        chance to show it and did not, and models learn that such items are not clicked. A new item had no chance yet.
        """
        none = np.zeros(len(items), np.float32)
        raw = self._raw(items, none, none, none)
        # the mean over an item's known traits of their offsets, [n, 3]
        total, known = np.zeros((len(items), _COUNTED)), np.zeros((len(items), 1))
        for trait, of_value in self.offsets.items():
            for row, value in enumerate(_trait(items, trait).to_list()):
                if value in of_value:
                    total[row] += of_value[value]
                    known[row] += 1
        raw[:, :_COUNTED] = np.asarray(self.mean[:_COUNTED]) + total / np.maximum(known, 1)
        raw[:, FEATURE_NAMES.index("never_shown")] = 0
        return self._scaled(raw)

    def of_own_page_view(self, items: pl.DataFrame, statistics: ClickStatistics, ordered: bool) -> Floats:
        """What one page view that shows and clicks (and orders) an item adds to its numbers, float32 [N, F].

        Taken off the row of a training target, so that it is not told by the very click that is to be learnt.
        """
        counts = (statistics.clicked, statistics.ordered, statistics.shown)
        before = (np.maximum(count - own, 0) for count, own in zip(counts, (1, int(ordered), 1), strict=True))
        return self._scaled(self._raw(items, *counts)) - self._scaled(self._raw(items, *before))

    def _raw(self, items: pl.DataFrame, clicked: Floats, ordered: Floats, shown: Floats) -> Floats:
        price = items.select(_log_price()).to_series().to_numpy().astype(np.float64)
        paths = items.select(_path()).to_series().to_list()
        usual = np.asarray([self.category_price.get(path, np.nan) for path in paths])
        mean_price = np.nanmean(list(self.category_price.values())) if self.category_price else 0.0
        # counts as logs; a click rate with 10 shows of prior; prices where known
        columns = [
            np.log1p(clicked),
            np.log1p(ordered),
            np.log((clicked + 1.0) / (np.maximum(shown, clicked) + 10.0)),
            np.where(np.isfinite(price), price, mean_price),
            np.nan_to_num(price - usual),
            (shown + clicked) == 0,
        ]
        return np.asarray(np.stack(columns, 1), np.float32)

    def _scaled(self, raw: Floats) -> Floats:
        standard = (raw - np.asarray(self.mean)) / np.asarray(self.spread)
        return np.asarray(_SCALE * np.clip(standard, -4, 4), np.float32)

    def save(self, path: Path) -> None:
        """Write JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "NumericItemFeatures":
        """Read what :meth:`save` wrote."""
        values = read_json(path)
        mean, spread = tuple(values["mean"]), tuple(values["spread"])
        return cls(mean, spread, dict(values["category_price"]), dict(values["offsets"]))


def _trait(items: pl.DataFrame, name: str) -> pl.Series:
    """The brand, category path or seller of each item, String [n]; null for none."""
    value = _path() if name == "category" else pl.col(name)
    return items.select(pl.when(value != "").then(value).alias(name)).to_series()


def _path() -> pl.Expr:
    return pl.col("category").list.join(" > ").fill_null("")


def _log_price() -> pl.Expr:
    return pl.when(pl.col("price") > 0).then(pl.col("price")).log()
