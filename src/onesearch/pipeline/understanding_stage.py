"""The ``understanding`` stage: every query of the log is thought about once, for the teacher of stage 3."""

import logging
import multiprocessing
import multiprocessing.context
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field, model_validator

from onesearch.common.settings import Settings
from onesearch.data.text import normalise_query
from onesearch.encoding.transformer_encoder import TransformerEncoder
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.shopper_keywords import Calibrated, save_calibrated, shoppers_to_calibrate
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.run_parts import need
from onesearch.understanding.calibration_worker import run_calibrate
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.encoder_producer import EncoderProducer
from onesearch.understanding.llm_keyword_producer import LLMKeywordProducer
from onesearch.understanding.llm_producer import LLMProducer, LLMSettings
from onesearch.understanding.llm_prompts import FormatKind
from onesearch.understanding.log_expert import LogExpert
from onesearch.understanding.preference_calibration import Calibrator
from onesearch.understanding.thought import Producer
from onesearch.understanding.thought_cache import SqliteThoughts
from onesearch.understanding.thought_table import Thoughts
from onesearch.understanding.understand_queries import run_understand
from onesearch.understanding.work_summary import Summary

log = logging.getLogger("onesearch")
CACHE, SET_ASIDE, WORDS = "cache.sqlite", "set_aside.jsonl", "words"


class UnderstandingSettings(Settings):
    """Who thinks about the queries; V2 is trained where somebody does."""

    producer: Literal["none", "log-expert", "encoder", "market", "llm", "llm-keywords"] = Field(
        "none",
        description="nobody (V1 only); the click log; a text encoder; the market's stand-in for a language model; a "
        "real one; a small one, which is asked for keywords alone",
    )
    encoder: str | None = Field(
        None, description="name or path of a sentence-transformers model that thinks; else the run's own encoder"
    )
    error: float = Field(0.15, ge=0, le=1, description="chance that the stand-in misunderstands a need word of a query")
    base_url: str = Field("", description="OpenAI-compatible server, ending in /v1; else the environment's")
    model: str = Field("Qwen3-32B", description="name of the model on that server")
    response_format: FormatKind = Field(
        "json_schema", description="how the schema of an answer is sent; json_object for servers that know no other"
    )
    concurrency: int = Field(16, ge=1, description="calls in flight")
    calibrate: int = Field(
        0,
        ge=0,
        description="step 3 by the language model for so many queries with a shopper's history, at most, in place of "
        "the rule (with distill.personal and the CoT tasks)",
    )
    max_calls: int | None = Field(
        None,
        ge=0,
        description="calls of a language model, at most, for the most searched queries: what is not asked has no "
        "thought; 0 reads the cache",
    )
    cache: Path | None = Field(
        None, description="file of `onesearch understand --cache`, read and filled; runs that share it ask once"
    )

    @model_validator(mode="after")
    def _a_language_model_calibrates(self) -> "UnderstandingSettings":
        if self.calibrate and self.producer in ("none", "log-expert", "encoder"):
            raise ValueError(
                f"calibrate asks a language model, and producer is {self.producer}: set that to llm (or market), or "
                "calibrate to 0, which leaves step 3 to the rule"
            )
        return self


