"""The embedded store: one SQLite file in write-ahead mode, one writer, any number of readers."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from onesearch.common.sqlite import SqliteDatabase
from onesearch.data.records import Item
from onesearch.search.shopper_history import MAX_CLICKS, MAX_ORDERS, MAX_QUERIES, ShopperHistory
from onesearch.serving.store import (
    TYPING_SECONDS,
    Deleted,
    Event,
    EventConflictError,
    ItemChange,
    ItemsConflictError,
    MadeFrom,
    RulesVersion,
    Search,
    StateCount,
    StoredItem,
    StoreError,
    StoreState,
    Traffic,
    rules_conflict,
    types_on,
)
from onesearch.serving.stored_items import stored_change, stored_text

_BUSY_SECONDS = 2.0  # a search must not wait long for its history
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# One script per version of the file; a file's `user_version` says how many it has seen. Only ever append.
_MIGRATIONS = (
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        event_id TEXT NOT NULL UNIQUE,
        user TEXT,
        item_id TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('click', 'order')),
        query TEXT NOT NULL,
        time INTEGER NOT NULL,      -- microseconds since 1970, UTC
        search_id TEXT
    );
    CREATE INDEX events_of_user ON events (user, kind, time, seq);
    CREATE TABLE searches (
        seq INTEGER PRIMARY KEY,
        search_id TEXT NOT NULL,
        user TEXT,
        query TEXT NOT NULL,
        time INTEGER NOT NULL,
        shown TEXT NOT NULL         -- item ids, one a line, see `shown_ids`
    );
    CREATE INDEX searches_of_user ON searches (user, seq);
    CREATE TABLE items (
        item_id TEXT NOT NULL PRIMARY KEY,
        revision INTEGER NOT NULL UNIQUE,
        body TEXT                   -- JSON, NULL means deleted
    );
    """,
    # Event ids belong to their shopper; histories are in order of arrival; a file that was replaced is noticed.
    """
    CREATE TABLE new_events (
        seq INTEGER PRIMARY KEY,
        event_id TEXT NOT NULL,
        user TEXT,
        item_id TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('click', 'order')),
        query TEXT NOT NULL,
        time INTEGER NOT NULL,      -- microseconds since 1970, UTC
        search_id TEXT
    );
    INSERT INTO new_events SELECT seq, event_id, user, item_id, kind, query, time, search_id FROM events ORDER BY seq;
    DROP TABLE events;
    ALTER TABLE new_events RENAME TO events;
    CREATE UNIQUE INDEX event_ids ON events (event_id, coalesce(user, ''));
    CREATE INDEX events_of_user ON events (user, kind, seq);
    CREATE TABLE origin (id TEXT NOT NULL);
    INSERT INTO origin VALUES (lower(hex(randomblob(16))))
    """,
    # Rules, every version.
    """
    CREATE TABLE rules (
        version INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,      -- microseconds since 1970, UTC
        who TEXT NOT NULL,
        body TEXT NOT NULL          -- JSON
    )
    """,
    # Ids may hold line ends: `shown_ids` is JSON, NULL in a row of before, which has them in `shown`. A row that only
    # keeps its number after its shopper was deleted is no event and no search.
    """
    ALTER TABLE events ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE searches ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE searches ADD COLUMN shown_ids TEXT
    """,
    # What was known of the query when it was searched; items that a draw put on the page, JSON, NULL for none.
    """
    ALTER TABLE searches ADD COLUMN thought TEXT;
    ALTER TABLE searches ADD COLUMN explored TEXT
    """,
    # The rank of the first item shown, NULL where they were in another order; how many shoppers were deleted; what
    # stood in the search box, of a search that may be made while its shopper still types.
    """
    ALTER TABLE searches ADD COLUMN first_rank INTEGER DEFAULT 0;
    ALTER TABLE origin ADD COLUMN deletions INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE searches ADD COLUMN typed TEXT
    """,
)
_STATE = "SELECT id, (SELECT coalesce(max(revision), 0) FROM items) FROM origin"
_NEWEST_EVENTS = 1000  # among which a click on a page of seconds ago is
_FORGOTTEN_AT_ONCE = 5000  # rows removed by one transaction: others want to write, too


