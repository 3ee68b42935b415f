"""Tables by several workers: semantic IDs of made-up items by processes, by Ray, and by plain processes.

Run: ``python -m benchmarks.batch runs/demo --rows 200000``. Prints one JSON object. The items are those of the run
again and again, with titles that no two share, in 20 row groups. The clock starts when all workers have loaded the run.
Each way is measured as often as ``--repeats`` says, in turn with the others, and its best time counts; in the last
measurement of each engine a worker is killed in the middle. ``equal`` says whether all SIDs are, bit by bit.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from benchmarks.provenance import commit, machine, today
from benchmarks.timed_workers import bare, made_together
from onesearch.batch.item_jobs import sids_job
from onesearch.batch.map_table import Engine, map_table
from onesearch.batch.part_worker import THREAD_VARIABLES, name_of
from onesearch.batch.run_jobs import RunJob
from onesearch.batch.table_parts import parts_of, table_files
from onesearch.data.dataset import Dataset

PARTS = 20
LEAST_SPEED_UP, LEAST_SHARE = 1.4, 0.85  # of two workers over one; of as many plain processes
TWO = 2


def write_items(items: pl.DataFrame, columns: Sequence[str], rows: int, path: Path) -> None:
    """A table of as many items, row group by row group."""
    size = -(-rows // PARTS)
    writer = None
    for start in range(0, rows, size):
        number = np.arange(start, min(start + size, rows))
        frame = items[number % len(items)].select(name for name in columns if name in items.columns)
        texts = pl.Series([f" no {one}" for one in number])
        frame = frame.with_columns(item_id=pl.Series([f"m{one}" for one in number]), title=frame["title"] + texts)
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def digest(folder: Path) -> str:
    """Of all ids and SIDs in the order of the table."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("part-*.parquet")):
        table = pl.read_parquet(path)
        found.update("\n".join(table["item_id"]).encode())
        found.update(np.ascontiguousarray(table["sid"].to_numpy(), np.int32).tobytes())
    return found.hexdigest()


class Measurement:
    """One table, measured in several ways.

    Attributes:
        digests: of the SIDs that each way gave.
    """

    def __init__(self, job: RunJob, source: Path, folder: Path) -> None:
        self.job, self.source, self.folder = job, source, folder
        self.parts = parts_of(table_files(source), job.most_rows)
        self.digests: set[str] = set()
        self._number = 0

    def seconds(self, engine: Engine | None, workers: int, killed: bool = False) -> float:
        """Of an engine's workers, or of plain processes (None); ``killed``: one dies at a part in the middle."""
        self._number += 1
        sink, meeting = (self.folder / f"{name}-{self._number}" for name in ("sink", "meeting"))
        meeting.mkdir()
        arguments: dict[str, Any] = {
            "function": name_of(self.job.make),
            "arguments": self.job.arguments,
            "folder": str(meeting),
            "workers": workers,
        }
        if engine is None:
            sink.mkdir()
            columns = [name for name in self.job.columns if name in pq.read_schema(self.source).names]
            seconds = bare(arguments, self.parts, columns, sink, workers)
        else:
            if killed:
                middle = sum(part.rows for part in self.parts[: len(self.parts) // 2])
                arguments["deadly"] = f"m{middle}"
            columns, most = self.job.columns, self.job.most_rows
            made = map_table(
                self.source, sink, made_together, arguments, {}, columns, most, engine=engine, workers=workers
            )
            seconds = made.seconds
            assert killed == (meeting / "dead").exists()
        self.digests.add(digest(sink))
        return seconds


def measure(run: Path, rows: int, repeats: int, engines: Sequence[Engine], folder: Path) -> dict[str, Any]:
    """Rows per second of each way, and how they compare."""
    job, source = sids_job(run), folder / "items.parquet"
    write_items(Dataset.load(run / "data").items, job.columns, rows, source)
    measurement = Measurement(job, source, folder)
    # In turn, so that what else the machine does meets all of them.
    ways: list[tuple[Engine | None, int]] = [(way, count) for way in (None, *engines) for count in (1, TWO)]
    times: dict[tuple[Engine | None, int], list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for engine, workers in ways:
            times[engine, workers].append(measurement.seconds(engine, workers))
    best = {way: min(found) for way, found in times.items()}
    killed = {engine: measurement.seconds(engine, TWO, killed=True) for engine in engines}
    speed_up = {engine or "bare": best[engine, 1] / best[engine, TWO] for engine in (None, *engines)}
    share = {engine: best[None, TWO] / best[engine, TWO] for engine in engines}
    return {
        "rows": rows,
        "parts": len(measurement.parts),
        "repeats": repeats,
        "rows_per_second": {f"{way or 'bare'}_{count}": round(rows / best[way, count]) for way, count in ways},
        "rows_per_second_killed": {engine: round(rows / seconds) for engine, seconds in killed.items()},
        "two_over_one": {name: round(value, 3) for name, value in speed_up.items()},
        "share_of_bare": {name: round(value, 3) for name, value in share.items()},
        "equal": len(measurement.digests) == 1,
        "met": all(speed_up[engine] >= LEAST_SPEED_UP and share[engine] >= LEAST_SHARE for engine in engines),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    there = ["local", "ray"] if importlib.util.find_spec("ray") else ["local"]
    parser.add_argument("--engines", nargs="+", choices=["local", "ray"], default=there)
    given = parser.parse_args()
    os.environ |= dict.fromkeys(THREAD_VARIABLES, "1")  # of the plain processes, as of workers
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.run, given.rows, given.repeats, given.engines, Path(folder))
    print(json.dumps({**found, "commit": commit(), "date": today(), "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
