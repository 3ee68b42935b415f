"""Thoughts beside the engine of a trained run."""

import json
import subprocess
import sys
import time
from pathlib import Path

from fastapi.testclient import TestClient
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.pipeline import settings_of
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.shopper_keywords import shoppers_to_calibrate
from onesearch.search.engine import SearchEngine
from onesearch.serving.http_app import create_app
from onesearch.serving.keyword_coverage import ThoughtSource
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.understanding.thought_cache import SqliteThoughts


def results(engine: SearchEngine, queries: list[str], tmp_path: Path, source: ThoughtSource | None = None) -> list:
    service = create_app(engine, SqliteStore(tmp_path / "store.sqlite3"), ServingSettings(), thoughts=source)
    with TestClient(service) as client:
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


def test_shoppers_of_the_training_part_get_keywords_of_their_own(tiny_run: Path, tmp_path: Path):
    path = tmp_path / "thoughts.sqlite3"
    arguments = [
        "understand",
        str(tiny_run),
        "--producer",
        "market",
        "--cache",
        str(path),
        "--calibrate",
        "15",
        "--json",
    ]
    first, second = (json.loads(CliRunner().invoke(app, arguments).stdout)["personal"] for _ in range(2))
    assert (first["asked"], first["answered"], first["unfinished"]) == (15, 15, 0)
    assert (second["cached"], second["calls"]) == (15, 0)
    run_data = RunData(tiny_run)
    shoppers = shoppers_to_calibrate(run_data, run_data.thoughts, 15, settings_of(tiny_run).seed)
    assert len({query for query, _ in shoppers}) > 1
    cache = SqliteThoughts(path)
    for key, (thought, history) in shoppers.items():
        assert thought.analysis.query_type != "plain" and (history.queries or history.items)
        found = cache.get_personal(*key, "llm:stand-in", "1")
        assert found is None or set(found) <= set(thought.keywords)
    fewer = shoppers_to_calibrate(run_data, run_data.thoughts, 5, settings_of(tiny_run).seed)
    assert list(fewer) == list(shoppers)[:5]
