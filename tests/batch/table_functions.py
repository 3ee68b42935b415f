"""Functions that workers make in other processes; what they do there they write into a file."""

import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc


def note(log: str, line: str) -> None:
    """Append a line: several processes may do so."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doubled(log, deadly=None, always=False, bad=(), seconds=0.0, together=1):
    """Doubles ``n``; dies at the part that begins with ``deadly`` (once, or ``always``), fails at those in ``bad``.

    It is made when ``together`` workers have come so far: all of them get a part then, however slow they start.
    """
    note(log, f"made {os.getpid()}")
    end = time.monotonic() + 60
    while Path(log).read_text(encoding="utf-8").count("made") < together and time.monotonic() < end:
        time.sleep(0.01)

    def function(table: pa.Table) -> pa.Table:
        first = table["n"][0].as_py() if len(table) else -1
        note(log, f"part {first}")
        time.sleep(seconds)
        if first == deadly and (always or f"dead {first}" not in Path(log).read_text(encoding="utf-8")):
            note(log, f"dead {first}")
            die()
        if first in bad:
            raise ValueError(f"{first} is bad")
        return table.set_column(0, "n", pc.multiply(table["n"], 2))

    return function


def added(log, by):
    """Another function."""
    return lambda table: table.set_column(0, "n", pc.add(table["n"], by))


def unwilling(reason):
    raise ValueError(reason)


def stillborn(log):
    note(log, "made")
    die()


def told(torch=False):
    """Each row says with how many threads its worker works, and the peak of Arrow's memory there."""
    if torch:
        import torch as library

        library.set_num_threads(7)

    def function(table: pa.Table) -> pa.Table:
        threads = {int(os.environ[name]) for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")} | {pa.cpu_count()}
        if torch:
            threads.add(library.get_num_threads())
        row = {"threads": sorted(threads), "peak": pa.default_memory_pool().max_memory(), "rows": len(table)}
        return pa.Table.from_pylist([row])

    return function
