"""``onesearch market``: make a simulated marketplace, and serve a stand-in language model that knows its words."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from onesearch.common.extras import from_extra
from onesearch.market.kuaisearch_export import export_kuaisearch
from onesearch.market.make_market import make_market
from onesearch.market.market_settings import MarketSettings

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
    # Where it goes.
    out: Annotated[Path, typer.Option(help="Folder to write; made if missing, overwritten if it holds a market.")],
    # How large it is; the seed says which one of that size.
    items: Annotated[int, typer.Option(min=200, help="Number of items in the catalogue.")] = 20_000,
    users: Annotated[int, typer.Option(min=10, help="Number of shoppers.")] = 6_000,
    days: Annotated[int, typer.Option(min=2, help="Length of the log.")] = 60,
    seed: Annotated[int, typer.Option(help="The same numbers and seed make the same market.")] = 0,
    page_views: Annotated[
        int | None, typer.Option(min=100, help="Page views to log; 12.5 per shopper if left out.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, max=8, help="Pictures of each item, drawn from its attributes.")] = 0,
    picture_only: Annotated[
        float, typer.Option(min=0, max=1, help="Share of colours and patterns that pictures alone show.")
    ] = 0.0,
    videos: Annotated[float, typer.Option(min=0, max=1, help="Videos of products, as a share of the items.")] = 0.0,
    live_rooms: Annotated[float, typer.Option(min=0, max=1, help="Live rooms of the log's days, likewise.")] = 0.0,
    # How it is written.
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
    # bm25s logs every index that the simulated shop builds.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    try:
        config = MarketSettings(
            items=items,
            users=users,
            days=days,
            seed=seed,
            page_views=page_views,
            pictures=pictures,
            picture_only=picture_only,
            videos=videos,
            live_rooms=live_rooms,
        )
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    dataset = make_market(config, out)
    typer.echo(
        f"{out}: " + ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in dataset.counts.items())
    )
    if format is Format.kuaisearch:
        export_kuaisearch(out, out)
        typer.echo(f"{out}: items, users, recall, rank and relevance as .jsonl in the schema of KuaiSearch")


@app.command()
def llm(
    # Whose words it knows.
    folder: Annotated[Path, typer.Argument(help="Dataset of a market, or a run that was made from one.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8001,
    # How well it understands, and how well it serves.
    error: Annotated[float, typer.Option(min=0, max=1, help="Chance that a need word is misunderstood.")] = 0.15,
    fail: Annotated[float, typer.Option(min=0, max=1, help="Share of calls answered with status 500.")] = 0.0,
    malformed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of answers with broken JSON or a keyword of no catalogue.")
    ] = 0.0,
    latency: Annotated[float, typer.Option(min=0, help="Seconds to wait before each answer.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of misunderstandings and faults.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    model: Annotated[str, typer.Option(help="The name that it answers under.")] = "Qwen3-32B",
) -> None:
    """Serve a simulated language model at an OpenAI-compatible address: it knows what the words of a market mean.

    Example: onesearch market llm data/market --port 8001 --error 0.15
    """
    with from_extra("serve"):
        import uvicorn

    from onesearch.market.llm_server import make_app
    from onesearch.market.stand_in_thinker import Thinker
    from onesearch.market.world_files import FOLDER

    # A run keeps its dataset, and with it the market, in a folder of its own.
    inside = folder / "data"
    thinker = Thinker.load(inside if (inside / FOLDER).is_dir() else folder, error, seed)
    typer.echo(
        f"This is a SIMULATION, no language model: rules over the words of {folder}, misunderstanding {error:.0%} of"
        f" the need words. It says nothing about the quality of {model}. http://{host}:{port}/v1"
    )
    uvicorn.run(
        make_app(thinker, model, fail, malformed, seed, latency),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    app()
