"""A million items end to end on one machine: what was forecast, what it took, and how cost grows with size.

    python -m benchmarks.scale tenth RUNS                # a tenth of the million, and the forecast made from it
    python -m benchmarks.scale million RUNS              # configs/million.yaml; gone on with after a stop
    python -m benchmarks.scale growth RUNS 20000 500000  # benchmarks.growth at these sizes, and of the runs above
    python -m benchmarks.scale beside RUN COMMIT         # benchmarks.search_beside over a finished run
    python -m benchmarks.scale render                    # docs/results/scale.md

The forecast is that of ``onesearch plan``. Figures go to ``docs/results/scale.json``: commit the forecast before the
million is begun.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.result_files import ResultFiles
from benchmarks.search_beside import BATCH, compare
from onesearch import pipeline
from onesearch.cli.terminal import start_logging
from onesearch.common.artefact import read_json, read_manifest
from onesearch.common.memory import resident_mib
from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.plan import Cost, plan, size_of
from onesearch.pipeline.run_settings import RunSettings

FILES = ResultFiles("scale")
CONFIG: Final = ROOT / "configs" / "million.yaml"
TENTH: Final = ("data.market={items: 100000, users: 20000, days: 60, page_views: 100000}",)
WITHIN: Final = 0.3
"""How far what was measured may be from the forecast, as a share of it."""
MOST_HOURS, MOST_GIB, LARGEST_EXPONENT, MOST_KB, MOST_SHARED = 3.0, 16.0, 1.1, 1.3, 1.3
MOST_TIME: Final = 0.7
"""Of a search over that at an earlier commit."""
METRICS: Final = ("click/HR@10", "click/MRR@10", "order/HR@10", "order/MRR@10", "ndcg@10")


def tenth(runs: Path, small: Sequence[str] = (), million: Sequence[str] = ()) -> None:
    """Make a tenth of the million and keep what it forecasts; settings of a smoke test for both."""
    run = runs / "tenth"
    pipeline.run_config(CONFIG, run, overrides=(*TENTH, *small))
    settings = load_settings(RunSettings, CONFIG, (*small, *million))
    size = size_of(settings)
    if size is None:
        raise ValueError(f"{CONFIG} reads files; the forecast needs a simulated market")
    costs = plan(settings, size, [run], resident_mib())
    _keep("tenth", stages=measured(run))
    _keep("forecast", items=size.items, page_views=size.page_views, stages={one.stage: _cost(one) for one in costs})


def million(runs: Path, sets: Sequence[str] = ()) -> None:
    """Make the million, or go on with it, and keep what it took and what it found."""
    forecast = {stage: one["seconds"] for stage, one in FILES.figures().get("forecast", {}).get("stages", {}).items()}
    run = runs / "million"
    pipeline.run_config(CONFIG, run, overrides=sets, forecast=forecast or None)
    methods = read_json(run / "report" / "report.json")["methods"]
    found = {
        name: {metric: [round(row[metric][key], 4) for key in ("mean", "low", "high")] for metric in METRICS}
        for name, row in methods.items()
    }
    _keep("million", stages=measured(run), methods=found)


def growth(runs: Path, sizes: Sequence[str]) -> None:
    """Measure how cost grows, in a process of its own: at these sizes, and of the tenth and the million in ``runs``."""
    command = [sys.executable, "-m", "benchmarks.growth", str(runs)]
    for size in sizes:
        command += ["--items", size]
    for run in (runs / "tenth", runs / "million"):
        if (run / "report").is_dir():
            command += ["--run", str(run)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    _keep("growth", **json.loads(done.stdout.splitlines()[-1]))


def beside(run: Path, earlier: str) -> None:
    """Measure a search of a run here and at an earlier commit."""
    about = read_manifest(run / "data")
    if about is None:
        raise FileNotFoundError(f"{run} has no finished stage data; make it with `python -m benchmarks.scale growth`")
    # A name such as main moves on.
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", earlier]
    then = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    _keep("beside", then=then, items=about["metrics"]["items"], **compare(then, run))


def measured(run: Path) -> dict[str, dict[str, Any]]:
    """What each finished stage of a run took, in order: seconds, MiB at most, MiB on disk, and whether it went on."""
    made = {stage.name: read_manifest(run / stage.name) for stage in pipeline.stages_of(pipeline.settings_of(run))}
    return {
        name: {
            "seconds": about["seconds"],
            "cpu_seconds": about["cpu_seconds"],
            "memory_mib": about["peak_mib"],
            "disk_mib": round(sum(about["files"].values()) / 2**20),
            "resumed": about["resumed"],
        }
        for name, about in made.items()
        if about is not None
    }


def _cost(cost: Cost) -> dict[str, float | None]:
    values = {name: getattr(cost, name) for name in ("seconds", "memory_mib", "disk_mib")}
    return {name: None if value is None else float(f"{value:.4g}") for name, value in values.items()}


def _keep(group: str, **values: Any) -> None:
    made = {"commit": commit(), "date": today(), "machine": machine()}
    FILES.write_figures({**FILES.figures(), group: {"made": made, **values}})


# -- the page --------------------------------------------------------------------------------------------------------


def render() -> None:
    """Write docs/results/scale.md."""
    figures = FILES.figures()
    sections = [*_million(figures), *_growth(figures.get("growth", {})), *_beside(figures.get("beside", {}))]
    FILES.write_page([*FILES.head(), *sections, *_made(figures)])


def _million(figures: Mapping[str, Any]) -> Iterator[str]:
    """Forecast and measurement of each stage, side by side; then what was found."""
    forecast, run = figures.get("forecast", {}).get("stages", {}), figures.get("million", {})
    stages = run.get("stages", {})
    if not forecast and not stages:
        return
    yield from ("", "## The million", "")
    yield "| stage | forecast | took | forecast: memory | took | forecast: disk | took |"
    yield "|---|---|---|---|---|---|---|"
    for name in {**forecast, **stages}:
        cells = [_pair(forecast.get(name, {}), stages.get(name, {}), key, unit) for key, unit in _UNITS]
        went_on = " (went on after a stop)" if stages.get(name, {}).get("resumed") else ""
        yield f"| `{name}`{went_on} | {' | '.join(cells)} |"
    both = [_total(one) if one else {} for one in (forecast, stages)]
    yield f"| all | {' | '.join(_pair(*both, key, unit) for key, unit in _UNITS)} |"
    if not stages:
        yield from ("", "The million was not run yet.")
        return
    # What was promised.
    took = both[1]
    yield from ("", "| goal | holds | measured |", "|---|---|---|")
    yield _goal(f"at most {MOST_HOURS:g} hours", took["seconds"] / 3600 <= MOST_HOURS, _time(took["seconds"]))
    yield _goal(f"at most {MOST_GIB:g} GiB", took["memory_mib"] / 1024 <= MOST_GIB, _mib(took["memory_mib"]))
    for key, what in (("seconds", "time"), ("memory_mib", "memory")):
        if both[0].get(key):
            ratio = took[key] / both[0][key]
            yield _goal(f"{what} within {WITHIN:.0%} of the forecast", abs(ratio - 1) <= WITHIN, f"{ratio:.2f} times")
    # What was found.
    yield from ("", f"| method | {' | '.join(METRICS)} |", "|---|" + "---|" * len(METRICS))
    for name, row in run.get("methods", {}).items():
        cells = [f"{row[m][0]:.4f} [{row[m][1]:.4f}, {row[m][2]:.4f}]" if m in row else "–" for m in METRICS]
        yield f"| {name} | {' | '.join(cells)} |"


def _total(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Of all stages: their time, the most memory, their disk."""
    known = {key: [one[key] for one in stages.values() if one.get(key) is not None] for key, _ in _UNITS}
    return {
        "seconds": sum(known["seconds"]),
        "memory_mib": max(known["memory_mib"], default=0),
        "disk_mib": sum(known["disk_mib"]),
    }


