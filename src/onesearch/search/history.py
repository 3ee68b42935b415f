"""Shoppers' histories as columns, and the histories of a finished run's log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onesearch.data.requests import NOBODY, Requests
from onesearch.search.shoppers import ShopperHistory

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
