"""A Redis server, through the optional extra ``redis``, for the stores that several servers share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onesearch.common.extras import MissingExtraError, from_extra

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


class RedisDatabase:
    """A connection that is made when Redis is first asked: one that is down shows then.

    Attributes:
        client: for scripts, which run as a whole: a server that dies in between leaves nothing half done.
    """

    def __init__(self, url: str, timeout: float, problem: type[Exception]) -> None:
        """``timeout``: seconds for one call. ``problem``: the error that every failure is turned into.

        Raises:
            problem: the Redis client is not installed, or ``url`` is not a Redis address.
        """
        try:
            with from_extra("redis"):
                import redis
        except MissingExtraError as error:
            raise problem(str(error)) from error
        try:
            # Texts, not bytes; a server that is down fails within the timeout rather than never.
            self.client: Redis = redis.Redis.from_url(
                url, decode_responses=True, socket_timeout=timeout, socket_connect_timeout=timeout
            )
        except ValueError as error:
            raise problem(f"not a Redis address: {error}") from error
        self._errors, self._problem = (redis.RedisError, OSError), problem

    @contextmanager
    def calls(self, doing: str) -> "Iterator[Redis]":
        """The client for single calls. ``doing``: what is done, for the message when it fails."""
        try:
            yield self.client
        except self._errors as error:
            raise self._problem(f"Redis: could not {doing}: {error}") from error

    @contextmanager
    def transaction(self, doing: str) -> "Iterator[Pipeline]":
        """Calls that are collected and run together by the pipeline's ``execute``."""
        with self.calls(doing) as client, client.pipeline(transaction=True) as pipe:
            yield pipe

    def close(self) -> None:
        """Release connections."""
        self.client.close()
