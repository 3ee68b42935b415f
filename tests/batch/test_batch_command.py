"""The command: what it does it does by `map_table`; what is wrong it says in a line."""

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.batch.small_run import small_run
from typer.testing import CliRunner

from onesearch.batch import search_jobs
from onesearch.batch.run_jobs import RunJob
from onesearch.cli import app, batch_command
from onesearch.pipeline import thought_job
from small_engine import ITEMS


@pytest.fixture(autouse=True)
def logger_kept():
    """Commands set the package's logger up for a terminal; other tests read it through pytest."""
    logger = logging.getLogger("onesearch")
    before = logger.level, list(logger.handlers), logger.propagate
    yield
    logger.setLevel(before[0])
    logger.handlers, logger.propagate = before[1], before[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "small")


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["batch", *map(str, arguments)])


def test_items_are_encoded_and_coded_by_commands(run, tmp_path, monkeypatch):
    monkeypatch.delenv("ONESEARCH_DEBUG", raising=False)
    ITEMS.select("item_id", "title", "brand", "category").write_parquet(tmp_path / "items.parquet")
    vectors, sids = tmp_path / "vectors", tmp_path / "sids"
    done = invoke("encode", run, tmp_path / "items.parquet", vectors, "--rows", 25)
    assert done.exit_code == 0 and f"{vectors}: 2 parts, 0 were there, 40 rows done now, " in done.output
    done = invoke("sids", run, vectors, sids)
    assert done.exit_code == 0 and "2 parts, 0 were there, 40 rows" in done.output
    found = pl.concat([pl.read_parquet(path) for path in sorted(sids.glob("*.parquet"))])
    assert np.array_equal(found["sid"].to_numpy(), np.load(run / "khqe" / "item_sids.npy", allow_pickle=False))
    assert "2 parts, 2 were there, 0 rows done now\n" in invoke("sids", run, vectors, sids).output
    # Other work there is an error in a line.
    done = invoke("encode", run, tmp_path / "items.parquet", sids)
    assert done.exit_code == 1 and "holds parts of other work, which differs in function" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_reach_the_work(monkeypatch, tmp_path):
    asked = []
    job = RunJob(len, {}, {}, [], 1, "")
    monkeypatch.setattr(search_jobs, "search_job", lambda *options: (asked.append(options), job)[1])
    monkeypatch.setattr(batch_command, "_do", lambda *options: asked.append(options))
    options = ("--k", 3, "--model", "v1", "--measured", "--device", "cpu", "--workers", 4, "--engine", "ray")
    assert invoke("search", "run", "q", "out", *options, "--address", "ray://h:1", "--rows", 7).exit_code == 0
    assert asked == [
        (Path("run"), 3, "v1", True, "cpu"),
        (job, Path("q"), Path("out"), 4, batch_command.EngineName.ray, "ray://h:1", 7),
    ]


def test_who_thinks_is_who_was_asked_for(monkeypatch, tmp_path):
    asked = []
    job = RunJob(len, {}, {}, [], 1, "")
    monkeypatch.setattr(thought_job, "understand_job", lambda *options: (asked.append(options), job)[1])
    monkeypatch.setattr(batch_command, "_do", lambda *options: asked.append(options))
    monkeypatch.setenv("ONESEARCH_LLM_BASE_URL", "http://there/v1")
    given = ("--producer", "llm-keywords", "--response-format", "json_object", "--concurrency", 3, "--encoder", "e")
    assert invoke("understand", "run", "q", "out", *given, "--workers", 4, "--rows", 7).exit_code == 0
    assert asked == [
        (Path("run"), "llm-keywords", "e", "http://there/v1", "json_object", 3),
        (job, Path("q"), Path("out"), 4, batch_command.EngineName.local, None, 7),
    ]
    assert invoke("understand", "run", "q", "out").exit_code == 2  # nobody thinks by default: it may cost


def test_an_address_is_one_of_ray(run, tmp_path):
    done = invoke("encode", run, tmp_path, tmp_path / "out", "--address", "ray://h:1")
    assert done.exit_code == 1 and "give --engine ray as well" in done.stderr


def test_a_run_that_is_not_there_is_named(tmp_path):
    for name in ("encode", "sids", "search"):
        done = invoke(name, tmp_path / "nowhere", tmp_path, tmp_path / "out")
        assert done.exit_code == 1 and "nowhere" in done.stderr
