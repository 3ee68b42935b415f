"""Where thoughts are kept between the offline producers and the engine, and the queue of queries to think about.

First the `ThoughtCache` protocol, then the form in which its implementations keep things, then the implementation in
SQLite for one machine; that in Redis, for several servers, is in `redis_thought_cache`. Thoughts (steps 1 and 2) are
keyed by query, producer and version; personalised keywords (step 3) lie apart from them, keyed by the shopper's history
as well.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from onesearch.common.sqlite import SqliteDatabase
from onesearch.data.text import normalise_query
from onesearch.understanding.preference_calibration import HistoryTexts
from onesearch.understanding.thought import MOST_KEYWORDS, Thought

LEASE_SECONDS: Final = 300.0
"""How long a query that was taken from the queue is nobody else's."""
PERSONAL_SECONDS: Final = 30 * 24 * 3600
MOST_QUEUED: Final = 100_000
"""Anybody can search for anything: a full queue takes no more."""


class CacheError(RuntimeError):
    """The cache did not answer; the message says which one, doing what, and why."""


class QueueState(NamedTuple):
    """Numbers of queries that wait, that a worker holds under a lease, and that failed for good."""

    waiting: int
    in_work: int
    set_aside: int


class ThoughtCache(Protocol):
    """Thoughts, personalised keywords and a queue. Queries are compared as normalised by
    :func:`~onesearch.data.text.normalise_query`. Methods may be called from any thread and raise `CacheError`.
    """

    def get_many(self, queries: Sequence[str], producer: str, version: str) -> dict[str, Thought]:
        """The thoughts there are, by query as given; what cannot be read counts as missing."""

    def put(self, thoughts: Sequence[Thought]) -> None:
        """Keep thoughts, in place of earlier ones with the same key, and forget that their queries had failed.

        Raises:
            TypeError: something else than a `Thought`, such as one that carries more fields.
            ValueError: a thought that breaks the rules of `Thought`.
        """

    def enqueue(self, query: str) -> bool:
        """Ask for a query to be thought about; False if it waits already, has failed, is empty, or all is full."""

    def queued(self, queries: Sequence[str]) -> set[str]:
        """Which of the queries, as given, wait or are in work."""

    def take(self, n: int, lease: float = LEASE_SECONDS) -> list[str]:
        """Up to ``n`` waiting queries, longest waiting first. After ``lease`` seconds they wait again, unless done."""

    def done(self, queries: Sequence[str]) -> None:
        """Take queries off the queue."""

    def release(self, queries: Sequence[str]) -> None:
        """End the leases of queries that were taken and not done: they may be taken again at once."""

    def failed(self, query: str, reason: str) -> None:
        """Take a query off the queue for good and remember why."""

    def queue_state(self) -> QueueState:
        """How many queries are where."""

    def rejects(self) -> list[tuple[str, str]]:
        """Failed queries with the reasons, by query."""

    def get_personal(self, query: str, history: str, producer: str, version: str) -> tuple[str, ...] | None:
        """Keywords for a query and the fingerprint of a history; None if there are none."""

    def put_personal(self, query: str, history: str, producer: str, version: str, keywords: Sequence[str]) -> None:
        """Keep keywords of step 3 for 30 days; ``history`` as `history_fingerprint` gives it.

        Raises:
            TypeError: no tuple or list, such as keywords with injected ones, which only training may see.
            ValueError: more than eight keywords.
        """

    def close(self) -> None:
        """Release connections."""


def cache_key(query: str) -> str:
    """The normalised query, with what UTF-8 cannot say (half a character from broken JSON) replaced by "?"."""
    return normalise_query(query if query.isascii() else query.encode(errors="replace").decode())


def history_fingerprint(history: HistoryTexts) -> str:
    """A hash of a shopper's history: its part of the key of personalised keywords."""
    text = json.dumps([history.queries, history.items, history.profile])
    return hashlib.sha256(text.encode()).hexdigest()


def thought_to_row(thought: Thought) -> tuple[str, str, str, str]:
    """(normalised query, producer, version, JSON) of a thought; raises as `ThoughtCache.put` does."""
    # Exactly this type: step 3 and training have no form that could be mistaken for what every shopper shares.
    if type(thought) is not Thought:
        raise TypeError(f"the cache of queries holds thoughts of steps 1 and 2 only, not {type(thought).__name__}")
    body = thought.model_dump_json()
    Thought.model_validate_json(body)  # objects made without validation end here
    return cache_key(thought.query), thought.producer, thought.version, body


