"""Thoughts that several servers share: Redis, through the optional extra ``redis``.

Keys, all under a prefix (default ``onesearch:``): ``thoughts:<producer, version>`` JSON by query; ``personal:<key>``
personalised keywords, which expire; ``thought_queue`` queries by the time from which they may be taken;
``thought_rejects`` reasons by query.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from onesearch.common.redis_client import RedisDatabase
from onesearch.understanding.thought import Thought
from onesearch.understanding.thought_cache import (
    LEASE_SECONDS,
    MOST_QUEUED,
    PERSONAL_SECONDS,
    CacheError,
    QueueState,
    cache_key,
    keywords_from_json,
    keywords_to_json,
    thought_to_row,
    thoughts_from_bodies,
)

_TIMEOUT_SECONDS: Final = 2.0
_PER_CALL: Final = 1000

# Scripts run as a whole: no query is taken twice, and the limit holds for all servers together.
_ENQUEUE: Final = """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
return redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
"""
_TAKE: Final = """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, query in ipairs(found) do redis.call('ZADD', KEYS[1], ARGV[2], query) end
return found
"""


class RedisThoughts:
    """A `ThoughtCache` in Redis. The servers' clocks are assumed to agree within a fraction of a lease."""

    def __init__(self, url: str, prefix: str = "onesearch:", clock: Callable[[], float] = time.time) -> None:
        """Connect lazily: a Redis that is down shows when it is first asked.

        Raises:
            CacheError: the Redis client is not installed, or ``url`` is not a Redis address.
        """
        self._redis = RedisDatabase(url, _TIMEOUT_SECONDS, CacheError)
        self._prefix, self._clock = prefix, clock
        self._enqueue = self._redis.client.register_script(_ENQUEUE)
        self._take = self._redis.client.register_script(_TAKE)
        self._queue, self._rejects = prefix + "thought_queue", prefix + "thought_rejects"

    def get_many(self, queries: Sequence[str], producer: str, version: str) -> dict[str, Thought]:
        """See `ThoughtCache.get_many`."""
        keys = {query: cache_key(query) for query in queries}
        wanted = list(dict.fromkeys(keys.values()))
        found: dict[str, str] = {}
        with self._redis.calls("read thoughts") as redis:
            for begin in range(0, len(wanted), _PER_CALL):
                part = wanted[begin : begin + _PER_CALL]
                bodies = cast(list[str | None], redis.hmget(self._thoughts(producer, version), part))
                found.update((key, body) for key, body in zip(part, bodies, strict=True) if body is not None)
        return thoughts_from_bodies(keys, found, producer, version)

    def put(self, thoughts: Sequence[Thought]) -> None:
        """See `ThoughtCache.put`."""
        rows = [thought_to_row(thought) for thought in thoughts]
        with self._redis.transaction("keep thoughts") as pipe:
            for query, producer, version, body in rows:
                pipe.hset(self._thoughts(producer, version), query, body)
                pipe.hdel(self._rejects, query)
            pipe.execute()

    def enqueue(self, query: str) -> bool:
        """See `ThoughtCache.enqueue`."""
        key = cache_key(query)
        if not key:
            return False
        with self._redis.calls("queue a query"):
            return bool(self._enqueue(keys=[self._queue, self._rejects], args=[key, repr(self._clock()), MOST_QUEUED]))

    def queued(self, queries: Sequence[str]) -> set[str]:
        """See `ThoughtCache.queued`."""
        found: set[str] = set()
        with self._redis.calls("look into the queue") as redis:
            for begin in range(0, len(queries), _PER_CALL):
                part = queries[begin : begin + _PER_CALL]
                scores = redis.zmscore(self._queue, [cache_key(query) for query in part])
                found.update(query for query, score in zip(part, scores, strict=True) if score is not None)
        return found

    def take(self, n: int, lease: float = LEASE_SECONDS) -> list[str]:
        """See `ThoughtCache.take`."""
        now = self._clock()
        with self._redis.calls("take from the queue"):
            return cast(list[str], self._take(keys=[self._queue], args=[repr(now), repr(now + lease), n]))

    def done(self, queries: Sequence[str]) -> None:
        """See `ThoughtCache.done`."""
        if queries:
            with self._redis.calls("take off the queue") as redis:
                redis.zrem(self._queue, *[cache_key(query) for query in queries])

    def release(self, queries: Sequence[str]) -> None:
        """See `ThoughtCache.release`."""
        if queries:
            now = self._clock()
            with self._redis.calls("put back into the queue") as redis:
                # Only what is still queued, and only to an earlier time.
                redis.zadd(self._queue, {cache_key(query): now for query in queries}, xx=True, lt=True)

    def failed(self, query: str, reason: str) -> None:
        """See `ThoughtCache.failed`."""
        key = cache_key(query)
        with self._redis.transaction("set a query aside") as pipe:
            pipe.zrem(self._queue, key)
            pipe.hset(self._rejects, key, reason)
            pipe.execute()

    def rejects(self) -> list[tuple[str, str]]:
        """See `ThoughtCache.rejects`."""
        with self._redis.calls("list failed queries") as redis:
            return sorted(cast(dict[str, str], redis.hgetall(self._rejects)).items())

    def queue_state(self) -> QueueState:
        """See `ThoughtCache.queue_state`."""
        with self._redis.transaction("count the queue") as pipe:
            now = repr(self._clock())
            pipe.zcount(self._queue, "-inf", now)
            pipe.zcount(self._queue, f"({now}", "+inf")
            pipe.hlen(self._rejects)
            return QueueState(*pipe.execute())

    def get_personal(self, query: str, history: str, producer: str, version: str) -> tuple[str, ...] | None:
        """See `ThoughtCache.get_personal`."""
        with self._redis.calls("read personalised keywords") as redis:
            body = cast(str | None, redis.get(self._personal(query, history, producer, version)))
        return None if body is None else keywords_from_json(body)

    def put_personal(self, query: str, history: str, producer: str, version: str, keywords: Sequence[str]) -> None:
        """See `ThoughtCache.put_personal`."""
        body = keywords_to_json(keywords)
        with self._redis.calls("keep personalised keywords") as redis:
            redis.set(self._personal(query, history, producer, version), body, ex=PERSONAL_SECONDS)

    def close(self) -> None:
        """See `ThoughtCache.close`."""
        self._redis.close()

    def _thoughts(self, producer: str, version: str) -> str:
        # JSON, since names may hold any separator.
        return self._prefix + "thoughts:" + json.dumps([producer, version])

    def _personal(self, query: str, history: str, producer: str, version: str) -> str:
        return self._prefix + "personal:" + json.dumps([cache_key(query), history, producer, version])
