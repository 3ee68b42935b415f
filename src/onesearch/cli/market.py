"""``onesearch market``: make a simulated marketplace."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onesearch.market.config import MarketConfig
from onesearch.market.kuaisearch import export_kuaisearch
from onesearch.market.make import make_market

app = typer.Typer(
    help="A seeded, simulated marketplace: demo data, and a laboratory whose truth is known.", no_args_is_help=True
)


class Format(StrEnum):
    """What ``make`` writes."""

    dataset = "dataset"
    kuaisearch = "kuaisearch"


@app.callback()
def _market() -> None:
    """A seeded, simulated marketplace: demo data, and a laboratory whose truth is known."""


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="Folder to write; made if missing, overwritten if it holds a market.")],
    items: Annotated[int, typer.Option(min=200, help="Number of items in the catalogue.")] = 20_000,
    users: Annotated[int, typer.Option(min=10, help="Number of shoppers.")] = 6_000,
    days: Annotated[int, typer.Option(min=2, help="Length of the log.")] = 60,
    seed: Annotated[int, typer.Option(help="The same numbers and seed make the same market.")] = 0,
    page_views: Annotated[
        int | None, typer.Option(min=100, help="Page views to log; 12.5 per shopper if left out.")
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            help="dataset: Parquet for this package; kuaisearch: JSONL in the published schema of KuaiSearch."
        ),
    ] = Format.dataset,
) -> None:
    """Make a market and write its catalogue, shoppers, log and judgments, with the truth in the subfolder market/.

    Example: onesearch market make --out data/market --items 4000 --users 2000 --page-views 20000
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    config = MarketConfig(items=items, users=users, days=days, seed=seed, page_views=page_views)
    dataset = make_market(config, out)
    typer.echo(
        f"{out}: " + ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in dataset.counts.items())
    )
    if format is Format.kuaisearch:
        export_kuaisearch(out, out)
        typer.echo(f"{out}: items, users, recall, rank and relevance as .jsonl in the schema of KuaiSearch")


if __name__ == "__main__":
    app()