def thoughts_from_bodies(
    keys: dict[str, str], bodies: dict[str, str], producer: str, version: str
) -> dict[str, Thought]:
    """Thoughts by query as given; ``keys``: its normalised form, ``bodies``: JSON by normalised form."""
    thoughts: dict[str, Thought] = {}
    for key, body in bodies.items():
        try:
            thought = Thought.model_validate_json(body)
        except ValueError:  # of another version of the package, or damaged: thought about anew
            continue
        if (cache_key(thought.query), thought.producer, thought.version) == (key, producer, version):
            thoughts[key] = thought
    return {query: thoughts[key] for query, key in keys.items() if key in thoughts}


def keywords_to_json(keywords: Sequence[str]) -> str:
    """Personalised keywords as JSON; raises as `ThoughtCache.put_personal` does."""
    if not isinstance(keywords, (tuple, list)):
        raise TypeError(f"personalised keywords are a tuple of texts, not {type(keywords).__name__}")
    if len(keywords) > MOST_KEYWORDS:
        raise ValueError(f"{len(keywords)} personalised keywords; at most {MOST_KEYWORDS}")
    return json.dumps(list(keywords), ensure_ascii=False)


def keywords_from_json(body: str) -> tuple[str, ...] | None:
    """Personalised keywords from JSON; None for anything else."""
    try:
        found = json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) > MOST_KEYWORDS or not all(isinstance(word, str) for word in found):
        return None
    return tuple(found)


_BUSY_SECONDS: Final = 10.0
_PER_STATEMENT: Final = 500  # below the number of variables that every SQLite allows
# One script per version of the file; a file's `user_version` says how many it has seen. Only ever append.
_MIGRATIONS: Final = (
    """
    CREATE TABLE thoughts (
        query TEXT NOT NULL, producer TEXT NOT NULL, version TEXT NOT NULL,
        body TEXT NOT NULL,                 -- JSON of a Thought
        PRIMARY KEY (query, producer, version)
    ) WITHOUT ROWID;
    CREATE TABLE personal (
        query TEXT NOT NULL, history TEXT NOT NULL, producer TEXT NOT NULL, version TEXT NOT NULL,
        keywords TEXT NOT NULL,             -- JSON
        time REAL NOT NULL,
        PRIMARY KEY (query, history, producer, version)
    ) WITHOUT ROWID;
    CREATE INDEX personal_by_time ON personal (time);
    CREATE TABLE queue (
        query TEXT NOT NULL PRIMARY KEY,
        available REAL NOT NULL             -- seconds since 1970, in the future while somebody works on it
    );
    CREATE INDEX queue_by_time ON queue (available);
    CREATE TABLE rejects (query TEXT NOT NULL PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
    """,
)


