"""What a service recorded, as page views that ``onesearch update`` and a rebuild learn from."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from onesearch.data.records import PageView, page_views_frame
from onesearch.data.text import normalise_query
from onesearch.serving.store import Event, Search, Store, pages


def recorded_page_views(store: Store, since: datetime | None = None) -> pl.DataFrame:
    """Every recorded search with its clicks and orders, in the schema of a dataset's page views, as they came.

    Events of no recorded search, or on items that their search did not show, follow: those of a shopper for a query on
    a day are one page view without items shown, and so is each one of nobody. Who orders an item has clicked it. A
    later page of results, or one in another order, is a page view without items shown, too: their places are no ranks.

    Args:
        store: of a service; it may be running.
        since: older searches and events are left out, as near as the store knows.

    Raises:
        StoreError: the store could not be read.
    """
    # Events first, so that the search of each is there when searches are read.
    events: defaultdict[str | None, list[Event]] = defaultdict(list)
    for page, _ in pages(store.events, since=since):
        for event in page:
            events[event.search_id].append(event)
    others = events.pop(None, [])
    frames = []
    for found, _ in pages(store.searches, since=since):
        shown = []
        for search in found:
            own = events.pop(search.search_id, [])
            shown.append(_page_view(search, [event for event in own if event.item_id in search.shown]))
            others += [event for event in own if event.item_id not in search.shown]
        frames.append(page_views_frame(shown))
    # What belongs to no search: by shopper, query and day; nobody's one by one.
    groups: defaultdict[tuple[object, ...], list[Event]] = defaultdict(list)
    for event in [*others, *(event for left in events.values() for event in left)]:
        day, nobody = event.time.astimezone(UTC).date(), event.event_id if event.user is None else None
        groups[event.user, normalise_query(event.query), day, nobody].append(event)
    views = []
    for group in groups.values():
        first, user = group[0], group[0].user or ""
        # The user's length keeps "a:b" with event "c" apart from "a" with event "b:c".
        name = f"event:{len(user)}:{user}:{first.event_id}"
        views.append(_page_view(Search(name, first.user, first.query, first.time, ()), group))
    return pl.concat([*frames, page_views_frame(views)])


def _page_view(search: Search, events: Sequence[Event]) -> PageView:
    """A search with its events, each item once, as they came."""
    clicked = tuple(dict.fromkeys(event.item_id for event in events))
    ordered = tuple(dict.fromkeys(event.item_id for event in events if event.kind == "order"))
    time = search.time.astimezone(UTC)
    shown = search.shown if search.first_rank == 0 else ()
    return PageView(search.search_id, search.query, search.user, None, time, shown, clicked, ordered)
