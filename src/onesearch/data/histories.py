"""What was known of a shopper *before* each page view, for whole tables at once.

A shopper is the page view's user or, without a user, its session. Only events with a strictly earlier time count:
not the page view itself, nor others of the same moment. A page view without a time or without a shopper has no
history.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.dataset import ragged_rows, rows_of
from onesearch.data.requests import Requests

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
_CHUNK = 65_536


@dataclass(frozen=True)
class Targets:
    """Item rows of each page view: what was shown, clicked, ordered; ids outside the catalogue are left out."""

    shown: Ragged
    clicked: Ragged
    ordered: Ragged

    def select(self, rows: Longs) -> "Targets":
        """Those of the page views with these numbers."""
        return Targets(self.shown.select(rows), self.clicked.select(rows), self.ordered.select(rows))


@dataclass(frozen=True)
class _Events:
    """Events by shopper, then time: ``values`` int32 [E] each, ``key`` int64 [E] as in :meth:`Histories._key`."""

    key: Longs
    values: tuple[Ints, ...]

    @classmethod
    def from_log(cls, key: Longs, *values: Ints) -> "_Events":
        order = np.argsort(key, kind="stable")
        return cls(key[order], tuple(value[order] for value in values))

    def last(self, first_key: Longs, end_key: Longs, width: int) -> list[Ints]:
        """Last ``width`` events with a key in [first_key, end_key), both [n]: of each of ``values`` int32 [n, width].

        Right-aligned: the newest is last, and -1 fills up on the left.
        """
        out = [np.full((len(first_key), width), -1, np.int32) for _ in self.values]
        if not len(self.key) or not width:
            return out
        order = np.argsort(end_key, kind="stable")  # neighbours in memory are asked for together
        for begin in range(0, len(order), _CHUNK):
            rows = order[begin : begin + _CHUNK]
            first = np.searchsorted(self.key, first_key[rows])
            end = np.searchsorted(self.key, end_key[rows])
            some = end > first
            rows, first, end = rows[some], first[some], end[some]
            # The width places before the end, [some, width]; those before the first are none.
            at = end[:, None] - width + np.arange(width)
            none = at < first[:, None]
            np.maximum(at, 0, out=at)  # any place does where there is none
            for last, value in zip(out, self.values, strict=True):
                last[rows] = np.where(none, -1, value[at])
        return out


class Histories:
    """The events of a log, ready to be looked up for any page views.

    number the shoppers and the distinct times of the log; key = shopper * (times + 1) + time
    sort clicks, orders and queries by key
    a page view's history lies between the keys (its shopper, first time) and (its shopper, its own time)
    two binary searches find both ends; the last few events before the second one are taken
    """

    def __init__(self, page_views: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame) -> None:
        """Sort every event by shopper and time.

        Args:
            page_views: usually the whole log: a test page view may know what happened before it, as time decides.
            items: gives the item rows.
            users: gives the user rows and profiles.
        """
        self._items, self._users = items["item_id"], users["user_id"]
        # "F 24-30", "F", "24-30" or "".
        gender, age = users["gender"].fill_null(""), users["age_band"].fill_null("")
        self._profiles = (gender + " " + age).str.strip_chars().to_list()
        # Page views that can be anybody's history: [P] with time and shopper, and their keys.
        shoppers = shopper_keys(page_views)
        known = page_views["time"].is_not_null() & shoppers.is_not_null()
        log = page_views.filter(known)
        shoppers = shoppers.filter(known)
        self._shoppers = shoppers.unique(maintain_order=True)
        time = log["time"].to_physical().to_numpy()
        self._moments: Longs = np.unique(time)
        shopper = rows_of(shoppers, self._shoppers).to_numpy()
        key = self._key(shopper, np.searchsorted(self._moments, time))
        # Their events: a click carries the number of the query it was made for.
        texts = log["query"].fill_null("")
        distinct = texts.unique(maintain_order=True)
        self.query_texts: list[str] = distinct.to_list()
        query = rows_of(texts, distinct).to_numpy()
        clicked, ordered = ragged_rows(log["clicked"], self._items), ragged_rows(log["ordered"], self._items)
        self._clicks = _Events.from_log(key[clicked.owners], clicked.values, query[clicked.owners])
        self._orders = _Events.from_log(key[ordered.owners], ordered.values)
        self._queries = self._searches(key, query, texts)

    def requests(self, page_views: pl.DataFrame, clicks: int = 50, orders: int = 20, queries: int = 5) -> Requests:
        """The page views as requests with the shoppers' last ``clicks``, ``orders`` and ``queries`` before each.

        A query repeated directly after itself (paging) counts once.
        """
        first, end = self._bounds(page_views)
        clicked, clicked_queries = self._clicks.last(first, end, clicks)
        (ordered,) = self._orders.last(first, end, orders)
        (recent,) = self._queries.last(first, end, queries)
        # Who asks: -1 for sessions and for users that the user table does not have.
        user = rows_of(page_views["user_id"], self._users).to_numpy().astype(np.int64)
        return Requests(
            query=page_views["query"].fill_null("").to_list(),
            user=user,
            profile=[self._profiles[row] if row >= 0 else "" for row in user.tolist()],
            recent_queries=self._texts(recent),
            clicked=clicked,
            clicked_queries=clicked_queries,
            ordered=ordered,
            query_texts=self.query_texts,
        )

    def targets(self, page_views: pl.DataFrame) -> Targets:
        """Shown, clicked and ordered items of the page views as item rows."""
        return Targets(*(ragged_rows(page_views[name], self._items) for name in ("shown", "clicked", "ordered")))

    def _key(self, shopper: NDArray[np.integer], moment: NDArray[np.integer]) -> Longs:
        """Shopper and moment (number of a distinct time) in one number that sorts by shopper, then time."""
        return shopper.astype(np.int64) * (len(self._moments) + 1) + moment

    def _bounds(self, page_views: pl.DataFrame) -> tuple[Longs, Longs]:
        """Keys of the shopper's first possible event and of the page view's own moment; equal when nothing is known."""
        shopper = rows_of(shopper_keys(page_views), self._shoppers).to_numpy()
        time = page_views["time"]
        # How many moments of the log lie strictly before: the page view's own moment is not one of them.
        before = np.searchsorted(self._moments, time.to_physical().fill_null(0).to_numpy(), side="left")
        known = (shopper >= 0) & time.is_not_null().to_numpy()
        first = self._key(shopper, np.zeros_like(before))
        return first, np.where(known, first + before, first)

    def _searches(self, key: Longs, query: Ints, texts: pl.Series) -> _Events:
        """The queries of page views [P] as events, without empty ones and without repetitions in a row."""
        typed = (texts.str.strip_chars() != "").to_numpy()
        events = _Events.from_log(key[typed], query[typed])
        shopper = events.key // (len(self._moments) + 1)
        (number,) = events.values
        repeated = np.zeros(len(shopper), bool)
        repeated[1:] = (shopper[1:] == shopper[:-1]) & (number[1:] == number[:-1])
        return _Events(events.key[~repeated], (number[~repeated],))

    def _texts(self, numbers: Ints) -> list[tuple[str, ...]]:
        """Query numbers [n, width], right-aligned, as tuples of texts."""
        out = np.empty(len(numbers), object)
        texts = np.array([*self.query_texts, ""], object)
        lengths = (numbers >= 0).sum(1)
        # All of one length at a time: then they are an array, and no text is touched one by one.
        for length in np.unique(lengths).tolist():
            rows = np.flatnonzero(lengths == length)
            tuples = np.empty(len(rows), object)
            tuples[:] = list(map(tuple, texts[numbers[rows, numbers.shape[1] - length :]].tolist()))
            out[rows] = tuples
        return list(out.tolist())


def shopper_keys(page_views: pl.DataFrame) -> pl.Series:
    """Whose page view it is: a user's, else a session's, else nobody's (null)."""
    user, session = "u" + pl.col("user_id"), "s" + pl.col("session_id")
    return page_views.select(pl.coalesce(user, session).alias("shopper"))["shopper"]
