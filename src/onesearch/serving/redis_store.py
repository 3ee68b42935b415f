"""A store that several servers share: Redis, through the optional extra ``redis``.

Keys, all under a prefix (default ``onesearch:``): ``event:<length of user>:<user>:<id>`` recent events by shopper and
id; ``last_clicks:<user>`` and ``last_orders:<user>`` as they came; ``queries:<user>`` the last queries; for a moment
``typing:<user>``, the search that may be typed on, and ``clicked:<search id>``, what stays then; ``searches``
and ``events`` streams to train on later; ``shoppers`` by last event; ``items`` bodies and ``item_revisions`` the order
of their changes; ``rules`` bodies and ``rules_written`` time and writer of every version, from the first on; ``origin``
made anew where it is missing, so that a store that was emptied is noticed; ``deletions`` of shoppers, counted;
``format`` of all these keys, by which a newer version's store is refused.
"""

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from onesearch.common.redis_client import RedisDatabase
from onesearch.data.records import Item
from onesearch.search.shopper_history import MAX_CLICKS, MAX_ORDERS, MAX_QUERIES, ShopperHistory
from onesearch.serving.redis_backup import literally, read_backup, write_backup
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
    ThoughtState,
    Traffic,
    pages,
    rules_conflict,
)
from onesearch.serving.stored_items import stored_change, stored_text

_TIMEOUT_SECONDS = 1.0  # a search must not wait long for its history
_KEPT_EVENTS = 1_000_000  # in the streams to train on
_RETRY_SECONDS = 30 * 24 * 3600  # an event id is known for this long
_USER_SECONDS = 365 * 24 * 3600  # of a shopper who does not come back nothing is left after this long
_KEPT_SHOPPERS = 1000
_SCANNED_AT_ONCE = 1000  # keys or entries
_FORMAT = 3  # raise when a key's content changes, and read the older one, or bring it to the new one
# 2: searches say what was known of their query, and what was explored. 3: they say the rank of the first item shown.
# Those of an older format do not, and are read as well.

