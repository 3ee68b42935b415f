"""An agent by rules: it answers what the shop asks, says more words, leaves out what costs too much, and looks on.

::

    first   the need's first words
    then, after a page without an order, the first of these that there is:
            the best question of the page that the need answers     -> a filter
            a ban that is not yet said                              -> a filter that must not hold
            words that were withheld                                -> a longer query
            too few items, and a filter without which there are more -> without it, and never again
            items that were not seen                                -> the same search without those seen
            else it gives up

It draws nothing: the same need and the same pages give the same session.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onesearch.data.text import fold
from onesearch.index.filter_values import ATTRIBUTES, NOT, PATH_SEPARATOR
from onesearch.market.shopping_needs import ShoppingNeed
from onesearch.search.agent_search import MOST_EXCLUDED, AgentItem, AgentPage, AgentRequest, without
from onesearch.search.questions import Question


class StandInAgent:
    """One session's agent.

    Args:
        need: what it shops for.
        user: whom it shops for.
        k: items of a page.
    """

    def __init__(self, need: ShoppingNeed, user: str | None = None, k: int = 5) -> None:
        self.need, self.user, self.k = need, user, k
        self._query, self._more = need.start, list(need.more)
        self._filters: dict[str, Any] = {}
        self._banned = need.banned
        self._tried: set[str] = set()  # filters that were set once
        self._seen: list[str] = []
        self._page: AgentPage | None = None

    def search(self) -> AgentRequest | None:
        """The next search."""
        if self._page is not None and not self._refine(self._page):
            return None
        return AgentRequest(
            self._query,
            self.user,
            self.k,
            dict(self._filters) or None,
            exclude=tuple(self._seen[-MOST_EXCLUDED:]),
            reasons=False,
            alternatives=bool(self._filters),
        )

    def read(self, page: AgentPage) -> Sequence[str]:
        """All items, those whose facts meet more of the need first."""
        self._page = page
        found = sorted(page.items, key=lambda one: -sum(_meets(one, wish) for wish in self.need.wishes))
        self._seen += [one.hit.item_id for one in page.items]
        return [one.hit.item_id for one in found]

    def _refine(self, page: AgentPage) -> bool:
        """Change the search after a page; False where there is nothing left to try."""
        if any(self._answer(question) for question in page.questions):
            return True
        if self._banned is not None:
            (kind, value), self._banned = self._banned, None
            self._filters[NOT] = {"brand": value} if kind == "Brand" else {ATTRIBUTES: {kind: value}}
            return True
        if self._more:
            self._query = f"{self._more.pop(0)} {self._query}"
            return True
        if len(page.items) < self.k and page.relaxed:
            self._filters = without(self._filters, page.relaxed[0].filter)
            return True
        return bool(page.items)

    def _answer(self, question: Question) -> bool:
        """Set the filter that a question asks for, if the need says which and it was not set before."""
        if question.facet in self._tried:
            return False
        values = list(self._answers(question))
        # What all answers are right for narrows nothing down.
        if not values or (len(values) == len(question.values) and not question.others):
            return False
        self._tried.add(question.facet)
        name, _, kind = question.facet.partition(".")
        chosen: Any = values if len(values) > 1 else values[0]
        if kind:
            self._filters[name] = {**self._filters.get(name, {}), kind: chosen}
        else:
            self._filters[name] = chosen
        return True

    def _answers(self, question: Question) -> Iterator[str]:
        """The answers to a question that serve the need."""
        if question.facet == "category":
            paths = [path + PATH_SEPARATOR for path in self.need.categories]
            for path, _ in question.values:
                if any(leaf.startswith(str(path) + PATH_SEPARATOR) for leaf in paths):
                    yield str(path)
            return
        kind = "Brand" if question.facet == "brand" else question.facet.partition(".")[2]
        wanted = {fold(value) for wish in self.need.wishes for value in wish.get(kind, ())}
        yield from (str(value) for value, _ in question.values if fold(str(value)) in wanted)


def _meets(one: AgentItem, wish: Mapping[str, frozenset[str]]) -> bool:
    """Whether an item's facts say one of a wish's values."""
    item = one.hit.item
    for kind, values in wish.items():
        said = [item.brand or ""] if kind == "Brand" else item.attributes.get(kind, ())
        if not {fold(value) for value in said}.isdisjoint(fold(value) for value in values):
            return True
    return False
