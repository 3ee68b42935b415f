"""Both caches keep the same promises; SQLite's file format."""

import sqlite3
import threading

import pytest
from pydantic import create_model

from onesearch.understanding import thought_cache as cache_module
from onesearch.understanding.preference_calibration import HistoryTexts, inject
from onesearch.understanding.thought import Analysis, Thought
from onesearch.understanding.thought_cache import PERSONAL_SECONDS, CacheError, SqliteThoughts, history_fingerprint


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        self.now += 0.001
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def cache(request, tmp_path, clock):
    if request.param == "sqlite":
        found = SqliteThoughts(tmp_path / "deep" / "thoughts.sqlite3", clock)
    else:
        from onesearch.understanding.redis_thought_cache import RedisThoughts

        found = RedisThoughts(request.getfixturevalue("redis_url"), f"{tmp_path.name}:", clock)
    yield found
    found.close()


def thought(query="boots", keywords=("leather",), producer="p", version="1"):
    analysis = Analysis(intent="merchandise", topics=("hiking boots",))
    return Thought(query=query, analysis=analysis, keywords=keywords, producer=producer, version=version)


def test_thoughts_come_back_by_query_producer_and_version(cache):
    cache.put([thought(), thought("靴子"), thought("tent", producer="q")])
    cache.put([])
    assert cache.get_many(["boots", "靴子", "tent", ""], "p", "1") == {"boots": thought(), "靴子": thought("靴子")}
    assert cache.get_many(["boots"], "p", "2") == {} == cache.get_many([], "p", "1")
    assert set(cache.get_many(["  BOOTS ", "boots"], "p", "1")) == {"  BOOTS ", "boots"}, "by query as given"
    cache.put([thought(keywords=("suede",))])
    assert cache.get_many(["boots"], "p", "1")["boots"].keywords == ("suede",)


def test_many_thoughts_at_once(cache):
    many = [thought(f"boots {n}") for n in range(2500)]
    cache.put(many)
    assert cache.get_many([t.query for t in many], "p", "1") == {t.query: t for t in many}


def test_only_thoughts_of_steps_1_and_2_get_into_the_cache_of_queries(cache):
    personal = create_model("PersonalThought", __base__=Thought, history=(str, ...))
    with pytest.raises(TypeError, match="PersonalThought"):
        cache.put([personal(**thought().model_dump(), history="h")])
    for wrong in (inject(["leather"], ["evil"]), {"query": "boots"}, ("boots", ("leather",))):
        with pytest.raises(TypeError, match="steps 1 and 2 only"):
            cache.put([wrong])
    forged = Thought.model_construct(**{**dict(thought()), "keywords": ("k",) * 9})
    with pytest.raises(ValueError, match="keywords"):
        cache.put([thought("tent"), forged])
    assert cache.get_many(["boots", "tent"], "p", "1") == {}, "all or nothing"
    cache.put([thought()])
    cache.put_personal("boots", "h", "p", "1", ("suede",))
    assert cache.get_many(["boots"], "p", "1") == {"boots": thought()}


def test_personal_keywords_belong_to_query_and_history(cache):
    one, other = history_fingerprint(HistoryTexts(("sandals",))), history_fingerprint(HistoryTexts((), ("sandals",)))
    assert one != other and one == history_fingerprint(HistoryTexts(("sandals",)))
    cache.put_personal(" Boots", one, "p", "1", ("suede", "靴"))
    cache.put_personal("tent", one, "p", "1", ())
    assert cache.get_personal("boots", one, "p", "1") == ("suede", "靴")
    assert cache.get_personal("tent", one, "p", "1") == ()
    for key in (("boots", other, "p", "1"), ("boots", one, "q", "1"), ("boots", one, "p", "2"), ("x", one, "p", "1")):
        assert cache.get_personal(*key) is None
    with pytest.raises(ValueError, match="at most 8"):
        cache.put_personal("boots", one, "p", "1", ["k"] * 9)
    for wrong in (inject(["leather"], ["boots"]), "leather"):
        with pytest.raises(TypeError):
            cache.put_personal("boots", one, "p", "1", wrong)


