"""A shopper's history at the moment of a search, and where the engine gets it from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from onesearch.data.requests import NOBODY, Requests

MAX_CLICKS = 50
MAX_ORDERS = 20
MAX_QUERIES = 5


@dataclass(frozen=True)
class ShopperHistory:
    """What one shopper did so far; every sequence is newest last.

    Attributes:
        clicked: ids of clicked items.
        clicked_queries: for each click the query it was made for ("" when unknown).
        ordered: ids of ordered items.
        recent_queries: the last queries.
        profile: profile text such as "F 24-30"; "" when unknown.
    """

    clicked: tuple[str, ...] = ()
    clicked_queries: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()
    recent_queries: tuple[str, ...] = ()
    profile: str = ""

    def __post_init__(self) -> None:
        if len(self.clicked) != len(self.clicked_queries):
            raise ValueError(
                f"ShopperHistory has {len(self.clicked)} clicked items but {len(self.clicked_queries)} queries for them"
            )

    def __bool__(self) -> bool:
        return bool(self.clicked or self.ordered or self.recent_queries or self.profile)

    def followed_by(self, newer: Self) -> "ShopperHistory":
        """The same history with newer happenings after it, cut to the newest that the model reads.

        >>> ShopperHistory(ordered=("old",)).followed_by(ShopperHistory(ordered=("new",))).ordered
        ('old', 'new')
        """
        return ShopperHistory(
            (*self.clicked, *newer.clicked)[-MAX_CLICKS:],
            (*self.clicked_queries, *newer.clicked_queries)[-MAX_CLICKS:],
            (*self.ordered, *newer.ordered)[-MAX_ORDERS:],
            (*self.recent_queries, *newer.recent_queries)[-MAX_QUERIES:],
            newer.profile or self.profile,
        )


class HistoryStore(Protocol):
    """Where shoppers' histories are looked up; a shopper nobody knows has an empty one."""

    def history(self, user: str) -> ShopperHistory:
        """What ``user`` did so far."""
        ...


NO_HISTORY = ShopperHistory()


@dataclass(frozen=True)
class FixedHistories:
    """Histories held in memory: the shoppers of a log."""

    known: Mapping[str, ShopperHistory] = field(default_factory=dict)

    def history(self, user: str) -> ShopperHistory:
        """The shopper's past; an unknown shopper has none."""
        return self.known.get(user, NO_HISTORY)


def to_requests(queries: Sequence[str], histories: Sequence[ShopperHistory], number: Mapping[str, int]) -> Requests:
    """Requests as columns; items that ``number`` (item id to item row) does not know are left out."""
    # Queries of clicks are numbered; most shoppers click for the same few.
    texts = list(dict.fromkeys(text for past in histories for text in past.clicked_queries))
    of_text = {text: i for i, text in enumerate(texts)}
    clicks = [
        [(number[i], of_text[q]) for i, q in zip(past.clicked, past.clicked_queries, strict=True) if i in number]
        for past in histories
    ]
    orders = [[number[i] for i in past.ordered if i in number] for past in histories]
    return Requests(
        list(queries),
        np.full(len(queries), NOBODY, np.int64),
        [past.profile for past in histories],
        [past.recent_queries for past in histories],
        _right_aligned([[i for i, _ in row] for row in clicks]),
        _right_aligned([[q for _, q in row] for row in clicks]),
        _right_aligned(orders),
        texts,
    )


def _right_aligned(rows: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    width = max((len(row) for row in rows), default=0)
    out = np.full((len(rows), width), -1, np.int32)
    for line, row in zip(out, rows, strict=True):
        if row:
            line[width - len(row) :] = row
    return out