def _growth(growth: Mapping[str, Any]) -> Iterator[str]:
    """Costs by size, their exponents, and what was promised of both."""
    if not growth:
        return
    by_items, exponents = growth["by_items"], growth.get("exponents", {})
    sizes = sorted(by_items, key=int)
    yield from ("", "## Growth", "")
    yield f"| cost | {' | '.join(f'{int(size):,} items' for size in sizes)} | exponent | of the two largest |"
    yield "|---|" + "---|" * (len(sizes) + 2)
    for name in by_items[sizes[-1]]:
        cells = [f"{by_items[size][name]:g}" if name in by_items[size] else "–" for size in sizes]
        slopes = [f"{found[name]:.2f}" if name in found else "–" for found in (exponents, growth.get("last", {}))]
        yield f"| {name} | {' | '.join([*cells, *slopes])} |"
    if not exponents:
        return
    yield from ("", "| goal | holds | measured |", "|---|---|---|")
    worst = max(exponents, key=exponents.__getitem__)
    largest = exponents[worst]
    yield _goal(f"no exponent above {LARGEST_EXPONENT}", largest <= LARGEST_EXPONENT, f"{worst}: {largest:.2f}")
    each = growth["kb_per_item"]
    yield _goal(f"at most {MOST_KB} kB an item resident", each <= MOST_KB, f"{each} kB")
    shared = by_items[sizes[-1]]["two replicas: pss over one"]
    yield _goal(f"two replicas at most {MOST_SHARED} times one", shared <= MOST_SHARED, f"{shared:.2f} times")


