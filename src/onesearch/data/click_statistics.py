"""What the training part of a click log says of items and queries.

Give it the training page views only. For the training rows themselves leave the page view out (``leave_out``), or a
statistic would tell the model the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.common.text_numbers import TextNumbers
from onesearch.common.text_table import TextTable
from onesearch.data.dataset import ragged_rows, rows_of
from onesearch.data.pair_counts import PairCounts, contained
from onesearch.data.text import normalise_queries, normalise_query

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_CELLS = 4_000_000
"""Size of the temporary arrays of one step."""


@dataclass(frozen=True)
class ClickStatistics:
    """Counts of a log; an item counts once per page view.

    An order with the own clicks of a page view left out needs no second count of the log:

        take the first k + m items of the query, where m items were clicked in the page view
        take one click from those that are among them
        order again by (clicks for the query, clicks in all, item), keep the first k that still have a click

    Attributes:
        shown, clicked, ordered: page views in which each item was shown, clicked, ordered, float32 [N].
        queries: distinct normalised queries with a click, sorted.
        items: clicked item rows of each of them, most clicked first (ties: more clicks in all, then the lower row).
        counts: the click counts that belong to ``items.values``, float32.
        searched: page views of each query, float32 [queries].
    """

    shown: Floats
    clicked: Floats
    ordered: Floats
    queries: Sequence[str]
    items: Ragged
    counts: Floats
    searched: Floats

    @classmethod
    def from_page_views(cls, page_views: pl.DataFrame, items: pl.DataFrame) -> "ClickStatistics":
        """Count a log, which must be the *training* part."""
        n = len(items)
        lists = {
            name: _once(ragged_rows(page_views[name], items["item_id"])) for name in ("shown", "clicked", "ordered")
        }
        totals = {name: np.bincount(rows.values, minlength=n).astype(np.float32) for name, rows in lists.items()}
        # The number of each page view's query, [page views]; -1 for queries that nobody clicked for.
        normal = normalise_queries(page_views["query"])
        clicked = lists["clicked"]
        distinct = normal.filter(pl.Series(clicked.lengths > 0)).unique().sort()
        number = rows_of(normal, distinct).to_numpy()
        searched = np.bincount(number[number >= 0], minlength=len(distinct)).astype(np.float32)
        # Clicks of each (query, item) pair, [pairs], then each query's items in order.
        pairs, counts = np.unique(number[clicked.owners].astype(np.int64) * n + clicked.values, return_counts=True)
        query, item = pairs // max(n, 1), pairs % max(n, 1)
        ranked, counts = most_clicked_first(query, item, counts.astype(np.float32), totals["clicked"], len(distinct))
        return cls(**totals, queries=distinct.to_list(), items=ranked, counts=counts, searched=searched)

    def query_numbers(self, queries: Sequence[str]) -> NDArray[np.int64]:
        """For each query text its number in ``queries``, -1 when it was never clicked for, int64 [n]."""
        numbers = self._numbers
        return np.fromiter((numbers.get(normalise_query(text), -1) for text in queries), np.int64, len(queries))

    def most_clicked(self, queries: NDArray[np.int64], k: int, leave_out: Ragged | None = None) -> Ints:
        """The items most clicked for each query, best first, -1 padded: int32 [n, k].

        Args:
            queries: numbers [n] of :meth:`query_numbers`.
            k: items per query.
            leave_out: for training rows: the items clicked in each of the n page views, whose own clicks are not
                counted; the result is the one of a log without that page view.
        """
        known = np.flatnonzero(queries >= 0)
        out = np.full((len(queries), k), -1, np.int32)
        if not len(known) or not k:
            return out
        if leave_out is None:
            out[known] = self.items.heads(queries[known], k)
            return out
        # Page views with the same number m of own clicks at a time, so that these are an array [same, m].
        left = _once(leave_out.select(known))
        for m in np.unique(left.lengths).tolist():
            same = np.flatnonzero(left.lengths == m)
            own = left.select(same).values.reshape(len(same), m)
            # The comparison of k + m items with m own clicks holds (k + m) * m cells a page view.
            step = max(1, _CELLS // ((k + m) * max(m, 1)))
            for begin in range(0, len(same), step):
                part = slice(begin, begin + step)
                out[known[same[part]]] = self._most_clicked_without(queries[known[same[part]]], k, own[part])
        return out

    def _most_clicked_without(self, queries: NDArray[np.int64], k: int, own: Ints) -> Ints:
        """The first k items of queries [n] when m own clicks of each [n, m] are not counted: int32 [n, k]."""
        # Taking one click from m items moves no other item down, so the new first k are among the old first k + m.
        item = self.items.heads(queries, k + own.shape[1])
        there = item >= 0
        at = np.where(there, self.items.offsets[queries][:, None] + np.arange(item.shape[1]), 0)
        # Counts without the own clicks, then the same order as in `from_page_views`; all [n, k + m].
        own_click = (item[:, :, None] == own[:, None, :]).any(-1)
        count = np.where(there, self.counts[at] - own_click, 0)
        total = self.clicked[item] - own_click
        order = np.lexsort((item, -total, -count), axis=1)[:, :k]
        kept = np.take_along_axis(item, order, 1)
        return np.where(np.take_along_axis(count, order, 1) > 0, kept, np.int32(-1))

    def pair_counts(
        self, queries: NDArray[np.int64], items: NDArray[np.integer], leave_out: Ragged | None = None
    ) -> Floats:
        """Clicks of given items for each query: float32 [n, m] for ``items`` [n, m]; 0 for -1 and unknown queries.

        Args:
            queries: numbers [n] of :meth:`query_numbers`.
            items: item rows, -1 for none.
            leave_out: as in :meth:`most_clicked`.
        """
        counts = self._pairs.lookup(queries[:, None], items)
        return counts if leave_out is None else np.maximum(counts - contained(leave_out, items), 0)

    def save(self, folder: Path) -> None:
        """Write two Parquet files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"shown": self.shown, "clicked": self.clicked, "ordered": self.ordered}).write_parquet(
            folder / "item_counts.parquet"
        )
        # One row a query: its text, its page views, its items and their counts as lists.
        query = pl.Series(list(self.queries), dtype=pl.String)
        flat = pl.DataFrame({"row": self.items.owners, "item": self.items.values, "count": self.counts})
        lists = flat.group_by("row", maintain_order=True).agg("item", "count").select("item", "count")
        pl.DataFrame({"query": query, "searched": self.searched}).hstack(lists).write_parquet(
            folder / "query_clicks.parquet"
        )

    @classmethod
    def load(cls, folder: Path) -> "ClickStatistics":
        """Read what :meth:`save` wrote."""
        totals = pl.read_parquet(folder / "item_counts.parquet")
        queries = pl.read_parquet(folder / "query_clicks.parquet")
        # Lists back to flat values and lengths.
        lengths = queries["item"].list.len().cast(pl.Int64).to_numpy()
        shown, clicked, ordered = (totals[name].to_numpy().astype(np.float32) for name in totals.columns)
        return cls(
            shown,
            clicked,
            ordered,
            TextTable.from_texts(queries["query"]),
            Ragged.from_lengths(queries["item"].explode().to_numpy().astype(np.int32), lengths),
            queries["count"].explode().to_numpy().astype(np.float32),
            queries["searched"].to_numpy().astype(np.float32),
        )

    @cached_property
    def query_clicks(self) -> Floats:
        """Clicks of each query in all, float32 [queries + 1]; the last, 0, is that of unknown queries (number -1)."""
        return np.bincount(self.items.owners, self.counts, len(self.items) + 1).astype(np.float32)

    @cached_property
    def _numbers(self) -> TextNumbers:
        return TextNumbers(self.queries)

    @cached_property
    def _pairs(self) -> PairCounts:
        return PairCounts.from_pairs(self.items.owners, self.items.values, self.counts)


def most_clicked_first(
    query: NDArray[np.int64], item: NDArray[np.int64], counts: Floats, clicked: Floats, queries: int
) -> tuple[Ragged, Floats]:
    """Pairs [P] as a list of items for each of the ``queries``, most clicked first, and the counts in that order, [P].

    Of equally often clicked items that comes first which has more clicks in all, ``clicked`` [N], then the lower row.
    """
    order = np.lexsort((item, -clicked[item], -counts, query))
    lists = Ragged.from_lengths(item[order].astype(np.int32), np.bincount(query, minlength=queries))
    return lists, counts[order]


def _once(lists: Ragged) -> Ragged:
    """The lists without repetitions; the first of equal values stays."""
    if not len(lists.values):
        return lists
    owners = lists.owners
    _, first = np.unique(owners * (int(lists.values.max()) + 1) + lists.values, return_index=True)
    if len(first) == len(lists.values):
        return lists
    # Back in the order of the lists.
    keep = np.sort(first)
    return Ragged.from_lengths(lists.values[keep], np.bincount(owners[keep], minlength=len(lists)))
