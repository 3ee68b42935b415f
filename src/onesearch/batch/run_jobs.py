"""A run's function over a table of any size, and the state of the run that it is of.

A run that changes in the middle is noticed by the next worker and by the next start, so that no two states mix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from onesearch.batch.map_table import Engine, Mapped, map_table
from onesearch.batch.part_worker import Make
from onesearch.common.artefact import fingerprint, read_manifest, refuse_links
from onesearch.search.run_versions import need

PACKAGE: Final = "onesearch"
Marks = Mapping[str, str]
"""A hash of each stage's manifest, by the stage's name, and the version of onesearch."""


@dataclass(frozen=True)
class RunJob:
    """What :func:`onesearch.batch.map_table.map_table` takes of a run's function.

    Attributes:
        make: makes the function.
        arguments: that it is called with.
        settings: what the output depends on.
        columns: of the table that are read.
        most_rows: of a part, if nothing else is asked for.
        label: of the progress.
    """

    make: Make
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]
    columns: Sequence[str]
    most_rows: int
    label: str


def run_job(
    job: RunJob,
    source: Path,
    sink: Path,
    engine: Engine = "local",
    workers: int = 1,
    address: str | None = None,
    most_rows: int | None = None,
) -> Mapped:
    """Do a job on a table; parameters and errors as those of :func:`onesearch.batch.map_table.map_table`."""
    return map_table(
        source,
        sink,
        job.make,
        job.arguments,
        job.settings,
        job.columns,
        most_rows or job.most_rows,
        engine=engine,
        workers=workers,
        address=address,
        label=job.label,
    )


def marks_of(run: Path, stages: Sequence[str]) -> dict[str, str]:
    """The state of a run's stages.

    Raises:
        FileNotFoundError: there is no such run, or a stage is missing or unfinished.
        ValueError: the folder holds a link.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"there is no run folder {run}; make one with `onesearch run configs/demo.yaml`")
    refuse_links(run)
    # The whole manifest: what was built again with the same settings may differ in its last bits.
    marks = {stage: fingerprint(read_manifest(need(run, stage))) for stage in sorted(set(stages))}
    return {**marks, PACKAGE: version(PACKAGE)}


def refuse_changed(run: Path, marks: Marks) -> None:
    """Look, once everything is loaded, whether it is of the state that the job was made for.

    Raises:
        ValueError: it is not.
    """
    now = marks_of(run, [stage for stage in marks if stage != PACKAGE])
    if changed := [name for name in marks if now[name] != marks[name]]:
        raise ValueError(f"{run} changed since the work began ({', '.join(changed)}): begin again with another folder")


def need_columns(table: pa.Table, names: Sequence[str]) -> None:
    """Look whether a part has the columns: a misspelt one must not count as empty.

    Raises:
        ValueError: one is missing.
    """
    if missing := [name for name in names if name not in table.column_names]:
        raise ValueError(f"the table has no column {', '.join(map(repr, missing))}; needed are {', '.join(names)}")