def _beside(beside: Mapping[str, Any]) -> Iterator[str]:
    """Processor time of a search here over that at an earlier commit."""
    if not beside:
        return
    yield from ("", f"## A search beside commit {beside['then']}", "")
    yield f"{beside['requests']} searches over {beside['items']:,} items, in turn, on one thread each: medians."
    yield from ("", "| processor ms of a search | then | now | ratio |", "|---|---|---|---|")
    for name, what in (("single", "alone"), ("batch", f"in batches of {BATCH}")):
        one = beside[name]
        yield f"| {what} | {one['then_ms']:g} | {one['now_ms']:g} | {one['ratio']:.2f} |"
    yield from ("", "| goal | holds | measured |", "|---|---|---|")
    ratio, same, apart = beside["single"]["ratio"], beside["same_ids"], beside["largest_difference"]
    yield _goal(f"at most {MOST_TIME} times the processor time", ratio <= MOST_TIME, f"{ratio:.2f} times")
    yield _goal("the same ten items", same == 1, f"{same:.1%} of the searches")
    yield _goal("scores within 1e-4 there", apart <= 1e-4, f"{apart:g}")


def _made(figures: Mapping[str, Any]) -> Iterator[str]:
    commands = {"forecast": "tenth RUNS", "million": "million RUNS", "growth": "growth RUNS", "beside": "beside RUN"}
    yield from ("", "## What made the figures", "")
    yield from ("| part | command | commit | date | machine |", "|---|---|---|---|---|")
    for group, command in commands.items():
        if group in figures:
            made = figures[group]["made"]
            more = f" {' '.join(sorted(figures[group]['by_items'], key=int))}" if group == "growth" else ""
            more = f" {figures[group]['then']}" if group == "beside" else more
            line = f"python -m benchmarks.scale {command}{more}"
            yield f"| {group} | `{line}` | {made['commit']} | {made['date']} | {made['machine']} |"


def _goal(goal: str, holds: bool, value: str) -> str:
    return f"| {goal} | {'yes' if holds else '**no**'} | {value} |"


def _pair(forecast: Mapping[str, Any], took: Mapping[str, Any], key: str, unit: Any) -> str:
    return " | ".join("–" if one.get(key) is None else unit(one[key]) for one in (forecast, took))


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.2f} h"


def _mib(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


_UNITS: Final = (("seconds", _time), ("memory_mib", _mib), ("disk_mib", _mib))


if __name__ == "__main__":
    start_logging()
    match sys.argv[1:]:
        case ["tenth", runs]:
            tenth(Path(runs))
        case ["million", runs]:
            million(Path(runs))
        case ["growth", runs, *sizes]:
            growth(Path(runs), sizes)
        case ["beside", run, earlier]:
            beside(Path(run), earlier)
        case ["render"]:
            render()
        case _:
            sys.exit(__doc__)
