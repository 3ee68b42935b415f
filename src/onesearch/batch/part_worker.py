"""What a worker does, wherever it runs: make its function once, then part after part."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from onesearch.batch.part_folder import write_part
from onesearch.batch.table_parts import Part, PartReader

TableFunction = Callable[[pa.Table], pa.Table]
Make = Callable[..., TableFunction]
Answer = tuple[Literal["ready", "broken", "done", "failed"], str]
"""Ready for parts, or broken since the function could not be made; a part is done, or failed. Then why."""

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True)
class Task:
    """What all workers of a table do.

    Attributes:
        function: where ``make`` is found, as ``module:name``.
        arguments: that it is called with.
        columns: that are read; None for all.
        folder: of the output.
        threads: of each worker.
    """

    function: str
    arguments: Mapping[str, Any]
    columns: Sequence[str] | None
    folder: str
    threads: int


def name_of(make: Make) -> str:
    """Where a function is found again, as ``module:name``.

    Raises:
        ValueError: no other process could find it there.
    """
    name = f"{make.__module__}:{make.__qualname__}"
    try:
        if found_at(name) is make:
            return name
    except (ImportError, AttributeError):
        pass
    raise ValueError(f"{name} cannot be imported by a worker: make it a function of a module")


def found_at(name: str) -> Make:
    """The function that :func:`name_of` named."""
    module, _, function = name.partition(":")
    found: Make = getattr(import_module(module), function)
    return found


class PartWorker:
    """One worker. Errors are told, not raised: what is raised here is the engine's, not the function's."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._reader = PartReader(task.columns)
        self._function: TableFunction | None = None

    def start(self) -> Answer:
        """Make the function."""
        # For what is imported from here on; Ray says it for some libraries only.
        os.environ |= dict.fromkeys(THREAD_VARIABLES, str(self._task.threads))
        try:
            self._function = found_at(self._task.function)(**self._task.arguments)
        except Exception as error:  # noqa: BLE001 - told to who asked
            return "broken", _told(error)
        # And for what was there before.
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._task.threads)
        if "faiss" in sys.modules:
            sys.modules["faiss"].omp_set_num_threads(self._task.threads)
        return "ready", ""

    def do(self, part: Part) -> Answer:
        """Read a part, apply the function, write the output."""
        try:
            if self._function is None:
                raise RuntimeError("the worker was not started")
            write_part(Path(self._task.folder), part, self._function(self._reader.read(part)))
        except Exception as error:  # noqa: BLE001 - one bad part leaves the others
            return "failed", _told(error)
        return "done", ""


def _told(error: Exception) -> str:
    """What the user reads of it."""
    if os.environ.get("ONESEARCH_DEBUG"):
        return "".join(traceback.format_exception(error))
    return str(error) if type(error) in (ValueError, FileNotFoundError) else f"{type(error).__name__}: {error}"