class SqliteThoughts:
    """A `ThoughtCache` in one SQLite file in write-ahead mode; several processes may share it."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open or create the file and bring it to the current version.

        Raises:
            CacheError: not a database of ours, written by a newer version, or not writable.
        """
        self.path, self._clock = path, clock
        self._db = SqliteDatabase(path, "cache", _MIGRATIONS, _BUSY_SECONDS, CacheError)

    def get_many(self, queries: Sequence[str], producer: str, version: str) -> dict[str, Thought]:
        """See `ThoughtCache.get_many`."""
        keys = {query: cache_key(query) for query in queries}
        wanted = list(dict.fromkeys(keys.values()))
        found: dict[str, str] = {}
        with self._db.read("read thoughts") as db:
            # In parts, since a statement takes only so many variables; all from one snapshot.
            for begin in range(0, len(wanted), _PER_STATEMENT):
                part = wanted[begin : begin + _PER_STATEMENT]
                marks = ",".join("?" * len(part))
                sql = f"SELECT query, body FROM thoughts WHERE producer = ? AND version = ? AND query IN ({marks})"
                found.update(db.execute(sql, (producer, version, *part)).fetchall())
        return thoughts_from_bodies(keys, found, producer, version)

    def put(self, thoughts: Sequence[Thought]) -> None:
        """See `ThoughtCache.put`."""
        rows = [thought_to_row(thought) for thought in thoughts]
        with self._db.write("keep thoughts") as db:
            db.executemany("INSERT OR REPLACE INTO thoughts (query, producer, version, body) VALUES (?,?,?,?)", rows)
            db.executemany("DELETE FROM rejects WHERE query = ?", [row[:1] for row in rows])

    def enqueue(self, query: str) -> bool:
        """See `ThoughtCache.enqueue`."""
        key = cache_key(query)
        if not key:
            return False
        with self._db.write("queue a query") as db:
            # One statement, so that two servers at once can neither exceed the limit nor queue a query twice.
            added = db.execute(
                "INSERT INTO queue (query, available) SELECT ?1, ?2 WHERE (SELECT count(*) FROM queue) < ?3"
                " AND NOT EXISTS (SELECT 1 FROM rejects WHERE query = ?1) ON CONFLICT (query) DO NOTHING",
                (key, self._clock(), MOST_QUEUED),
            ).rowcount
        return added > 0

    def queued(self, queries: Sequence[str]) -> set[str]:
        """See `ThoughtCache.queued`."""
        keys = {query: cache_key(query) for query in queries}
        wanted = list(dict.fromkeys(keys.values()))
        found: set[str] = set()
        with self._db.read("look into the queue") as db:
            for begin in range(0, len(wanted), _PER_STATEMENT):
                part = wanted[begin : begin + _PER_STATEMENT]
                sql = f"SELECT query FROM queue WHERE query IN ({','.join('?' * len(part))})"
                found.update(query for (query,) in db.execute(sql, part))
        return {query for query, key in keys.items() if key in found}

    def take(self, n: int, lease: float = LEASE_SECONDS) -> list[str]:
        """See `ThoughtCache.take`."""
        now = self._clock()
        with self._db.write("take from the queue") as db:
            # Within one transaction, so that no two workers take the same query.
            rows = db.execute(
                "SELECT query FROM queue WHERE available <= ? ORDER BY available, rowid LIMIT ?", (now, n)
            ).fetchall()
            db.executemany("UPDATE queue SET available = ? WHERE query = ?", [(now + lease, *row) for row in rows])
        return [query for (query,) in rows]

    def done(self, queries: Sequence[str]) -> None:
        """See `ThoughtCache.done`."""
        with self._db.write("take off the queue") as db:
            db.executemany("DELETE FROM queue WHERE query = ?", [(cache_key(query),) for query in queries])

    def release(self, queries: Sequence[str]) -> None:
        """See `ThoughtCache.release`."""
        now = self._clock()
        with self._db.write("put back into the queue") as db:
            # Only to an earlier time: a query whose lease has ended keeps its place in the order.
            db.executemany(
                "UPDATE queue SET available = ?1 WHERE query = ?2 AND available > ?1",
                [(now, cache_key(query)) for query in queries],
            )

    def failed(self, query: str, reason: str) -> None:
        """See `ThoughtCache.failed`."""
        key = cache_key(query)
        with self._db.write("set a query aside") as db:
            db.execute("DELETE FROM queue WHERE query = ?", (key,))
            db.execute("INSERT OR REPLACE INTO rejects (query, reason) VALUES (?,?)", (key, reason))

    def rejects(self) -> list[tuple[str, str]]:
        """See `ThoughtCache.rejects`."""
        with self._db.read("list failed queries") as db:
            return db.execute("SELECT query, reason FROM rejects ORDER BY query").fetchall()

    def queue_state(self) -> QueueState:
        """See `ThoughtCache.queue_state`."""
        with self._db.read("count the queue") as db:
            row = db.execute(
                "SELECT count(*) FILTER (WHERE available <= ?1), count(*) FILTER (WHERE available > ?1),"
                " (SELECT count(*) FROM rejects) FROM queue",
                (self._clock(),),
            ).fetchone()
        return QueueState(*row)

    def get_personal(self, query: str, history: str, producer: str, version: str) -> tuple[str, ...] | None:
        """See `ThoughtCache.get_personal`."""
        key = (cache_key(query), history, producer, version, self._clock() - PERSONAL_SECONDS)
        with self._db.read("read personalised keywords") as db:
            row = db.execute(
                "SELECT keywords FROM personal WHERE query = ? AND history = ? AND producer = ? AND version = ?"
                " AND time > ?",
                key,
            ).fetchone()
        return keywords_from_json(row[0]) if row else None

    def put_personal(self, query: str, history: str, producer: str, version: str, keywords: Sequence[str]) -> None:
        """See `ThoughtCache.put_personal`."""
        body, now = keywords_to_json(keywords), self._clock()
        with self._db.write("keep personalised keywords") as db:
            db.execute(
                "INSERT OR REPLACE INTO personal (query, history, producer, version, keywords, time)"
                " VALUES (?,?,?,?,?,?)",
                (cache_key(query), history, producer, version, body, now),
            )
            # What is too old goes with each new entry, so that the table does not grow for ever.
            db.execute("DELETE FROM personal WHERE time <= ?", (now - PERSONAL_SECONDS,))

    def close(self) -> None:
        """See `ThoughtCache.close`."""
        self._db.close()
