"""The engine learns from clicks while it serves: what the store records moves items up."""

from collections import deque
from datetime import UTC, datetime, timedelta
from sys import intern
from typing import NamedTuple

import polars as pl

from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.text import normalise_query
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.http_bodies import MAX_CLOCK_GAP, now
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Event, Store, pages

_MOST = 500_000  # clicks that count, the newest ones
_SEARCHES = 50_000  # whose results are remembered for clicks still to come
_HALF_LIVES = 10  # after so many a click counts a thousandth, and is left out
_LEAST_EXAMINED = 0.1  # no click counts for more than ten of the first rank
_RECOUNT = timedelta(minutes=10)  # without new clicks: the old ones count less, and items may be known that were not


class _Shown(NamedTuple):
    """What a search showed: its query as it counts, items, and the rank of the first; None: in another order."""

    query: str
    items: tuple[str, ...]
    first_rank: int | None


_NOTHING = _Shown("", (), 0)


class ClickLearner:
    """Reads the store's events and gives the engine their counts::

        learn: read the events, then the searches, since the last look     # so an event's search is known
               keep the first event of each shopper, query, item and day
               note the query, the item, the time and the rank it was shown at
               engine counts n(q, i) = Σ 2^(-age / half-life) · mean / P(examined at the rank)
                             of pairs that two shoppers clicked            # one shopper alone moves nothing

    An order counts as a click. Without a shopper an event counts once for the search it names, if that search showed
    the item, as in a shop that knows no shoppers nothing would be learnt otherwise: a client that searches and clicks
    again and again is many shoppers. All others without one count once together. Every server on a store comes to the
    same counts, and so does one that starts again. Events from before the end of the engine's log are left to the log,
    but for those on items that it does not count, which came later.

    Attributes:
        problem: why the newest clicks do not count; None while they do.
    """

    def __init__(self, engine: Engine, store: Store, config: ServingSettings) -> None:
        self.problem: str | None = None
        self._engine, self._store, self._config = engine, store, config
        self._origin: str | None = None  # of the store
        self._deletions = 0  # of shoppers
        self._logged_until: datetime | None = None
        self._clicks = pl.DataFrame(schema=CLICKS)
        self._begin_anew(now())

    def learn(self, moment: datetime | None = None) -> int:
        """Count what came since the last look; how many new clicks count.

        ``moment`` is when this is, from which the age of clicks is told; None: now. A simulation has days of its own.

        Raises:
            StoreError: the store could not be read; the next look catches up.
        """
        try:
            found = self._learn(moment or now())
        except Exception as error:
            self.problem = f"clicks: the newest ones do not count yet ({type(error).__name__}), see the log"
            raise
        self.problem = None
        return found

    def _begin_anew(self, moment: datetime) -> None:
        self._events_place = self._searches_place = ""
        self._clicks = self._clicks.clear()
        self._searches: dict[str, _Shown] = {}  # by search id
        self._days: dict[int, set[int]] = {}  # what counts already, by day
        self._counted_at = moment

    def _learn(self, moment: datetime) -> int:
        # A store that was emptied or replaced, or that forgot a shopper: what it does not know does not count any more.
        # An engine whose counts end elsewhere now: some clicks are in them, or out of them again.
        origin, had, logged_until = self._store.state().origin, len(self._clicks), self._engine.logged_until
        deletions = self._store.deletions()
        anew = (origin, deletions, logged_until) != (self._origin, self._deletions, self._logged_until)
        if anew:
            self._begin_anew(moment)
            self._origin, self._deletions, self._logged_until = origin, deletions, logged_until
        # The whole store at first, as far back as a click counts; then what is new.
        oldest = moment - timedelta(days=min(_HALF_LIVES * self._config.half_life_days, self._config.keep_days))
        since = max(oldest, min(logged_until or oldest, moment))
        events: deque[Event] = deque(maxlen=_MOST)
        events_place = self._events_place
        for page, behind in pages(self._store.events, events_place, oldest):
            events.extend(one for one in page if one.time > oldest and self._counts(one, since))
            events_place = behind
        first = min((event.time for event in events), default=since)
        searches = self._searches_of({event.search_id for event in events}, min(first, since))
        rows = [row for event in events if (row := self._click(event, searches)) is not None]
        self._events_place = events_place
        # A caller's clock is at most a day off, so older days get no more events.
        newest = max(self._days, default=0)
        self._days = {day: seen for day, seen in self._days.items() if day >= newest - 2}
        # The engine gets all counts anew, and swaps them in at once.
        if rows or (anew and had) or (len(self._clicks) and moment - self._counted_at > _RECOUNT):
            every = pl.concat([self._clicks, pl.DataFrame(rows, schema=CLICKS, orient="row")])
            self._clicks = every.filter(pl.col("time") > oldest).tail(_MOST)
            counted = LiveClicks.from_clicks(
                self._clicks, moment, self._config.half_life_days, self._config.learn_shoppers
            )
            self._engine.count(counted)
            self._counted_at = moment
        return len(rows)

    def _counts(self, event: Event, since: datetime) -> bool:
        """Whether an event is for the live counts: not in those of the engine's log, which ends at ``since``."""
        return event.time > since or not self._engine.in_log_counts(event.item_id)

    def _searches_of(self, wanted: set[str | None], since: datetime) -> dict[str, "_Shown"]:
        """What the ``wanted`` searches showed; the newest others are remembered for events still to come."""
        found = {one: self._searches[one] for one in wanted if one in self._searches}
        for page, place in pages(self._store.searches, self._searches_place, since - MAX_CLOCK_GAP):
            for search in page:
                shown = _Shown(normalise_query(search.query), tuple(map(intern, search.shown)), search.first_rank)
                self._searches[search.search_id] = shown
                if search.search_id in wanted:
                    found[search.search_id] = shown
            while len(self._searches) > _SEARCHES:
                del self._searches[next(iter(self._searches))]
            self._searches_place = place
        return found

    def _click(
        self, event: Event, searches: dict[str, "_Shown"]
    ) -> tuple[int, str, str, datetime, float | None, bool] | None:
        """A row of :data:`CLICKS`; None for an event that counts already."""
        search = searches.get(event.search_id or "", _NOTHING)
        there = event.item_id in search.items
        query = search.query if there else normalise_query(event.query)
        ranked = there and search.first_rank is not None
        rank = (search.first_rank or 0) + search.items.index(event.item_id) if ranked else None
        who = ("user", event.user) if event.user is not None else ("search", event.search_id if there else None)
        time = event.time.astimezone(UTC)
        seen = self._days.setdefault(time.toordinal(), set())
        pair, item = hash((who, query, event.item_id)), hash((who, event.item_id))
        if pair in seen:
            return None
        first = item not in seen
        seen.update((pair, item))
        return hash(who), query, event.item_id, time, self._examined(rank), first

    def _examined(self, rank: int | None) -> float | None:
        """P(a result is looked at) at a rank from 0; None for an unknown rank."""
        known = self._config.examination or (1.0,)
        return None if rank is None else max(known[min(rank, len(known) - 1)], _LEAST_EXAMINED)
