"""A function over a table of any size: one part of output for each part of input, by several workers.

What comes out is the same, bit by bit, whatever the engine, the number of workers and the deaths among them: a part is
read, computed and written by one worker with a fixed number of threads, and knows nothing of the others.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from onesearch.batch.local_engine import LocalWorkers
from onesearch.batch.part_folder import begin, content_of, finish, missing_parts, unfinished
from onesearch.batch.part_schedule import Outcome, Workers, outcomes
from onesearch.batch.part_worker import Make, Task, name_of
from onesearch.batch.table_parts import Part, parts_of, table_files
from onesearch.common.progress import track
from onesearch.common.run_lock import RunLock

log = logging.getLogger("onesearch")
Engine = Literal["local", "ray"]
FORMAT: Final = 1
MOST_ROWS: Final = 50_000
_NAMED: Final = 5  # failed parts that a message names


class PartsFailedError(RuntimeError):
    """Some parts could not be done; all others are."""


@dataclass(frozen=True)
class Mapped:
    """What was done.

    Attributes:
        parts: of the table.
        skipped: parts that were there already.
        rows: of the parts that were done now.
        seconds: since the first worker was ready.
    """

    parts: int
    skipped: int
    rows: int
    seconds: float


def map_table(
    # What is read and written.
    source: str | Path,
    sink: str | Path,
    # What is computed.
    make: Make,
    arguments: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    most_rows: int = MOST_ROWS,
    # By whom.
    engine: Engine = "local",
    workers: int = 1,
    threads: int = 1,
    address: str | None = None,
    label: str = "parts",
) -> Mapped:
    """Write ``make(**arguments)(part)`` of every part of a table as a file of its own; what is there is not done again.

    Args:
        source: a Parquet file, or a folder of them.
        sink: folder of the output. ``part-FILE-GROUP-ROW.parquet`` belongs to the row group of that number in the file
            of that number, from that row on; ``manifest.json`` is written when all are there.
        make: a function of a module; each worker calls it once and applies what it returns, from Arrow table to Arrow
            table, to part after part.
        arguments: plain values (JSON) that it is called with.
        settings: what the output depends on beside the table, by default the arguments. Work on a folder that was
            begun with others is refused.
        columns: of the table that are read, where it has them; None for all.
        most_rows: of a part; larger row groups are several parts.
        engine: processes of this machine, or Ray's actors.
        workers: how many, at most as many as there are parts.
        threads: of each worker. More of them may change the last bits, so that they count among the settings.
        address: of Ray's cluster; None as :class:`onesearch.batch.ray_engine.RayWorkers`.
        label: of the progress.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: the folder holds other work; ``make`` cannot be imported, or raises; a file is not Parquet.
        PartsFailedError: the function failed on some parts, which the message names; the others are written.
    """
    if min(workers, threads, most_rows) < 1:
        raise ValueError("workers, threads and rows of a part must be at least 1")
    # What this work is, so that no other is taken for it.
    files, folder = table_files(source), Path(sink).absolute()
    if folder in {path.parent for path in files}:
        raise ValueError(f"{folder} is the folder of the table itself: name another one for the output")
    parts = parts_of(files, most_rows)
    task = Task(name_of(make), dict(arguments or {}), columns, str(folder), threads)
    work = {
        "format": FORMAT,
        "function": task.function,
        "settings": dict(task.arguments if settings is None else settings),
        "source": content_of(files),
        "read": {"most_rows": most_rows, "columns": columns},
        "threads": threads,
    }
    work = json.loads(json.dumps(work))  # as it will be read
    with RunLock(folder):
        begin(folder, work)
        todo = missing_parts(folder, parts)
        if len(todo) < len(parts):
            log.info("%s: %d of %d parts are there", folder, len(parts) - len(todo), len(parts))
        seconds = _do(todo, folder, _workers(engine, task, workers, address), workers, label) if todo else 0.0
        finish(folder, work, parts)
    return Mapped(len(parts), len(parts) - len(todo), sum(part.rows for part in todo), seconds)


def _workers(engine: Engine, task: Task, count: int, address: str | None) -> Workers:
    """Those of an engine, none of them started."""
    if engine == "local":
        return LocalWorkers(task)
    from onesearch.batch.ray_engine import RayWorkers

    return RayWorkers(task, count, address)


def _do(parts: Sequence[Part], folder: Path, workers: Workers, count: int, label: str) -> float:
    """Do parts; returns the seconds since the first worker was ready.

    Raises:
        PartsFailedError: some failed.
    """
    unfinished(folder)
    with closing(workers):
        happened = outcomes(workers, count, parts)
        next(happened)  # the first worker is ready
        start = time.perf_counter()
        found = [one for one in track(happened, label, len(parts), "part") if one is not None]
        seconds = time.perf_counter() - start
    if failed := [one for one in found if one.error]:
        raise PartsFailedError(_told(failed, len(parts)))
    return seconds


def _told(failed: Sequence[Outcome], of: int) -> str:
    """Which parts failed, and why."""
    lines = [f"{one.part}: {one.error}" for one in failed[:_NAMED]]
    if len(failed) > _NAMED:
        lines.append(f"and {len(failed) - _NAMED} more")
    head = f"{len(failed)} of {of} parts failed; the others are written, and the same command does these alone"
    return "\n".join([head, *lines])
