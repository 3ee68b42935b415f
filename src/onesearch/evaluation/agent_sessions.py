"""Sessions of agents that shop for a market's shoppers: search, read, offer, refine, until an order or the budget ends.

::

    repeat: the agent says what it searches for              (None: it gives up)
            the engine answers with a page of facts
            the agent says which items it offers, in order
            the shopper orders the first one that they would  (their fate with it, as everywhere in the market)
    until an order, or `budget` searches

Sessions become page views that alignment learns from, rewarded by the final order alone: every search of a session that
ended in an order has that item as what was clicked and ordered, shown or not, and the searches of all others have
nothing. So what pays is to show at the first search what was ordered after the last one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.data.records import conform
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.market.shopping_needs import ShoppingNeed, shopping_needs
from onesearch.search.agent_search import AgentEngine, AgentPage, AgentRequest, agent_pages

_AT_ONCE: Final = 64  # searches ranked together


class Agent(Protocol):
    """Whoever shops for one need."""

    def search(self) -> AgentRequest | None:
        """The next search; None gives up."""

    def read(self, page: AgentPage) -> Sequence[str]:
        """Which items of the answer are offered to the shopper, in order."""


MakeAgent = Callable[[ShoppingNeed, str | None], Agent]
"""An agent for a need of a shopper."""


@dataclass
class Session:
    """What happened in one session.

    Attributes:
        page_view: row of the laboratory's page view that has the need.
        searches: what was searched for, and the items shown.
        offered: items that the shopper looked at.
        ordered: the item that ended it; None without one.
        gave_up: whether the agent gave up before its budget was spent.
    """

    page_view: int
    searches: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    offered: int = 0
    ordered: str | None = None
    gave_up: bool = False


def need_rows(laboratory: Laboratory, most: int) -> NDArray[np.int64]:
    """Page views whose queries are the needs: the last one of each session, the ``most`` earliest, in order."""
    table = laboratory.page_views.with_row_index("row")
    last = table.group_by("session_id", maintain_order=True).agg(pl.col("row").last())
    return np.sort(last["row"].to_numpy().astype(np.int64))[:most]


class Shoppers:
    """The shoppers of a laboratory as agents meet them: item by item.

    Args:
        laboratory: with page views that have the needs.
        number: row of each item by id.
    """

    def __init__(self, laboratory: Laboratory, number: dict[str, int]) -> None:
        self.laboratory, self._number = laboratory, number

    def needs(self, rows: NDArray[np.int64]) -> list[ShoppingNeed]:
        """The needs of page views."""
        queries = self.laboratory.visits.query[rows]
        return shopping_needs(self.laboratory.truth, self.laboratory.leaf_paths, queries)

    def user(self, row: int) -> str | None:
        """The shopper of a page view."""
        name: str | None = self.laboratory.page_views["user_id"][row]
        return name

    def orders(self, row: int, offered: Sequence[str]) -> int | None:
        """The place of the first offered item that the shopper of a page view orders; None for none."""
        items = np.array([[self._number.get(one, -1) for one in offered]], np.int32)
        _, ordered = self.laboratory.truth.fates(self.laboratory.visits.select(np.array([row])), items)
        places = np.flatnonzero(ordered[0])
        return int(places[0]) if len(places) else None


def shop(
    engine: AgentEngine, shoppers: Shoppers, rows: NDArray[np.int64], make: MakeAgent, budget: int = 6
) -> list[Session]:
    """The sessions for the needs of page views ``rows``, all of them step by step together.

    Args:
        engine: what the agents search with.
        shoppers: who decide.
        rows: of the laboratory's page views.
        make: the agent of each session.
        budget: searches, at most.
    """
    needs = shoppers.needs(rows)
    sessions = [Session(row) for row in rows.tolist()]
    agents = [make(need, shoppers.user(session.page_view)) for need, session in zip(needs, sessions, strict=True)]
    going = list(range(len(sessions)))
    for _ in range(budget):
        # Who goes on says what it searches for; their searches are ranked together.
        asked: list[tuple[int, AgentRequest]] = []
        for place in going:
            if (request := agents[place].search()) is None:
                sessions[place].gave_up = True
            else:
                asked.append((place, request))
        going = []
        for first in range(0, len(asked), _AT_ONCE):
            part = asked[first : first + _AT_ONCE]
            pages = agent_pages(engine, [request for _, request in part])
            for (place, request), page in zip(part, pages, strict=True):
                session = sessions[place]
                shown = tuple(one.hit.item_id for one in page.items)
                session.searches.append((page.corrected_query or request.query, shown))
                # Nobody orders what the page does not show, whatever an agent says.
                offered = [one for one in dict.fromkeys(agents[place].read(page)) if one in shown]
                bought = shoppers.orders(session.page_view, offered) if offered else None
                session.offered += len(offered) if bought is None else bought + 1
                if bought is None:
                    going.append(place)
                else:
                    session.ordered = offered[bought]
    return sessions


def session_page_views(sessions: Sequence[Session], laboratory: Laboratory, name: str = "a") -> pl.DataFrame:
    """The searches of sessions as page views to learn from, credited with the final order alone; see the module.

    All of a session have its time, so that none is another one's history: its order would be told to the prompts that
    are to find it. ``name`` begins the ids of page views and sessions.
    """
    table, rows = laboratory.page_views, list[dict[str, Any]]()
    for number, session in enumerate(sessions):
        view = table.row(session.page_view, named=True)
        final = [] if session.ordered is None else [session.ordered]
        for step, (query, shown) in enumerate(session.searches):
            rows.append(
                {
                    "page_view_id": f"{name}{number}-{step}",
                    "user_id": view["user_id"],
                    "session_id": f"{name}{number}",
                    "time": view["time"],
                    "query": query,
                    "shown": list(shown),
                    "clicked": final,
                    "ordered": final,
                    "query_type": view["query_type"],
                }
            )
    schema = {**table.schema, "shown": pl.List(pl.String), "clicked": pl.List(pl.String), "ordered": pl.List(pl.String)}
    return conform("page_views", pl.DataFrame(rows, schema=schema))
