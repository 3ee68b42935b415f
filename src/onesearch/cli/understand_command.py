"""``onesearch understand``: think about queries and keep the thoughts, once or as the queries come in."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onesearch.cli.producer_options import (
    BaseUrl,
    Format,
    Producer,
    ProducerName,
    ResponseFormat,
    TextEncoder,
    open_thoughts,
    producer_key,
)
from onesearch.cli.terminal import Span, show_json, show_table

if TYPE_CHECKING:
    from onesearch.understanding.thought import Producer as Thinker
    from onesearch.understanding.thought_cache import ThoughtCache
    from onesearch.understanding.work_summary import Summary


def understand(
    # What to think about, over which catalogue, and where the thoughts go.
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
    from_table: Annotated[
        Path | None,
        typer.Option(
            help="Think about nothing: bring the thoughts of this table, which `onesearch batch understand` wrote, into"
            " the cache. Each row is checked like an answer, against SOURCE's catalogue; --producer says whose.",
            show_default=False,
        ),
    ] = None,
    # Who thinks, and how much of it.
    producer: Producer = ProducerName.llm,
    base_url: BaseUrl = None,
    response_format: Format = ResponseFormat.json_schema,
    encoder: TextEncoder = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many queries only, the most searched ones.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls in flight.")] = 16,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Budget of calls, repeated ones included.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Budget of tokens, read and written.")] = None,
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million tokens read, for the cost.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million tokens written.")] = 0.0,
    calibrate: Annotated[
        int,
        typer.Option(
            min=0,
            help="Then let the language model calibrate keywords (step 3) for so many searches of a run's training"
            " part: complex queries by shoppers with a history, drawn by the run's seed.",
        ),
    ] = 0,
    rejects: Annotated[
        Path | None,
        typer.Option(help="JSON-lines file for queries without a usable answer; by default CACHE.rejects.jsonl."),
    ] = None,
    # Beside a service: a worker, or what it has come to.
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Think about the queries that a service put into the cache's queue, not those of"
            " SOURCE, as they come in, until stopped.",
        ),
    ] = False,
    lease: Annotated[
        float, typer.Option(min=1, help="With --watch: seconds after which another worker may take a query over.")
    ] = 900.0,
    coverage: Annotated[
        Span | None, typer.Option(help="Only show which share of a service's searches has keywords, by hour or day.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="With --coverage: the service's store; by default SOURCE/serving.sqlite3.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON object.")] = False,
) -> None:
    """Find out what queries mean: intent, category, attributes, topics, and at most eight keywords of the catalogue.

    Every answer is kept at once. After an interruption, a spent budget or a failed server the same command goes on
    where it stopped; what is in the cache is never asked again.

    The language model's name comes from ONESEARCH_LLM_MODEL, its key from ONESEARCH_LLM_API_KEY and nowhere else.

    For example:

      onesearch understand runs/demo --producer log-expert --cache thoughts.sqlite3

      onesearch understand queries.txt --dataset data/shop --cache thoughts.sqlite3 --base-url http://127.0.0.1:8001/v1

    Many queries by several workers, and what they found into the cache:

      onesearch batch understand runs/demo runs/demo/data/test.parquet thought --producer log-expert --workers 2

      onesearch understand runs/demo --producer log-expert --from-table thought --cache thoughts.sqlite3

    Beside a service that was started with --thoughts, a worker for the queries that nobody has thought about yet, and
    what it has come to:

      onesearch understand runs/demo --producer log-expert --cache thoughts.sqlite3 --watch

      onesearch understand runs/demo --producer log-expert --cache thoughts.sqlite3 --coverage day
    """
    if from_table is not None and (watch or coverage is not None or calibrate):
        raise typer.BadParameter("goes with neither --watch nor --coverage nor --calibrate", param_hint="--from-table")
    if as_json and (watch or coverage is not None):
        raise typer.BadParameter("goes with neither --watch nor --coverage", param_hint="--json")
    if coverage is not None:
        _show_coverage(source, store, open_thoughts(cache), producer, coverage)
        return
    if calibrate and (watch or producer in (ProducerName.log_expert, ProducerName.encoder)):
        raise typer.BadParameter("needs a language model, and no --watch", param_hint="--calibrate")
    if calibrate and not (source / "config.json").is_file():
        raise typer.BadParameter(f"{source} is no run, which knows its training part", param_hint="--calibrate")
    catalogue = dataset if dataset is not None else source
    if catalogue.is_file():
        raise typer.BadParameter(f"{source} is a file, so name the catalogue's dataset", param_hint="--dataset")
    aside = rejects if rejects is not None or "://" in cache else Path(f"{cache}.rejects.jsonl")
    if from_table is not None:
        summary = _import(from_table, catalogue, cache, producer, aside)
        show_json(vars(summary)) if as_json else typer.echo(summary.text())
        return
    queries = [] if watch else read_queries(source)[:limit]
    # Settings of a language model; other producers have none.
    limits = {
        "concurrency": concurrency,
        "max_calls": max_calls,
        "max_tokens": max_tokens,
        "price_in": price_in,
        "price_out": price_out,
        "response_format": response_format.value,
        **({"base_url": base_url} if base_url else {}),
    }
    from onesearch.pipeline.opened_producers import opened_producer
    from onesearch.understanding.understand_queries import run_understand, run_watch

    opened = opened_producer(producer.value, catalogue, limits, encoder)
    with closing(open_thoughts(cache)) as thoughts, opened as thinker:
        if watch:
            typer.echo(f"Thinking about what comes into {cache}, as {thinker.name}. Ctrl-C stops.", err=True)
            typer.echo(run_watch(thinker, thoughts, concurrency, lease).text(live=True))
            return
        summaries = [run_understand(queries, thinker, thoughts, aside, concurrency)]
        if calibrate and not summaries[0].stopped:
            summaries.append(_calibrate(source, queries, calibrate, thinker, thoughts, concurrency))
        if as_json:
            personal = {"personal": vars(summaries[1])} if len(summaries) > 1 else {}
            show_json({**vars(summaries[0]), **personal})
        else:
            typer.echo("\n".join(summary.text() for summary in summaries))


def _import(table: Path, catalogue: Path, cache: str, producer: ProducerName, aside: Path | None) -> "Summary":
    """Bring a table of thoughts over a catalogue into a cache."""
    from onesearch.batch.query_thoughts import import_thoughts
    from onesearch.pipeline.opened_producers import catalogue_words

    words = catalogue_words(catalogue)
    with closing(open_thoughts(cache)) as thoughts:
        return import_thoughts(table, thoughts, words, *producer_key(producer), aside)


def _calibrate(
    run: Path, queries: list[str], most: int, thinker: "Thinker", cache: "ThoughtCache", concurrency: int
) -> "Summary":
    """Step 3 for shoppers of a run's training part whose query the producer has a thought about."""
    from onesearch.pipeline import settings_of
    from onesearch.pipeline.run_data import RunData
    from onesearch.pipeline.shopper_keywords import shoppers_to_calibrate
    from onesearch.understanding.calibration_worker import run_calibrate
    from onesearch.understanding.preference_calibration import Calibrator
    from onesearch.understanding.thought_table import Thoughts

    if not isinstance(thinker, Calibrator):
        raise TypeError(f"{thinker.name} does not calibrate")
    found = cache.get_many(queries, thinker.name, thinker.version)
    seed = settings_of(run).seed
    shoppers = shoppers_to_calibrate(RunData(run), Thoughts.from_thoughts(found.values()), most, seed)
    return run_calibrate(shoppers, thinker, cache, concurrency)