def build_understanding(
    run_data: RunData,
    context: StageContext,
    producer: str,
    error: float,
    model: str,
    base_url: str,
    response_format: str,
    concurrency: int,
    cache: Path | None,
    calibrate: int = 0,
    max_calls: int | None = None,
    encoder: str | None = None,
) -> Mapping[str, Any]:
    """Thoughts of all queries of the log as ``thoughts.parquet``; an interrupted stage goes on from its cache.

    With ``calibrate`` a language model's keywords for shoppers of the training part lie beside them. The arguments are
    those of :class:`UnderstandingSettings`.

    Raises:
        RuntimeError: some queries were not asked (server down, stopped); what was answered is kept.
        ValueError: no query has a thought.
    """
    items, parts = run_data.dataset.items, run_data.split
    words = CatalogueVocabulary.from_items(items, run_data.statistics.clicked)
    words.save(context.folder / WORDS)
    # Queries of all parts: a thought holds nothing of a page view, so that there is nothing to leak.
    texts = pl.concat([frame["query"] for frame in (parts.train, parts.valid, parts.test)]).drop_nulls()
    searches: Counter[str] = Counter()
    for text, count in texts.value_counts().iter_rows():
        searches[normalise_query(text)] += count
    queries = sorted(searches.keys() - {""})
    # Ask what the cache does not answer.
    store = SqliteThoughts(cache or context.folder / CACHE)
    limits: dict[str, Any] = {"model": model, "response_format": response_format, "concurrency": concurrency}
    limits["max_calls"] = max_calls
    limits |= {"base_url": base_url} if base_url else {}
    try:
        with _producer(run_data, producer, error, encoder, limits, words, context.seed) as thinker:
            # The most searched ones first, as a budget may end before all were asked.
            asked = sorted(queries, key=lambda query: -searches[query])
            summary = run_understand(asked, thinker, store, context.folder / SET_ASIDE, concurrency)
            _finished(summary, max_calls)
            # One table of what was answered.
            found = store.get_many(queries, thinker.name, thinker.version)
            thoughts = Thoughts.from_thoughts(found.values())
            thoughts.save(context.folder)
            if not len(thoughts):
                raise ValueError(f"no query could be thought about; the reasons are in {context.folder / SET_ASIDE}")
            calibrated: Calibrated = {}
            if calibrate and isinstance(thinker, Calibrator):
                shoppers = shoppers_to_calibrate(run_data, thoughts, calibrate, context.seed)
                _finished(run_calibrate(shoppers, thinker, store, concurrency), max_calls)
                answers = {key: store.get_personal(*key, thinker.name, thinker.version) for key in shoppers}
                calibrated = {key: answer for key, answer in answers.items() if answer}
                save_calibrated(calibrated, context.folder)
    finally:
        store.close()
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
        **({"calibrated": len(calibrated)} if calibrate else {}),
    }


def _finished(summary: Summary, max_calls: int | None) -> None:
    """Log what became of a list of work.

    Raises:
        RuntimeError: some of it was not asked, and no budget says so.
    """
    if summary.unfinished and (max_calls is None or summary.calls < max_calls):
        raise RuntimeError(
            f"{summary.unfinished} of {summary.asked} {summary.what} are still without an answer ({summary.stopped}); "
            "run the same command again: it asks for those only"
        )
    log.info("%s", summary.text())


@contextmanager
def _producer(
    run_data: RunData,
    kind: str,
    error: float,
    encoder: str | None,
    limits: Mapping[str, Any],
    words: CatalogueVocabulary,
    seed: int,
) -> Iterator[Producer]:
    if kind == "log-expert":
        # Without a query's own clicks: they are what the model shall predict in training.
        yield LogExpert.from_log(
            run_data.dataset.items, run_data.statistics, words, run_data.lexicon, leave_out_own=True
        )
    elif kind == "encoder":
        opened = run_data.encoder if encoder is None else TransformerEncoder.open(encoder)
        yield EncoderProducer(words, run_data.lexicon, opened.encode)
    elif kind == "llm":
        yield LLMProducer(words, LLMSettings(**limits))
    elif kind == "llm-keywords":
        yield LLMKeywordProducer(words, LLMSettings(**limits))
    else:
        with stand_in(need(run_data.run, "data"), error, seed) as address:
            yield LLMProducer(words, LLMSettings(**{**limits, "base_url": address}))


@contextmanager
def stand_in(dataset: Path, error: float, seed: int, in_thread: bool = False) -> Iterator[str]:
    """The market's stand-in language model on a free local port while the context lasts; gives its base address.

    It is a process of its own, as a real server is: answers are made while the client reads others. It ends with the
    context, and with this process however that ends. ``in_thread`` makes it a thread, for processes that may have no
    others.

    Raises:
        RuntimeError: it did not start.
    """
    from onesearch.market.llm_server import serve_until_closed

    context = multiprocessing.get_context("spawn")  # threads of this process must not be forked
    ours, theirs = context.Pipe()
    made = (dataset, error, seed, theirs)
    server: threading.Thread | multiprocessing.context.SpawnProcess
    if in_thread:
        server = threading.Thread(target=serve_until_closed, args=made, daemon=True)
    else:
        server = context.Process(target=serve_until_closed, args=made, daemon=True)
    server.start()
    if not in_thread:
        theirs.close()
    try:
        try:
            port = ours.recv()
        except EOFError:
            raise RuntimeError("the stand-in language model did not start; its message is above") from None
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        ours.close()
        server.join(10)
        if not isinstance(server, threading.Thread):
            server.kill()