def test_a_taken_query_comes_back_when_its_worker_was_killed(cache, clock):
    assert [cache.enqueue(query) for query in ("b", "a", " B ", "", "  ", "c")] == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]
    assert cache.take(2, lease=60) == ["b", "a"]
    assert cache.take(5, lease=60) == ["c"] and cache.take(5) == [] and not cache.enqueue("a")
    cache.done(["A"])
    cache.done([])
    clock.now += 61
    assert cache.take(5, lease=60) == ["b", "c"]
    cache.done(["b", "c"])
    clock.now += 61
    assert cache.take(5) == [] and cache.enqueue("a")


def test_released_queries_may_be_taken_at_once_and_done_ones_never(cache):
    for query in ("a", "b", "c", "d"):
        cache.enqueue(query)
    assert cache.take(3) == ["a", "b", "c"]
    cache.done(["c"])
    cache.failed("x", "malformed")
    assert cache.queue_state() == (1, 2, 1)
    cache.release([" A ", "c", "never queued"])
    cache.release([])
    assert cache.queue_state() == (2, 1, 1)
    assert cache.take(5) == ["d", "a"], "behind those that waited longer, without a lease"
    cache.release(["a"])
    assert cache.take(5) == ["a"]


def test_what_waits_or_is_in_work_is_told(cache):
    for query in ("waits", "in work", "was done"):
        cache.enqueue(query)
    assert cache.take(2) == ["waits", "in work"]
    cache.release(["waits"])
    cache.done(["was done"])
    asked = ["WAITS", "in work", "was done", "never", ""]
    assert cache.queued(asked) == {"WAITS", "in work"} and cache.queued([]) == set()


def test_failed_queries_do_not_wait_again_until_somebody_answers_them(cache):
    cache.enqueue("boots")
    cache.failed("Boots", "off the catalogue")
    cache.failed("a", "first")
    cache.failed("a", "malformed")
    assert cache.rejects() == [("a", "malformed"), ("boots", "off the catalogue")]
    assert cache.take(5) == [] and not cache.enqueue("boots")
    cache.put([thought()])
    assert cache.rejects() == [("a", "malformed")] and cache.enqueue("boots")


def test_a_full_queue_takes_no_more(cache, monkeypatch):
    modules = [cache_module]
    if type(cache).__name__ == "RedisThoughts":
        from onesearch.understanding import redis_thought_cache as redis_cache

        modules.append(redis_cache)
    for module in modules:
        monkeypatch.setattr(module, "MOST_QUEUED", 2)
    assert [cache.enqueue(query) for query in ("a", "b", "c")] == [True, True, False]
    cache.done(["a"])
    assert cache.enqueue("c")


def test_broken_characters_harm_nothing(cache):
    assert cache.enqueue("boots \ud800") and cache.take(1) == ["boots ?"]
    assert cache.get_many(["\udfff"], "p", "1") == {}
    assert cache.get_personal("\udfff", "h", "p", "1") is None


def test_threads_take_each_query_once(cache):
    for n in range(100):
        cache.enqueue(f"q{n}")
    taken, errors = [], []

    def work():
        try:
            while part := cache.take(3):
                taken.extend(part)
                cache.put([thought(query) for query in part])
                cache.done(part)
        except CacheError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and sorted(taken) == sorted(f"q{n}" for n in range(100))
    assert len(cache.get_many(taken, "p", "1")) == 100


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[" * 5000,
        '{"query": "boots"}',
        thought("tent").model_dump_json(),
        thought(version="2").model_dump_json(),
        thought().model_dump_json()[:-1] + ',"personal":true}',
        thought().model_dump_json().replace("merchandise", "other"),
        b"\xff\x00",
    ],
)
def test_rows_that_cannot_be_read_are_misses(tmp_path, body):
    path = tmp_path / "thoughts.sqlite3"
    cache = SqliteThoughts(path)
    cache.put([thought(), thought("other")])
    cache.put_personal("boots", "h", "p", "1", ("leather",))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE thoughts SET body = ? WHERE query = 'boots'", (body,))
        db.execute("UPDATE personal SET keywords = ?", (body,))
    assert cache.get_many(["boots", "other"], "p", "1") == {"other": thought("other")}
    assert cache.get_personal("boots", "h", "p", "1") is None
    cache.put([thought()])
    assert cache.get_many(["boots"], "p", "1") == {"boots": thought()}


def test_redis_rows_that_cannot_be_read_are_misses(redis_url, tmp_path):
    import redis

    from onesearch.understanding.redis_thought_cache import RedisThoughts

    cache = RedisThoughts(redis_url, f"{tmp_path.name}:")
    redis.Redis.from_url(redis_url).hset(f'{tmp_path.name}:thoughts:["p", "1"]', "boots", "{")
    assert cache.get_many(["boots"], "p", "1") == {}


