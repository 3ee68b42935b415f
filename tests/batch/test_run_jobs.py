"""What a run's functions write is what the run itself has, however the table is cut."""

import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from tests.batch.small_run import small_run

from onesearch.batch import run_jobs, search_jobs
from onesearch.batch.item_jobs import encode_job, item_sids, item_vectors, sids_job
from onesearch.batch.run_jobs import run_job
from onesearch.batch.search_jobs import ranked_items, search_job
from onesearch.common.artefact import write_json, write_manifest
from onesearch.data.dataset import Dataset
from onesearch.encoding.sid_behaviour import unit
from onesearch.search.results import SearchRequest
from small_engine import ITEMS, small_engine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """The catalogue in row groups of 15 items, without the columns that no text is made of."""
    path = tmp_path / "items.parquet"
    ITEMS.select("item_id", "title", "brand", "category", "price").write_parquet(path, row_group_size=15)
    return path


def of_run(run: Path, name: str) -> np.ndarray:
    return np.load(run / "khqe" / f"{name}.npy", allow_pickle=False)


def told(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])


def whole(job) -> object:
    return job.make(**job.arguments)


def test_vectors_and_sids_are_those_of_the_run_bit_by_bit(run, items, tmp_path, engine):
    done = run_job(encode_job(run), items, tmp_path / "vectors", engine, workers=2, most_rows=7)
    found = told(tmp_path / "vectors")
    assert done.parts == 8 and found["item_id"].to_list() == ITEMS["item_id"].to_list()
    assert np.array_equal(found["vector"].to_numpy(), of_run(run, "item_vectors"))
    # From texts at once, and from these vectors.
    for source, parts in ((items, 3), (tmp_path / "vectors", 8)):
        sink = tmp_path / f"sids-{parts}"
        assert run_job(sids_job(run), source, sink, engine).parts == parts
        assert told(sink)["item_id"].to_list() == ITEMS["item_id"].to_list()
        assert np.array_equal(told(sink)["sid"].to_numpy(), of_run(run, "item_sids"))


def test_vectors_that_are_there_are_not_made_again(run):
    table = ITEMS.select("item_id", "title", "brand", "category").to_arrow()
    others = pa.FixedSizeListArray.from_arrays(pa.array(of_run(run, "item_vectors")[::-1].reshape(-1)), 16)
    sids = whole(sids_job(run))(table.append_column("vector", others))["sid"].combine_chunks().flatten()
    assert np.array_equal(sids.to_numpy().reshape(len(ITEMS), -1), of_run(run, "item_sids")[::-1])


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 16)])
def test_vectors_may_be_lists_of_any_kind_and_slices_of_a_table(run, kind):
    vectors = of_run(run, "item_vectors")
    table = pa.table({"item_id": ITEMS["item_id"].to_arrow(), "vector": pa.array(vectors.tolist(), kind)})
    sids = whole(sids_job(run))(pa.concat_tables([table.slice(3, 4), table.slice(20, 5)]))
    expected = of_run(run, "item_sids")[[3, 4, 5, 6, *range(20, 25)]]
    assert sids["sid"].to_pylist() == expected.tolist()
    assert whole(sids_job(run))(table.slice(0, 0)).num_rows == 0


def test_vectors_that_cannot_be_coded_are_refused(run):
    function = whole(sids_job(run))
    for vectors, why in (
        ([[1.0, 2.0]], r"holds vectors of \[2\] numbers, but the run's have 16"),
        ([[1.0] * 16, None], "without nulls"),
        (["text"], "must hold lists of numbers"),
        ([[1.0] * 16, [float("nan")] + [1.0] * 15], r"has 1 vectors of 2 .* of item 'a1'"),
        ([[1.0] * 15 + [float("inf")], [1e39] * 16], r"has 2 vectors of 2 .* of item 'a0'"),
        ([[1.0] * 15 + [None]], r"has 1 vectors of 1 .* of item 'a0'"),
    ):
        table = pa.table({"item_id": [f"a{n}" for n in range(len(vectors))], "vector": vectors})
        with pytest.raises(ValueError, match=why):
            function(table)


