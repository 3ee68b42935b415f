"""What the service knows of shoppers: the history of the log, then what was recorded here."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from onesearch.common.extras import from_extra
from onesearch.search.shopper_history import ShopperHistory
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.http_answers import HistoryAnswer, HistoryEntry, UserDeletedAnswer
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.store import Store, StoreError

with from_extra("serve"):
    from fastapi.concurrency import run_in_threadpool

_FIRST_PAGES = 10_000  # whose shoppers' histories are remembered for the pages behind them


class LiveShoppers:
    """Shoppers by the engine's log and the store.

    Args:
        engine: has the log's histories.
        store: has what was recorded since.
        metrics: count its failures.
    """

    def __init__(self, engine: Engine, store: Store, metrics: Metrics) -> None:
        self._engine, self._store, self._metrics = engine, store, metrics
        self._first_pages: OrderedDict[tuple[str, str], ShopperHistory] = OrderedDict()  # by shopper and query

    async def known(self, user: str | None, degraded: list[str]) -> tuple[str | None, ShopperHistory]:
        """A shopper with their history, which only the engine reads; without a store the search is anonymous.

        What failed is added to ``degraded``.
        """
        if user is None:
            return None, ShopperHistory()
        try:
            return user, await run_in_threadpool(self._history, user)
        except StoreError:
            degraded.append("history")
            return None, ShopperHistory()

    def of_first_page(self, user: str, query: str, offset: int, history: ShopperHistory) -> ShopperHistory:
        """The history that the first page of a search was made with, on its later pages.

        The first page is part of the history by then, and so may be clicks on it: other results would be repeated, or
        left out. Where the first page was another server's, at least its query is left out.
        """
        key = user, query
        if not offset:
            self._first_pages[key] = history
            self._first_pages.move_to_end(key)
            while len(self._first_pages) > _FIRST_PAGES:
                self._first_pages.popitem(last=False)
            return history
        if (first := self._first_pages.get(key)) is not None:
            return first
        return replace(history, recent_queries=tuple(one for one in history.recent_queries if one != query))

    def history(self, user: str) -> HistoryAnswer:
        """A shopper's history as the next search sees it: empty when the store fails."""
        # Of log and store as one, since a history without its newest part would mislead: none if the store fails.
        logged, live, degraded = self._engine.logged_history(user), ShopperHistory(), []
        try:
            live = self._metrics.of_store("history", lambda: self._store.history(user))
        except StoreError:
            logged, degraded = ShopperHistory(), ["history"]
        both = logged.followed_by(live)
        return HistoryAnswer(
            user=user,
            profile=both.profile,
            degraded=degraded,
            recent_queries=list(dict.fromkeys(both.recent_queries[::-1])),
            clicked=self._entries(both.clicked, both.clicked_queries, len(live.clicked)),
            ordered=self._entries(both.ordered, ("",) * len(both.ordered), len(live.ordered)),
        )

    def some(self, limit: int) -> list[str]:
        """Shoppers to pick from: those seen here first, then those of the log."""
        try:
            seen = self._metrics.of_store("shoppers", lambda: self._store.shoppers(limit))
        except StoreError:
            seen = []
        return list(dict.fromkeys([*seen, *self._engine.shoppers(limit)]))[:limit]

    def delete(self, user: str) -> UserDeletedAnswer:
        """Delete what the store has of a shopper.

        Raises:
            StoreError: not all is deleted; sending it again is safe.
        """
        gone = self._metrics.of_store("delete_user", lambda: self._store.delete_user(user))
        for key in [key for key in list(self._first_pages) if key[0] == user]:
            self._first_pages.pop(key, None)
        self._metrics.users_deleted.inc()
        return UserDeletedAnswer(user=user, events=gone.events, searches=gone.searches)

    def _history(self, user: str) -> ShopperHistory:
        # What this service saw comes after the log, cut to what the model reads.
        live = self._metrics.of_store("history", lambda: self._store.history(user))
        return self._engine.logged_history(user).followed_by(live)

    def _entries(self, ids: Sequence[str], queries: Sequence[str], live: int) -> list[HistoryEntry]:
        entries = []
        # The last ``live`` ones are this service's own; the answer has the newest first.
        for at, (item_id, query) in enumerate(zip(ids, queries, strict=True)):
            item = self._engine.item(item_id)
            title = item.title if item else None
            entries.append(HistoryEntry(item_id=item_id, title=title, query=query, live=at >= len(ids) - live))
        return entries[::-1]
