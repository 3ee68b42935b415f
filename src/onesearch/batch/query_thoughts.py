"""Queries → what they are about, as rows of a table; and such rows, which anybody may have written, → a cache.

A row for each query, in the order of the table: the fields of a thought, who was asked, and why there is no thought
where there is none.
"""

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from onesearch.batch.run_jobs import need_columns
from onesearch.batch.table_parts import table_files
from onesearch.common.artefact import refuse_links
from onesearch.understanding.keyword_extraction import validated
from onesearch.understanding.llm_producer import LLMUnavailableError, json_object
from onesearch.understanding.stop_signals import run_until_stopped
from onesearch.understanding.thought import Grounding, Producer, Thought, ThoughtError
from onesearch.understanding.thought_cache import SqliteThoughts, ThoughtCache, cache_key
from onesearch.understanding.work_summary import Summary, note_reject
from onesearch.understanding.worker import ROUNDS, Worker

_ATTRIBUTE: Final = pa.struct([("type", pa.string()), ("value", pa.string()), ("negated", pa.bool_())])
SCHEMA: Final = pa.schema(
    [
        ("query", pa.string()),
        ("intent", pa.string()),
        ("query_type", pa.string()),
        ("category", pa.list_(pa.string())),
        ("attributes", pa.list_(_ATTRIBUTE)),
        ("topics", pa.list_(pa.string())),
        ("keywords", pa.list_(pa.string())),
        ("producer", pa.string()),
        ("version", pa.string()),
        ("reason", pa.string()),
    ]
)
_ANSWER: Final = ("intent", "query_type", "category", "attributes", "topics", "keywords")
_AT_ONCE: Final = 500  # rows that are looked up and kept together


class Answers(NamedTuple):
    """What became of distinct normalised queries: a thought, or the reason why there is none."""

    thoughts: Mapping[str, Thought]
    reasons: Mapping[str, str]


# -- thinking ----------------------------------------------------------------------------------------------------------


def think_about(queries: Sequence[str], producer: Producer, concurrency: int = 16, patience: float = 120.0) -> Answers:
    """Have a producer think about queries, each distinct one once, by the rules of ``onesearch understand``.

    Args:
        queries: as typed; those that are the same once normalised, as a cache does it, are one.
        producer: whoever thinks.
        concurrency: queries in work at once.
        patience: seconds without any answer after which a server is taken to be down.

    Raises:
        LLMUnavailableError: the server is down, so that nothing can be said of some queries.
        LLMError: it refuses whatever it is asked.
    """
    silent: dict[str, str] = {}
    # The worker of lists keeps what it gets, as it gets it; what it keeps it in ends with these queries.
    with tempfile.TemporaryDirectory(prefix="onesearch-thoughts-") as folder:
        rejects = Path(folder) / "rejects.jsonl"
        with closing(SqliteThoughts(Path(folder) / "thoughts.sqlite3")) as cache:

            async def work(_: asyncio.Event) -> Summary:
                return await _until_all_are_told(queries, producer, cache, rejects, concurrency, patience, silent)

            run_until_stopped(work, producer)
            thoughts = cache.get_many([*map(cache_key, queries)], producer.name, producer.version)
        return Answers(thoughts, {**silent, **_noted(rejects)})


async def _until_all_are_told(
    queries: Sequence[str],
    producer: Producer,
    cache: ThoughtCache,
    rejects: Path,
    concurrency: int,
    patience: float,
    silent: dict[str, str],
) -> Summary:
    """Work until each query has a thought or a reason; ``silent`` gets those that the server alone does not answer.

    Raises:
        LLMUnavailableError: it answers nothing any more.
    """
    left = list(dict.fromkeys(map(cache_key, queries)))
    while True:
        worker = Worker(producer, cache, asyncio.Event(), concurrency, rejects=rejects, patience=patience)
        summary = await worker.run(left)
        if not summary.unfinished:
            return summary
        # Is it the server, or are it these queries? One that got an answer before is asked again.
        told = {**cache.get_many(left, producer.name, producer.version), **_noted(rejects)}
        unanswered = [query for query in worker.rounds if query not in told]
        if not told or not unanswered or not await _answers(producer, next(iter(told))):
            raise LLMUnavailableError(
                f"{summary.unfinished} of {summary.asked} queries of the part have no answer, and the server gives none"
                f" now: is it up? {summary.stopped}".rstrip()
            )
        silent |= dict.fromkeys(unanswered, f"no answer in up to {ROUNDS} rounds, while others got one")
        left = [query for query in left if query not in told and query not in silent]
        if not left:
            return summary


async def _answers(producer: Producer, query: str) -> bool:
    """Whether the producer answers at all, usably or not."""
    try:
        await producer.think(query)
    except ThoughtError:
        return True
    except LLMUnavailableError:
        return False
    return True


