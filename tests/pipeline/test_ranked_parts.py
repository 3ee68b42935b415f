"""Page views ranked in parts: the batches of one process, histories of the whole log, nothing of another state."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onesearch.batch.part_folder import part_path, write_part
from onesearch.batch.table_parts import PartReader, parts_of
from onesearch.common.artefact import write_manifest
from onesearch.evaluation.evaluate import MeasureSettings, rank_all
from onesearch.pipeline import ranked_parts
from onesearch.pipeline.ranked_parts import WorkerPool, rank_in_parts, ranked_page_views, read_ranked
from onesearch.pipeline.run_data import RunData
from onesearch.search.hits import Hits

MEASURES = MeasureSettings(k=(2, 4), batch=3)
ROWS = np.array([0, 1, 3, 4, 5, 8, 9])


class Told:
    """Says of each request how many were asked with it, how many clicks came before it, and who asks."""

    def __init__(self, add: int) -> None:
        self.add = add

    def rank(self, requests, k):
        items = np.full((len(requests), k), -1, np.int32)
        items[:, 0] = len(requests) + self.add
        items[:, 1] = (requests.clicked >= 0).sum(1)
        items[:, 2] = requests.user
        return Hits(items, np.zeros((len(requests), k), np.float32))


@pytest.fixture
def run(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_manifest(data / "engine", {})
    monkeypatch.setattr(ranked_parts, "engine_of", lambda run_data, folder: None)
    methods = {"words": Told(10), "V2 engine": Told(20)}
    monkeypatch.setattr(ranked_parts, "report_methods", lambda run_data, engine, has_v2: methods)
    return data


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> list:
    """Workers' work done in this process; what was asked of them, and the parts that were missing."""
    calls = []

    def map_here(source, sink, make, arguments, settings, columns, most_rows, engine, workers, address, label):
        parts = parts_of([source], most_rows)
        missing = [part for part in parts if not part_path(sink, part).is_file()]
        calls.append((settings, (engine, workers, address), [part.rows for part in missing]))
        function = make(**arguments)
        sink.mkdir(exist_ok=True)
        for part in missing:
            write_part(sink, part, function(PartReader(columns).read(part)))

    monkeypatch.setattr(ranked_parts, "map_table", map_here)
    return calls


def rank(run: Path, folder: Path, measures=MEASURES, part="valid", rows=ROWS, stages=("data", "engine")):
    pool = WorkerPool(4, "ray", "ray://h:1")
    return rank_in_parts(run, folder, part, measures, True, stages, pool, rows)


def test_parts_are_the_batches_of_one_process_and_know_the_whole_log(run, mapped, tmp_path):
    found = rank(run, tmp_path)
    run_data = RunData(run)
    requests = run_data.requests(run_data.split.valid[ROWS])
    assert [name for name, _, _ in found] == ["words", "V2 engine"]
    for (_, items, each), searcher in zip(found, (Told(10), Told(20)), strict=True):
        expected, _ = rank_all(searcher, requests, 4, MEASURES.batch)
        assert items.dtype == np.int32 and np.array_equal(items, expected) and each > 0
    # The last batch is shorter, and every shopper clicked before the validation part.
    words = found[0][1]
    assert words[:, 0].tolist() == [13] * 6 + [11] and words[:, 1].min() > 3
    assert mapped[0][1:] == (("ray", 4, "ray://h:1"), [3, 3, 1])


def test_what_is_there_is_not_ranked_again(run, mapped, tmp_path):
    first = rank(run, tmp_path)
    (place,) = tmp_path.glob("ranked-*")
    sorted((place / "parts").iterdir())[1].unlink()
    before = (place / "page_views.parquet").stat().st_mtime_ns
    again = rank(run, tmp_path)
    assert [missing for _, _, missing in mapped] == [[3, 3, 1], [3]]
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(first, again, strict=True))
    assert (place / "page_views.parquet").stat().st_mtime_ns == before
    # Half-written by a machine that failed: written again.
    (place / "page_views.parquet").write_bytes(b"PAR1")
    assert len(rank(run, tmp_path)) == 2


def test_lists_of_another_state_cut_off_or_page_views_are_not_taken(run, mapped, tmp_path):
    rank(run, tmp_path)
    rank(run, tmp_path, MEASURES.updated(k=(3,)))
    rank(run, tmp_path, MEASURES.updated(batch=2))
    rank(run, tmp_path, part="test")
    rank(run, tmp_path, rows=ROWS[1:])
    write_manifest(run / "engine", {"seconds": 2.0})
    rank(run, tmp_path)
    assert [len(missing) for _, _, missing in mapped] == [3, 3, 4, 3, 2, 3]
    assert len({repr(settings) for settings, _, _ in mapped}) == 5  # other page views are another source
    assert set(mapped[0][0]["run"]) == {"data", "engine", "onesearch"}


def test_a_run_that_changed_since_is_noticed_by_a_worker(run):
    with pytest.raises(ValueError, match=r"changed since the work began \(engine\)"):
        ranked_page_views(str(run), {"engine": "before", "onesearch": version("onesearch")}, "valid", 4, 3, True)


def test_no_page_views_are_an_error(run, tmp_path):
    with pytest.raises(ValueError, match=r"the valid part of .* has no page views"):
        rank(run, tmp_path, rows=ROWS[:0])


def test_lists_that_were_tampered_with_are_refused(tmp_path):
    def table(rows=(0, 1), items=((1, 2), (3, 4)), kind=pa.list_(pa.int32(), 2), time="m|milliseconds"):
        pq.write_table(
            pa.table({"row": rows, "m|items": pa.array(items, kind), time: [1.0, 2.0]}), tmp_path / "part-0.parquet"
        )

    table()
    ((name, items, each),) = read_ranked(tmp_path, np.array([0, 1]), 2)
    assert (name, items.tolist(), each) == ("m", [[1, 2], [3, 4]], 1.5)
    for wrong in ({"rows": (1, 0)}, {"items": ((1, 2), None)}, {"kind": pa.list_(pa.int64(), 2)}, {"time": "other"}):
        table(**wrong)
        with pytest.raises(ValueError, match="does not hold the ranked lists of these page views: remove it"):
            read_ranked(tmp_path, np.array([0, 1]), 2)
