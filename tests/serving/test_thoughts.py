"""Thoughts beside a service: unseen queries are queued once, coverage rises, and nothing that breaks is felt."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from serving_fakes import FakeEngine, FlakyStore, catalogue
from typer.testing import CliRunner

from onesearch.cli import app as command_line
from onesearch.data.dataset import Dataset
from onesearch.data.records import PageView, items_frame, page_views_frame
from onesearch.serving import keyword_coverage as coverage_module
from onesearch.serving.http_app import create_app
from onesearch.serving.keyword_coverage import ThoughtSource, measure_coverage
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import Search, Traffic
from onesearch.understanding.thought import Analysis, Thought
from onesearch.understanding.thought_cache import CacheError, SqliteThoughts

PRODUCER = ("log-expert", "1")
QUERIES = ("red lamp", "blue shoe", "mug", "green jacket")


def thought(query, *keywords, version="1"):
    analysis = Analysis(intent="merchandise")
    return Thought(query=query, analysis=analysis, keywords=keywords, producer="log-expert", version=version)


def source_of(path):
    return ThoughtSource(lambda: SqliteThoughts(path), *PRODUCER)


@contextmanager
def service(tmp_path, source, engine=None):
    """A running service that looks queries up at once."""
    store = FlakyStore(tmp_path / "store.sqlite3")
    config = ServingSettings(thoughts_seconds=0.02)
    with TestClient(create_app(engine or FakeEngine(catalogue()), store, config, thoughts=source)) as client:
        yield client


def answers(client, *queries):
    """Results without what differs from call to call."""
    found = []
    for query in queries:
        answer = client.post("/search", json={"query": query, "user": "ann"})
        assert answer.status_code == 200
        body = answer.json()
        found.append((body["results"], body["degraded"]))
    return found


@pytest.fixture
def expected(tmp_path):
    """What a service without thoughts answers to `QUERIES`."""
    (tmp_path / "plain").mkdir()
    with service(tmp_path / "plain", None) as client:
        return answers(client, *QUERIES)


def measured(client, name):
    """A metric's values by label value."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {next(iter(sample.labels.values()), ""): sample.value for sample in samples}


def searches(client):
    return measured(client, "onesearch_thought_searches_total")


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "thoughts.sqlite3"


def test_an_unseen_query_is_queued_once_and_coverage_is_counted(tmp_path, path):
    cache = SqliteThoughts(path)
    cache.put([thought("red lamp", "lamp"), thought("mug"), thought("blue shoe", "shoe", version="0")])
    with service(tmp_path, source_of(path)) as client:
        for query in ("Red  lamp", "red lamp", "mug", "blue shoe", "Blue shoe", "BLUE SHOE ", "", "  "):
            answers(client, query)
        client.post("/search", json={"query": "never recorded", "record": False})
        client.post("/search", json={"query": "other method", "method": "bm25"})
        wait_for(lambda: sum(searches(client).values()) == 6)
        assert searches(client) == {"keywords": 2, "no_keywords": 1, "none": 3}
        assert measured(client, "onesearch_thoughts_queued_total") == {"": 1}
        assert measured(client, "onesearch_thought_queue") == {"waiting": 1, "in_work": 0, "set_aside": 0}
        assert client.get("/healthz").json()["status"] == "ready"
        taken = cache.take(10)
        assert taken == ["blue shoe"], "a thought of another version is none"
        answers(client, "blue shoe")
        wait_for(lambda: searches(client)["none"] == 4)
        assert cache.queue_state() == (0, 1, 0) and cache.take(10) == [], "while somebody works on it"


def test_the_state_of_a_query_is_recorded_with_its_search(tmp_path, path):
    """The engine is at work until the cache has answered, as one that takes milliseconds."""
    cache = SqliteThoughts(path)
    cache.put([thought("red lamp", "lamp"), thought("mug")])
    engine = FakeEngine(catalogue())
    source = ThoughtSource(lambda: SqliteThoughts(path), *PRODUCER, lambda: {"blue shoe"})
    with service(tmp_path, source, engine) as client:
        coverage, ask = client.app.state.service.coverage, client.app.state.service.coverage.ask

        def wait_for_state(query):
            asked = ask(query)
            wait_for(lambda: asked is None or asked.state != "unknown")
            return asked

        coverage.ask = wait_for_state
        answers(client, "Red  lamp", "mug", "blue shoe", "green jacket", "")
        wait_for(lambda: measured(client, "onesearch_thoughts_queued_total").get("", 0) == 2)
        answers(client, "green jacket", "lmap")
        client.post("/search", json={"query": "never recorded", "record": False})
        client.post("/search", json={"query": "other method", "method": "bm25"})
        states = {"distilled": 1, "cached": 1, "no_keywords": 1, "none": 1, "queued": 1, "unknown": 1}
        assert measured(client, "onesearch_searches_by_thought_total") == states
    recorded = SqliteStore(tmp_path / "store.sqlite3").searches()[0]
    assert [(one.query, one.thought) for one in recorded] == [
        ("Red  lamp", "cached"),
        ("mug", "no_keywords"),
        ("blue shoe", "distilled"),
        ("green jacket", "none"),
        ("", None),
        ("green jacket", "queued"),
        ("lamp", "unknown"),  # corrected: nobody asked for it
    ]


