"""What a finished run does with tables of any size: items → vectors, items or vectors → semantic IDs, queries → items.

Each job names a function that a worker makes once from the run's folder, and the state of the run that it is of: a run
that changes in the middle is noticed by the next worker, and by the next start, so that no two states mix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from onesearch.batch.map_table import MOST_ROWS, Engine, Mapped, map_table
from onesearch.batch.part_worker import Make, TableFunction
from onesearch.common.artefact import fingerprint, read_json, read_manifest
from onesearch.data.records import ITEMS
from onesearch.data.text import item_texts
from onesearch.search.engine import load_engine
from onesearch.search.results import SearchRequest, SearchResults
from onesearch.search.run_parts import STAGE_OF, Model, RunParts, choose_model, load_about, need
from onesearch.search.run_versions import readable
from onesearch.search.served_versions import served_place

VECTOR: Final = "vector"
MOST_SEARCHES: Final = 1_000  # of a part: a minute's work, not an hour's
_TEXT_STAGES: Final = ("encoder", "khqe", "index")
_SEARCH_STAGES: Final = ("data", *_TEXT_STAGES, "lexical")
Floats = NDArray[np.float32]
Marks = Mapping[str, str]


@dataclass(frozen=True)
class RunJob:
    """A run's function over a table, as :func:`onesearch.batch.map_table.map_table` takes it.

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


# -- items → vectors -> semantic IDs -----------------------------------------------------------------------------------


def encode_job(run: Path) -> RunJob:
    """Items → their vectors, fused with keywords where the run does that: columns ``item_id`` and ``vector``.

    Raises:
        FileNotFoundError: a stage of the run is missing or unfinished.
    """
    return _text_job(run, item_vectors, (), "encode")


def sids_job(run: Path) -> RunJob:
    """Items, or vectors of :func:`encode_job`, → semantic IDs: columns ``item_id`` and ``sid``.

    A SID is that of the item's text alone, as that of a new item. Where behaviour shapes the run's SIDs
    (``khqe.co_click``) those of its own catalogue differ.

    Raises:
        FileNotFoundError: a stage of the run is missing or unfinished.
    """
    return _text_job(run, item_sids, (VECTOR,), "SIDs")


def _text_job(run: Path, make: Make, more: Sequence[str], label: str) -> RunJob:
    run, marks = _place_and_marks(run, _TEXT_STAGES)
    columns = ["item_id", *read_json(need(run, "encoder") / "fields.json"), *more]
    return RunJob(make, {"run": str(run), "marks": marks}, {"run": marks}, columns, MOST_ROWS, label)


def item_vectors(run: str, marks: Marks) -> TableFunction:
    """Makes the function of :func:`encode_job`."""
    encode = _encoder(run, marks)

    def function(table: pa.Table) -> pa.Table:
        return pa.table({"item_id": _ids(table), VECTOR: _lists(encode(table))})

    return function


def item_sids(run: str, marks: Marks) -> TableFunction:
    """Makes the function of :func:`sids_job`; vectors that are there are taken, texts are encoded."""
    encode, khqe = _encoder(run, marks), RunParts(Path(run)).khqe

    def function(table: pa.Table) -> pa.Table:
        vectors = _vectors(table, khqe.dimension) if VECTOR in table.column_names else encode(table)
        return pa.table({"item_id": _ids(table), "sid": _lists(khqe.encode(vectors))})

    return function


class _encoder:  # noqa: N801 - stands for a function
    """Items → vectors float32 [n, d] of a run."""

    def __init__(self, run: str, marks: Marks) -> None:
        with readable(Path(run)):
            self._parts = RunParts(Path(run))
            self._vectors = self._parts.featurizer.vectors
        _refuse_changed(Path(run), marks)

    def __call__(self, table: pa.Table) -> Floats:
        fields = self._parts.fields
        _need_columns(table, fields)
        frame = pl.DataFrame(table.select(list(fields)))
        return self._vectors(item_texts(frame.cast({field: ITEMS[field] for field in fields}), fields))


def _ids(table: pa.Table) -> pa.ChunkedArray:
    """The column ``item_id`` as text."""
    _need_columns(table, ["item_id"])
    return table["item_id"].cast(pa.string())


def _vectors(table: pa.Table, dimension: int) -> Floats:
    """The column ``vector``, float32 [n, d].

    Raises:
        ValueError: a vector is missing, or of another length.
    """
    column = table[VECTOR].combine_chunks()
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or column.null_count:
        raise ValueError(f"column '{VECTOR}' must hold lists of numbers without nulls, but is {kind}")
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(column) and lengths.tolist() != [dimension]:
        raise ValueError(
            f"column '{VECTOR}' holds vectors of {lengths.tolist()} numbers, but the run's have {dimension}"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), dimension)


