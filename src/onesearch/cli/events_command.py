"""``onesearch events``: what a service recorded, to learn from."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli.serve_command import open_store
from onesearch.serving.recorded_page_views import recorded_page_views
from onesearch.serving.serving_settings import MOST_DAYS

app = typer.Typer(no_args_is_help=True, help="What a service recorded, as page views to learn from.")


@app.callback()
def events() -> None:
    """What a service recorded, as page views to learn from."""


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
