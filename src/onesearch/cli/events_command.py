"""``onesearch events``: what a service recorded, to learn from."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer

from onesearch.cli.terminal import Span, show_table
from onesearch.serving.keyword_coverage import coverage_by_span
from onesearch.serving.recorded_page_views import recorded_page_views
from onesearch.serving.run_store import open_store
from onesearch.serving.serving_settings import MOST_DAYS
from onesearch.serving.store import ThoughtState

app = typer.Typer(no_args_is_help=True, help="What a service recorded: page views to learn from, coverage by day.")


@app.callback()
def events() -> None:
    """What a service recorded: page views to learn from, coverage by day."""


@app.command()
def export(
    store: Annotated[str, typer.Argument(help="Where the service keeps its events: a file, or redis://HOST:PORT/DB.")],
    out: Annotated[Path, typer.Argument(help="Parquet file to write, in the schema of a dataset's page views.")],
    days: Annotated[
        float | None, typer.Option(min=0, max=MOST_DAYS, help="Only the last so many days; default: all of them.")
    ] = None,
) -> None:
    """Write the recorded searches with their clicks and orders as page views; the service may be running.

    An update (`onesearch update RUN`) learns from them, and so does a rebuild whose mapping reads them beside the older
    log.

    Example:  onesearch events export runs/demo/serving.sqlite3 new.parquet --days 1
    """
    since = None if days is None else datetime.now(UTC) - timedelta(days=days)
    with closing(open_store(store)) as kept:
        page_views = recorded_page_views(kept, since)
    out.parent.mkdir(parents=True, exist_ok=True)
    page_views.write_parquet(out)
    clicks, orders = (int((page_views[name].list.len() > 0).sum()) for name in ("clicked", "ordered"))
    typer.echo(f"{len(page_views):,} page views, {clicks:,} with a click, {orders:,} with an order, in {out}")


@app.command()
def coverage(
    store: Annotated[
        str, typer.Argument(help="Where the service keeps its searches: a file, or redis://HOST:PORT/DB.")
    ],
    by: Annotated[Span, typer.Option(help="What a line stands for.")] = Span.day,
) -> None:
    """Show what was known of the queries when they were searched, by hour or day; the service may be running.

    "covered" is the share of the searches with a known state whose query had keywords: distilled into the served model,
    or cached for the next update. Searches of a service without --thoughts, and of earlier versions, are unknown.

    Example:  onesearch events coverage runs/demo/serving.sqlite3 --by hour
    """
    states: tuple[ThoughtState, ...] = get_args(ThoughtState)
    with closing(open_store(store)) as kept:
        found = coverage_by_span(kept.coverage(by.seconds))
    rows = []
    for row in found:
        shares = row.share("distilled"), row.share("distilled", "cached")
        cells = ("" if share is None else f"{share:.1%}" for share in shares)
        rows.append((by.text(row.start), f"{row.searches:,}", *cells, *(f"{row.states[one]:,}" for one in states)))
    names = (one.replace("_", " ") for one in states)
    columns = (f"{by.value} (UTC)", "searches", "distilled share", "covered", *names)
    show_table("Searches by what was known of their query then", columns, rows, columns[1:])
