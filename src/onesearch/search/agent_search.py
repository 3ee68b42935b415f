"""A search for an agent: facts of the items, what speaks for them, what else there is, and what to ask next.

No language model is asked. Beside the page itself, which is the engine's::

    words       which of the query's an item says, and where
    questions   the filters whose answer narrows the found items down most (`questions`)
    relaxed     each filter left out by itself: how many more items are found; counted, nothing is ranked
    near        items like the best one, whether the filters allow them or not; without any found, those of no filter
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from onesearch.data.records import Item
from onesearch.index.filter_columns import number_in
from onesearch.index.filter_values import ATTRIBUTES, NOT
from onesearch.search.confidence import NOTHING_FITS
from onesearch.search.questions import Question, questions
from onesearch.search.results import FilterChoices, SearchRequest, SearchResult, SearchResults
from onesearch.search.score_words import score_words
from onesearch.search.shopper_history import ShopperHistory
from onesearch.search.word_matches import WordMatch

MOST_EXCLUDED: Final = 80
"""Items that a search leaves out, at most: with those shown no more than a plain search may ask for."""
MOST_RELAXED: Final = 8
"""Filters of a search that are left out by turns; further ones are not tried."""
_FACETS: Final = ("category", "brand", "price", "in_stock")
_MOST_TYPES: Final = 12  # of attributes that are asked about
_NEAR: Final = 3


class AgentEngine(Protocol):
    """What is needed of an engine; ``search.engine.SearchEngine`` is the real one."""

    @property
    def explains(self) -> bool:
        """Whether it can say why an item stands where it does."""

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        """The results of each request, best first."""

    def similar(self, item_id: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> SearchResults:
        """The items most like one."""

    def word_matches(self, query: str, items: Sequence[Item]) -> list[tuple[WordMatch, ...]]:
        """Where the words of a query stand in items."""

    def filters_available(self) -> FilterChoices:
        """Filter values to offer."""


@dataclass(frozen=True)
class AgentRequest:
    """One search of an agent.

    Attributes:
        query: "" asks for a recommendation.
        user: whom it shops for.
        k: items at most.
        filters: as of a :class:`SearchRequest`.
        budget: what an item may cost at most; also the ``price`` of the filters holds.
        exclude: ids of items that are not shown: those looked at before.
        history: as of a :class:`SearchRequest`.
        groups: as of a :class:`SearchRequest`.
        reasons: whether the parts of each score are told, for which is searched once more; not by a shard.
        alternatives: whether ``relaxed`` and ``near`` are told.
        questions: how many questions at most.
    """

    query: str
    user: str | None = None
    k: int = 10
    filters: Mapping[str, Any] | None = None
    budget: float | None = None
    exclude: Collection[str] = ()
    history: ShopperHistory | None = None
    groups: Sequence[str] = ()
    reasons: bool = True
    alternatives: bool = True
    questions: int = 3

    @property
    def conditions(self) -> Mapping[str, Any] | None:
        """The filters with the budget among them."""
        if self.budget is None:
            return self.filters or None
        low, high = (self.filters or {}).get("price") or (None, None)
        return {**(self.filters or {}), "price": [low, self.budget if high is None else min(high, self.budget)]}


@dataclass(frozen=True)
class AgentItem:
    """An item with what speaks for it.

    Attributes:
        hit: the result.
        words: of the query, each with the fields where the item says it.
        reasons: parts of its score in words, the weightiest first.
    """

    hit: SearchResult
    words: tuple[WordMatch, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Relaxed:
    """A filter, its value, and how many items are found in all, and more than with it, where it is left out."""

    filter: str
    value: Any
    total: int
    more: int


@dataclass(frozen=True)
class AgentPage:
    """The answer to an :class:`AgentRequest`.

    Attributes:
        items: best first.
        total: items that the filters allow and that are relevant to the query, the excluded ones among them; the page
            may go on behind them with what comes nearest.
        confidence: as of :class:`SearchResults`.
        corrected_query: as of :class:`SearchResults`.
        did_you_mean: as of :class:`SearchResults`.
        questions: best first.
        relaxed: filters whose absence brings more items, most first.
        near: items beside the page.
    """

    items: tuple[AgentItem, ...]
    total: int
    confidence: float | None
    corrected_query: str | None
    did_you_mean: str | None
    questions: tuple[Question, ...]
    relaxed: tuple[Relaxed, ...]
    near: tuple[Item, ...]

    @property
    def fits(self) -> bool | None:
        """Whether anything fits the query; None where the engine cannot tell."""
        return None if self.confidence is None else self.confidence >= NOTHING_FITS


def search_request(engine: AgentEngine, request: AgentRequest) -> SearchRequest:
    """The search whose results :func:`agent_page` reads."""
    types = [f"{ATTRIBUTES}.{kind}" for kind, _ in engine.filters_available().attributes[:_MOST_TYPES]]
    return SearchRequest(
        request.query,
        request.user,
        request.k + len(request.exclude),
        request.conditions,
        history=request.history,
        count=True,
        facets=(*_FACETS, *types) if request.questions else (),
        explain=request.reasons and engine.explains,
        groups=request.groups,
    )


def agent_pages(engine: AgentEngine, requests: Sequence[AgentRequest]) -> list[AgentPage]:
    """The answers to several searches, ranked together.

    Raises:
        ValueError: a filter is not valid.
    """
    found = engine.search_batch([search_request(engine, one) for one in requests])
    return [agent_page(engine, request, results) for request, results in zip(requests, found, strict=True)]


def agent_page(engine: AgentEngine, request: AgentRequest, found: SearchResults) -> AgentPage:
    """The answer to a search, from the results of its :func:`search_request`.

    Raises:
        ValueError: as :func:`agent_pages`.
    """
    shown = [hit for hit in found if hit.item_id not in request.exclude][: request.k]
    total, query = found.relevant or 0, found.corrected_query or request.query
    # Facts of the items.
    words = engine.word_matches(query, [hit.item for hit in shown])
    items = tuple(
        AgentItem(hit, said, () if hit.why is None else score_words(hit.why.parts))
        for hit, said in zip(shown, words, strict=True)
    )
    # What to ask, and what else there is.
    conditions = dict(_conditions(request.conditions or {}))
    asked = questions(found.facets, found.total or 0, conditions, request.questions)
    relaxed, near = (
        (_relaxed(engine, request, total), _near(engine, request, shown)) if request.alternatives else ((), ())
    )
    return AgentPage(items, total, found.confidence, found.corrected_query, found.did_you_mean, asked, relaxed, near)


def _relaxed(engine: AgentEngine, request: AgentRequest, total: int) -> tuple[Relaxed, ...]:
    filters = request.conditions or {}
    tried = list(_conditions(filters))[:MOST_RELAXED]
    # An order of its own needs no model: the items are only counted.
    plain = SearchRequest(request.query, request.user, 1, history=request.history, count=True, sort="popularity")
    asked = [replace(plain, filters=without(filters, name) or None, groups=request.groups) for name, _ in tried]
    found = engine.search_batch(asked) if asked else []
    relaxed = [
        Relaxed(name, value, one.relevant or 0, (one.relevant or 0) - total)
        for (name, value), one in zip(tried, found, strict=True)
    ]
    return tuple(sorted((one for one in relaxed if one.more > 0), key=lambda one: -one.more))


def _near(engine: AgentEngine, request: AgentRequest, shown: Sequence[SearchResult]) -> tuple[Item, ...]:
    known = {*request.exclude, *(hit.item_id for hit in shown)}
    most = _NEAR + len(known)
    if shown:
        try:
            found = engine.similar(shown[0].item_id, most)
        except KeyError:  # it left the catalogue since the search
            found = SearchResults()
    elif request.conditions:
        bare = SearchRequest(request.query, request.user, most, history=request.history, groups=request.groups)
        found = engine.search_batch([bare])[0]
    else:
        found = SearchResults()
    return tuple(hit.item for hit in found if hit.item_id not in known)[:_NEAR]


def _conditions(filters: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each single filter by name, as ``attributes.Color`` or ``not.brand``, with its value."""
    for key, value in filters.items():
        if key == NOT and isinstance(value, Mapping):
            yield from _conditions(value, f"{NOT}.")
        elif key == ATTRIBUTES and isinstance(value, Mapping):
            yield from ((f"{before}{ATTRIBUTES}.{kind}", one) for kind, one in value.items())
        else:
            yield f"{before}{key}", value


def without(filters: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The filters but one, as ``brand``, ``attributes.Color`` or ``not.brand``.

    >>> without({"brand": "Acme", "attributes": {"Color": "red"}}, "attributes.Color")
    {'brand': 'Acme'}
    """
    if name in filters:
        return {key: value for key, value in filters.items() if key != name}
    outer, _, inner = name.partition(".")
    rest = without(filters[outer], inner)
    return {key: (rest if key == outer else value) for key, value in filters.items() if key != outer or rest}


def rating(item: Item) -> float | None:
    """The first number of an attribute of the shop's own that is called rating; None without one."""
    texts = (value for kind, values in item.attributes.items() if kind.casefold() == "rating" for value in values)
    numbers = (number_in(text) for text in texts)
    return next((number for number in numbers if number == number), None)