def _lists(rows: NDArray[Any]) -> pa.FixedSizeListArray:
    """A column of rows [n, d], all of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])


# -- queries -> items --------------------------------------------------------------------------------------------------


def search_job(
    run: Path, k: int = 10, model: Model | None = None, measured: bool = False, device: str | None = None
) -> RunJob:
    """Queries → ranked items of the engine that the run serves, or that its report ``measured``.

    Reads ``query`` and, where it is there, ``user_id``; writes them with ``item_ids``, ``scores``, ``confidence`` and
    ``corrected_query``, as :meth:`onesearch.search.engine.SearchEngine.search` answers.

    Raises:
        FileNotFoundError: the run has no such engine, or it is unfinished.
    """
    model = choose_model(run, model)
    place = STAGE_OF[model] if measured else served_place(run, model)
    about = load_about(run, place)
    # Counts of a final engine or a version lie below the run, in folders that their manifests mark.
    more = [name for name in (about["model"], about.get("counts")) if name]
    if about.get("reads_keywords"):
        more.append("understanding")
    run, marks = _place_and_marks(run, [*_SEARCH_STAGES, place, *more])
    asked = {"k": k, "model": model, "measured": measured, "device": device}
    arguments = {"run": str(run), "marks": marks, **asked}
    settings = {"run": marks, "engine": place, **asked}
    return RunJob(ranked_items, arguments, settings, ["query", "user_id"], MOST_SEARCHES, "search")


def ranked_items(run: str, marks: Marks, k: int, model: Model, measured: bool, device: str | None) -> TableFunction:
    """Makes the function of :func:`search_job`."""
    engine = load_engine(run, model, device, measured)
    _refuse_changed(Path(run), marks)

    def function(table: pa.Table) -> pa.Table:
        _need_columns(table, ["query"])
        queries = [query or "" for query in table["query"].cast(pa.string()).to_pylist()]
        users: list[str | None] = [None] * len(queries)
        if "user_id" in table.column_names:
            users = table["user_id"].cast(pa.string()).to_pylist()
        requests = [SearchRequest(query, user, k) for query, user in zip(queries, users, strict=True)]
        return _answers(requests, engine.search_batch(requests))

    return function


def _answers(requests: Sequence[SearchRequest], answers: Sequence[SearchResults]) -> pa.Table:
    """One row for each search."""
    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
    return pa.table(
        {
            "query": pa.array([one.query for one in requests], pa.string()),
            "user_id": pa.array([one.user for one in requests], pa.string()),
            "item_ids": pa.array([[hit.item_id for hit in answer] for answer in answers], texts),
            "scores": pa.array([[hit.score for hit in answer] for answer in answers], numbers),
            "confidence": pa.array([answer.confidence for answer in answers], pa.float64()),
            "corrected_query": pa.array([answer.corrected_query for answer in answers], pa.string()),
        }
    )


# -- the state of a run ------------------------------------------------------------------------------------------------


def _place_and_marks(run: Path, stages: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """Where the run lies whoever asks, and the marks of its stages."""
    run = run.absolute()
    return run, _marks(run, stages)


def _marks(run: Path, stages: Sequence[str]) -> dict[str, str]:
    """A hash of the manifest of each stage, which no two buildings share, and the version that computes.

    Raises:
        FileNotFoundError: a stage is missing or unfinished.
    """
    marks = {stage: fingerprint(read_manifest(need(run, stage))) for stage in sorted(set(stages))}
    return {**marks, "onesearch": version("onesearch")}


def _refuse_changed(run: Path, marks: Marks) -> None:
    """Look, once everything is loaded, whether it is of the state that the job was made for.

    Raises:
        ValueError: it is not.
    """
    now = _marks(run, [stage for stage in marks if stage != "onesearch"])
    if changed := [name for name in marks if now[name] != marks[name]]:
        raise ValueError(f"{run} changed since the work began ({', '.join(changed)}): begin again with another folder")


def _need_columns(table: pa.Table, names: Sequence[str]) -> None:
    """Raises ValueError where a column is missing: a misspelt one must not count as empty."""
    if missing := [name for name in names if name not in table.column_names]:
        raise ValueError(f"the table has no column {', '.join(map(repr, missing))}; needed are {', '.join(names)}")