class SqliteStore:
    """A `Store` in one file."""

    def __init__(self, path: Path) -> None:
        """Open or create the file and bring it to the current version.

        Raises:
            StoreError: not a database of ours, written by a newer version, or not writable.
        """
        self.path = path
        self._db = SqliteDatabase(path, "store", _MIGRATIONS, _BUSY_SECONDS, StoreError)

    def record(self, event: Event) -> bool:
        """See `Store.record`."""
        values = (
            event.event_id,
            event.user,
            event.item_id,
            event.kind,
            event.query,
            _micros(event.time),
            event.search_id,
        )
        with self._db.write("record an event") as db:
            # A known id adds nothing: then the content tells a retry from a mistake.
            added = db.execute(
                "INSERT INTO events (event_id, user, item_id, kind, query, time, search_id) VALUES (?,?,?,?,?,?,?)"
                " ON CONFLICT (event_id, coalesce(user, '')) DO NOTHING",
                values,
            ).rowcount
            if added:
                return True
            known = db.execute(
                "SELECT user, item_id, kind, query FROM events WHERE event_id = ? AND coalesce(user, '') = ?",
                (event.event_id, event.user or ""),
            ).fetchone()
        user, item_id, kind, query = known
        if not event.same_happening(Event(event.event_id, user, item_id, kind, query, event.time)):
            raise EventConflictError(
                f"event_id {event.event_id!r} was already used for another event; use a new id for each event"
            )
        return False

    def record_search(self, search: Search) -> None:
        """See `Store.record_search`."""
        with self._db.write("record a search") as db:
            before = _typed_before(db, search)
            db.execute(
                "INSERT INTO searches"
                " (search_id, user, query, time, shown, shown_ids, thought, explored, first_rank, typed)"
                " VALUES (?,?,?,?,'',?,?,?,?,?)",
                (
                    search.search_id,
                    search.user,
                    search.query,
                    _micros(search.time),
                    json.dumps(search.shown),
                    search.thought,
                    json.dumps(search.explored) if search.explored else None,
                    search.first_rank,
                    search.typed,
                ),
            )
            if before is not None:  # after the new one, which must not be given its number
                db.execute("DELETE FROM searches WHERE seq = ?", (before,))

    def traffic(self, seconds: int) -> list[Traffic]:
        """See `Store.traffic`."""
        # Spans are whole numbers of ``seconds`` since 1970, whatever the first search was.
        with self._db.read("read the traffic") as db:
            rows = db.execute(
                "SELECT time / ?1 AS span, query, count(*) FROM searches WHERE NOT gone"
                " GROUP BY span, query ORDER BY span, query",
                (seconds * 1_000_000,),
            ).fetchall()
        return [Traffic(_EPOCH + timedelta(seconds=span * seconds), query, count) for span, query, count in rows]

    def coverage(self, seconds: int) -> list[StateCount]:
        """See `Store.coverage`."""
        with self._db.read("count what was known of queries") as db:
            rows = db.execute(
                "SELECT time / ?1 AS span, thought, count(*) FROM searches WHERE NOT gone AND trim(query) <> ''"
                " GROUP BY span, thought ORDER BY span, thought",
                (seconds * 1_000_000,),
            ).fetchall()
        return [StateCount(_EPOCH + timedelta(seconds=span * seconds), state, count) for span, state, count in rows]

    def events(self, after: str = "", since: datetime | None = None, limit: int = 5000) -> tuple[list[Event], str]:
        """See `Store.events`."""
        rows, place = self._rows("events", "event_id, user, item_id, kind, query, time, search_id", after, since, limit)
        return [
            Event(one, user, item, kind, query, _time(time), search)
            for one, user, item, kind, query, time, search, _ in rows
        ], place

    def searches(self, after: str = "", since: datetime | None = None, limit: int = 5000) -> tuple[list[Search], str]:
        """See `Store.searches`."""
        columns = "search_id, user, query, time, shown, shown_ids, thought, explored, first_rank"
        rows, place = self._rows("searches", columns, after, since, limit)
        return [
            Search(one, user, query, _time(time), _shown(lines, ids), thought, tuple(json.loads(drawn or "[]")), first)
            for one, user, query, time, lines, ids, thought, drawn, first, _ in rows
        ], place

    def history(self, user: str) -> ShopperHistory:
        """See `Store.history`."""
        # The newest ones, oldest first. As they came: a caller's clock cannot put an event before all later ones.
        newest = "SELECT item_id, query FROM events WHERE user = ? AND kind = ? ORDER BY seq DESC LIMIT ?"
        with self._db.read("read a history") as db:
            clicks = db.execute(newest, (user, "click", MAX_CLICKS)).fetchall()[::-1]
            orders = db.execute(newest, (user, "order", MAX_ORDERS)).fetchall()[::-1]
            # A page searches again after each click: more rows than queries are read, and repetitions count once.
            queries = db.execute(
                "SELECT query FROM searches WHERE user = ? AND query <> '' ORDER BY seq DESC LIMIT 100", (user,)
            ).fetchall()
        recent = list(dict.fromkeys(query for (query,) in queries))[:MAX_QUERIES][::-1]
        return ShopperHistory(
            tuple(item for item, _ in clicks),
            tuple(query for _, query in clicks),
            tuple(item for item, _ in orders),
            tuple(recent),
        )

    def change_items(
        self, items: Sequence[Item], deleted: Sequence[str], made_from: MadeFrom | None = None
    ) -> StoreState:
        """See `Store.change_items`."""
        bodies = [(item.item_id, stored_text(item)) for item in items]
        changes: list[tuple[str, str | None]] = [*bodies, *((item_id, None) for item_id in deleted)]
        # Revisions in one transaction: a follower that saw one has seen all before it.
        with self._db.write("change items") as db:
            origin, last = db.execute(_STATE).fetchone()
            # Nobody else writes until the end of the transaction: what is compared here stays so.
            if made_from is not None and _stored(db, origin, list(made_from.items)) != made_from:
                raise ItemsConflictError("an item was changed by another call meanwhile")
            db.executemany(
                "INSERT INTO items (item_id, body, revision) VALUES (?,?,?)"
                " ON CONFLICT (item_id) DO UPDATE SET body = excluded.body, revision = excluded.revision",
                [(item_id, body, last + number) for number, (item_id, body) in enumerate(changes, 1)],
            )
        return StoreState(origin, last + len(changes))

    def stored_items(self, item_ids: Sequence[str]) -> MadeFrom:
        """See `Store.stored_items`."""
        with self._db.read("read items") as db:
            return _stored(db, db.execute(_STATE).fetchone()[0], item_ids)

    def state(self) -> StoreState:
        """See `Store.state`."""
        with self._db.read("read its state") as db:
            row = db.execute(_STATE).fetchone()
        return StoreState(*row)

    def item_changes(self, after: int, limit: int = 5000) -> list[ItemChange]:
        """See `Store.item_changes`."""
        with self._db.read("read changed items") as db:
            # Of an item changed twice only the newest state is there, so a new server reads each item once.
            rows = db.execute(
                "SELECT revision, item_id, body FROM items WHERE revision > ? ORDER BY revision LIMIT ?", (after, limit)
            ).fetchall()
        return [stored_change(revision, item_id, body or "") for revision, item_id, body in rows]

    def write_rules(self, body: str, who: str, time: datetime, base: int | None = None) -> int:
        """See `Store.write_rules`."""
        with self._db.write("write rules") as db:
            newest = int(db.execute("SELECT coalesce(max(version), 0) FROM rules").fetchone()[0])
            if base is not None and base != newest:
                raise rules_conflict(base, newest)
            values = (newest + 1, _micros(time), who, body)
            db.execute("INSERT INTO rules (version, time, who, body) VALUES (?,?,?,?)", values)
        return newest + 1

    def rules(self, version: int | None = None) -> RulesVersion | None:
        """See `Store.rules`."""
        with self._db.read("read rules") as db:
            row = db.execute(
                "SELECT version, time, who, body FROM rules WHERE version = coalesce(?, version)"
                " ORDER BY version DESC LIMIT 1",
                (version,),
            ).fetchone()
        return None if row is None else RulesVersion(row[0], _time(row[1]), *row[2:])

    def rules_versions(self, limit: int) -> list[RulesVersion]:
        """See `Store.rules_versions`."""
        with self._db.read("list rules") as db:
            rows = db.execute("SELECT version, time, who FROM rules ORDER BY version DESC LIMIT ?", (limit,)).fetchall()
        return [RulesVersion(version, _time(time), who, "") for version, time, who in rows]

    def shoppers(self, limit: int) -> list[str]:
        """See `Store.shoppers`."""
        # Of the last thousand events only, so that it stays fast however many there are.
        with self._db.read("list shoppers") as db:
            rows = db.execute(
                "SELECT user FROM (SELECT user, seq FROM events WHERE user IS NOT NULL ORDER BY seq DESC LIMIT 1000)"
                " GROUP BY user ORDER BY max(seq) DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [user for (user,) in rows]

    def forget(self, before: datetime) -> int:
        """See `Store.forget`."""
        # From the oldest rows on, a few at a time. Rows are in order of arrival, and times within a day of it.
        removed = 0
        for table in ("events", "searches"):
            oldest = f"SELECT seq, time FROM {table} ORDER BY seq LIMIT {_FORGOTTEN_AT_ONCE}"
            delete = f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM ({oldest}) WHERE time < ?)"
            gone = _FORGOTTEN_AT_ONCE
            while gone == _FORGOTTEN_AT_ONCE:
                with self._db.write("forget what is old") as db:
                    gone = db.execute(delete, (_micros(before),)).rowcount
                removed += gone
        return removed

    def _rows(
        self, table: str, columns: str, after: str, since: datetime | None, limit: int
    ) -> tuple[list[tuple[Any, ...]], str]:
        """Rows of a table behind a place, and the place behind them."""
        # Numbers begin again in a table of which all rows were forgotten: a place beyond the last is the beginning.
        first = f"SELECT CASE WHEN ?1 > coalesce(max(seq), 0) THEN 0 ELSE ?1 END FROM {table}"
        wanted = f"SELECT {columns}, seq FROM {table} WHERE seq > ({first}) AND time >= ?2 AND NOT gone"
        wanted += " ORDER BY seq LIMIT ?3"
        with self._db.read(f"read {table}") as db:
            rows = db.execute(wanted, (int(after or 0), _micros(since or _EPOCH), limit)).fetchall()
        return rows, str(rows[-1][-1]) if rows else after

    def delete_user(self, user: str) -> Deleted:
        """See `Store.delete_user`."""
        # The newest row of a table stays, empty and marked: its number must not be given to another one.
        random = "lower(hex(randomblob(16)))"
        empty = {
            "events": f"gone = 1, user = NULL, event_id = {random}, item_id = '', query = '', search_id = NULL",
            "searches": f"gone = 1, user = NULL, search_id = {random}, query = '', shown = '', shown_ids = NULL,"
            " thought = NULL, explored = NULL, typed = NULL",
        }
        gone = dict.fromkeys(empty, 0)
        with self._db.write("delete a shopper") as db:
            for table, change in empty.items():
                newest = f"UPDATE {table} SET {change} WHERE user = ? AND seq = (SELECT max(seq) FROM {table})"
                for statement in (newest, f"DELETE FROM {table} WHERE user = ?"):
                    gone[table] += db.execute(statement, (user,)).rowcount
            db.execute("UPDATE origin SET deletions = deletions + 1")
        return Deleted(**gone)

    def deletions(self) -> int:
        """See `Store.deletions`."""
        with self._db.read("read how many shoppers were deleted") as db:
            return int(db.execute("SELECT deletions FROM origin").fetchone()[0])

    def backup(self, to: Path) -> None:
        """See `Store.backup`: a SQLite file."""
        self._db.backup(to)

    def restore(self, backup: Path) -> None:
        """See `Store.restore`."""
        # Another origin: services on this file build their catalogue anew, whatever revision they were at.
        self._db.restore(backup, "UPDATE origin SET id = lower(hex(randomblob(16)))")

    def check(self) -> None:
        """See `Store.check`."""
        self._db.check()

    def close(self) -> None:
        """See `Store.close`."""
        self._db.close()


