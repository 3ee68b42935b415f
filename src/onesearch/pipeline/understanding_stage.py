"""The ``understanding`` stage: every query of the log is thought about once, for the teacher of stage 3."""

import logging
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from onesearch.common.settings import Settings
from onesearch.data.text import normalise_query
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.run_parts import need
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.llm_producer import LLMProducer, LLMSettings
from onesearch.understanding.log_expert import LogExpert
from onesearch.understanding.thought import Producer
from onesearch.understanding.thought_cache import SqliteThoughts
from onesearch.understanding.thought_table import Thoughts
from onesearch.understanding.worker import run_understand

log = logging.getLogger("onesearch")
CACHE, SET_ASIDE, WORDS = "cache.sqlite", "set_aside.jsonl", "words"


class UnderstandingSettings(Settings):
    """Who thinks about the queries; V2 is trained where somebody does."""

    producer: Literal["none", "log-expert", "market", "llm"] = Field(
        "none", description="nobody (V1 only); the click log; the market's stand-in language model; a real one"
    )
    error: float = Field(0.15, ge=0, le=1, description="chance that the stand-in misunderstands a need word of a query")
    base_url: str = Field("", description="OpenAI-compatible server, ending in /v1; else the environment's")
    model: str = Field("Qwen3-32B", description="name of the model on that server")
    concurrency: int = Field(16, ge=1, description="calls in flight")
    cache: Path | None = Field(
        None, description="file of `onesearch understand --cache`, read and filled; runs that share it ask once"
    )


def build_understanding(
    run_data: RunData,
    context: StageContext,
    producer: str,
    error: float,
    model: str,
    base_url: str,
    concurrency: int,
    cache: Path | None,
) -> Mapping[str, Any]:
    """Thoughts of all queries of the log as ``thoughts.parquet``; an interrupted stage goes on from its cache.

    The arguments are those of :class:`UnderstandingSettings`.

    Raises:
        RuntimeError: some queries were not asked (server down, budget spent, stopped); what was answered is kept.
        ValueError: no query has a thought.
    """
    items, parts = run_data.dataset.items, run_data.split
    words = CatalogueVocabulary.from_items(items, run_data.statistics.clicked)
    words.save(context.folder / WORDS)
    # Queries of all parts: a thought holds nothing of a page view, so that there is nothing to leak.
    texts = pl.concat([frame["query"] for frame in (parts.train, parts.valid, parts.test)]).drop_nulls()
    queries = sorted({normalise_query(text) for text in texts.unique().to_list()} - {""})
    # Ask what the cache does not answer.
    store = SqliteThoughts(cache or context.folder / CACHE)
    limits = {"model": model, "concurrency": concurrency, **({"base_url": base_url} if base_url else {})}
    try:
        with _producer(run_data, producer, error, limits, words, context.seed) as thinker:
            summary = run_understand(queries, thinker, store, context.folder / SET_ASIDE, concurrency)
            found = store.get_many(queries, thinker.name, thinker.version)
    finally:
        store.close()
    if summary.unfinished:
        raise RuntimeError(
            f"{summary.unfinished} of {len(queries)} queries are still without an answer ({summary.stopped}); "
            "run the same command again: it asks for those only"
        )
    # One table of what was answered.
    thoughts = Thoughts.from_thoughts(found.values())
    thoughts.save(context.folder)
    if not len(thoughts):
        raise ValueError(f"no query could be thought about; the reasons are in {context.folder / SET_ASIDE}")
    log.info("%s", summary.text())
    # Everything is in the table now; a cache in the stage's folder is only for going on after an interruption.
    for left in context.folder.glob(f"{CACHE}*"):
        left.unlink()
    known = thoughts.table
    return {
        "producer": producer,
        "queries": len(queries),
        "thoughts": len(known),
        "with_keywords": int((known["keywords"].list.len() > 0).sum()),
        "complex": int((known["query_type"] != "plain").sum()),
    }


@contextmanager
def _producer(
    run_data: RunData, kind: str, error: float, limits: Mapping[str, Any], words: CatalogueVocabulary, seed: int
) -> Iterator[Producer]:
    if kind == "log-expert":
        # Without a query's own clicks: they are what the model shall predict in training.
        yield LogExpert.from_log(
            run_data.dataset.items, run_data.statistics, words, run_data.lexicon, leave_out_own=True
        )
    elif kind == "llm":
        yield LLMProducer(words, LLMSettings(**limits))
    else:
        with stand_in(need(run_data.run, "data"), error, seed) as address:
            yield LLMProducer(words, LLMSettings(**{**limits, "base_url": address}))


@contextmanager
def stand_in(dataset: Path, error: float, seed: int) -> Iterator[str]:
    """The market's stand-in language model on a free local port while the context lasts; gives its base address.

    It is a process of its own, as a real server is: answers are made while the client reads others. It ends with the
    context, and with this process however that ends.

    Raises:
        RuntimeError: it did not start.
    """
    from onesearch.market.llm_server import serve_until_closed

    context = multiprocessing.get_context("spawn")  # threads of this process must not be forked
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_until_closed, args=(dataset, error, seed, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        try:
            port = ours.recv()
        except EOFError:
            raise RuntimeError("the stand-in language model did not start; its message is above") from None
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        ours.close()
        process.join(10)
        process.kill()