def test_what_was_noted_last_is_looked_up_before_the_service_ends(tmp_path, path):
    store = FlakyStore(tmp_path / "store.sqlite3")
    config = ServingSettings(thoughts_seconds=3600)
    with TestClient(create_app(FakeEngine(catalogue()), store, config, thoughts=source_of(path))) as client:
        answers(client, "red lamp")
    assert SqliteThoughts(path).take(5) == ["red lamp"]


def test_letters_on_the_way_to_a_query_are_not_thought_about(tmp_path, path, monkeypatch):
    monkeypatch.setattr(coverage_module, "TYPING_SECONDS", 60.0)
    typist, other = {"X-OneSearch-User": "typist"}, {"X-OneSearch-User": "other"}
    with service(tmp_path, source_of(path)) as client:
        # By two shoppers, one of whom began to look for something else.
        for text in ("m", "mu", "mug"):
            client.post("/indexes/a/search", json={"q": text}, headers=typist)
            client.post("/indexes/a/search", json={"q": {"mug": "lamp"}.get(text, text)}, headers=other)
        client.post("/indexes/a/search", json={"q": "drill"})  # nobody knows whose letters these are
    assert set(SqliteThoughts(path).take(9)) == {"mug", "mu", "lamp", "drill"}


def test_what_was_typed_is_thought_about_once_nobody_goes_on(tmp_path, path, monkeypatch):
    monkeypatch.setattr(coverage_module, "TYPING_SECONDS", 0.1)
    with service(tmp_path, source_of(path)) as client:
        client.post("/indexes/a/search", json={"q": "mug"}, headers={"X-OneSearch-User": "typist"})
        wait_for(lambda: SqliteThoughts(path).queued(["mug"]) == {"mug"})


def test_without_a_cache_nothing_is_measured(tmp_path):
    with service(tmp_path, None) as client:
        answers(client, "lamp")
        assert searches(client) == {} and client.get("/healthz").json()["status"] == "ready"


def test_without_a_cache_no_state_is_recorded(tmp_path):
    with service(tmp_path, None) as client:
        answers(client, "lamp")
        assert measured(client, "onesearch_searches_by_thought_total") == {}
    assert [one.thought for one in SqliteStore(tmp_path / "store.sqlite3").searches()[0]] == [None]


def test_a_search_does_not_wait_for_the_cache(tmp_path, path, expected):
    """The cache hangs for as long as the test lasts; the searches come back all the same."""
    hanging, asked = threading.Event(), threading.Event()

    class Hanging(SqliteThoughts):
        def get_many(self, *arguments):
            asked.set()
            hanging.wait(120)
            return super().get_many(*arguments)

    with service(tmp_path, ThoughtSource(lambda: Hanging(path), *PRODUCER)) as client:
        assert asked.wait(120)
        assert answers(client, *QUERIES) == expected
        assert client.get("/healthz").status_code == 200 and searches(client) == {}
        hanging.set()
        wait_for(lambda: searches(client) == {"none": len(QUERIES)})


def test_a_cache_that_breaks_and_comes_back(tmp_path, path, expected):
    SqliteThoughts(path).close()
    with service(tmp_path, source_of(path)) as client:
        answers(client, "mug")
        wait_for(lambda: searches(client) == {"none": 1})
        other = sqlite3.connect(path)
        other.executescript("ALTER TABLE thoughts RENAME TO gone")
        assert answers(client, *QUERIES) == expected, "no part of the answer is missing"
        wait_for(lambda: client.get("/healthz").json()["status"] == "degraded")
        (reason,) = client.get("/healthz").json()["reasons"]
        assert reason == "thoughts: CacheError, see the log", "its words may hold a path"
        assert client.get("/healthz").status_code == 200
        assert measured(client, "onesearch_thought_failures_total")[""] >= 1
        other.executescript("ALTER TABLE gone RENAME TO thoughts")
        wait_for(lambda: client.get("/healthz").json()["status"] == "ready")
        wait_for(lambda: searches(client) == {"none": 1 + len(QUERIES)})
    assert sorted(SqliteThoughts(path).take(10)) == sorted(QUERIES), "what was searched meanwhile is queued"


