"""A job of thoughts depends on who thinks over what, and holds no secret."""

import gc
from contextlib import contextmanager

import pyarrow as pa
import pytest

from onesearch.batch.part_worker import name_of
from onesearch.common.artefact import write_json, write_manifest
from onesearch.pipeline import thought_job
from onesearch.pipeline.thought_job import query_thoughts, understand_job
from onesearch.understanding.log_expert import LogExpert


@pytest.fixture
def run(data, monkeypatch):
    for name in ("ONESEARCH_LLM_BASE_URL", "ONESEARCH_LLM_MODEL", "ONESEARCH_LLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for stage in ("khqe", "encoder"):
        write_manifest(data / stage, {"fingerprint": stage})
    return data


def test_a_job_is_of_what_its_producer_reads(run):
    read = {kind: set(understand_job(run, kind).settings["run"]) - {"onesearch"} for kind in ("llm", "market")}
    assert read == {"llm": {"data"}, "market": {"data"}}
    assert set(understand_job(run, "log-expert").arguments["marks"]) == {"data", "khqe", "onesearch"}
    assert set(understand_job(run, "encoder").arguments["marks"]) == {"data", "khqe", "encoder", "onesearch"}
    (run / "khqe" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="khqe is not a finished stage"):
        understand_job(run, "log-expert")


def test_other_thinkers_are_other_work_and_other_addresses_are_not(run, tmp_path, monkeypatch):
    def settings(*given, **more):
        return repr(understand_job(run, *given, **more).settings)

    model = tmp_path / "model"
    write_json(model / "config.json", {"size": 1})
    own = settings("encoder")
    first = settings("encoder", str(model))
    write_json(model / "config.json", {"size": 2})
    other = settings("encoder", str(model))
    kinds = [settings(kind) for kind in ("log-expert", "market", "llm", "llm-keywords")]
    kinds.append(settings("llm", response_format="json_object"))
    monkeypatch.setenv("ONESEARCH_LLM_MODEL", "another")
    assert len({own, first, other, *kinds, settings("llm")}) == 9
    there = settings("llm", base_url="http://there/v1", concurrency=3)
    assert there == settings("llm", base_url="http://elsewhere/v1", concurrency=4)


def test_workers_are_told_of_the_model_and_never_of_a_key(run, monkeypatch):
    monkeypatch.setenv("ONESEARCH_LLM_MODEL", "Small-1B")
    monkeypatch.setenv("ONESEARCH_LLM_API_KEY", "sk-secret")
    monkeypatch.setenv("ONESEARCH_LLM_BASE_URL", "http://there/v1")
    job = understand_job(run, "llm", concurrency=3)
    assert job.arguments["limits"] == {
        "model": "Small-1B",
        "base_url": "http://there/v1",
        "response_format": "json_schema",
        "concurrency": 3,
    }
    assert "sk-secret" not in repr(job) and "there" not in repr(job.settings)
    with pytest.raises(ValueError, match="holds a password") as told:
        understand_job(run, "llm", base_url="http://me:sk-secret@there/v1")
    assert "sk-secret" not in str(told.value)
    # Others are told nothing, whatever the environment says.
    assert understand_job(run, "log-expert").arguments["limits"] == {}


def test_rows_of_a_part_are_thought_about_by_whoever_is_asked(run):
    job = understand_job(run, "log-expert")
    assert name_of(job.make) == "onesearch.pipeline.thought_job:query_thoughts" and job.columns == ["query"]
    function = job.make(**job.arguments)
    rows = function(pa.table({"query": ["Train 0", "train 0", None, "xyzzy"]})).to_pylist()
    assert [row["reason"] for row in rows] == [None, None, "no query", "no keywords"]
    assert rows[0]["keywords"] == rows[1]["keywords"] != [] and rows[0]["query"] == "Train 0"
    assert {(row["producer"], row["version"]) for row in rows} == {(LogExpert.name, LogExpert.version)}
    with pytest.raises(ValueError, match="has no column 'query'"):
        function(pa.table({"text": ["a"]}))


def test_a_run_that_changed_since_is_noticed_by_a_worker(run):
    job = understand_job(run, "log-expert")
    write_manifest(run / "khqe", {"seconds": 2.0})
    with pytest.raises(ValueError, match=r"changed since the work began \(khqe\)"):
        query_thoughts(**job.arguments)


def test_what_a_producer_needs_stays_open_while_it_thinks(run, monkeypatch):
    """A stand-in that ended when the function was made would answer nobody."""
    events = []

    @contextmanager
    def lent(kind, catalogue, limits, encoder, in_thread):
        assert kind == "market" and in_thread  # a worker may have no process of its own
        try:
            yield None
        finally:
            events.append("closed")

    monkeypatch.setattr(thought_job, "opened_producer", lent)
    job = understand_job(run, "market")
    function = job.make(**job.arguments)
    gc.collect()
    assert events == []
    del function
    gc.collect()
    assert events == ["closed"]
