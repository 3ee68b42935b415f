"""What the search engine takes and gives, one request at a time: the public contract's small types."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from onesearch.data.records import Item
from onesearch.search.exploration import Exploration
from onesearch.search.rules import Rules
from onesearch.search.shopper_history import ShopperHistory

Sort = Literal["price", "-price", "newest", "popularity"]
"""Orders of a result set beside the engine's; what is unknown of an item puts it last."""
OutOfStock = Literal["shown", "demoted", "hidden"]
"""What becomes of items out of stock, or of unknown stock, where a search does not filter by stock."""


class Part(NamedTuple):
    """One feature's part of a score: ``value * weight``."""

    feature: str
    value: float
    weight: float

    @property
    def product(self) -> float:
        """What it adds to the score."""
        return self.value * self.weight


class Step(NamedTuple):
    """One token of the way to an item.

    ``probability`` is the model's for this token among the legal ones after those before it, None without generator;
    ``items`` of the catalogue share the way so far, most of them in ``category``.
    """

    token: str
    probability: float | None
    items: int
    category: str


@dataclass(frozen=True)
class Explanation:
    """Why an item stands where it does.

    Attributes:
        parts: of its score, largest first; they sum to it. Empty behind the candidates, where items stand in the order
            of the item score, and for an item that comes first because the query is its id or a rule pins it.
        found_by: channels that found it: beams, most clicked, clicked since, evidence, BM25, nearest.
        path: the tokens of its semantic ID.
        rules: names of the rules that touched it: those that changed the query, its pins and its boosts.
        intent: what the query asks for, where that brings the item forward: ``live``.
    """

    parts: tuple[Part, ...]
    found_by: tuple[str, ...]
    path: tuple[Step, ...]
    rules: tuple[str, ...] = ()
    intent: str | None = None

    @property
    def score(self) -> float:
        """The sum of the parts."""
        return sum(part.product for part in self.parts)

    def __str__(self) -> str:
        lines = [f"{self.score:.3f}, found by {', '.join(self.found_by) or 'the order of the item score'}"]
        lines += [f"  rule: {name}" for name in self.rules]
        lines += [f"  the query asks for: {self.intent}"] if self.intent else []
        lines += [f"  {part.product:+.3f}  {part.feature} {part.value:.3f} × {part.weight:.3f}" for part in self.parts]
        for step in self.path:
            chance = "" if step.probability is None else f"{step.probability:.1%} "
            lines.append(f"  {step.token}  {chance}{step.items} items, mostly {step.category or 'of no category'}")
        return "\n".join(lines)


class SearchResult(NamedTuple):
    """One ranked item.

    Attributes:
        item_id: the item's id in the dataset.
        score: what the ranking is ordered by, higher is better; only comparable within one answer.
        sid: the semantic ID that led to the item, one level-local code per level; () when the item has none.
        item: the whole record.
        why: it stands where it does, where the request asked for that.
        highlights: of title, brand and description, where the query's words stand: [start, end) in characters, where
            the request asked for that.
    """

    item_id: str
    score: float
    sid: tuple[int, ...]
    item: Item
    why: Explanation | None = None
    highlights: Mapping[str, Sequence[tuple[int, int]]] = MappingProxyType({})


class SearchResults(list[SearchResult]):
    """The ranked items of one search, best first.

    Attributes:
        confidence: the share of searches ending in a click whose best item matched no better; about 0.02 and less says
            that nothing in the catalogue fits. None for a recommendation, and where the engine cannot tell.
        total: how many items the search is about, on all pages: all that the filters allow, and of these with a query
            all that are relevant to it; no fewer than this page and those before it show. None where the request did
            not ask.
        relevant: how many of the total are relevant; a page may go on behind them with what comes nearest.
        facets: of the items of the total, (value, how many have it) for each facet that the request asked for.
        corrected_query: what was searched for instead of a query with unknown words; None where it was as typed.
        did_you_mean: what the query may mean, where it was searched for as typed; None where there is no doubt.
        explored: ids of those results that a draw put where they are.
        searched: the query as it was asked of the log: corrected, or as a rule replaces it. None of an engine that does
            not tell.
    """

    corrected_query: str | None = None
    did_you_mean: str | None = None
    explored: tuple[str, ...] = ()
    searched: str | None = None

    def __init__(
        self,
        results: Iterable[SearchResult] = (),
        confidence: float | None = None,
        total: int | None = None,
        facets: Mapping[str, Sequence[tuple[Any, int]]] | None = None,
    ) -> None:
        super().__init__(results)
        self.confidence, self.total, self.facets = confidence, total, facets or {}
        self.relevant = total


@dataclass(frozen=True)
class SearchRequest:
    """One search as the engine gets it from a server; requests are answered in batches.

    Attributes:
        query: "" asks for a recommendation.
        user: None, or an id the engine does not know, is an anonymous shopper.
        k: how many results at most.
        filters: as :meth:`onesearch.index.item_filters.ItemFilters.mask` takes them.
        width: beams; None takes the engine's default.
        history: what the shopper did, the log included; None lets the engine look it up itself.
        offset: better results that are left out: those of earlier pages.
        count: whether the answer says how many items there are in all.
        facets: filters whose values are counted among all of them: category, brand, seller, price, in_stock,
            kind, attributes.TYPE. Of each the 100 most frequent values, of categories those of each level.
        facet_query: only names that hold it are counted, so that rare ones are found; "" counts all.
        explain: whether each result says why it stands where it does; not with another order.
        highlight: whether each result says where the query's words stand in it.
        sort: "price", "-price", "newest" or "popularity" for that order of all of them; None for the engine's.
        correct: whether a query with unknown words is searched for as it was most likely meant.
        groups: of shoppers that this one belongs to, for rules; the words of a profile are groups anyway.
        rules: searched under instead of those in force, to see what they would do; None: those in force.
        exploration: which share of the places is drawn, and by which seed; None: none. Not with another order.
    """

    query: str
    user: str | None = None
    k: int = 10
    filters: Mapping[str, Any] | None = None
    width: int | None = None
    history: ShopperHistory | None = None
    offset: int = 0
    count: bool = False
    facets: Sequence[str] = ()
    sort: Sort | None = None
    explain: bool = False
    highlight: bool = False
    correct: bool = True
    groups: Sequence[str] = ()
    rules: Rules | None = None
    exploration: Exploration | None = None
    facet_query: str = ""


@dataclass(frozen=True)
class FilterChoices:
    """What a page can offer as filters: (value, number of items), most items first.

    ``attributes`` are types of attributes, with how many values of theirs the items have.
    """

    categories: tuple[tuple[str, int], ...] = ()
    brands: tuple[tuple[str, int], ...] = ()
    price: tuple[float, float] | None = None
    attributes: tuple[tuple[str, int], ...] = ()
