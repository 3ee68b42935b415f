"""A shopper's history at the moment of a search, and where the engine gets it from."""

from dataclasses import dataclass
from typing import Protocol, Self

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
