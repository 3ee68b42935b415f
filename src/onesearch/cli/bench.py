"""``onesearch bench``: speed, each figure beside a peer measured in the same run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from onesearch.cli.terminal import show_json, show_table

app = typer.Typer(
    no_args_is_help=True,
    help="Measure speed. Each benchmark prints its figures beside those of a peer measured in the same run.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of both sides.")]


def _show(title: str, figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(figures)
    else:
        show_table(title, ("figure", "value"), figures.items(), right=("value",))


@app.command()
def decoding(
    as_json: Json = False,
    threads: Threads = 2,
    quick: Annotated[bool, typer.Option(help="A smoke test of a few seconds; its figures mean nothing.")] = False,
) -> None:
    """Constrained beam search against `generate` of transformers with `prefix_allowed_tokens_fn`."""
    from onesearch.evaluation.bench_decoding import bench_decoding

    _show("decoding", bench_decoding(threads=threads, quick=quick), as_json)


@app.command()
def query(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: Json = False) -> None:
    """Time from a query text to its semantic ID, uncached."""
    from onesearch.evaluation.bench_query import bench_query

    _show("query", bench_query(run), as_json)


@app.command()
def search(
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")],
    as_json: Json = False,
    threads: Threads = 2,
) -> None:
    """Latency, throughput and quality of the engine over beam widths, and of the cascade."""
    from onesearch.evaluation.bench_search import bench_search

    _show("search", bench_search(run, threads=threads), as_json)


@app.command()
def training(
    as_json: Json = False,
    threads: Threads = 2,
    precision: Annotated[str, typer.Option(help="auto, no or bf16; both sides use the same.")] = "auto",
    steps: Annotated[int, typer.Option(min=2, help="Steps measured on each side.")] = 20,
) -> None:
    """Samples per second of the last training stage against `Seq2SeqTrainer` of transformers."""
    from onesearch.evaluation.bench_training import bench_training

    _show("training", bench_training(threads=threads, precision=precision, steps=steps), as_json)