def _noted(rejects: Path) -> dict[str, str]:
    """Reasons by query of a worker's file."""
    if not rejects.is_file():
        return {}
    lines = map(json.loads, rejects.read_text(encoding="utf-8").splitlines())
    return {line["query"]: line["reason"] for line in lines}


def thought_rows(queries: Sequence[str | None], answers: Answers, producer: str, version: str) -> pa.Table:
    """A row of :data:`SCHEMA` for each query as it stands in the table; repeated ones have the same thought."""
    rows = []
    for query in queries:
        key = cache_key(query or "")
        row: dict[str, Any] = {"query": query, "producer": producer, "version": version}
        thought = answers.thoughts.get(key)
        if thought is None:
            row["reason"] = answers.reasons[key] if key else "no query"
        else:
            row |= thought.analysis.model_dump(mode="json")
            row["keywords"] = list(thought.keywords)
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


# -- into a cache ------------------------------------------------------------------------------------------------------


def import_thoughts(
    source: Path, cache: ThoughtCache, words: Grounding, producer: str, version: str, rejects: Path | None = None
) -> Summary:
    """Keep the thoughts of a table, or of as many parts of it as there are; each row is checked like an answer.

    Args:
        source: a Parquet file or a folder of them, with the columns of :data:`SCHEMA`.
        cache: gets the thoughts; those that it has stay as they are.
        words: the catalogue that thoughts must keep to.
        producer: whose thoughts are taken; those of others are set aside.
        version: of the producer.
        rejects: a JSON-lines file that grows: rows without a usable thought, with the reason.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: a file is no such table.
    """
    refuse_links(source)
    intake = _Intake(cache, words, (producer, version))
    try:
        for path in table_files(source):
            # Some rows at a time: nobody knows how large a stranger's table is.
            try:
                with pq.ParquetFile(path) as file:
                    need_columns(file.schema_arrow.empty_table(), SCHEMA.names)
                    for batch in file.iter_batches(_AT_ONCE, columns=SCHEMA.names):
                        intake.keep(pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA).to_pylist())
            except (pa.ArrowException, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is no table of thoughts: {error}") from error
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    finally:
        if rejects is not None:
            for query, reason in intake.refused.items():
                note_reject(rejects, producer, version, query, reason)
    return intake.summed_up()


class _Intake:
    """Rows on their way into a cache, and what became of their queries."""

    def __init__(self, cache: ThoughtCache, words: Grounding, who: tuple[str, str]) -> None:
        """``who``: name and version of the producer whose thoughts are taken."""
        self._cache, self._words, self._who = cache, words, who
        self._kept: set[str] = set()  # queries with a thought
        self.refused: dict[str, str] = {}
        """Queries without a usable one in any row so far, with the reason."""
        self._summary = Summary()

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the thoughts of some rows; the first one of a query stays."""
        self._summary.given += len(rows)
        keys = [cache_key(row["query"] or "") for row in rows]
        known = self._cache.get_many([key for key in dict.fromkeys(keys) if key not in self._kept], *self._who)
        self._summary.cached += len(known)
        self._kept |= known.keys()
        # Each row whose query has no thought yet.
        thoughts: dict[str, Thought] = {}
        for key, row in zip(keys, rows, strict=True):
            if not key or key in self._kept or key in thoughts:
                continue
            try:
                thoughts[key], dropped = _checked(key, row, self._words, self._who)
                self._summary.dropped += dropped
            except ThoughtError as error:
                self.refused.setdefault(key, str(error))
        self._cache.put(list(thoughts.values()))
        self._summary.answered += len(thoughts)
        self._kept |= thoughts.keys()
        for key in self._kept & self.refused.keys():
            del self.refused[key]

    def summed_up(self) -> Summary:
        """What became of the distinct queries."""
        summary = self._summary
        summary.asked, summary.set_aside = len(self._kept) + len(self.refused), len(self.refused)
        summary.reasons.update(reason.split(": ", 1)[0] for reason in self.refused.values())
        return summary


def _checked(key: str, row: Mapping[str, Any], words: Grounding, who: tuple[str, str]) -> tuple[Thought, int]:
    """The thought of a row, as that of a language model's answer, and how much of it was left out.

    Raises:
        ThoughtError: there is none, it is another producer's, or it would be refused as an answer.
    """
    if row["intent"] is None:
        raise ThoughtError(f"no thought in the table: {row['reason']}")
    if (row["producer"], row["version"]) != who:
        raise ThoughtError(
            f"another producer: {row['producer']}, version {row['version']}, not {', version '.join(who)}"
        )
    answer = json_object(json.dumps({field: row[field] for field in _ANSWER}, ensure_ascii=False))
    thought, dropped = validated(answer, key, *who, words)
    return thought, len(dropped)
