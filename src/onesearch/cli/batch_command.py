"""``onesearch batch``: what a run does with one item or query, over tables of any size."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onesearch.cli.producer_options import BaseUrl, Format, Producer, ResponseFormat, TextEncoder
from onesearch.cli.terminal import FriendlyGroup, Measured, Model
from onesearch.cli.worker_options import Address, Engine, EngineName, WorkerCount, refuse_lone_address

if TYPE_CHECKING:
    from onesearch.batch.run_jobs import RunJob

app = typer.Typer(
    cls=FriendlyGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Encode items, make semantic IDs, search and understand many queries: tables of any size, by several workers.",
)


Run = Annotated[Path, typer.Argument(help="Folder of a finished run, such as runs/demo.")]
Source = Annotated[Path, typer.Argument(help="Parquet file, or a folder of them.")]
Sink = Annotated[Path, typer.Argument(help="Folder for the output; one that was begun is gone on with.")]
Rows = Annotated[int | None, typer.Option(min=1, help="Most rows of a part; larger row groups are several parts.")]


@app.command("encode")
def encode_command(
    run: Run,
    source: Source,
    sink: Sink,
    workers: WorkerCount = 1,
    engine: Engine = EngineName.local,
    address: Address = None,
    rows: Rows = None,
) -> None:
    """Vectors of items by the run's text encoder, with keywords fused in as the run does.

    The table has `item_id` and the columns that the run's item texts are made of (title and brand by default).

    Example:  onesearch batch encode runs/demo runs/demo/data/items.parquet vectors --workers 2
    """
    from onesearch.batch.item_jobs import encode_job

    _do(encode_job(run), source, sink, workers, engine, address, rows)


@app.command("sids")
def sids_command(
    run: Run,
    source: Source,
    sink: Sink,
    workers: WorkerCount = 1,
    engine: Engine = EngineName.local,
    address: Address = None,
    rows: Rows = None,
) -> None:
    """Semantic IDs by the run's quantizer, of items or of what `encode` wrote.

    Example:  onesearch batch sids runs/demo runs/demo/data/items.parquet sids --workers 2
    """
    from onesearch.batch.item_jobs import sids_job

    _do(sids_job(run), source, sink, workers, engine, address, rows)


@app.command("search")
def search_command(
    # What is searched, and where the answers go.
    run: Run,
    source: Source,
    sink: Sink,
    # What an answer is.
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="Number of results.")] = 10,
    model: Model = None,
    measured: Measured = False,
    device: Annotated[
        str | None, typer.Option(help="Where models run, as cuda:0; default: a GPU, else the CPU.")
    ] = None,
    # By whom.
    workers: WorkerCount = 1,
    engine: Engine = EngineName.local,
    address: Address = None,
    rows: Rows = None,
) -> None:
    """Ranked items for many queries: `query`, and `user_id` where the table has it; page views of a data set will do.

    Example:  onesearch batch search runs/demo runs/demo/data/test.parquet found --k 20 --workers 2
    """
    from onesearch.batch.search_jobs import search_job

    job = search_job(run, k, model.value if model else None, measured, device)
    _do(job, source, sink, workers, engine, address, rows)


@app.command("understand")
def understand_command(
    # Which queries, over which catalogue, and where the thoughts go.
    run: Run,
    source: Source,
    sink: Sink,
    # Who thinks.
    producer: Producer,
    base_url: BaseUrl = None,
    response_format: Format = ResponseFormat.json_schema,
    encoder: TextEncoder = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls in flight, of each worker.")] = 16,
    # By whom.
    workers: WorkerCount = 1,
    engine: Engine = EngineName.local,
    address: Address = None,
    rows: Rows = None,
) -> None:
    """What queries mean, as `onesearch understand` finds it out: a row for each `query`, or the reason why not.

    Option `--from-table` of that command brings the rows into a cache. The language model's name comes from
    ONESEARCH_LLM_MODEL, its key from ONESEARCH_LLM_API_KEY where the workers run, and nowhere else.

    Example:  onesearch batch understand runs/demo runs/demo/data/test.parquet about --producer log-expert
    """
    from onesearch.pipeline.thought_job import understand_job

    job = understand_job(run, producer.value, encoder, base_url, response_format.value, concurrency)
    _do(job, source, sink, workers, engine, address, rows)


def _do(
    job: "RunJob",
    source: Path,
    sink: Path,
    workers: int,
    engine: EngineName,
    address: str | None,
    rows: int | None,
) -> None:
    """Do a job and say what was done."""
    from onesearch.batch.run_jobs import run_job

    refuse_lone_address(address, engine)
    done = run_job(job, source, sink, engine.value, workers, address, rows)
    rate = f", {done.rows / done.seconds:,.0f} rows a second" if done.seconds else ""
    typer.echo(f"{sink}: {done.parts:,} parts, {done.skipped:,} were there, {done.rows:,} rows done now{rate}")
