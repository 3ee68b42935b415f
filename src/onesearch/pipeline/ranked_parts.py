"""Test page views ranked by all methods of a report, part by part, by several workers.

A part is one batch of one process, cut at the same places: the bits of a score may depend on what is computed beside
it. What a page view knows of its shopper depends on the whole log, so that each worker loads the run and gets numbers
of page views, not page views.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onesearch.batch.map_table import Engine, map_table
from onesearch.batch.part_worker import TableFunction
from onesearch.batch.run_jobs import Marks, marks_of, need_columns, refuse_changed
from onesearch.common.artefact import fingerprint, refuse_links
from onesearch.evaluation.evaluate import MeasureSettings, rank_all
from onesearch.pipeline.report_stage import Ranked, engine_of, part_of, report_methods
from onesearch.pipeline.run_data import RunData
from onesearch.search.run_parts import need

ROW: Final = "row"
_ITEMS, _TIME = "|items", "|milliseconds"  # behind the name of a method


@dataclass(frozen=True)
class WorkerPool:
    """Who ranks: how many workers of which engine, and the address of Ray's cluster."""

    workers: int
    engine: Engine = "local"
    address: str | None = None


def rank_in_parts(
    run: Path,
    folder: Path,
    part: str,
    measures: MeasureSettings,
    has_v2: bool,
    stages: Sequence[str],
    pool: WorkerPool,
    rows: NDArray[np.int64],
) -> list[Ranked]:
    """Rank page views by workers; parts that are there already, of the same state of the run, are not ranked again.

    Args:
        run: a finished run.
        folder: of the report; the parts go to ``ranked-KEY`` in it, where the key is that of all they depend on.
        part: ``"test"`` or ``"valid"``.
        measures: gives the longest cut-off and the size of a batch, which is that of a part.
        has_v2: rank by V2's methods, too.
        stages: all that the methods read.
        pool: who ranks.
        rows: numbers of the page views in the part, [n].

    Raises:
        PartsFailedError: some parts failed; the same call does these alone.
        ValueError: there is no page view; the run changes meanwhile; a part that is there was tampered with.
    """
    if not len(rows):
        raise ValueError(f"the {part} part of {run} has no page views to measure on")
    # What the lists depend on, so that those of another state of the run are not taken for them.
    run, marks, k = run.absolute(), marks_of(run, stages), max(measures.k)
    asked: dict[str, Any] = {"part": part, "k": k, "batch": measures.batch, "has_v2": has_v2}
    settings = {"run": dict(marks), **asked}
    place = folder.absolute() / f"ranked-{fingerprint({**settings, 'rows': rows.tolist()})}"
    source, sink = place / "page_views.parquet", place / "parts"
    _write_once(source, pa.table({ROW: pa.array(rows, pa.int64())}))
    arguments = {"run": str(run), "marks": dict(marks), **asked}
    map_table(
        source,
        sink,
        ranked_page_views,
        arguments,
        settings,
        [ROW],
        measures.batch,
        pool.engine,
        pool.workers,
        address=pool.address,
        label="ranked",
    )
    return read_ranked(sink, rows, k)


def ranked_page_views(run: str, marks: Marks, part: str, k: int, batch: int, has_v2: bool) -> TableFunction:
    """Makes the function of :func:`rank_in_parts`: numbers of page views → the best ``k`` items of each, per method.

    Columns: ``row``; ``METHOD|items``, rows of the item table, -1 for none; ``METHOD|milliseconds``, the mean of the
    batch.
    """
    run_data = RunData(Path(run))
    methods = report_methods(run_data, engine_of(run_data, need(run_data.run, "engine")), has_v2)
    page_views, histories = part_of(run_data, part), run_data.histories
    refuse_changed(Path(run), marks)

    def function(table: pa.Table) -> pa.Table:
        need_columns(table, [ROW])
        requests = histories.requests(page_views[table[ROW].to_numpy()])
        columns: dict[str, Any] = {ROW: table[ROW]}
        for name, searcher in methods.items():
            items, each = rank_all(searcher, requests, k, batch)
            columns[name + _ITEMS] = pa.FixedSizeListArray.from_arrays(pa.array(items.reshape(-1)), k)
            columns[name + _TIME] = pa.array(np.full(len(items), each))
        return pa.table(columns)

    return function


def read_ranked(sink: Path, rows: NDArray[np.int64], k: int) -> list[Ranked]:
    """What the workers wrote, by method: name, items int32 [n, k], mean milliseconds per request.

    Raises:
        ValueError: it is not of these page views, or not lists of ``k`` items.
    """
    table = pa.concat_tables([pq.read_table(path) for path in sorted(sink.glob("part-*.parquet"))])
    names = [name.removesuffix(_ITEMS) for name in table.column_names if name.endswith(_ITEMS)]
    lists = pa.list_(pa.int32(), k)
    whole = {ROW, *(name + end for name in names for end in (_ITEMS, _TIME))} == set(table.column_names)
    if (
        not whole
        or not np.array_equal(table[ROW].to_numpy(), rows)
        or any(table[name + _ITEMS].type != lists or table[name + _ITEMS].null_count for name in names)
    ):
        raise ValueError(f"{sink} does not hold the ranked lists of these page views: remove it, and rank again")
    return [
        (
            name,
            table[name + _ITEMS].combine_chunks().flatten().to_numpy().reshape(len(rows), k),
            float(table[name + _TIME].to_numpy().mean()),
        )
        for name in names
    ]


def _write_once(path: Path, table: pa.Table) -> None:
    """Write a table as one row group, unless the very same is there: its bytes are a mark of the work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_links(path.parent)
    if path.is_file() and _same(path, table):
        return
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=len(table))
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(buffer.getvalue())
    unfinished.replace(path)


def _same(path: Path, table: pa.Table) -> bool:
    try:
        found: bool = pq.read_table(path).equals(table)
    except pa.ArrowInvalid:  # half-written by a machine that failed
        return False
    return found
