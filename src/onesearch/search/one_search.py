"""One search of a batch: what is known of it on its way, and what is told of it in the end."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from onesearch.data.requests import Requests
from onesearch.index.item_filters import ItemMask
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.highlighting import highlights
from onesearch.search.result_set import facet_counts
from onesearch.search.results import SearchRequest, SearchResult, SearchResults
from onesearch.search.rule_effects import pinned_rows
from onesearch.search.rules import Asked, Touching
from onesearch.search.shopper_history import ShopperHistory, to_requests
from onesearch.search.spelling import Correction

Floats = NDArray[np.float32]


@dataclass
class OneSearch:
    """One search of a batch, as far as it is known.

    Attributes:
        request: as it was asked, with a mistyped query as it was meant, where that is sure.
        history: of the shopper.
        touching: the rules that touch it.
        time: at which it is asked: what is shown at another time alone is not found.
        correction: how its query was most likely meant, if not as typed.
        answer: what will be told.
        about: rows of the items that it is about, ascending, int64 [m]; None where nobody asks for them.
        shown: rows of the items of this page and of those before it, [s]; in an order of its own of all pages.
        rooms: rows of the live rooms that come first, since it asks for them, best first.
    """

    request: SearchRequest
    history: ShopperHistory
    touching: Touching
    time: datetime
    correction: Correction | None = None
    answer: SearchResults = field(default_factory=SearchResults)
    about: NDArray[np.int64] | None = None
    shown: NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int64))
    rooms: tuple[int, ...] = ()

    @property
    def page(self) -> slice:
        """Of all results."""
        return slice(self.request.offset, self.request.offset + self.request.k)


def touching_of(snapshot: Snapshot, request: SearchRequest, history: ShopperHistory, time: datetime) -> Touching:
    """The rules that touch a request, and its query under them."""
    rules = snapshot.rules if request.rules is None else request.rules
    if rules is None:
        return Touching(request.query, request.query)
    groups = (*request.groups, *history.profile.split())
    return rules.touching(request.query, Asked.from_search(request.query, request.filters, groups, time))


def as_columns(snapshot: Snapshot, searches: Sequence[OneSearch]) -> Requests:
    """Searches as columns, each with its query under the rules; items that left the catalogue are in no history."""
    touching = [search.touching for search in searches]
    found = to_requests([one.query for one in touching], [search.history for search in searches], snapshot.number)
    return replace(found, in_log=[one.in_log for one in touching])


def tell_counts(snapshot: Snapshot, search: OneSearch) -> None:
    """How many items a search is about, and their facets, for a page that asks for them."""
    if search.about is None:
        return
    total, shown = snapshot.shards.total, search.shown.astype(np.int64)
    if snapshot.shards.count > 1:  # each counts its own items
        shown = snapshot.indexed(shown)
    # A page that goes on behind these items counts what it shows, and what pages before it showed.
    relevant = total(len(search.about))
    every = search.about if relevant >= total(len(shown)) else np.union1d(search.about, shown)
    search.answer.total, search.answer.relevant = total(len(every)), relevant
    asked = search.request
    search.answer.facets = facet_counts(snapshot, every, asked.facets, asked.facet_query) if asked.facets else {}


def tell_words(snapshot: Snapshot, search: OneSearch) -> None:
    """How the query was corrected, or may be meant; and where its words stand in each result, if that is asked."""
    search.answer.searched = search.touching.in_log
    if search.correction is not None and search.request.query == search.correction.text:
        search.answer.corrected_query = search.correction.text
    elif search.correction is not None:
        search.answer.did_you_mean = search.correction.text
    if not search.request.highlight or snapshot.lexical is None:
        return
    analyze, numbers = snapshot.click_features.analyze, snapshot.lexical.numbers
    wanted = frozenset(numbers(analyze(search.touching.query)))
    # Results say many words again and again.
    of_word = functools.cache(lambda word: numbers(analyze(word)))
    found = [highlights(hit.item, wanted, of_word) for hit in search.answer]
    search.answer[:] = [hit._replace(highlights=spans) for hit, spans in zip(search.answer, found, strict=True)]


def rows_ahead(snapshot: Snapshot, search: OneSearch, mask: ItemMask | None) -> list[int]:
    """Rows of the items that come first whatever their score: the one whose id was typed, then what rules pin, then
    live rooms where the query asks for them.
    """
    named = row_named(snapshot, search.touching.in_log, mask)
    first = [] if named is None else [named]
    return list(dict.fromkeys([*first, *pinned_rows(search.touching, snapshot, mask), *search.rooms]))


def with_ahead(ahead: Sequence[int], items: NDArray[np.int32], scores: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Items and scores of a search, with some items before all others."""
    if not ahead:
        return items, scores
    others = ~np.isin(items, ahead)
    places = np.arange(len(ahead), 0, -1, dtype=np.float32)
    items = np.append(np.array(ahead, np.int32), items[others])
    return items, np.append(scores.max(initial=0) + places, scores[others])


def row_named(snapshot: Snapshot, query: str, mask: ItemMask | None) -> int | None:
    """The row of the item whose id is the query, if the mask allows it."""
    row = row_of_id(snapshot, query)
    if row is None or mask is None:
        return row
    return row if snapshot.there([row], mask)[0] else None


def row_of_id(snapshot: Snapshot, query: str) -> int | None:
    """The row of the item whose id was typed, in any case of its letters; None if there is none."""
    typed = query.strip()
    return next((snapshot.number[i] for i in (typed, typed.upper(), typed.lower()) if i in snapshot.number), None)


def results_of(snapshot: Snapshot, items: NDArray[np.int32], scores: Floats) -> SearchResults:
    """Results of item rows, best first; -1 is left out."""
    out = SearchResults()
    for row, score in zip(items.tolist(), scores.tolist(), strict=False):
        if row >= 0:
            item = snapshot.item(row)
            out.append(SearchResult(item.item_id, score, snapshot.sid(row), item))
    return out
