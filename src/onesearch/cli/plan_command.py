"""``onesearch plan``: what a run will cost, before it is begun."""

from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli.terminal import show_json, show_table


def plan(
    config: Annotated[Path, typer.Argument(help="Configuration file of the run to come.")],
    like: Annotated[
        list[Path], typer.Option(help="A finished run of the same kind on this machine. Repeatable: two tell more.")
    ],
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as in `run`. Repeatable.")
    ] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Items; by default as the data says.")] = None,
    page_views: Annotated[int | None, typer.Option(min=1, help="Training page views; by default likewise.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast time, memory and disk of every stage of a run from what smaller runs took.

    A forecast goes in proportion to items, page views, samples or searches, whichever a stage works on; with two runs
    of different sizes along the line through them. It holds for the machine of these runs, with one process.

    For example:

      onesearch plan configs/demo.yaml --like runs/demo
    """
    from onesearch.common.memory import resident_mib
    from onesearch.pipeline.config_files import load_settings
    from onesearch.pipeline.plan import Size, plan, size_of
    from onesearch.pipeline.run_settings import RunSettings

    # How large the data is: told, or known.
    settings = load_settings(RunSettings, config, sets or ())
    known = size_of(settings)
    if known is None and (items is None or page_views is None):
        raise typer.BadParameter(f"{config} reads files, so their size is not known: give --items and --page-views")
    size = Size(items or (known.items if known else 0), page_views or (known.page_views if known else 0))
    # This process has loaded what a run has before its first stage.
    costs = plan(settings, size, like, resident_mib())
    if as_json:
        show_json({"items": size.items, "page_views": size.page_views, "stages": [vars(cost) for cost in costs]})
        return
    # A line for each stage, and one for all of them.
    rows = [(one.stage, _time(one.seconds), _mib(one.memory_mib), _mib(one.disk_mib)) for one in costs]
    seconds = [one.seconds for one in costs if one.seconds is not None]
    memory = [one.memory_mib for one in costs if one.memory_mib is not None]
    disk = [one.disk_mib for one in costs if one.disk_mib is not None]
    rows.append(("all", _time(sum(seconds)), _mib(max(memory, default=0)), _mib(sum(disk))))
    title = f"{config}: {size.items:,} items, {size.page_views:,} training page views"
    show_table(title, ("stage", "time", "memory at most", "disk"), rows, right=("time", "memory at most", "disk"))
    if unknown := [one.stage for one in costs if one.seconds is None]:
        typer.echo(f"not known, as no run of --like finished them in one go: {', '.join(unknown)}", err=True)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _mib(mib: float | None) -> str:
    if mib is None:
        return "–"
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