# Scripts run as a whole: a server that dies in between leaves nothing half done, and revisions appear in order.
_RECORD = """
local known = redis.call('GET', KEYS[1])
if known then return known end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[6])
if ARGV[2] ~= '' then
  redis.call('RPUSH', KEYS[2], ARGV[4])
  redis.call('LTRIM', KEYS[2], -tonumber(ARGV[3]), -1)
  redis.call('EXPIRE', KEYS[2], ARGV[7])
  redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), ARGV[2])
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[8]))
end
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[5], '*', 'event', ARGV[1])
if ARGV[9] ~= '' then redis.call('SET', KEYS[6] .. ARGV[9], 1, 'EX', 60) end
return false
"""
# The search before goes where this one was typed on from it, and nothing on it was clicked.
_RECORD_TYPED = """
local was = redis.call('HMGET', KEYS[3], 'typed', 'entry', 'time', 'query', 'known', 'id')
local query, typed, time, longest = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local entry = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'search', ARGV[2])
if was[1] and was[1] ~= typed then
  local both, gap = math.min(#was[1], #typed), time - tonumber(was[3])
  if gap >= 0 and gap <= longest and string.sub(was[1], 1, both) == string.sub(typed, 1, both)
      and redis.call('EXISTS', KEYS[4] .. was[6]) == 0 then
    redis.call('XDEL', KEYS[1], was[2])
    if was[5] == '0' then redis.call('LREM', KEYS[2], -1, was[4]) end
  end
end
local known = redis.call('LREM', KEYS[2], 0, query)
redis.call('RPUSH', KEYS[2], query)
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[7]), -1)
redis.call('EXPIRE', KEYS[2], ARGV[8])
redis.call('HSET', KEYS[3], 'typed', typed, 'entry', entry, 'time', time, 'query', query, 'known', known, 'id', ARGV[9])
redis.call('PEXPIRE', KEYS[3], 2 * longest)
"""
_CHANGE_ITEMS = """
redis.call('SET', KEYS[4], ARGV[1], 'NX')
local compared = tonumber(ARGV[2])
if compared > 0 and redis.call('GET', KEYS[4]) ~= ARGV[3] then return {'', -1} end
for at = 4, compared * 3 + 3, 3 do
  local found = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[at]) or '0')
  local text = redis.call('HGET', KEYS[1], ARGV[at]) or ''
  if found ~= tonumber(ARGV[at + 1]) or text ~= ARGV[at + 2] then return {'', -1} end
end
local revision = tonumber(redis.call('GET', KEYS[3]) or '0')
for at = compared * 3 + 4, #ARGV, 2 do
  revision = revision + 1
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  redis.call('ZADD', KEYS[2], revision, ARGV[at])
end
redis.call('SET', KEYS[3], revision)
return {redis.call('GET', KEYS[4]), revision}
"""
_STATE = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local format = tonumber(redis.call('GET', KEYS[3]) or '0')
if format and format < tonumber(ARGV[2]) then redis.call('SET', KEYS[3], ARGV[2]) end
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]) or '0', redis.call('GET', KEYS[3])}
"""
_ITEM_CHANGES = """
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local out = {}
for at = 1, #found, 2 do
  out[#out + 1] = found[at + 1]
  out[#out + 1] = found[at]
  out[#out + 1] = redis.call('HGET', KEYS[1], found[at])
end
return out
"""
_STORED_ITEMS = """
redis.call('SET', KEYS[3], ARGV[1], 'NX')
local out = {redis.call('GET', KEYS[3])}
for at = 2, #ARGV do
  out[#out + 1] = redis.call('ZSCORE', KEYS[2], ARGV[at]) or '0'
  out[#out + 1] = redis.call('HGET', KEYS[1], ARGV[at]) or ''
end
return out
"""
_WRITE_RULES = """
local newest = redis.call('LLEN', KEYS[1])
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= newest then return -newest - 1 end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[3])
return newest + 1
"""


class RedisStore:
    """A `Store` in Redis."""

    def __init__(self, url: str, prefix: str = "onesearch:") -> None:
        """Connect lazily: a Redis that is down now shows in `check`.

        Raises:
            StoreError: the Redis client is not installed, ``url`` is not a Redis address, or a newer version wrote what
                it holds.
        """
        self._redis = RedisDatabase(url, _TIMEOUT_SECONDS, StoreError)
        self._prefix = prefix
        self._record = self._redis.client.register_script(_RECORD)
        self._record_typed = self._redis.client.register_script(_RECORD_TYPED)
        self._change_items = self._redis.client.register_script(_CHANGE_ITEMS)
        self._state = self._redis.client.register_script(_STATE)
        self._write_rules = self._redis.client.register_script(_WRITE_RULES)
        self._item_changes = self._redis.client.register_script(_ITEM_CHANGES)
        self._stored_items = self._redis.client.register_script(_STORED_ITEMS)
        try:
            with self._redis.calls("open it") as redis:
                found = cast(str | None, redis.get(prefix + "format"))
        except StoreError:
            found = None  # it is down; once it is up, its state is looked at
        _refuse_newer(found)

    def record(self, event: Event) -> bool:
        """See `Store.record`."""
        # Everything of an event in one script: known ids, the shopper's history, the list of shoppers, the stream.
        user = event.user or ""
        member = json.dumps([event.event_id, event.item_id, event.query], ensure_ascii=False)
        room = MAX_CLICKS if event.kind == "click" else MAX_ORDERS
        # The user's length keeps "a:b" with event "c" apart from "a" with event "b:c".
        known_as = f"event:{len(user)}:{user}:{event.event_id}"
        keys = [known_as, f"last_{event.kind}s:{user}", "shoppers", "event_number", "events", "clicked:"]
        kept: list[str | int] = [_KEPT_EVENTS, _RETRY_SECONDS, _USER_SECONDS, _KEPT_SHOPPERS, event.search_id or ""]
        with self._redis.calls("record an event"):
            known = self._record(
                keys=[self._prefix + key for key in keys],
                args=[_to_json(event), user, room, member, *kept],
            )
        if not known:
            return True
        # The id is known: a retry with the same content, or a mistake.
        before = json.loads(cast(str, known))
        if not event.same_happening(Event(**{**before, "time": datetime.fromisoformat(before["time"])})):
            raise EventConflictError(
                f"event_id {event.event_id!r} was already used for another event; use a new id for each event"
            )
        return False

    def record_search(self, search: Search) -> None:
        """See `Store.record_search`."""
        if search.typed is not None and search.user and search.query:
            self._record_typed_search(search)
            return
        with self._redis.transaction("record a search") as pipe:
            if search.user:
                pipe.delete(f"{self._prefix}typing:{search.user}")  # what is typed from now on begins anew
            pipe.xadd(self._prefix + "searches", {"search": _to_json(search)}, maxlen=_KEPT_EVENTS, approximate=True)
            # The shopper's last queries, each once, newest last.
            if search.user and search.query:
                key = f"{self._prefix}queries:{search.user}"
                pipe.lrem(key, 0, search.query)
                pipe.rpush(key, search.query)
                pipe.ltrim(key, -MAX_QUERIES, -1)
                pipe.expire(key, _USER_SECONDS)
            pipe.execute()

    def _record_typed_search(self, search: Search) -> None:
        p, longest = self._prefix, int(TYPING_SECONDS * 1000)
        keys = [f"{p}searches", f"{p}queries:{search.user}", f"{p}typing:{search.user}", f"{p}clicked:"]
        time = int(search.time.timestamp() * 1000)
        said: list[str | int] = [_to_json(search), search.query, search.typed or "", time, longest]
        with self._redis.calls("record a search"):
            self._record_typed(keys=keys, args=[_KEPT_EVENTS, *said, MAX_QUERIES, _USER_SECONDS, search.search_id])

    def traffic(self, seconds: int) -> list[Traffic]:
        """See `Store.traffic`."""
        # The stream of searches page by page, counted by span and query.
        counts: Counter[tuple[int, str]] = Counter()
        for page, _ in pages(self.searches):
            counts.update((int(search.time.timestamp() // seconds), search.query) for search in page)
        return [
            Traffic(datetime.fromtimestamp(span * seconds, UTC), query, count)
            for (span, query), count in sorted(counts.items())
        ]

    def coverage(self, seconds: int) -> list[StateCount]:
        """See `Store.coverage`."""
        counts: Counter[tuple[int, ThoughtState | None]] = Counter()
        for page, _ in pages(self.searches):
            asked = [search for search in page if search.query.strip()]
            counts.update((int(search.time.timestamp() // seconds), search.thought) for search in asked)
        ordered = sorted(counts.items(), key=lambda one: (one[0][0], one[0][1] or ""))
        return [
            StateCount(datetime.fromtimestamp(span * seconds, UTC), state, count) for (span, state), count in ordered
        ]

    def events(self, after: str = "", since: datetime | None = None, limit: int = 5000) -> tuple[list[Event], str]:
        """See `Store.events`."""
        found, place = self._entries("event", after, since, limit)
        return [Event(**one) for one in found], place

    def searches(self, after: str = "", since: datetime | None = None, limit: int = 5000) -> tuple[list[Search], str]:
        """See `Store.searches`."""
        found, place = self._entries("search", after, since, limit)
        lists = ("shown", "explored")
        return [Search(**{**one, **{name: tuple(one.get(name, ())) for name in lists}}) for one in found], place

    def history(self, user: str) -> ShopperHistory:
        """See `Store.history`."""
        with self._redis.transaction("read a history") as pipe:
            pipe.lrange(f"{self._prefix}last_clicks:{user}", 0, -1)
            pipe.lrange(f"{self._prefix}last_orders:{user}", 0, -1)
            pipe.lrange(f"{self._prefix}queries:{user}", 0, -1)
            clicks, orders, queries = pipe.execute()
        clicked = [json.loads(member) for member in clicks]
        return ShopperHistory(
            tuple(item_id for _, item_id, _ in clicked),
            tuple(query for _, _, query in clicked),
            tuple(json.loads(member)[1] for member in orders),
            tuple(queries),
        )

    def change_items(
        self, items: Sequence[Item], deleted: Sequence[str], made_from: MadeFrom | None = None
    ) -> StoreState:
        """See `Store.change_items`."""
        # A new origin where there is none; what must still be so: how many items, the origin, (id, revision, body) of
        # each; then (id, body) pairs to write. An empty body means deleted.
        before = MadeFrom("", {}) if made_from is None else made_from
        arguments: list[str | int] = [uuid.uuid4().hex, len(before.items), before.origin]
        for item_id, was in before.items.items():
            arguments += [item_id, *was]
        for item in items:
            arguments += [item.item_id, stored_text(item)]
        for item_id in deleted:
            arguments += [item_id, ""]
        with self._redis.calls("change items"):
            keys = [*self._item_keys(), self._prefix + "revision", self._prefix + "origin"]
            origin, revision = cast(tuple[str, int], self._change_items(keys=keys, args=arguments))
        if revision < 0:
            raise ItemsConflictError("an item was changed by another call meanwhile")
        return StoreState(origin, int(revision))

    def stored_items(self, item_ids: Sequence[str]) -> MadeFrom:
        """See `Store.stored_items`."""
        with self._redis.calls("read items"):
            keys = [*self._item_keys(), self._prefix + "origin"]
            origin, *flat = cast(list[str], self._stored_items(keys=keys, args=[uuid.uuid4().hex, *item_ids]))
        states = (StoredItem(int(at), text) for at, text in zip(*[iter(flat)] * 2, strict=True))
        return MadeFrom(origin, dict(zip(item_ids, states, strict=True)))

    def state(self) -> StoreState:
        """See `Store.state`."""
        with self._redis.calls("read its state"):
            keys = [self._prefix + key for key in ("origin", "revision", "format")]
            origin, revision, found = cast(list[str], self._state(keys=keys, args=[uuid.uuid4().hex, _FORMAT]))
        _refuse_newer(found)
        return StoreState(origin, int(revision))

    def item_changes(self, after: int, limit: int = 5000) -> list[ItemChange]:
        """See `Store.item_changes`."""
        with self._redis.calls("read changed items"):
            flat = cast(list[str], self._item_changes(keys=self._item_keys(), args=[after, limit]))
        return [stored_change(int(at), item_id, body) for at, item_id, body in zip(*[iter(flat)] * 3, strict=True)]

    def write_rules(self, body: str, who: str, time: datetime, base: int | None = None) -> int:
        """See `Store.write_rules`."""
        written = json.dumps([time.isoformat(), who], ensure_ascii=False)
        with self._redis.calls("write rules"):
            args = ["" if base is None else base, body, written]
            version = int(cast(int, self._write_rules(keys=self._rules_keys(), args=args)))
        if version < 0 and base is not None:
            raise rules_conflict(base, -version - 1)
        return version

    def rules(self, version: int | None = None) -> RulesVersion | None:
        """See `Store.rules`."""
        if version is not None and version < 1:
            return None
        at = -1 if version is None else version - 1
        bodies, written = self._rules_keys()
        with self._redis.transaction("read rules") as pipe:
            pipe.llen(bodies)
            pipe.lindex(bodies, at)
            pipe.lindex(written, at)
            newest, body, entry = pipe.execute()
        return None if body is None else _rules_version(version or newest, entry, body)

    def rules_versions(self, limit: int) -> list[RulesVersion]:
        """See `Store.rules_versions`."""
        with self._redis.transaction("list rules") as pipe:
            pipe.llen(self._rules_keys()[1])
            pipe.lrange(self._rules_keys()[1], -limit, -1)
            newest, entries = pipe.execute()
        return [_rules_version(newest - at, entry, "") for at, entry in enumerate(entries[::-1])]

    def shoppers(self, limit: int) -> list[str]:
        """See `Store.shoppers`."""
        with self._redis.calls("list shoppers") as redis:
            return cast(list[str], redis.zrevrange(self._prefix + "shoppers", 0, limit - 1))

    def forget(self, before: datetime) -> int:
        """See `Store.forget`."""
        # An entry's id begins with its milliseconds; what belongs to one shopper expires by itself.
        with self._redis.calls("forget what is old") as redis:
            oldest = str(int(before.timestamp() * 1000))
            return sum(int(redis.xtrim(self._prefix + name, minid=oldest)) for name in ("searches", "events"))

    def delete_user(self, user: str) -> Deleted:
        """See `Store.delete_user`."""
        p = self._prefix
        with self._redis.calls("delete a shopper") as redis:
            # First what searches read, then what remembers single events, then the streams.
            redis.delete(*(f"{p}{name}:{user}" for name in ("last_clicks", "last_orders", "queries", "typing")))
            redis.zrem(p + "shoppers", user)
            ids = redis.scan_iter(match=literally(f"{p}event:{len(user)}:{user}:") + "*", count=_SCANNED_AT_ONCE)
            for known_as in ids:
                redis.delete(known_as)
            gone = Deleted(self._drop_entries("events", "event", user), self._drop_entries("searches", "search", user))
            redis.incr(p + "deletions")
            return gone

    def deletions(self) -> int:
        """See `Store.deletions`."""
        with self._redis.calls("read how many shoppers were deleted") as redis:
            return int(cast(str | None, redis.get(self._prefix + "deletions")) or 0)

    def backup(self, to: Path) -> None:
        """See `Store.backup`: JSON lines."""
        with self._redis.calls("back up") as redis:
            write_backup(redis, self._prefix, to)

    def restore(self, backup: Path) -> None:
        """See `Store.restore`."""
        with self._redis.calls("restore a backup") as redis:
            read_backup(redis, self._prefix, backup, uuid.uuid4().hex)

    def _drop_entries(self, stream: str, field: str, user: str) -> int:
        """Remove a shopper's entries of a stream; how many they were."""
        gone, after = 0, "-"
        redis = self._redis.client
        while page := cast(
            list[tuple[str, dict[str, str]]],
            redis.xrange(self._prefix + stream, min=after, count=_SCANNED_AT_ONCE),
        ):
            own = [entry for entry, fields in page if json.loads(fields[field])["user"] == user]
            gone += redis.xdel(self._prefix + stream, *own) if own else 0
            after = f"({page[-1][0]}"
        return gone

    def check(self) -> None:
        """See `Store.check`."""
        with self._redis.calls("check") as redis:
            redis.set(self._prefix + "checked", 1)

    def close(self) -> None:
        """See `Store.close`."""
        self._redis.close()

    def _entries(self, name: str, after: str, since: datetime | None, limit: int) -> tuple[list[dict[str, Any]], str]:
        """Entries of a stream behind a place, and the place behind them; an entry's id begins with its milliseconds."""
        first = f"({after}" if after else "-" if since is None else str(int(since.timestamp() * 1000))
        with self._redis.calls(f"read the {name} stream") as redis:
            stream = f"{self._prefix}{'searches' if name == 'search' else 'events'}"
            page = cast(list[tuple[str, dict[str, str]]], redis.xrange(stream, min=first, count=limit))
        found = [json.loads(fields[name]) for _, fields in page]
        return [{**one, "time": datetime.fromisoformat(one["time"])} for one in found], page[-1][0] if page else after

    def _item_keys(self) -> list[str]:
        return [self._prefix + "items", self._prefix + "item_revisions"]

    def _rules_keys(self) -> list[str]:
        return [self._prefix + "rules", self._prefix + "rules_written"]


def _rules_version(version: int, entry: str, body: str) -> RulesVersion:
    time, who = json.loads(entry)
    return RulesVersion(version, datetime.fromisoformat(time), who, body)


def _refuse_newer(found: str | None) -> None:
    """Raise if a store holds keys of a newer format than this version knows."""
    if found is not None and not (found.isdecimal() and int(found) <= _FORMAT):
        raise StoreError(
            f"Redis: written by a newer onesearch (format {found:.20}, known up to {_FORMAT}); upgrade onesearch or "
            "choose another database"
        )


def _to_json(record: Any) -> str:
    """A dataclass as JSON, without what was typed; its time as ISO text."""
    values = {**asdict(record), "time": record.time.isoformat()}
    values.pop("typed", None)
    return json.dumps(values, ensure_ascii=False)
