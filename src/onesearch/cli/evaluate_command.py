"""``onesearch evaluate``: measure a finished run again."""

from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli.worker_options import Address, Engine, EngineName, refuse_lone_address


def evaluate(
    # What is measured, on how much, and where the report goes.
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")],
    part: Annotated[str, typer.Option(help="valid, for choosing settings; test, once they are chosen.")] = "valid",
    page_views: Annotated[int | None, typer.Option(min=1, help="Measure on so many page views only.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; by default RUN/evaluation-PART.")] = None,
    # By whom.
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Have so many workers rank the page views, each of them a process with one core; default: this"
            " process, with all cores.",
            show_default=False,
        ),
    ] = None,
    engine: Engine = EngineName.local,
    address: Address = None,
) -> None:
    """Measure the engine, the generator alone and the baselines of a run, with intervals, slices and tests.

    Writes report.json, report.md and charts, and prints the main tables. The report of the run's own `report` stage
    stays. What is measured is the run's engine, also where `final: true` made another one to serve: that one has learnt
    these page views.

    With --workers what was ranked lies beside the report, and the same command goes on with it after a stop. The
    figures are the same for any number of workers; the times are those of one of them.

    For example:

      onesearch evaluate runs/demo --part valid --page-views 1000
    """
    from onesearch import pipeline
    from onesearch.search.run_parts import FINAL

    if part not in ("valid", "test"):
        raise typer.BadParameter(f"'{part}' is neither valid nor test", param_hint="--part")
    refuse_lone_address(address, engine)
    if workers is None and engine != EngineName.local:
        raise typer.BadParameter("needs --workers: without it this process ranks", param_hint="--engine")
    folder = out if out is not None else run / f"evaluation-{part}"
    pool = None
    if workers is not None:
        from onesearch.pipeline.ranked_parts import WorkerPool

        pool = WorkerPool(workers, engine.value, address)
    typer.echo(pipeline.evaluate_run(run, folder, part, page_views, pool))
    if (run / FINAL).is_dir():
        typer.echo("Measured: the engines of the stages. The final engine, which is served, learnt these page views.")
    typer.echo(f"The same by groups of shoppers, queries and items, with charts: {folder / 'report.md'}")
