"""``onesearch evaluate``: measure a finished run again."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    # What is measured, on how much, and where the report goes.
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")],
    part: Annotated[str, typer.Option(help="valid, for choosing settings; test, once they are chosen.")] = "valid",
    page_views: Annotated[int | None, typer.Option(min=1, help="Measure on so many page views only.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; by default RUN/evaluation-PART.")] = None,
) -> None:
    """Measure the engine, the generator alone and the baselines of a run, with intervals, slices and tests.

    Writes report.json, report.md and charts, and prints the main tables. The report of the run's own `report` stage
    stays. What is measured is the run's engine, also where `final: true` made another one to serve: that one has learnt
    these page views.

    For example:

      onesearch evaluate runs/demo --part valid --page-views 1000
    """
    from onesearch import pipeline
    from onesearch.search.run_parts import FINAL

    if part not in ("valid", "test"):
        raise typer.BadParameter(f"'{part}' is neither valid nor test", param_hint="--part")
    folder = out if out is not None else run / f"evaluation-{part}"
    typer.echo(pipeline.evaluate_run(run, folder, part, page_views))
    if (run / FINAL).is_dir():
        typer.echo("Measured: the engines of the stages. The final engine, which is served, learnt these page views.")
    typer.echo(f"The same by groups of shoppers, queries and items, with charts: {folder / 'report.md'}")
