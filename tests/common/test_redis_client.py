import sys

import pytest

from onesearch.common.redis_client import RedisDatabase


def test_problems_are_told_as_the_callers_own(monkeypatch):
    pytest.importorskip("redis")
    with pytest.raises(LookupError, match="not a Redis address"):
        RedisDatabase("http://127.0.0.1", 1, LookupError)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(LookupError, match="redis is not installed"):
        RedisDatabase("redis://127.0.0.1", 1, LookupError)


def test_a_server_that_is_down_shows_when_it_is_asked():
    pytest.importorskip("redis")
    database = RedisDatabase("redis://127.0.0.1:1/0", 0.2, LookupError)
    with pytest.raises(LookupError, match="could not count the events"), database.calls("count the events") as client:
        client.ping()
    database.close()
