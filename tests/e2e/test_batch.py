"""Tables through a finished run: what comes out is what the run itself has and answers."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from onesearch.batch.item_jobs import encode_job, sids_job
from onesearch.batch.run_jobs import run_job
from onesearch.batch.search_jobs import search_job
from onesearch.cli import app
from onesearch.common.artefact import read_json, write_manifest
from onesearch.data.text import normalise_query
from onesearch.pipeline.thought_job import understand_job
from onesearch.search.engine import load_engine
from onesearch.search.results import SearchRequest
from onesearch.understanding.producer_keys import producer_key
from onesearch.understanding.thought_cache import SqliteThoughts

pytestmark = pytest.mark.slow


def told(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])


def test_vectors_and_sids_of_a_run_are_its_own(tiny_run, tmp_path):
    items = tiny_run / "data" / "items.parquet"
    run_job(encode_job(tiny_run), items, tmp_path / "vectors", workers=2, most_rows=90)
    run_job(sids_job(tiny_run), items, tmp_path / "sids", workers=2, most_rows=70)
    vectors, sids = (
        np.load(tiny_run / "khqe" / f"item_{name}.npy", allow_pickle=False) for name in ("vectors", "sids")
    )
    assert np.array_equal(told(tmp_path / "vectors")["vector"].to_numpy(), vectors)
    assert np.array_equal(told(tmp_path / "sids")["sid"].to_numpy(), sids)


def test_searches_by_two_workers_are_those_of_one_and_of_the_engine(tiny_run, tmp_path):
    queries = pl.read_parquet(tiny_run / "data" / "test.parquet").select("query", "user_id")[:60]
    queries.write_parquet(tmp_path / "queries.parquet")
    for workers in (1, 2):
        sink = tmp_path / f"found-{workers}"
        run_job(search_job(tiny_run, 5), tmp_path / "queries.parquet", sink, workers=workers, most_rows=16)
    one, two = told(tmp_path / "found-1"), told(tmp_path / "found-2")
    assert one.equals(two)
    # The engine in this process, with the same searches at a time and as many threads.
    engine, threads = load_engine(tiny_run), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        requests = [SearchRequest(query, user, 5) for query, user in queries.iter_rows()]
        answers = [answer for start in range(0, 60, 16) for answer in engine.search_batch(requests[start : start + 16])]
    finally:
        torch.set_num_threads(threads)
    assert one["item_ids"].to_list() == [[hit.item_id for hit in answer] for answer in answers]
    assert one["scores"].to_list() == [[float(np.float32(hit.score)) for hit in answer] for answer in answers]
    assert one["confidence"].to_list() == [answer.confidence for answer in answers]
    # What a shopper did is known: the same queries of nobody have other answers.
    queries.select("query").write_parquet(tmp_path / "queries.parquet")
    run_job(search_job(tiny_run, 5), tmp_path / "queries.parquet", tmp_path / "anonymous", most_rows=16)
    assert told(tmp_path / "anonymous")["item_ids"].to_list() != one["item_ids"].to_list()


def test_a_search_job_is_of_all_that_its_engine_reads(tiny_run):
    """Each stage that the engine is put together of, and none else."""
    for model, stages in (("v1", {"engine", "sft3"}), ("v2", {"engine_v2", "distill"})):
        job = search_job(tiny_run, model=model)
        expected = {"data", "encoder", "khqe", "index", "lexical", "onesearch"} | stages
        assert set(job.arguments["marks"]) == expected and job.settings["engine"] in stages


def test_another_answer_is_another_job(tiny_run):
    jobs = [search_job(tiny_run), search_job(tiny_run, k=11), search_job(tiny_run, model="v1")]
    jobs.append(search_job(tiny_run, device="cpu"))
    assert len({repr(job.settings) for job in jobs}) == 4


def test_an_engine_made_again_is_noticed_by_a_worker(tiny_run):
    job, path = search_job(tiny_run, model="v1"), tiny_run / "sft3"
    manifest = read_json(path / "manifest.json")
    write_manifest(path, {**manifest, "seconds": -1.0})
    try:
        with pytest.raises(ValueError, match=r"changed since the work began \(sft3\)"):
            job.make(**job.arguments)
    finally:
        write_manifest(path, manifest)


@pytest.mark.long
def test_thoughts_of_two_workers_are_those_of_one_and_reach_the_cache(tiny_run, tmp_path, monkeypatch):
    """The market's stand-in answers over HTTP, in a thread of each worker; what it said is in the cache in the end."""
    monkeypatch.setenv("ONESEARCH_LLM_API_KEY", "sk-secret")
    queries = pl.read_parquet(tiny_run / "data" / "test.parquet").select("query")[:40]
    pl.concat([queries, queries[:5]]).write_parquet(tmp_path / "queries.parquet")
    for producer, counts in (("log-expert", (1,)), ("market", (1, 2))):
        job, sinks = understand_job(tiny_run, producer), [tmp_path / f"{producer}-{n}" for n in counts]
        for workers, sink in zip(counts, sinks, strict=True):
            done = run_job(job, tmp_path / "queries.parquet", sink, workers=workers, most_rows=20)
            assert (done.parts, done.rows) == (3, 45)
        one, two = told(sinks[0]), told(sinks[-1])
        assert one.equals(two) and one["query"].to_list()[:40] == queries["query"].to_list()
        assert (one["intent"].is_null() == one["reason"].is_not_null()).all() and one["keywords"].drop_nulls().len()
        assert not any(b"sk-secret" in path.read_bytes() for path in sinks[0].iterdir())
        # The cache then has what `onesearch understand` would have put there.
        distinct = sorted({normalise_query(query or "") for query in queries["query"]} - {""})
        (tmp_path / "queries.txt").write_text("\n".join(distinct))
        caches = [tmp_path / f"{producer}-{n}.sqlite3" for n in (1, 2)]
        asked = ["understand", str(tmp_path / "queries.txt"), "--dataset", str(tiny_run), "--producer", producer]
        assert CliRunner().invoke(app, [*asked, "--cache", str(caches[0])]).exit_code == 0
        brought = CliRunner().invoke(app, [*asked, "--cache", str(caches[1]), "--from-table", str(sinks[-1])])
        assert brought.exit_code == 0 and "answered" in brought.output
        who = producer_key(producer)
        direct, by_table = (SqliteThoughts(cache).get_many(distinct, *who) for cache in caches)
        assert direct and direct == by_table