def _show_coverage(
    run: Path, store_place: str | None, cache: "ThoughtCache", producer: ProducerName, span: Span
) -> None:
    """A table of the store's searches: how many of each hour or day have keywords in the cache by now."""
    from onesearch.serving.keyword_coverage import measure_coverage
    from onesearch.serving.run_store import open_run_store, open_store

    name, version = producer_key(producer)
    # With a place of its own the source may be anything: a file of queries, say.
    kept = open_run_store(run, None) if store_place is None else open_store(store_place)
    with closing(kept) as store, closing(cache):
        rows = [
            (
                span.text(row.start),
                f"{row.searches:,}",
                f"{row.share:.1%}",
                f"{row.keywords:,}",
                f"{row.no_keywords:,}",
                f"{row.none:,}",
            )
            for row in measure_coverage(store.traffic(span.seconds), cache, name, version)
        ]
        state = cache.queue_state()
    columns = (f"{span.value} (UTC)", "searches", "covered", "keywords", "no keywords", "none yet")
    show_table(f"Searches whose query has keywords by {name}, version {version}, now", columns, rows, columns[1:])
    typer.echo(f"queue: {state.waiting:,} waiting, {state.in_work:,} in work; {state.set_aside:,} set aside")


def read_queries(source: Path) -> list[str]:
    """Distinct normalised queries: of a file in its order, of a log the most searched first."""
    import polars as pl

    from onesearch.common.text_file import read_text_file
    from onesearch.data.text import normalise_queries, normalise_query

    if source.is_file():
        lines = read_text_file(source).splitlines()
        return [query for query in dict.fromkeys(map(normalise_query, lines)) if query]
    from onesearch.pipeline.opened_producers import opened_dataset

    data, _ = opened_dataset(source)
    queries = normalise_queries(data.page_views["query"])
    counted = pl.DataFrame({"query": queries.filter(queries != "")}).group_by("query").len()
    return counted.sort(["len", "query"], descending=[True, False])["query"].to_list()
