"""What the service remembers: shoppers' events and searches, changes of the catalogue, and rules.

The `Store` protocol, with SQLite (`sqlite_store`) for one machine and Redis (`redis_store`) for several servers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

from onesearch.data.records import Item
from onesearch.search.shopper_history import ShopperHistory

TYPING_SECONDS = 3.0  # within which a shopper who goes on typing has not made the search before
EventKind = Literal["click", "order"]
ThoughtState = Literal["distilled", "cached", "no_keywords", "queued", "none", "unknown"]
"""What was known of a query when it was searched: keywords that the served model had learnt; keywords that lay in the
cache, or a thought without any; it waited to be thought about; nothing; unknown, where the cache gave no answer before
the engine did."""


class StoreError(RuntimeError):
    """The store did not answer; the message says which one, doing what, and why."""


class EventConflictError(ValueError):
    """A shopper's event id came a second time with different content."""


@dataclass(frozen=True)
class Event:
    """A shopper clicked or ordered an item. ``user`` None: counted, but in nobody's history."""

    event_id: str
    user: str | None
    item_id: str
    kind: EventKind
    query: str
    time: datetime
    search_id: str | None = None

    def same_happening(self, other: "Event") -> bool:
        """Whether a repeated event id means a retry (its time may differ) and not a mistake."""
        content = (self.user, self.item_id, self.kind, self.query)
        return content == (other.user, other.item_id, other.kind, other.query)


@dataclass(frozen=True)
class Search:
    """A page of results that was shown: with its events it is a page view to train on later.

    ``thought`` is None where nobody asked: without a cache of thoughts, and for what an earlier version recorded.
    ``explored`` are those of the items shown that a draw put on the page, in order. ``first_rank`` is the rank of the
    first item shown, from 0, among all results; None where they were not in the order of relevance, so that ranks say
    nothing of how far a shopper looked for the best one. ``typed`` is what stood in the search box, of a search that
    may be made while its shopper still types; it is not given back.
    """

    search_id: str
    user: str | None
    query: str
    time: datetime
    shown: tuple[str, ...]
    thought: ThoughtState | None = None
    explored: tuple[str, ...] = ()
    first_rank: int | None = 0
    typed: str | None = None


class ItemChange(NamedTuple):
    """The newest state of a changed item; ``item`` None means deleted. Each change of an item has its own revision.

    ``problem`` says why an item that is there cannot be read: another version of onesearch wrote it, or it was damaged.
    """

    revision: int
    item_id: str
    item: Item | None
    problem: str = ""


class StoreState(NamedTuple):
    """Tells whether a store went back: one that was emptied has another ``origin``, a failover a lower revision."""

    origin: str
    revision: int


class StoredItem(NamedTuple):
    """The newest state of an item as it lies in a store, to tell whether it is still that one.

    ``text`` is that of :mod:`onesearch.serving.stored_items`, "" for a deleted item; ``revision`` 0: it has none.
    """

    revision: int = 0
    text: str = ""


class MadeFrom(NamedTuple):
    """What a change was made from: the store's ``origin``, and each item as it was there."""

    origin: str
    items: Mapping[str, StoredItem]


class ItemsConflictError(ValueError):
    """Items are not what a change was made from any more."""


class RulesConflictError(ValueError):
    """Rules were made from another version than the newest."""


class RulesVersion(NamedTuple):
    """A version of the rules, counted from 1: who wrote it when; ``body`` is JSON, "" in a list of versions."""

    version: int
    time: datetime
    who: str
    body: str


class Traffic(NamedTuple):
    """How often a query was searched in one span of time that begins at ``start`` (UTC)."""

    start: datetime
    query: str
    searches: int


class StateCount(NamedTuple):
    """How many searches of one span of time, which begins at ``start`` (UTC), had a thought in one state."""

    start: datetime
    state: ThoughtState | None
    searches: int


def rules_conflict(base: int, newest: int) -> RulesConflictError:
    """The error of rules that were made from another version than the newest."""
    return RulesConflictError(f"made from version {base} of the rules, and {newest} is the newest: look at it first")


def types_on(before: str, after: str) -> bool:
    """Whether what stands in a search box is what stood there before with more letters behind it, or with fewer."""
    return before != after and (after.startswith(before) or before.startswith(after))


class Deleted(NamedTuple):
    """How much of a shopper was deleted."""

    events: int
    searches: int


