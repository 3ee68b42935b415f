"""Clicks that came after a log (docs/method.md, section 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.data.click_statistics import ClickStatistics, most_clicked_first
from onesearch.data.dataset import rows_of
from onesearch.data.records import TEXT, TIME

Floats = NDArray[np.float32]
_MICROSECOND = timedelta(microseconds=1)
CLICKS: Final = pl.Schema(
    {"who": pl.Int64(), "query": TEXT, "item_id": TEXT, "time": TIME, "examined": pl.Float64(), "first": pl.Boolean()}
)
"""A click: a number of the shopper; the normalised query; P(examined) of the rank it was made at, null where that is
unknown; and whether it was the shopper's first on the item that day, whatever the query."""


@dataclass(frozen=True)
class LiveClicks:
    """What the clicks since a log count now.

    Attributes:
        queries: distinct normalised queries, [Q].
        item_ids: distinct items, [I].
        query, item: of each pair that was clicked the numbers of its query and its item, int64 [P]; no pair twice.
        counts: what the clicks of each pair count, float32 [P].
        clicked: what the clicks of each item count, for all queries together, float32 [I].
    """

    queries: Sequence[str]
    item_ids: Sequence[str]
    query: NDArray[np.int64]
    item: NDArray[np.int64]
    counts: Floats
    clicked: Floats

    @classmethod
    def from_clicks(
        cls, clicks: pl.DataFrame, now: datetime, half_life: float = math.inf, shoppers: int = 1
    ) -> "LiveClicks":
        """Decayed and position-corrected counts (method.md 1.6) of a table :data:`CLICKS`.

        A click made ``half_life`` days before ``now`` counts half; one made where few look counts for more. Pairs, and
        items, that fewer ``shoppers`` clicked count nothing.
        """
        # Decay of each click [clicks], then the correction, which leaves the sum of all counts as it is.
        age = (pl.lit(now) - pl.col("time")).dt.total_microseconds() / (half_life * (timedelta(days=1) / _MICROSECOND))
        decayed = clicks.with_columns((age * -math.log(2)).exp().alias("decay"))
        ranked = decayed.filter(pl.col("examined").is_not_null())
        mean = float(ranked["decay"].sum()) / (float((ranked["decay"] / ranked["examined"]).sum()) or 1.0)
        counted = decayed.with_columns((pl.col("decay") * (mean / pl.col("examined")).fill_null(1.0)).alias("count"))
        # Sums of each pair [P] and of each item [I].
        enough, clicked = pl.col("who").n_unique() >= shoppers, pl.col("count").filter("first").sum()
        pairs = counted.group_by("query", "item_id", maintain_order=True).agg(pl.col("count").sum(), enough=enough)
        items = counted.group_by("item_id", maintain_order=True).agg(clicked, enough=enough)
        pairs, items = pairs.filter("enough"), items.filter("enough")
        queries = pairs["query"].unique(maintain_order=True)
        query, item = rows_of(pairs["query"], queries), rows_of(pairs["item_id"], items["item_id"])
        return cls(
            queries.to_list(),
            items["item_id"].to_list(),
            query.to_numpy().astype(np.int64),
            item.to_numpy().astype(np.int64),
            pairs["count"].to_numpy().astype(np.float32),
            items["count"].to_numpy().astype(np.float32),
        )

    def statistics(self, rows: NDArray[np.int64], items: int) -> ClickStatistics:
        """Their lists and counts over a catalogue of so many item rows, as those of a log.

        ``rows`` int64 [I] are the rows of the live items; those without one, -1, are left out. Who was shown what, and
        ordered or searched it, is not counted.
        """
        clicked, known = np.zeros(items, np.float32), rows >= 0
        np.add.at(clicked, rows[known], self.clicked[known])
        item, here = rows[self.item], known[self.item]
        pairs = self.query[here], item[here], self.counts[here]
        lists, ranked = most_clicked_first(*pairs, clicked, len(self.queries))
        none = np.zeros(0, np.float32)
        return ClickStatistics(none, clicked, none, list(self.queries), lists, ranked, none)