def test_personal_keywords_are_forgotten(tmp_path, clock):
    cache = SqliteThoughts(tmp_path / "thoughts.sqlite3", clock)
    cache.put_personal("boots", "h", "p", "1", ("leather",))
    clock.now += PERSONAL_SECONDS + 1
    assert cache.get_personal("boots", "h", "p", "1") is None
    cache.put_personal("tent", "h", "p", "1", ("leather",))
    with sqlite3.connect(cache.path) as db:
        assert db.execute("SELECT count(*) FROM personal").fetchone() == (1,)


def test_sqlite_survives_reopening_and_two_at_once(tmp_path):
    path = tmp_path / "thoughts.sqlite3"
    first, second = SqliteThoughts(path), SqliteThoughts(path)
    first.put([thought()])
    first.enqueue("q")
    assert second.get_many(["boots"], "p", "1") and second.take(1) == ["q"] and first.take(1) == []
    first.close()
    second.close()
    assert SqliteThoughts(path).get_many(["boots"], "p", "1")
    with pytest.raises(CacheError, match="closed"):
        first.take(1)


@pytest.mark.parametrize("gone", [("",), ("", "-wal", "-shm")])
def test_nothing_is_written_into_a_deleted_file(tmp_path, gone):
    path = tmp_path / "thoughts.sqlite3"
    one, other = SqliteThoughts(path), SqliteThoughts(path)
    one.put([thought()])
    assert one.enqueue("before") and other.queue_state().waiting == 1
    for ending in gone:
        path.with_name(path.name + ending).unlink(missing_ok=True)
    assert one.enqueue("a") and other.enqueue("b") and other.get_many(["boots"], "p", "1") == {}
    other.close()  # must not take the new file's log with it
    assert one.enqueue("c") and SqliteThoughts(path).take(5) == ["a", "b", "c"]
    path.unlink()
    path.mkdir()
    with pytest.raises(CacheError, match="could not queue a query"):
        one.enqueue("d")
    path.rmdir()
    assert one.enqueue("d")
    one.close()
    with pytest.raises(CacheError, match="closed"):
        one.enqueue("e")


def test_sqlite_files_that_are_not_ours(tmp_path):
    (tmp_path / "text").write_text("no database, but long enough to be read as one" * 100)
    with pytest.raises(CacheError, match="not a database"):
        SqliteThoughts(tmp_path / "text")
    SqliteThoughts(tmp_path / "newer")._db.close()
    with sqlite3.connect(tmp_path / "newer") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(CacheError, match="newer onesearch"):
        SqliteThoughts(tmp_path / "newer")


def test_redis_says_what_is_missing(monkeypatch):
    from onesearch.understanding.redis_thought_cache import RedisThoughts

    with pytest.raises(CacheError, match="not a Redis address"):
        RedisThoughts("http://host")
    with pytest.raises(CacheError, match="could not read thoughts"):
        RedisThoughts("redis://127.0.0.1:1").get_many(["boots"], "p", "1")
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(CacheError, match=r'pip install -e "\.\[redis\]"'):
        RedisThoughts("redis://host")


def test_versions_and_producers_lie_side_by_side(cache):
    cache.put([thought(keywords=(name,), producer=p, version=v) for name, p, v in (("a", "p", "1"), ("b", "p", "2"))])
    cache.put([thought(keywords=("c",), producer="q")])
    found = [cache.get_many(["boots"], *key)["boots"].keywords for key in (("p", "1"), ("p", "2"), ("q", "1"))]
    assert found == [("a",), ("b",), ("c",)]


def test_a_release_of_a_waiting_query_keeps_its_place(cache):
    assert cache.enqueue("a") and cache.enqueue("b")
    cache.release(["a"])
    assert cache.take(2) == ["a", "b"]


def test_every_part_of_a_history_is_in_its_fingerprint():
    histories = [
        HistoryTexts(),
        HistoryTexts(("a",)),
        HistoryTexts((), ("a",)),
        HistoryTexts((), (), "a"),
        HistoryTexts(("a", "b")),
        HistoryTexts(("b", "a")),
    ]
    assert len({history_fingerprint(history) for history in histories}) == len(histories)