class Store(Protocol):
    """Shared memory of the service. Every method may be called from any thread and raises only `StoreError`."""

    def record(self, event: Event) -> bool:
        """Remember an event once: False when this ``event_id`` of its shopper is already known.

        Raises:
            EventConflictError: the id is known with other content.
        """

    def record_search(self, search: Search) -> None:
        """Remember a shown page; its query becomes one of the shopper's recent queries.

        One that was ``typed`` takes the place of the shopper's search before where that is at most `TYPING_SECONDS` old
        and was typed on to this one (:func:`types_on`): nobody made it. It stays where an event names it.
        """

    def traffic(self, seconds: int) -> list[Traffic]:
        """The recorded searches in spans of so many seconds, oldest first; queries as they were typed."""

    def coverage(self, seconds: int) -> list[StateCount]:
        """The recorded searches in such spans by what was known of their query then; those without a query not."""

    def events(self, after: str = "", since: datetime | None = None, limit: int = 5000) -> tuple[list[Event], str]:
        """Recorded events as they came, at most ``limit``, and the place behind them, to go on ``after``.

        Args:
            after: a place; "" is the beginning.
            since: older ones are left out, as near as the store knows.
            limit: an empty list means that there are no more now.
        """

    def searches(self, after: str = "", since: datetime | None = None, limit: int = 5000) -> tuple[list[Search], str]:
        """Recorded searches, as :meth:`events`."""

    def history(self, user: str) -> ShopperHistory:
        """What this service saw of a shopper, in the order in which it came, without profile and log."""

    def change_items(
        self, items: Sequence[Item], deleted: Sequence[str], made_from: MadeFrom | None = None
    ) -> StoreState:
        """Remember new, changed and deleted items, all or nothing; the store, and the newest revision they got.

        Raises:
            ItemsConflictError: an item is not what ``made_from`` says, or the store is another; nothing was changed.
        """

    def stored_items(self, item_ids: Sequence[str]) -> MadeFrom:
        """The newest states of items, all of one moment, to make a change from."""

    def state(self) -> StoreState:
        """Which store this is, and its newest item change."""

    def item_changes(self, after: int, limit: int = 5000) -> list[ItemChange]:
        """Items whose newest change has a revision greater than ``after``, oldest first, at most ``limit``."""

    def write_rules(self, body: str, who: str, time: datetime, base: int | None = None) -> int:
        """Remember new rules, which count from now on; their version. Earlier ones stay.

        Raises:
            RulesConflictError: the newest version is not ``base``.
        """

    def rules(self, version: int | None = None) -> RulesVersion | None:
        """A version of the rules, the newest if none is named; None where there is none."""

    def rules_versions(self, limit: int) -> list[RulesVersion]:
        """Versions without their bodies, the newest first."""

    def shoppers(self, limit: int) -> list[str]:
        """Shoppers with recorded events, the most recent first."""

    def forget(self, before: datetime) -> int:
        """Remove the searches and events of before ``before``; about how many they were. Item changes stay."""

    def delete_user(self, user: str) -> Deleted:
        """Remove the events, the history and the searches of a shopper; safe to repeat where it failed."""

    def deletions(self) -> int:
        """How often :meth:`delete_user` went through: another number tells that something is gone."""

    def backup(self, to: Path) -> None:
        """Write everything to a new file, while others read and write.

        Raises:
            StoreError: there is such a file already, or it cannot be written.
        """

    def restore(self, backup: Path) -> None:
        """Hold what a file of :meth:`backup` holds and nothing else; services on the store notice it.

        A backup of an older version is brought to this one.

        Raises:
            StoreError: no backup of such a store, one of a newer version, or a damaged one; nothing was changed.
        """

    def check(self) -> None:
        """Raise `StoreError` if the store does not work now."""

    def close(self) -> None:
        """Release connections."""


_T = TypeVar("_T")


def pages(
    read: Callable[[str, datetime | None], tuple[list[_T], str]], after: str = "", since: datetime | None = None
) -> Iterator[tuple[list[_T], str]]:
    """All events or searches that a store has behind a place, page by page, each with the place behind it."""
    page, after = read(after, since)
    while page:
        yield page, after
        page, after = read(after, since)


def all_item_changes(store: Store) -> Iterator[list[ItemChange]]:
    """The newest change of every item that a store has, oldest first, page by page."""
    revision = 0
    while changes := store.item_changes(revision):
        yield changes
        revision = changes[-1].revision
