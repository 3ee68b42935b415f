"""A connection to Redis, through the optional extra ``redis``, for the stores that several servers share."""

from typing import TYPE_CHECKING

from onesearch.common.extras import MissingExtraError, from_extra

if TYPE_CHECKING:
    from redis import Redis


def redis_client(url: str, problem: type[Exception], timeout: float) -> "tuple[Redis, tuple[type[Exception], ...]]":
    """A client that connects when it is first asked and waits ``timeout`` seconds, and the errors that it raises.

    Raises:
        problem: the Redis client is not installed, or ``url`` is not a Redis address.
    """
    try:
        with from_extra("redis"):
            import redis
    except MissingExtraError as error:
        raise problem(str(error)) from error
    try:
        client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=timeout, socket_connect_timeout=timeout
        )
    except ValueError as error:
        raise problem(f"not a Redis address: {error}") from error
    return client, (redis.RedisError, OSError)