def test_a_cache_that_cannot_be_opened_keeps_no_search_from_being_answered(tmp_path, path, expected):
    path.mkdir()
    with service(tmp_path, source_of(path)) as client:
        wait_for(lambda: client.get("/healthz").json()["status"] == "degraded")
        assert answers(client, *QUERIES) == expected
        path.rmdir()
        wait_for(lambda: searches(client) == {"none": len(QUERIES)})


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"x" * 8192), lambda path: path.write_bytes(b"")])
def test_a_file_that_is_overwritten_under_the_service(tmp_path, path, expected, spoil):
    SqliteThoughts(path).close()
    with service(tmp_path, source_of(path)) as client:
        answers(client, "mug")
        wait_for(lambda: searches(client) == {"none": 1})
        spoil(path)
        assert answers(client, *QUERIES) == expected
        for file in tmp_path.glob(f"{path.name}*"):
            file.unlink()  # as one mends it
        assert answers(client, *QUERIES) == expected
        wait_for(lambda: searches(client) == {"none": 1 + 2 * len(QUERIES)})
        assert client.get("/healthz").json()["status"] == "ready"


def test_notes_are_bounded_while_the_cache_is_down(tmp_path, monkeypatch, path):
    monkeypatch.setattr(coverage_module, "MOST_NOTED", 3)

    def broken():
        raise CacheError("disk on fire")

    with service(tmp_path, ThoughtSource(broken, *PRODUCER)) as client:
        answers(client, *(f"lamp {n}" for n in range(10)), "lamp 0")
        wait_for(lambda: searches(client).get("unknown", 0) >= 7)
        assert len(client.app.state.service.coverage._noted) <= 3


@pytest.mark.redis
def test_a_redis_that_is_stopped(tmp_path, expected):
    pytest.importorskip("redis", reason="the redis client is not installed")
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on this machine")
    from onesearch.understanding.redis_thought_cache import RedisThoughts

    command = [
        server,
        "--port",
        "0",
        "--unixsocket",
        str(tmp_path / "redis.sock"),
        "--dir",
        str(tmp_path),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]
    address = f"unix://{tmp_path / 'redis.sock'}"

    def started():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for((tmp_path / "redis.sock").exists)
        return process

    process = started()
    try:
        with service(tmp_path, ThoughtSource(lambda: RedisThoughts(address), *PRODUCER)) as client:
            answers(client, "mug")
            wait_for(lambda: searches(client) == {"none": 1})
            process.kill()
            process.wait(30)
            (tmp_path / "redis.sock").unlink(missing_ok=True)
            assert answers(client, *QUERIES) == expected
            wait_for(lambda: "thoughts: CacheError" in "".join(client.get("/healthz").json()["reasons"]))
            process = started()
            wait_for(lambda: searches(client) == {"none": 1 + len(QUERIES)})
            assert client.get("/healthz").json()["status"] == "ready"
            assert sorted(RedisThoughts(address).take(10)) == sorted(QUERIES), "those queued before are still there"
    finally:
        process.kill()
        process.wait(30)


# -- with a worker ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path):
    items = catalogue()
    views = [
        PageView(str(n), item.title, shown=(item.item_id,), clicked=(item.item_id,)) for n, item in enumerate(items)
    ]
    Dataset.write(tmp_path / "shop", items_frame(items), page_views=page_views_frame(views))
    return tmp_path / "shop"


@pytest.fixture
def worker(shop, path):
    """Starts `onesearch understand --watch` in a process of its own."""
    running = []

    def start(*arguments):
        code = "from onesearch.cli import app; app()"
        command = ["understand", shop, "--cache", path, "--watch", "--lease", "1", *arguments]
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, command)], stderr=subprocess.PIPE, text=True)
        running.append(process)
        for line in process.stderr:  # wait until it watches
            if "Ctrl-C stops" in line:
                return process
        raise AssertionError("the worker ended")

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_the_worker_answers_and_coverage_rises_and_its_death_is_not_felt(tmp_path, path, worker, expected):
    with service(tmp_path, source_of(path)) as client:
        first = worker("--producer", "log-expert")
        assert answers(client, *QUERIES) == expected
        wait_for(lambda: searches(client).get("none", 0) == len(QUERIES))
        wait_for(lambda: SqliteThoughts(path).queue_state() == (0, 0, 0))
        assert answers(client, *QUERIES) == expected, "keywords change no answer"
        wait_for(lambda: searches(client) == {"none": len(QUERIES), "keywords": len(QUERIES)})
        first.kill()
        first.wait(30)
        more = tuple(f"{query} acme" for query in QUERIES)
        without = answers(client, *more)
        assert answers(client, *QUERIES) == expected
        wait_for(lambda: measured(client, "onesearch_thought_queue")["waiting"] == len(more))
        worker("--producer", "log-expert")
        wait_for(lambda: SqliteThoughts(path).queue_state() == (0, 0, 0))
        assert answers(client, *more) == without
        wait_for(lambda: searches(client).get("keywords", 0) == 3 * len(QUERIES))
    assert set(SqliteThoughts(path).get_many(more, *PRODUCER)) == set(more)


