"""Queries → thoughts over tables of any size, by whoever may think over a run's catalogue."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from onesearch.batch.part_folder import content_of
from onesearch.batch.part_worker import TableFunction
from onesearch.batch.query_thoughts import think_about, thought_rows
from onesearch.batch.run_jobs import Marks, RunJob, marks_of, need_columns, refuse_changed
from onesearch.common.artefact import fingerprint
from onesearch.pipeline.opened_producers import opened_producer
from onesearch.understanding.llm_producer import LLMSettings
from onesearch.understanding.llm_prompts import FormatKind
from onesearch.understanding.producer_keys import ProducerKind, producer_key

MOST_ASKED: Final = 500  # queries of a part for a language model: what is lost where its server goes down
MOST_RULED: Final = 10_000  # for those that answer many at once


def understand_job(
    run: Path,
    producer: ProducerKind,
    encoder: str | None = None,
    base_url: str | None = None,
    response_format: FormatKind = "json_schema",
    concurrency: int = 16,
) -> RunJob:
    """Queries → their thoughts: columns of :data:`onesearch.batch.query_thoughts.SCHEMA`.

    Args:
        run: gives catalogue, clicks of its training part, lexicon and encoder, as far as the producer reads them.
        producer: who thinks.
        encoder: name or path of a sentence-transformers model for producer ``encoder``; None for the run's own.
        base_url: of a language model's server; None for the environment's. Its key is read where a worker runs, from
            the environment alone, and stands neither in arguments nor in settings.
        response_format: how the schema of an answer is sent to it.
        concurrency: calls in flight, of each worker.

    Raises:
        FileNotFoundError: a stage of the run is missing or unfinished.
        ValueError: the address holds a password.
    """
    run = run.absolute()
    speaks = producer in ("llm", "llm-keywords", "market")
    # What shapes the thoughts; where a model is asked, and how fast, does not.
    stages = ["data"] if speaks else ["data", "khqe"]
    stages += ["encoder"] if producer == "encoder" and encoder is None else []
    marks = marks_of(run, stages)
    name, version = producer_key(producer)
    settings: dict[str, Any] = {"run": dict(marks), "producer": name, "version": version}
    if producer == "encoder" and encoder is not None:
        settings["encoder"] = [encoder, _model_mark(Path(encoder))]
    # Workers elsewhere may have another environment, so that they are told what this one says.
    limits: dict[str, Any] = {}
    if speaks:
        settings["response_format"] = response_format
        given = {"base_url": base_url} if base_url else {}
        asked = LLMSettings(response_format=response_format, concurrency=concurrency, **given)
        limits = asked.model_dump(include={"model", "base_url", "response_format", "concurrency"})
    arguments = {"run": str(run), "marks": dict(marks), "producer": producer, "encoder": encoder, "limits": limits}
    return RunJob(query_thoughts, arguments, settings, ["query"], MOST_ASKED if speaks else MOST_RULED, "understand")


def query_thoughts(
    run: str, marks: Marks, producer: ProducerKind, encoder: str | None, limits: Mapping[str, Any]
) -> TableFunction:
    """Makes the function of :func:`understand_job`."""
    opened = ExitStack()
    thinker = opened.enter_context(opened_producer(producer, Path(run), limits, encoder, in_thread=True))
    refuse_changed(Path(run), marks)

    # The default keeps open what the producer needs, for as long as there is the function.
    def function(table: pa.Table, _: ExitStack = opened) -> pa.Table:
        need_columns(table, ["query"])
        queries = table["query"].cast(pa.string()).to_pylist()
        answers = think_about([query or "" for query in queries], thinker, limits.get("concurrency", 1))
        return thought_rows(queries, answers, thinker.name, thinker.version)

    return function


def _model_mark(place: Path) -> str | None:
    """What tells a model in a folder from another one; None for a name, under which somebody else keeps it."""
    if not place.is_dir():
        return None
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return fingerprint({str(path.relative_to(place)): content_of([path]) for path in files})
