"""Search requests as arrays: what every searcher, baseline and the model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NOBODY = -1
LeaveOut = Literal["nothing", "ordered", "clicked"]
"""Items not shown again: none, those ordered, those clicked or ordered."""


@dataclass(frozen=True)
class Requests:
    """``n`` search requests with what was known *before* each of them.

    Item numbers are rows of the dataset's item table; -1 means 'none'.

    Attributes:
        query: the query texts, [n]; "" asks for a recommendation.
        user: rows of the user table, int64 [n]; -1 for an anonymous shopper.
        profile: profile texts such as "F 24-30", [n]; "" when unknown.
        recent_queries: the shopper's last queries, newest last, [n] tuples.
        clicked: items clicked before the request, newest last, right-aligned, int32 [n, C].
        clicked_queries: for each clicked item the number of the query it was clicked for in ``query_texts``,
            int32 [n, C]; -1 for none. Lets a model pick the clicks that matter for this query.
        ordered: items ordered before the request, newest last, right-aligned, int32 [n, O].
        query_texts: distinct query texts that ``clicked_queries`` refers to.
        in_log: the queries that the click log is asked for, [n], where they are other ones; else empty.
    """

    query: list[str]
    user: NDArray[np.int64]
    profile: list[str]
    recent_queries: list[tuple[str, ...]]
    clicked: NDArray[np.int32]
    clicked_queries: NDArray[np.int32]
    ordered: NDArray[np.int32]
    query_texts: Sequence[str] = ()
    in_log: Sequence[str] = ()

    def __post_init__(self) -> None:
        n = len(self.query)
        for name in ("user", "profile", "recent_queries", "clicked", "clicked_queries", "ordered"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"Requests.{name} has {len(getattr(self, name))} rows but query has {n}")

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def anonymous(cls, query: Sequence[str]) -> "Requests":
        """Requests of unknown shoppers without history."""
        n = len(query)
        none = np.full((n, 0), -1, np.int32)
        return cls(list(query), np.full(n, NOBODY, np.int64), [""] * n, [()] * n, none, none, none)

    def taken(self, leave_out: LeaveOut) -> NDArray[np.int32]:
        """Items that are not shown again, int32 [n, T], -1 for none."""
        if leave_out == "nothing":
            return np.full((len(self), 0), -1, np.int32)
        return np.concatenate([self.ordered, self.clicked], 1) if leave_out == "clicked" else self.ordered

    def select(self, rows: NDArray[np.integer]) -> "Requests":
        """The given requests, in the given order."""
        # Lists of texts one by one, arrays at once; the texts that clicks refer to stay the same.
        index = rows.tolist()
        return Requests(
            [self.query[i] for i in index],
            self.user[rows],
            [self.profile[i] for i in index],
            [self.recent_queries[i] for i in index],
            self.clicked[rows],
            self.clicked_queries[rows],
            self.ordered[rows],
            self.query_texts,
            [self.in_log[i] for i in index] if self.in_log else (),
        )
