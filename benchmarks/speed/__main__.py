"""Speed, each figure beside a peer measured in the same run: ``python -m benchmarks.speed NAME``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from onesearch.cli.terminal import FriendlyGroup, show_json, show_table

app = typer.Typer(
    cls=FriendlyGroup,
    no_args_is_help=True,
    help="Measure speed. Each benchmark prints its figures beside those of a peer measured in the same run.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of both sides.")]
Quick = Annotated[bool, typer.Option(help="A smoke test of a few seconds; its figures mean nothing.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.")]


def _show(title: str, figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(figures)
    else:
        show_table(title, ("figure", "value"), figures.items(), right=("value",))


@app.command()
def decoding(
    as_json: Json = False,
    threads: Threads = 2,
    quick: Quick = False,
) -> None:
    """Constrained beam search against `generate` of transformers with `prefix_allowed_tokens_fn`."""
    from benchmarks.speed.bench_decoding import bench_decoding

    _show("decoding", bench_decoding(threads=threads, quick=quick), as_json)


@app.command()
def compiled(
    as_json: Json = False,
    threads: Threads = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quick: Quick = False,
) -> None:
    """The decoder's steps under `torch.compile` against the steps as they are."""
    from benchmarks.speed.bench_compiled import bench_compiled

    _show("compiled", bench_compiled(threads, quick, device), as_json)


@app.command()
def query(
    run: RunFolder = Path("runs/demo"),
    as_json: Json = False,
    queries: Annotated[int, typer.Option(min=10, help="Distinct test queries measured.")] = 500,
    quick: Quick = False,
) -> None:
    """Time from a query text to its semantic ID, uncached."""
    from benchmarks.speed.bench_query import bench_query

    _show("query", bench_query(run, 10 if quick else queries), as_json)


@app.command()
def search(
    run: RunFolder = Path("runs/demo"),
    as_json: Json = False,
    threads: Threads = 1,
    requests: Annotated[int, typer.Option(min=1, help="Test page views measured.")] = 300,
    plot: Annotated[Path | None, typer.Option(help="Draw quality over beam width to this PNG.")] = None,
    quick: Quick = False,
) -> None:
    """Latency, throughput and quality of the engine over beam widths, and of the cascade."""
    from benchmarks.speed.bench_search import bench_search, plot_curve
    from onesearch.evaluation.baselines import CASCADE
    from onesearch.pipeline.report_stage import baseline_methods
    from onesearch.pipeline.run_data import RunData

    baselines = baseline_methods(RunData(run))
    others = {CASCADE: baselines[CASCADE]} if CASCADE in baselines else {}
    if quick:
        figures = bench_search(run, others, threads, 4, widths=(4, 8), curve=(4, 8), curve_requests=10)
    else:
        figures = bench_search(run, others, threads, requests)
    if plot is not None:
        plot_curve(figures, plot)
    _show("search", figures, as_json)


@app.command()
def training(
    as_json: Json = False,
    threads: Threads = 2,
    precision: Annotated[str, typer.Option(help="auto, no or bf16; both sides use the same.")] = "auto",
    steps: Annotated[int, typer.Option(min=2, help="Steps measured on each side.")] = 20,
    quick: Quick = False,
) -> None:
    """Samples per second of the last training stage against `Seq2SeqTrainer` of transformers."""
    from benchmarks.speed.bench_training import bench_training

    if precision not in ("auto", "no", "bf16"):
        raise typer.BadParameter(f"'{precision}' is none of auto, no, bf16", param_hint="--precision")
    _show("training", bench_training(threads, precision, 2 if quick else steps, quick), as_json)  # type: ignore[arg-type]


@app.command("zero-cost")
def zero_cost(
    run: RunFolder = Path("runs/demo"),
    as_json: Json = False,
    threads: Threads = 1,
    requests: Annotated[int, typer.Option(min=1, help="Test page views served in each repeat.")] = 200,
    repeats: Annotated[int, typer.Option(min=2, help="Turns, each with a ratio of its own; an even number.")] = 6,
    quick: Quick = False,
) -> None:
    """Latency, size and input of V2's engine over V1's: both serve the same requests in turns."""
    from benchmarks.speed.bench_zero_cost import bench_zero_cost

    figures = bench_zero_cost(run, threads, 4 if quick else requests, 2 if quick else repeats)
    _show("zero-cost", figures, as_json)


@app.command()
def evidence(
    runs: Annotated[list[Path], typer.Argument(help="Run folders whose prompts have evidence.")],
    as_json: Json = False,
    threads: Threads = 1,
    requests: Annotated[int, typer.Option(min=1, help="Test page views searched for in each repeat.")] = 96,
    repeats: Annotated[int, typer.Option(min=2, help="Turns, each with a ratio of its own; an even number.")] = 4,
    quick: Quick = False,
) -> None:
    """CPU time of a search with evidence in the prompt over one without, and of its parts."""
    from benchmarks.speed.bench_evidence import bench_evidence

    figures = bench_evidence(runs, threads, 4 if quick else requests, 2 if quick else repeats)
    _show("evidence", figures, as_json)


if __name__ == "__main__":
    app()
