"""Keeps the engine's catalogue in step with the item changes in the store.

Every change takes one way: it is written to the store, then the engine follows the store. So changes survive a
restart, and several servers on one store all see them.
"""

import logging
import threading
from typing import TYPE_CHECKING

from onesearch.data.records import Item
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.store import ItemChange, Store, StoreError

if TYPE_CHECKING:
    from onesearch.serving.service_metrics import Metrics

log = logging.getLogger("onesearch.serving")


class LiveCatalogue:
    """The engine following the store's item changes::

    change: write the items to the store, which gives each a revision; then follow
    follow: read the changes after the last applied revision; hand them to the engine; repeat until there are none
    """

    def __init__(self, engine: Engine, store: Store, metrics: "Metrics") -> None:
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._lock = threading.Lock()
        self._applied = 0
        self._read_once = False
        self._rejected: dict[str, str] = {}

    def change(self, items: list[Item], deleted: list[str]) -> dict[str, str]:
        """Store changes and apply them; what the engine could not index, by item id.

        Raises:
            StoreError: nothing was changed, or it is stored and follows later; sending it again is safe.
        """
        revision = self._store.change_items(items, deleted)
        try:
            self.follow()
        except StoreError:
            # The changes are safe in the store but could not be read back; this server catches up by itself.
            log.exception("item changes up to revision %d are stored but not yet searchable", revision)
            raise
        # `follow` may have applied changes of other servers, too: only the caller's own problems are the answer.
        changed = {item.item_id for item in items} | set(deleted)
        return {item_id: problem for item_id, problem in self._rejected.items() if item_id in changed}

    def follow(self) -> int:
        """Apply all changes not applied yet; their number.

        Raises:
            StoreError: the store could not be read; what was applied stays.
        """
        done = 0
        with self._lock:  # one follower at a time: changes are applied in their order
            # Page by page; what was applied stays applied if the store fails in between.
            while changes := self._store.item_changes(self._applied):
                self._apply(changes)
                self._applied = changes[-1].revision
                done += len(changes)
            self._read_once = True
        return done

    def problems(self) -> list[str]:
        """Why the catalogue may not be complete; empty when it is."""
        problems = [] if self._read_once else ["items: changes of earlier runs are not applied yet"]
        if self._rejected:
            item_id, problem = next(iter(self._rejected.items()))
            problems.append(f"items: {len(self._rejected)} could not be indexed, such as {item_id!r}: {problem}")
        return problems

    def _apply(self, changes: list[ItemChange]) -> None:
        for change in changes:
            self._rejected.pop(change.item_id, None)  # it gets another chance
        # All at once, which is fast; if that fails one by one, so that a single bad item keeps no other out.
        try:
            self._hand_over(changes)
        except Exception:
            log.exception("a batch of %d item changes failed; trying them one by one", len(changes))
            for change in changes:
                try:
                    self._hand_over([change])
                except Exception as error:
                    log.exception("item %r could not be indexed", change.item_id)
                    self._rejected[change.item_id] = f"{type(error).__name__}: {error}"

    def _hand_over(self, changes: list[ItemChange]) -> None:
        items = [change.item for change in changes if change.item is not None]
        deleted = [change.item_id for change in changes if change.item is None]
        if items:
            self._engine.upsert(items)
            self._metrics.changes.labels("upsert").inc(len(items))
        if deleted:
            self._engine.delete(deleted)
            self._metrics.changes.labels("delete").inc(len(deleted))
