"""Tables in Parquet, and the engines that work on them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]


def numbered(rows: int, start: int = 0) -> pa.Table:
    """Numbers, and texts that no two rows share."""
    n = np.arange(start, start + rows)
    return pa.table({"n": n, "text": pa.array([f"row {i}" for i in n])})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two files of 12 and 9 rows, in row groups of 5: parts of 5, 5, 2, 5 and 4 rows."""
    folder = tmp_path / "source"
    folder.mkdir()
    pq.write_table(numbered(12), folder / "a.parquet", row_group_size=5)
    pq.write_table(numbered(9, 12), folder / "b.parquet", row_group_size=5)
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray on this machine, with two cores by its own count; its processes find the tests' modules."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT), *([before] if before else [])])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param
