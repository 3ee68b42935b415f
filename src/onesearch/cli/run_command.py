"""``onesearch run``: train and measure what a configuration file describes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli.terminal import short, show_table
from onesearch.common.rank import rank


def run(
    # What is built, and where.
    config: Annotated[Path, typer.Argument(help="Configuration file, such as configs/demo.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/NAME for NAME.yaml.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: --set sft3.epochs=1. Repeatable."),
    ] = None,
    # Which stages are taken over, built again or left for later.
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="RUN",
            exists=True,
            file_okay=False,
            help="Take over stages that RUN finished with the same settings.",
        ),
    ] = None,
    redo: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Build a stage, and what depends on it, afresh.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            exists=True,
            file_okay=False,
            help="A finished run of this kind, as for `plan`: progress then tells the time left of the whole run.",
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only show which stages are up to date.")] = False,
) -> None:
    """Bring a run up to date: data, semantic IDs, model, engine, report.

    Each stage writes a folder in the run. What is finished and unchanged is skipped; an interrupted training goes on
    from its last checkpoint; after a change of a setting only what depends on it is built again.

    For example:

      onesearch run configs/demo.yaml

      onesearch run configs/homedepot.yaml --set seed=2 --out runs/homedepot-2 --from runs/homedepot
    """
    from onesearch import pipeline

    folder = out if out is not None else Path("runs") / config.stem
    if status:
        found = pipeline.status_of(config, folder, sets or ())
        show_table(str(folder), ("stage", "status"), found.items())
        return
    forecast = _forecast(config, sets or (), like) if like else None
    results = pipeline.run_config(
        config, folder, overrides=sets or (), reuse=reuse or (), redo=redo or (), until=until, forecast=forecast
    )
    if rank() > 0:
        return  # of several processes the first one shows what came of it
    rows = [(r.name, r.outcome, f"{r.seconds:.1f}", short(r.metrics)) for r in results]
    show_table(str(folder), ("stage", "outcome", "seconds", "figures"), rows, right=("seconds",))


def _forecast(config: Path, sets: Sequence[str], like: Sequence[Path]) -> dict[str, float | None]:
    """Seconds of each stage, as ``onesearch plan`` has them."""
    from onesearch.pipeline.config_files import load_settings
    from onesearch.pipeline.plan import plan, size_of
    from onesearch.pipeline.run_settings import RunSettings

    settings = load_settings(RunSettings, config, sets)
    size = size_of(settings)
    if size is None:
        raise typer.BadParameter(
            f"{config} reads files, so its size is not known before they are: import them with `onesearch data import` "
            "and set data.folder",
            param_hint="--like",
        )
    return {cost.stage: cost.seconds for cost in plan(settings, size, like, held_mib=0.0)}