def test_a_language_model_that_is_down_is_not_felt(tmp_path, path, worker, expected):
    with service(tmp_path, source_of(path)) as client:
        worker("--base-url", f"http://127.0.0.1:{free_port()}/v1")
        assert answers(client, *QUERIES) == expected
        wait_for(lambda: searches(client) == {"none": len(QUERIES)})
        wait_for(lambda: measured(client, "onesearch_thought_queue")["in_work"] > 0)
        assert answers(client, *QUERIES) == expected and client.get("/healthz").json()["status"] == "ready"
        state = SqliteThoughts(path).queue_state()
        assert state.waiting + state.in_work == len(QUERIES) and state.set_aside == 0


# -- looking back ----------------------------------------------------------------------------------------------------


def at(day, hour):
    return datetime(2024, 1, day, hour, tzinfo=UTC)


def test_coverage_of_recorded_traffic(path):
    cache = SqliteThoughts(path)
    cache.put([thought("lamp", "lamp"), thought("mug")])
    traffic = [
        Traffic(at(1, 0), "LAMP", 2),
        Traffic(at(1, 0), "lamp", 1),
        Traffic(at(1, 0), "shoe", 1),
        Traffic(at(2, 0), "mug", 4),
        Traffic(at(3, 0), " ", 9),
    ]
    rows = measure_coverage(traffic, cache, *PRODUCER)
    assert [(row.start, row.keywords, row.no_keywords, row.none) for row in rows] == [
        (at(1, 0), 3, 0, 1),
        (at(2, 0), 0, 4, 0),
    ]
    assert [row.share for row in rows] == [0.75, 0.0]


def test_the_coverage_command(tmp_path, path):
    store = SqliteStore(tmp_path / "serving.sqlite3")
    for number, (day, hour, query) in enumerate([(1, 9, "lamp"), (1, 10, "lamp"), (1, 10, "shoe"), (2, 9, "")]):
        store.record_search(Search(str(number), None, query, at(day, hour), ()))
    store.close()
    SqliteThoughts(path).put([thought("lamp", "lamp")])

    def shown(span, *more):
        arguments = ["understand", str(tmp_path), "--cache", str(path), "--producer", "log-expert", "--coverage", span]
        result = CliRunner().invoke(command_line, [*arguments, *more])
        return [re.split(r"\s*│\s*", line.strip("│ \n")) for line in result.output.splitlines()], result

    lines, result = shown("day")
    assert result.exit_code == 0 and ["2024-01-01", "3", "66.7%", "2", "0", "1"] in lines, result.output
    assert "0 waiting" in result.output
    lines, _ = shown("hour")
    assert ["2024-01-01 09:00", "1", "100.0%", "1", "0", "0"] in lines
    assert ["2024-01-01 10:00", "2", "50.0%", "1", "0", "1"] in lines
    _, result = shown("day", "--store", str(tmp_path / "no.sqlite3"))
    assert result.exit_code == 1 and "no store" in result.output and not (tmp_path / "no.sqlite3").exists()


def test_coverage_as_it_was_recorded_by_command(tmp_path):
    store = SqliteStore(tmp_path / "serving.sqlite3")
    states = ["none", "queued", "cached", "distilled", None]
    for number, state in enumerate(states):
        store.record_search(Search(str(number), None, "lamp", at(1, 9 + number // 3), (), state))
    store.close()
    found = CliRunner().invoke(command_line, ["events", "coverage", str(tmp_path / "serving.sqlite3")])
    lines = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in found.output.splitlines()]
    assert found.exit_code == 0, found.output
    assert ["2024-01-01", "5", "25.0%", "50.0%", "1", "1", "0", "1", "1", "1"] in lines
    found = CliRunner().invoke(command_line, ["events", "coverage", str(tmp_path / "serving.sqlite3"), "--by", "hour"])
    lines = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in found.output.splitlines()]
    assert ["2024-01-01 10:00", "2", "100.0%", "100.0%", "1", "0", "0", "0", "0", "1"] in lines
