"""Workers that begin together, so that a measurement of several holds no start of any; and plain processes to compare.

A module of its own, under a name by which other processes find it.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onesearch.batch.part_worker import TableFunction, found_at
from onesearch.batch.table_parts import Part

_PATIENCE = 600.0  # seconds that a worker waits for the others


def made_together(
    function: str, arguments: Mapping[str, Any], folder: str, workers: int, deadly: str | None = None
) -> TableFunction:
    """Makes a function and waits until as many workers have; at the part with the ``deadly`` id one of them dies."""
    made = found_at(function)(**arguments)
    place = Path(folder)
    (place / f"ready-{os.getpid()}").touch()
    end = time.monotonic() + _PATIENCE
    while len(list(place.glob("ready-*"))) < workers:
        if time.monotonic() > end:
            raise TimeoutError(f"the other of {workers} workers did not come")
        time.sleep(0.005)

    def apply(table: pa.Table) -> pa.Table:
        if deadly is not None and table["item_id"][0].as_py() == deadly and not (place / "dead").exists():
            (place / "dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made(table)

    return apply


def bare(
    arguments: Mapping[str, Any], parts: Sequence[Part], columns: Sequence[str], sink: Path, workers: int
) -> float:
    """Seconds of as many plain processes: each reads, computes and writes every so manieth part, and nothing else."""
    context = get_context("spawn")
    times = context.Queue()
    shares = [parts[first::workers] for first in range(workers)]
    processes = [
        context.Process(target=_bare, args=(arguments, share, columns, sink, times), daemon=True) for share in shares
    ]
    for process in processes:
        process.start()
    found = [times.get(timeout=_PATIENCE) for _ in processes]
    for process in processes:
        process.join()
    return float(max(end for _, end in found) - min(start for start, _ in found))


def _bare(arguments: Mapping[str, Any], parts: Sequence[Part], columns: Sequence[str], sink: Path, times: Any) -> None:
    """One plain process; its times are those of the system's clock, which all processes share."""
    function = made_together(**arguments)
    start = time.monotonic()
    for part in parts:
        table = pq.ParquetFile(part.path).read_row_group(part.group, columns, use_threads=False)
        pq.write_table(function(table), sink / f"{part.name}.parquet", compression="zstd", compression_level=1)
    times.put((start, time.monotonic()))
