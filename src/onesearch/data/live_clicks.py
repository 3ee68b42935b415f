"""Clicks that came after a log, on top of its statistics (docs/method.md, section 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics, most_clicked_first
from onesearch.data.dataset import rows_of
from onesearch.data.pair_counts import PairCounts
from onesearch.data.records import TEXT, TIME

Floats = NDArray[np.float32]
_MICROSECOND = timedelta(microseconds=1)
CLICKS: Final = pl.Schema(
    {"query": TEXT, "item_id": TEXT, "time": TIME, "examined": pl.Float64(), "first": pl.Boolean()}
)
"""A click: its normalised query; P(examined) of the rank it was made at, null where that is unknown; and whether it was
the shopper's first on the item that day, whatever the query."""


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
    def from_clicks(cls, clicks: pl.DataFrame, now: datetime, half_life: float = math.inf) -> "LiveClicks":
        """Decayed and position-corrected counts (method.md 1.6) of a table :data:`CLICKS`.

        A click made ``half_life`` days before ``now`` counts half; one made where few look counts for more.
        """
        # Decay of each click [clicks], then the correction, which leaves the sum of all counts as it is.
        age = (pl.lit(now) - pl.col("time")).dt.total_microseconds() / (half_life * (timedelta(days=1) / _MICROSECOND))
        decayed = clicks.with_columns((age * -math.log(2)).exp().alias("decay"))
        ranked = decayed.filter(pl.col("examined").is_not_null())
        mean = float(ranked["decay"].sum()) / (float((ranked["decay"] / ranked["examined"]).sum()) or 1.0)
        counted = decayed.with_columns((pl.col("decay") * (mean / pl.col("examined")).fill_null(1.0)).alias("count"))
        # Sums of each pair [P] and of each item [I].
        pairs = counted.group_by("query", "item_id", maintain_order=True).agg(pl.col("count").sum())
        items = counted.group_by("item_id", maintain_order=True).agg(pl.col("count").filter("first").sum())
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


@dataclass(frozen=True)
class LiveStatistics:
    """The statistics of a log with the clicks since added, read as :class:`ClickStatistics` are.

    A query that was clicked for since has a number of its own behind those of the log, and there all its items, old and
    new. So making it costs what came since, and not the log again.

    Attributes:
        log: counts of the log alone.
        recent: log and live counts together, of the queries with live clicks.
        clicked: log and live clicks of each item row, float32 [N], also of rows that are newer than the log.
    """

    log: ClickStatistics
    recent: ClickStatistics
    clicked: Floats

    @classmethod
    def over(cls, log: ClickStatistics, live: LiveClicks, rows: NDArray[np.int64]) -> "LiveStatistics":
        """``rows`` int64 [I] are the rows of the live items; those without one, -1, are left out."""
        # Clicks of every item row.
        known = rows >= 0
        clicked = np.zeros(max(len(log.clicked), int(rows.max(initial=-1)) + 1), np.float32)
        clicked[: len(log.clicked)] = log.clicked
        np.add.at(clicked, rows[known], live.clicked[known])
        # What the log has of the queries: their items' places in its flat lists.
        number = log.query_numbers(live.queries)
        logged = np.flatnonzero(number >= 0)
        places = Ragged(np.arange(len(log.items.values), dtype=np.int32), log.items.offsets).select(number[logged])
        # Both as pairs of (query, item row), [pairs].
        pairs = PairCounts.from_pairs(
            np.concatenate([logged[places.owners], live.query]),
            np.concatenate([log.items.values[places.values], rows[live.item]]),
            np.concatenate([log.counts[places.values], live.counts]),
        )
        items, counts = most_clicked_first(*pairs.pairs, pairs.counts, clicked, len(live.queries))
        # Of the other counts nobody asks.
        none = np.zeros(0, np.float32)
        recent = ClickStatistics(none, clicked, none, list(live.queries), items, counts, none)
        return cls(log, recent, clicked)

    def query_numbers(self, queries: Sequence[str]) -> NDArray[np.int64]:
        """As :meth:`ClickStatistics.query_numbers`; those with live clicks come behind those of the log."""
        recent = self.recent.query_numbers(queries)
        return np.where(recent >= 0, recent + len(self.log.queries), self.log.query_numbers(queries))

    def most_clicked(self, queries: NDArray[np.int64], k: int, leave_out: Ragged | None = None) -> NDArray[np.int32]:
        """As :meth:`ClickStatistics.most_clicked`."""
        logged, recent = self._apart(queries)
        found = self.log.most_clicked(logged, k, leave_out)
        of_recent = self.recent.most_clicked(recent, k, leave_out)
        return np.where((recent >= 0)[:, None], of_recent, found)

    def pair_counts(
        self, queries: NDArray[np.int64], items: NDArray[np.integer], leave_out: Ragged | None = None
    ) -> Floats:
        """As :meth:`ClickStatistics.pair_counts`."""
        logged, recent = self._apart(queries)
        return self.log.pair_counts(logged, items, leave_out) + self.recent.pair_counts(recent, items, leave_out)

    @cached_property
    def query_clicks(self) -> Floats:
        """As :attr:`ClickStatistics.query_clicks`."""
        return np.concatenate([self.log.query_clicks[:-1], self.recent.query_clicks])

    def _apart(self, queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers in the log and among the recent queries, [n] each, -1 where a query is not of that part."""
        first = len(self.log.queries)
        return np.where(queries < first, queries, -1), np.where(queries < first, -1, queries - first)
