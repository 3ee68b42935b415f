"""Queries → ranked items over tables of any size, by the engine of a finished run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from onesearch.batch.part_worker import TableFunction
from onesearch.batch.run_jobs import Marks, RunJob, marks_of, need_columns, refuse_changed
from onesearch.search.engine import load_engine
from onesearch.search.engine_file import load_about
from onesearch.search.results import SearchRequest, SearchResults
from onesearch.search.run_parts import STAGE_OF, Model, choose_model
from onesearch.search.served_versions import served_place

MOST_SEARCHES: Final = 1_000  # of a part: a minute's work, not an hour's
_STAGES: Final = ("data", "encoder", "khqe", "index", "lexical")


def search_job(
    run: Path, k: int = 10, model: Model | None = None, measured: bool = False, device: str | None = None
) -> RunJob:
    """Queries → ranked items of the engine that the run serves, or that its report ``measured``.

    Reads ``query`` and, where it is there, ``user_id``; writes them with ``item_ids``, ``scores``, ``confidence`` and
    ``corrected_query``, as :meth:`onesearch.search.engine.SearchEngine.search` answers.

    Raises:
        FileNotFoundError: the run has no such engine, or it is unfinished.
    """
    run = run.absolute()
    model = choose_model(run, model)
    place = STAGE_OF[model] if measured else served_place(run, model)
    about = load_about(run, place)
    # All that the engine is put together of.
    stages = [*_STAGES, place, about["model"], about.get("counts"), about.get("reads_keywords") and "understanding"]
    marks = marks_of(run, [stage for stage in stages if stage])
    asked = {"k": k, "model": model, "measured": measured, "device": device}
    arguments = {"run": str(run), "marks": marks, **asked}
    settings = {"run": marks, "engine": place, **asked}
    return RunJob(ranked_items, arguments, settings, ["query", "user_id"], MOST_SEARCHES, "search")


def ranked_items(run: str, marks: Marks, k: int, model: Model, measured: bool, device: str | None) -> TableFunction:
    """Makes the function of :func:`search_job`."""
    engine = load_engine(run, model, device, measured)
    refuse_changed(Path(run), marks)

    def function(table: pa.Table) -> pa.Table:
        need_columns(table, ["query"])
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