def test_missing_columns_are_named_and_nothing_else_is_needed(run):
    table = ITEMS.select("item_id", "title", "category").to_arrow()
    with pytest.raises(ValueError, match="has no column 'brand'; needed are title, brand, category"):
        whole(encode_job(run))(table)
    with pytest.raises(ValueError, match="has no column 'item_id'"):
        whole(encode_job(run))(ITEMS.select("title", "brand", "category").to_arrow())
    # Links where there are any.
    assert encode_job(run).columns == ["item_id", "title", "brand", "category", "linked"]
    assert sids_job(run).columns == ["item_id", "title", "brand", "category", "linked", "vector"]


def test_items_are_drawn_to_items_of_the_run_that_they_link_to(run):
    Dataset.write(run / "data", ITEMS)
    write_manifest(run / "data", {"fingerprint": "data"})
    vectors = of_run(run, "item_vectors")
    linked = [[], [ITEMS["item_id"][5], "nowhere"]]
    table = ITEMS[:2].with_columns(linked=pl.Series(linked, dtype=pl.List(pl.String))).to_arrow()
    found = np.array(whole(encode_job(run))(table)["vector"].to_pylist(), np.float32)
    np.testing.assert_array_equal(found[0], vectors[0])
    np.testing.assert_allclose(found[1], unit((vectors[1] + vectors[5])[None])[0], atol=1e-6)


def test_a_table_without_rows_has_the_same_columns(run):
    some, none = (whole(encode_job(run))(ITEMS[:rows].to_arrow()) for rows in (2, 0))
    assert none.num_rows == 0 and none.schema == some.schema


def test_ids_of_numbers_are_texts(run):
    table = ITEMS[:3].with_columns(item_id=pl.Series([7, 8, 9])).to_arrow()
    assert whole(encode_job(run))(table)["item_id"].to_pylist() == ["7", "8", "9"]


# -- the state of the run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["encoder", "khqe"])
def test_a_run_that_changed_since_is_refused(run, items, tmp_path, stage):
    job = sids_job(run)
    run_job(job, items, tmp_path / "sids")
    write_manifest(run / stage, {"fingerprint": stage, "seconds": 2.0})
    # By a worker that begins after it.
    with pytest.raises(ValueError, match=rf"changed since the work began \({stage}\)"):
        item_sids(**job.arguments)
    # By whoever goes on with the folder.
    with pytest.raises(ValueError, match=rf"other work, which differs in settings: run: {stage}; name"):
        run_job(sids_job(run), items, tmp_path / "sids")


def test_vectors_in_a_folder_of_sids_are_refused(run, items, tmp_path):
    run_job(sids_job(run), items, tmp_path / "out")
    with pytest.raises(ValueError, match="differs in function, "):
        run_job(encode_job(run), items, tmp_path / "out")


def test_a_run_may_move_and_another_version_does_not_go_on(run, items, tmp_path, monkeypatch):
    run_job(sids_job(run), items, tmp_path / "sids")
    moved = run.rename(tmp_path / "moved")
    assert run_job(sids_job(moved), items, tmp_path / "sids").skipped == 3
    monkeypatch.setattr(run_jobs, "version", lambda name: "0.2")
    with pytest.raises(ValueError, match="differs in settings: run: onesearch; name"):
        run_job(sids_job(moved), items, tmp_path / "sids")


def test_an_unfinished_run_is_refused(run):
    (run / "khqe" / "manifest.json").unlink()
    for job in (encode_job, sids_job):
        with pytest.raises(FileNotFoundError, match="khqe is not a finished stage"):
            job(run)
    with pytest.raises(FileNotFoundError, match="engine"):
        search_job(run)


