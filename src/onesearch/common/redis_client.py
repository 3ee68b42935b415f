"""A connection to Redis, through the optional extra ``redis``, for the stores that several servers share."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis


def redis_client(url: str, problem: type[Exception], timeout: float) -> "tuple[Redis, tuple[type[Exception], ...]]":
    """A client that connects when it is first asked and waits ``timeout`` seconds, and the errors that it raises.

    Raises:
        problem: the Redis client is not installed, or ``url`` is not a Redis address.
    """
    try:
        import redis
    except ImportError as error:
        raise problem("Redis needs its client: pip install 'onesearch[redis]'") from error
    try:
        client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=timeout, socket_connect_timeout=timeout
        )
    except ValueError as error:
        raise problem(f"not a Redis address: {error}") from error
    return client, (redis.RedisError, OSError)
