"""Keeps the engine's catalogue in step with the item changes in the store.

Every change takes one way: it is written to the store, then the engine follows the store. So changes survive a
restart, and several servers on one store all see them. A store that went back (Redis restarted empty, a failover to an
older copy, another file) is noticed, and the catalogue is rebuilt from it: all servers then serve what it says.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from onesearch.data.records import Item
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.store import (
    ItemChange,
    ItemsConflictError,
    Store,
    StoredItem,
    StoreError,
    StoreState,
    all_item_changes,
)
from onesearch.serving.stored_items import stored_change
from onesearch.serving.turns import Turns

if TYPE_CHECKING:
    from onesearch.serving.service_metrics import Metrics

log = logging.getLogger("onesearch.serving")
_MOST_AT_ONCE = 1000  # changes of several calls that are applied as one
_MOST_TRIES = 50  # of a patch; each but the last lost against a change of another server
_LONGEST_TURN = 0.1  # seconds that searches wait for a part of them, about


class UnreadableItemError(ValueError):
    """Fields of an item cannot be changed, since the store's text of it cannot be read."""


class LiveCatalogue:
    """The engine following the store's item changes::

    change: write the items to the store, which gives each a revision; then follow
    follow: if the store went back, give each changed item that it does not know its first state, and begin at 0
            read the changes after the last applied revision; hand them to the engine; repeat up to what was there

    Changes that come while others are applied wait and are then applied as one, which costs less than one by one.
    Searches and changes take turns, and a turn of changes is short, however many there are.

    Args:
        engine: whose catalogue it is.
        store: where the changes are.
        metrics: count them.
        turns: with the searches; without them changes are applied at once.
    """

    def __init__(self, engine: Engine, store: Store, metrics: "Metrics", turns: Turns | None = None) -> None:
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._turns = turns or Turns()
        self._part = 100  # changes in a turn
        self._patching = threading.Lock()
        self._queue = threading.Condition()  # of what is written and of who applies it
        self._applying = False  # one thread at a time, so that changes are applied in their order
        self._written: dict[StoreState, ItemChange] = {}  # by store and revision: written here, not applied yet
        self._origin: str | None = None  # of the store
        self._applied = 0
        self._behind = True
        self._went_back = ""
        self._first: dict[str, Item | None] = {}  # what changed items were in the run; None: not there
        self._rejected: dict[str, str] = {}

    def change(self, items: list[Item], deleted: list[str]) -> dict[str, str]:
        """Store changes and apply them; what the engine could not index, by item id.

        Raises:
            StoreError: nothing was changed, or it is stored and follows later; sending it again is safe.
        """
        became: list[tuple[str, Item | None]] = [(item.item_id, item) for item in items]
        became += [(item_id, None) for item_id in deleted]
        if not became:
            return {}
        return self._applied_here(became, self._store.change_items(items, deleted))

    def _applied_here(self, became: list[tuple[str, Item | None]], written: StoreState) -> dict[str, str]:
        """Apply changes that are in the store, up to the revision ``written``; as :meth:`change`."""
        own = [written._replace(revision=written.revision - at) for at in reversed(range(len(became)))]
        with self._queue:
            for at, (item_id, item) in zip(own, became, strict=True):
                self._written[at] = ItemChange(at.revision, item_id, item)
        try:
            self._follow(written)
        except StoreError:
            # The changes are safe in the store but could not be applied; this server catches up by itself.
            log.exception("item changes up to revision %d are stored but not yet searchable", written.revision)
            raise
        finally:  # applied, or to be read from the store, which may have become another meanwhile
            with self._queue:
                for at in own:
                    self._written.pop(at, None)
        if self._origin != written.origin or self._applied < written.revision:  # the store lost them in this moment
            raise StoreError(f"item changes up to revision {written.revision} are not in the store any more")
        # `follow` may have applied changes of other servers, too: only the caller's own problems are the answer.
        changed = {item_id for item_id, _ in became}
        return {item_id: problem for item_id, problem in self._rejected.items() if item_id in changed}

    def patch(self, changes: Mapping[str, Callable[[Item], Item]]) -> dict[str, str]:
        """As :meth:`change`, of items as they are: each by its id, and what it becomes.

        No change of them by another call, of whatever server, is lost: the store takes the items only where it still
        has what they were made from; else they are made again from what it has by then.

        Args:
            changes: may be asked more than once.

        Raises:
            KeyError: an item is not in the catalogue; nothing was changed.
            UnreadableItemError: nothing was changed.
            StoreError: as :meth:`change`, or others change the items all the time; nothing was changed then.
        """
        # Patches of this process come one after the other, so that they need no second try because of each other.
        with self._patching:
            for _ in range(_MOST_TRIES):
                before = self._store.stored_items(list(changes))
                items = [changes[item_id](self._as_stored(item_id, was)) for item_id, was in before.items.items()]
                try:
                    written = self._store.change_items(items, [], before)
                except ItemsConflictError:
                    continue
                break
            else:
                raise StoreError(f"items such as {next(iter(changes))!r} were changed by others {_MOST_TRIES} times")
        return self._applied_here([(item.item_id, item) for item in items], written)

    def _as_stored(self, item_id: str, stored: StoredItem) -> Item:
        """An item by the store, whether or not the engine has followed so far.

        Raises:
            KeyError: there is none.
            UnreadableItemError: the store's text of it cannot be read.
        """
        if not stored.revision:  # never changed: what the run has, noted before the engine's item ever changes
            served = self._engine.item(item_id)
            item = self._first.get(item_id, served)
        else:
            _, _, item, problem = stored_change(stored.revision, item_id, stored.text)
            if problem:
                raise UnreadableItemError(f"item {item_id[:200]!r}: {problem}, with all of its fields")
        if item is None:
            raise KeyError(item_id)
        return item

    def follow(self) -> int:
        """Apply all changes that the store has now; the number of those that this applied.

        Raises:
            StoreError: the store could not be read; what was applied stays.
        """
        return self._follow(None)

    def _follow(self, written: StoreState | None) -> int:
        """As :meth:`follow`; up to a revision written here, which another thread may apply with its own."""

        def done() -> bool:
            return written is not None and written not in self._written

        with self._queue:
            self._queue.wait_for(lambda: done() or not self._applying)
            if done():
                return 0
            self._applying = True
        try:
            applied = self._catch_up(written and written.revision)
            self._behind = False
        except Exception:
            self._behind = True
            raise
        finally:
            with self._queue:
                self._applying = False
                self._queue.notify_all()
        return applied

    def problems(self) -> list[str]:
        """Why the catalogue may not be complete; empty when it is."""
        problems = ["items: changes in the store are not applied yet"] if self._behind else []
        if self._went_back:
            problems.append(self._went_back)
        if self._rejected:
            item_id, problem = next(iter(self._rejected.items()))
            problems.append(f"items: {len(self._rejected)} could not be indexed, such as {item_id!r}: {problem}")
        return problems

    def _catch_up(self, until: int | None) -> int:
        """Apply changes up to a revision, None: up to the store's newest; how many.

        What comes after it is left to those who wait for that: no caller is kept by others who come again and again.
        """
        applied = 0
        # Page by page; what was applied stays applied if the store fails in between.
        while True:
            state = self._state()
            until = state.revision if until is None else until
            own = self._own(state)
            changes = own or self._store.item_changes(self._applied)
            if not changes:
                return applied
            self._apply(changes)
            self._applied = changes[-1].revision
            applied += len(changes)
            if own:
                with self._queue:
                    self._written = {at: one for at, one in self._written.items() if at.revision > self._applied}
                    self._queue.notify_all()
            if self._applied >= until:
                return applied

    def _state(self) -> StoreState:
        """The store's, after the catalogue went back with it if it did."""
        state = self._store.state()
        if state.origin != self._origin or state.revision < self._applied:
            self._begin_anew(state)
        return state

    def _own(self, state: StoreState) -> list[ItemChange]:
        """The next changes, if they were written here and the store has them: they need not be read back."""
        end = min(state.revision, self._applied + _MOST_AT_ONCE)
        places = (StoreState(state.origin, at) for at in range(self._applied + 1, end + 1))
        with self._queue:
            next_ones = itertools.takewhile(self._written.__contains__, places)
            # Of an item changed twice the newest state, as the store says it.
            newest = {self._written[at].item_id: self._written[at] for at in next_ones}
        return sorted(newest.values(), key=lambda change: change.revision)

    def _begin_anew(self, state: StoreState) -> None:
        """Give all changed items that the store does not know their first state; the others' changes come again."""
        if self._origin is not None:
            self._went_back = (
                f"items: the store went back from revision {self._applied} to {state.revision}, and the catalogue with"
                " it: send the changes since then again, and restart the service"
            )
            log.error("%s", self._went_back)
            # All ids of the store first, so that a failure changes nothing and no item goes back and forth.
            known = {change.item_id for changes in all_item_changes(self._store) for change in changes}
            gone = {item_id: item for item_id, item in self._first.items() if item_id not in known}
            self._apply([ItemChange(0, item_id, item) for item_id, item in gone.items()])
        self._origin, self._applied = state.origin, 0

    def _apply(self, changes: Sequence[ItemChange]) -> None:
        while changes:
            part, changes = changes[: self._part], changes[self._part :]
            self._prepare(part)  # searches go on meanwhile
            with self._turns.change():
                start = time.monotonic()
                self._apply_part(part)
                took = time.monotonic() - start
            # As many as fit into a turn, but not many more than now: a short turn may have been luck.
            fit = round(len(part) * _LONGEST_TURN / max(took, 1e-6))
            self._part = min(max(fit, 1), 2 * self._part, _MOST_AT_ONCE)

    def _prepare(self, changes: Sequence[ItemChange]) -> None:
        """Have the pictures of changed items read; what that fails at is the upsert's to say."""
        try:
            outcomes = self._engine.prepare([change.item for change in changes if change.item is not None])
        except Exception:
            log.exception("the pictures of %d item changes could not be read", len(changes))
            return
        for outcome, number in outcomes.items():
            if outcome == "items_without":
                self._metrics.without_picture.inc(number)
            else:
                self._metrics.pictures.labels(outcome).inc(number)

    def _apply_part(self, changes: Sequence[ItemChange]) -> None:
        for change in changes:
            self._rejected.pop(change.item_id, None)  # it gets another chance
            if change.item_id not in self._first:
                self._first[change.item_id] = self._engine.item(change.item_id)
            if change.problem:  # it stays as it was
                log.error("item %r, revision %d: %s", change.item_id, change.revision, change.problem)
                self._rejected[change.item_id] = change.problem
        changes = [change for change in changes if not change.problem]
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
                    self._rejected[change.item_id] = f"{type(error).__name__}, see the log"

    def _hand_over(self, changes: Sequence[ItemChange]) -> None:
        items = [change.item for change in changes if change.item is not None]
        deleted = [change.item_id for change in changes if change.item is None]
        if items:
            self._engine.upsert(items)
            self._metrics.changes.labels("upsert").inc(len(items))
        if deleted:
            self._engine.delete(deleted)
            self._metrics.changes.labels("delete").inc(len(deleted))
