"""``onesearch understand``: think about queries and keep the thoughts."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from onesearch.data.dataset import Dataset
    from onesearch.data.statistics import ClickStatistics
    from onesearch.understanding.cache import ThoughtCache
    from onesearch.understanding.catalogue_words import CatalogueWords
    from onesearch.understanding.thought import Producer


class ProducerName(StrEnum):
    """Who thinks."""

    llm = "llm"
    log_expert = "log-expert"


def understand(
    source: Annotated[
        Path, typer.Argument(help="Text file with one query a line, or a dataset or run folder with a log.")
    ],
    cache: Annotated[
        str, typer.Option(help="SQLite file of one catalogue's thoughts, made if missing; or a redis:// address.")
    ],
    dataset: Annotated[
        Path | None,
        typer.Option(help="Dataset or run whose catalogue the keywords come from; by default SOURCE if it is one."),
    ] = None,
    producer: Annotated[
        ProducerName, typer.Option(help="llm: a language model; log-expert: what shoppers clicked.")
    ] = ProducerName.llm,
    base_url: Annotated[
        str | None, typer.Option(help="Address of the model's server, ending in /v1.", envvar="ONESEARCH_LLM_BASE_URL")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many queries only, the most searched ones.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls in flight.")] = 16,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Budget of calls, repeated ones included.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Budget of tokens, read and written.")] = None,
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million tokens read, for the cost.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million tokens written.")] = 0.0,
    rejects: Annotated[
        Path | None,
        typer.Option(help="JSON-lines file for queries without a usable answer; by default CACHE.rejects.jsonl."),
    ] = None,
) -> None:
    """Find out what queries mean: intent, category, attributes, topics, and at most eight keywords of the catalogue.

    Every answer is kept at once. After an interruption, a spent budget or a failed server the same command goes on
    where it stopped; what is in the cache is never asked again.

    The language model's name comes from ONESEARCH_LLM_MODEL, its key from ONESEARCH_LLM_API_KEY and nowhere else.

    For example:

      onesearch understand runs/demo --producer log-expert --cache thoughts.sqlite3

      onesearch understand queries.txt --dataset data/shop --cache thoughts.sqlite3 --base-url http://127.0.0.1:8001/v1
    """
    from onesearch.understanding.driver import run_understand

    catalogue = dataset if dataset is not None else source
    if catalogue.is_file():
        raise typer.BadParameter(f"{source} is a file, so name the catalogue's dataset", param_hint="--dataset")
    data, statistics = _opened(catalogue)
    queries = _queries(source)[:limit]
    thoughts = _cache(cache)
    try:
        if producer is ProducerName.log_expert:
            thinker: Producer = _log_expert(catalogue, data, statistics)
        else:
            from onesearch.understanding.llm import LLMConfig, LLMProducer

            given = {"base_url": base_url} if base_url else {}
            config = LLMConfig(
                concurrency=concurrency, max_calls=max_calls, max_tokens=max_tokens, price_in=price_in,
                price_out=price_out, **given,
            )  # fmt: skip
            thinker = LLMProducer(_words(data, statistics), config)
        aside = rejects if rejects is not None or "://" in cache else Path(f"{cache}.rejects.jsonl")
        typer.echo(run_understand(queries, thinker, thoughts, aside, concurrency).text())
    finally:
        thoughts.close()


def _opened(folder: Path) -> "tuple[Dataset, ClickStatistics | None]":
    """The dataset of a dataset or run folder, and a run's statistics of its training part."""
    from onesearch.data.dataset import Dataset
    from onesearch.data.statistics import ClickStatistics

    inside = folder / "data"
    if not (inside / "statistics").is_dir():
        return Dataset.load(folder), None
    return Dataset.load(inside), ClickStatistics.load(inside / "statistics")


def _words(data: "Dataset", statistics: "ClickStatistics | None") -> "CatalogueWords":
    from onesearch.understanding.catalogue_words import CatalogueWords

    return CatalogueWords.of(data.items, None if statistics is None else statistics.clicked)


def _log_expert(folder: Path, data: "Dataset", statistics: "ClickStatistics | None") -> "Producer":
    """From a run its training part and lexicon; from a dataset, which has no parts, all of the log."""
    from onesearch.data.statistics import ClickStatistics
    from onesearch.understanding.lexicon import Lexicon
    from onesearch.understanding.log_expert import LogExpert

    if statistics is None:
        typer.secho(f"{folder} has no training part: all of its log speaks; for tests name a run", err=True)
        statistics = ClickStatistics.of(data.page_views, data.items)
    lexicon = folder / "khqe" / "lexicon"
    found = Lexicon.load(lexicon) if lexicon.is_dir() else None
    return LogExpert.of(data.items, statistics, _words(data, statistics), found)


def _queries(source: Path) -> list[str]:
    """Distinct normalised queries: of a file in its order, of a log the most searched first."""
    import polars as pl

    from onesearch.data.text import normalise_queries, normalise_query

    if source.is_file():
        lines = source.read_text(encoding="utf-8-sig").splitlines()
        return [query for query in dict.fromkeys(map(normalise_query, lines)) if query]
    data, _ = _opened(source)
    queries = normalise_queries(data.page_views["query"])
    counted = pl.DataFrame({"query": queries.filter(queries != "")}).group_by("query").len()
    return counted.sort(["len", "query"], descending=[True, False])["query"].to_list()


def _cache(place: str) -> "ThoughtCache":
    if "://" in place:
        from onesearch.understanding.redis_cache import RedisThoughts

        return RedisThoughts(place)
    from onesearch.understanding.cache import SqliteThoughts

    return SqliteThoughts(Path(place))
