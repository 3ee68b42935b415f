"""The measurement of tables by several workers, on a few rows: its figures mean nothing, its digests do."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from benchmarks.batch import Measurement, digest, measure, write_items
from tests.batch.small_run import small_run

from onesearch.batch.item_jobs import sids_job
from onesearch.data.dataset import Dataset
from small_engine import ITEMS


@pytest.fixture
def run(tmp_path: Path) -> Path:
    Dataset.write(tmp_path / "run" / "data", ITEMS)
    return small_run(tmp_path / "run")


def test_items_are_made_up_in_row_groups(tmp_path):
    write_items(ITEMS, ["item_id", "title", "brand", "vector"], 105, tmp_path / "t.parquet")
    found = pl.read_parquet(tmp_path / "t.parquet")
    assert found.columns == ["item_id", "title", "brand"]
    assert found["item_id"].to_list() == [f"m{i}" for i in range(105)] and found["title"].n_unique() == 105
    assert found["title"][41] == f"{ITEMS['title'][1]} no 41"
    footer = pq.read_metadata(tmp_path / "t.parquet")
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [6] * 17 + [3]


def test_a_digest_sees_each_id_and_code(tmp_path):
    table = pl.DataFrame(
        {"item_id": ["a", "b"], "sid": pl.Series(np.array([[1, 2], [3, 4]]), dtype=pl.Array(pl.Int32, 2))}
    )
    changed = (
        table.with_columns(sid=pl.Series(np.array([[1, 2], [3, 5]]), dtype=pl.Array(pl.Int32, 2))),
        table.with_columns(item_id=pl.Series(["a", "c"])),
        table[::-1],
    )
    found = set()
    for number, one in enumerate((table, *changed)):
        (tmp_path / str(number)).mkdir()
        one.write_parquet(tmp_path / str(number) / "part-0.parquet")
        found.add(digest(tmp_path / str(number)))
    assert len(found) == 4


@pytest.mark.slow
def test_all_ways_give_the_same_and_are_compared(run, tmp_path):
    found = measure(run, 60, 1, ["local"], tmp_path)
    assert found["equal"] and found["rows"] == 60 and found["parts"] == 20
    assert set(found["rows_per_second"]) == {"bare_1", "bare_2", "local_1", "local_2"}
    assert min(found["rows_per_second"].values()) > 0 and found["rows_per_second_killed"]["local"] > 0
    assert set(found["two_over_one"]) == {"bare", "local"} and set(found["share_of_bare"]) == {"local"}


@pytest.mark.slow
@pytest.mark.long
def test_rays_workers_give_the_same_when_one_is_killed(run, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    job, source = sids_job(run), tmp_path / "items.parquet"
    write_items(ITEMS, job.columns, 60, source)
    measurement = Measurement(job, source, tmp_path)
    assert measurement.seconds("ray", 2, killed=True) > 0 and measurement.seconds(None, 1) > 0
    assert len(measurement.digests) == 1