def test_a_worker_loads_what_its_marks_say(run):
    job = encode_job(run)
    with pytest.raises(ValueError, match="changed since"):
        item_vectors(job.arguments["run"], {**job.arguments["marks"], "encoder": "another"})


# -- searches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def engine_of_run(monkeypatch: pytest.MonkeyPatch):
    engine = small_engine()
    monkeypatch.setattr(search_jobs, "load_engine", lambda run, model, device, measured: engine)
    return engine


def test_answers_are_those_of_the_engine(engine_of_run, tmp_path):
    function = ranked_items(str(tmp_path), {"onesearch": version("onesearch")}, 3, "v1", False, "cpu")
    queries = ["red tent", "blu lamp", None, "boots"]
    found = function(pa.table({"query": queries, "user_id": ["ann", None, "bob", "nobody"]}))
    users = ["ann", None, "bob", "nobody"]
    requests = [SearchRequest(query or "", user, 3) for query, user in zip(queries, users, strict=True)]
    expected = engine_of_run.search_batch(requests)
    assert found["item_ids"].to_pylist() == [[hit.item_id for hit in answer] for answer in expected]
    assert [len(ids) for ids in found["item_ids"].to_pylist()] == [3] * 4
    scores = [[float(np.float32(hit.score)) for hit in answer] for answer in expected]
    assert found["scores"].to_pylist() == scores
    assert found["confidence"].to_pylist() == [answer.confidence for answer in expected]
    assert found["corrected_query"].to_pylist() == [answer.corrected_query for answer in expected]
    assert found["query"].to_pylist() == ["red tent", "blu lamp", "", "boots"]
    assert found["user_id"].to_pylist() == users


def test_shoppers_are_known_to_the_engine_that_answers(engine_of_run, tmp_path):
    asked = []
    engine_of_run.search_batch = lambda requests: (asked.extend(requests), [[] for _ in requests])[1]
    function = ranked_items(str(tmp_path), {"onesearch": version("onesearch")}, 3, "v1", False, "cpu")
    with pytest.raises(AttributeError):
        function(pa.table({"query": ["a"], "user_id": ["ann"]}))
    assert asked == [SearchRequest("a", "ann", 3)]
    with pytest.raises(AttributeError):
        function(pa.table({"query": ["b"]}))
    assert asked[1:] == [SearchRequest("b", None, 3)]
    with pytest.raises(ValueError, match="has no column 'query'"):
        function(pa.table({"user_id": ["ann"]}))


def test_a_search_job_is_of_all_that_its_engine_is_made_of(tmp_path):
    """Each stage that it reads, those that only its ``engine.json`` names among them."""
    read = ("data", "encoder", "khqe", "index", "lexical", "engine", "sft3", "counted", "understanding")
    for stage in (*read, "report"):
        write_manifest(tmp_path / stage, {"fingerprint": stage, "schema": 1})
    write_json(tmp_path / "engine" / "engine.json", {"model": "sft3", "counts": "counted", "reads_keywords": "all"})
    job = search_job(tmp_path, 7, "v1", measured=True, device="cpu")
    assert set(job.arguments["marks"]) == {*read, "onesearch"}
    asked = {"k": 7, "model": "v1", "measured": True, "device": "cpu"}
    assert job.settings == {"run": job.arguments["marks"], "engine": "engine", **asked}
    assert job.arguments == {"run": str(tmp_path), "marks": job.arguments["marks"], **asked}
    assert (job.columns, job.most_rows) == (["query", "user_id"], 1000)


def test_an_engine_that_changed_since_is_refused(engine_of_run, tmp_path):
    write_manifest(tmp_path / "sft3", {"schema": 1})
    with pytest.raises(ValueError, match=r"changed since the work began \(sft3\)"):
        ranked_items(str(tmp_path), {"sft3": "before", "onesearch": version("onesearch")}, 3, "v1", False, "cpu")
