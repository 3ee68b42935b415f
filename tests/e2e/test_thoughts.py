"""Thoughts beside the engine of a trained run."""

import subprocess
import sys
import time
from pathlib import Path

from fastapi.testclient import TestClient

from onesearch.search.engine import SearchEngine
from onesearch.serving.http_app import create_app
from onesearch.serving.keyword_coverage import ThoughtSource
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.understanding.thought_cache import SqliteThoughts


def results(engine: SearchEngine, queries: list[str], tmp_path: Path, source: ThoughtSource | None = None) -> list:
    app = create_app(engine, SqliteStore(tmp_path / "store.sqlite3"), ServingSettings(), thoughts=source)
    with TestClient(app) as client:
        return [client.post("/search", json={"query": query, "record": True}).json()["results"] for query in queries]


def test_searched_queries_are_thought_about_by_the_markets_stand_in(
    tiny_run: Path, engine: SearchEngine, tmp_path: Path
):
    path, queries = tmp_path / "thoughts.sqlite3", engine.example_queries(5)
    plain = results(engine, queries, tmp_path)
    source = ThoughtSource(lambda: SqliteThoughts(path), "llm:stand-in", "1")
    assert results(engine, queries, tmp_path, source) == plain
    cache = SqliteThoughts(path)
    assert cache.queue_state().waiting == len(set(queries))
    arguments = ["understand", str(tiny_run), "--producer", "market", "--cache", str(path), "--watch"]
    worker = subprocess.Popen([sys.executable, "-c", "from onesearch.cli import app; app()", *arguments])
    try:
        end = time.monotonic() + 120
        while cache.queue_state()[:2] != (0, 0) and time.monotonic() < end:
            time.sleep(0.05)
        worker.terminate()
        assert worker.wait(60) == 0
    finally:
        worker.kill()
    known = cache.get_many(queries, "llm:stand-in", "1")
    assert set(known) | {query for query, _ in cache.rejects()} == set(queries) and known
    assert results(engine, queries, tmp_path, source) == plain
