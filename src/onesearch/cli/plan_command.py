"""``onesearch plan``: what a run will cost, before it is begun."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onesearch.cli.terminal import show_json, show_table

if TYPE_CHECKING:
    from onesearch.pipeline.arithmetic_plan import Arithmetic, Machine
    from onesearch.pipeline.plan import Size
    from onesearch.pipeline.run_settings import RunSettings


def plan(
    config: Annotated[Path, typer.Argument(help="Configuration file of the run to come.")],
    # From what it is forecast.
    like: Annotated[
        list[Path] | None,
        typer.Option(help="A finished run of the same kind on this machine. Repeatable: two tell more."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Without --like: GPUs that train.")] = 1,
    tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="Without --like: of one GPU, 10^12 operations a second in dense bfloat16."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Without --like: how much of that is reached.")
    ] = 0.3,
    # Of what.
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as in `run`. Repeatable.")
    ] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Items; by default as the data says.")] = None,
    page_views: Annotated[int | None, typer.Option(min=1, help="Training page views; by default likewise.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast what every stage of a run takes: from smaller runs, or by arithmetic for a machine that is not there.

    With --like a forecast of time, memory and disk goes in proportion to items, page views, samples or searches,
    whichever a stage works on; with two runs of different sizes along the line through them. It holds for the machine
    of these runs, with one process.

    With --tflops, tokens and operations of all that trains or searches are counted, with hours and memory of each GPU.

    For example:

      onesearch plan configs/demo.yaml --like runs/demo

      onesearch plan configs/paper.yaml --items 10000000 --page-views 200000000 --gpus 8 --tflops 990
    """
    from onesearch.common.memory import resident_mib
    from onesearch.pipeline.arithmetic_plan import Machine
    from onesearch.pipeline.config_files import load_settings
    from onesearch.pipeline.plan import Size, plan, size_of
    from onesearch.pipeline.run_settings import RunSettings

    # How large the data is: told, or known.
    settings = load_settings(RunSettings, config, sets or ())
    known = size_of(settings)
    if known is None and (items is None or page_views is None):
        raise typer.BadParameter(f"{config} reads files, so their size is not known: give --items and --page-views")
    size = Size(items or (known.items if known else 0), page_views or (known.page_views if known else 0))
    if like and tflops is not None:
        raise typer.BadParameter(
            "goes without --like, whose runs tell what their own machine takes", param_hint="--tflops"
        )
    title = f"{config}: {size.items:,} items, {size.page_views:,} training page views"
    if not like:
        if tflops is None:
            raise typer.BadParameter("give --like, a smaller run to learn from, or --tflops, what a GPU can do")
        _by_arithmetic(settings, size, Machine(gpus, tflops * 1e12, share), title, as_json)
        return
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
    show_table(title, ("stage", "time", "memory at most", "disk"), rows, right=("time", "memory at most", "disk"))
    if unknown := [one.stage for one in costs if one.seconds is None]:
        typer.echo(f"not known, as no run of --like finished them in one go: {', '.join(unknown)}", err=True)


def _by_arithmetic(settings: "RunSettings", size: "Size", machine: "Machine", title: str, as_json: bool) -> None:
    """Samples, tokens, operations, hours and memory of each stage on GPUs."""
    from onesearch.pipeline.arithmetic_plan import arithmetic

    stages = arithmetic(settings, size, machine.devices)
    hours = [None if one.operations is None else machine.hours(one.operations) for one in stages]
    if as_json:
        lines = [{**vars(one), "hours": hour} for one, hour in zip(stages, hours, strict=True)]
        show_json({"items": size.items, "page_views": size.page_views, "machine": vars(machine), "stages": lines})
        return
    rows = [
        (one.stage, *(_count(value) for value in (one.samples, one.tokens, one.operations)), _hours(hour), _gib(one))
        for one, hour in zip(stages, hours, strict=True)
    ]
    every = [hour for hour in hours if hour is not None]
    most = max((one.device_gib for one in stages if one.device_gib is not None), default=0.0)
    total = sum(one.operations or 0.0 for one in stages)
    rows.append(("all", "", "", _count(total), _hours(sum(every)), f"{most:.1f} GiB"))
    gpus = f"{machine.devices} GPUs of {machine.peak / 1e12:g} TFLOP/s, {machine.share:.0%} of them reached"
    columns = ("stage", "samples", "tokens each", "operations", "hours", "memory of a GPU")
    show_table(f"{title}; {gpus}", columns, rows, right=columns[1:])
    if others := [one.stage for one in stages if one.operations is None]:
        typer.echo(f"on processors, which a smaller run and --like tell: {', '.join(others)}", err=True)


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}"


def _hours(hours: float | None) -> str:
    return "–" if hours is None else f"{hours:.2g}"


def _gib(stage: "Arithmetic") -> str:
    return "–" if stage.device_gib is None else f"{stage.device_gib:.1f} GiB"


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