def _stored(db: Connection, origin: str, item_ids: Sequence[str]) -> MadeFrom:
    """Items as they lie in the file, within the transaction of the caller."""
    select = "SELECT revision, coalesce(body, '') FROM items WHERE item_id = ?"
    rows = {item_id: db.execute(select, (item_id,)).fetchone() for item_id in item_ids}
    return MadeFrom(origin, {item_id: StoredItem(*(row or ())) for item_id, row in rows.items()})


def _typed_before(db: Connection, search: Search) -> int | None:
    """The row of the shopper's search before, if they typed on to this one and clicked on nothing."""
    if search.typed is None or search.user is None:
        return None
    row = db.execute(
        "SELECT seq, search_id, time, typed FROM searches WHERE user = ? ORDER BY seq DESC LIMIT 1", (search.user,)
    ).fetchone()
    if row is None or row[3] is None or not types_on(row[3], search.typed):
        return None
    seq, search_id, time, _ = row
    newest = f"SELECT search_id FROM events ORDER BY seq DESC LIMIT {_NEWEST_EVENTS}"
    if not timedelta(0) <= search.time - _time(time) <= timedelta(seconds=TYPING_SECONDS) or (
        db.execute(f"SELECT 1 FROM ({newest}) WHERE search_id = ? LIMIT 1", (search_id,)).fetchone()
    ):
        return None
    return int(seq)


def _shown(lines: str, ids: str | None) -> tuple[str, ...]:
    """The ids that a search showed; one a line in a row that was written before ``shown_ids`` was there."""
    if ids is not None:
        return tuple(json.loads(ids))
    return tuple(lines.split("\n")) if lines else ()


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _micros(time: datetime) -> int:
    """Microseconds since 1970; floats would lose the last digits."""
    return (time - _EPOCH) // timedelta(microseconds=1)
