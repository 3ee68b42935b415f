"""What the search engine takes and gives, one request at a time: the public contract's small types."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from onesearch.data.records import Item
from onesearch.search.shopper_history import ShopperHistory


class SearchResult(NamedTuple):
    """One ranked item.

    Attributes:
        item_id: the item's id in the dataset.
        score: what the ranking is ordered by, higher is better; only comparable within one answer.
        sid: the semantic ID that led to the item, one level-local code per level; () when the item has none.
        item: the whole record.
    """

    item_id: str
    score: float
    sid: tuple[int, ...]
    item: Item


class SearchResults(list[SearchResult]):
    """The ranked items of one search, best first.

    Attributes:
        confidence: the share of searches ending in a click whose best item matched no better; about 0.02 and less says
            that nothing in the catalogue fits. None for a recommendation, and where the engine cannot tell.
        total: how many items the search is about, on all pages: all that the filters allow, and of these with a query
            all that are relevant to it. None where the request did not ask.
        facets: of these items, (value, how many have it) for each facet that the request asked for.
    """

    def __init__(
        self,
        results: Iterable[SearchResult] = (),
        confidence: float | None = None,
        total: int | None = None,
        facets: Mapping[str, Sequence[tuple[Any, int]]] | None = None,
    ) -> None:
        super().__init__(results)
        self.confidence, self.total, self.facets = confidence, total, facets or {}


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
            attributes.TYPE.
        sort: "price", "-price", "newest" or "popularity" for that order of all of them; None for the engine's.
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
    sort: str | None = None


@dataclass(frozen=True)
class FilterChoices:
    """What a page can offer as filters: (value, number of items), most items first."""

    categories: tuple[tuple[str, int], ...] = ()
    brands: tuple[tuple[str, int], ...] = ()
    price: tuple[float, float] | None = None
