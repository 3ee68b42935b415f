"""Agents as shoppers: does alignment on their sessions, rewarded by the final order alone, save them searches?

    python -m benchmarks.agents run RUNS [CELL]     # cells that are not finished; RUNS as in month.py
    python -m benchmarks.agents render              # docs/results/agents.md

The stand-in agent shops before the V2 of two markets, those of the study of a month, once for the sessions to learn
from and once, for other searches, to measure. From these sessions V2 is aligned by TPMA with the order as its only
reward, and, as the control, by the same steps on the same searches without the policy. All forms meet the same needs,
the generators alone and the engines; sums of single sessions stay in RUNS, figures go to ``docs/results/agents.json``.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.month import STUDY
from benchmarks.provenance import commit, machine, today
from benchmarks.result_files import ResultFiles
from benchmarks.run_or_render import main
from onesearch import pipeline
from onesearch.common.artefact import read_json, write_json
from onesearch.common.run_lock import RunLock
from onesearch.evaluation.agent_figures import METRICS, figures, paired_figures, session_sums
from onesearch.model.generator import Generator
from onesearch.pipeline.agent_runs import sessions_of, simulate
from onesearch.pipeline.session_alignment import align_on_sessions
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.run_parts import GENERATOR, need

FILES = ResultFiles("agents")
SEEDS = (31, 32)
BUDGET, LEARNT, MEASURED = 6, 6_000, 2_000
LEARN_STREAM, TEST_STREAM = 2, 3
ROUND = ("grpo.loop.learning_rate=1e-3", "grpo.loop.best=''")
"""Without the guard of validation hits: what the reward does is to be seen, also where it costs."""
STEPS = 100
METHODS = ("generator alone", "engine")


@dataclass(frozen=True)
class Form:
    """A form of the model: its name, what it is, and what its training sets; None for the model before."""

    name: str
    what: str
    sets: tuple[str, ...] | None


BEFORE, CONTROL, ALIGNED = "before", "control", "aligned"
FORMS = (
    Form(BEFORE, "V2, not aligned", None),
    Form(CONTROL, "the same steps on the same searches, without the policy", ("grpo.policy=0",)),
    Form(ALIGNED, "aligned on sessions (TPMA, the final order alone)", ()),
)
PAIRS = ((CONTROL, ALIGNED), (BEFORE, ALIGNED), (BEFORE, CONTROL))


def run(
    runs: Path,
    only: str = "",
    small: tuple[str, ...] = (),
    learnt: int = LEARNT,
    measured: int = MEASURED,
    steps: int = STEPS,
    seeds: Iterable[int] = SEEDS,
) -> None:
    """Every unfinished cell, a form of a market as ``market-31/aligned``; ``small`` settings make a smoke test."""
    for seed in seeds:
        market = f"market-{seed}"
        if not any(f"{market}/{form.name}".startswith(only) for form in FORMS):
            continue
        folder = _folder(runs, seed)
        with RunLock(folder / "work"):
            base = base_of(runs, seed)
            page_views = _learnt(base, folder, learnt)
            for form in (one for one in FORMS if f"{market}/{one.name}".startswith(only)):
                _cell(base, folder / form.name, form, page_views, steps, measured, small, seed)
    keep(runs, seeds)


def _folder(runs: Path, seed: int) -> Path:
    return runs / "agents" / f"market-{seed}"


def base_of(runs: Path, seed: int) -> Path:
    """The run of a market: as in the study of a month, whose own run is taken over where it is the same."""
    base, month = _folder(runs, seed) / "base", runs / "month" / "base"
    reuse = [month] if month.is_dir() else []
    pipeline.run_config(STUDY.config, base, (f"seed={seed}", *STUDY.sets[1:]), reuse=reuse, until="engine_v2")
    return base


def _learnt(base: Path, folder: Path, sessions: int) -> Path:
    """The sessions to learn from, before the generator alone: what it shows is what it is to learn about."""
    path = folder / "sessions.parquet"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        found = simulate(load_engine(base, "v2").alone(), need(base, "data"), sessions, BUDGET, LEARN_STREAM, out=path)
        write_json(path.with_suffix(".json"), found)
    return path


def _cell(
    base: Path,
    folder: Path,
    form: Form,
    page_views: Path,
    steps: int,
    measured: int,
    small: Sequence[str],
    seed: int,
) -> None:
    """Train and measure one form."""
    if (folder / "cell.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    start, training = time.perf_counter(), {}
    if form.sets is not None:
        sets = (*ROUND, *small_sets(small), *form.sets)
        training = dict(align_on_sessions(base, pl.read_parquet(page_views), folder / "model", steps, sets, seed))
    minutes = (time.perf_counter() - start) / 60
    engine = load_engine(base, "v2")
    if form.sets is not None:
        engine.adopt(Generator.load(folder / "model" / GENERATOR), form.name)
    found = {}
    for method in METHODS:
        # Measured before a stop: not again.
        path = folder / f"{method.replace(' ', '-')}.npy"
        if not path.is_file():
            sums = _sums(engine if method == "engine" else engine.alone(), base, measured)
            np.save(path, sums, allow_pickle=False)
        found[method] = figures(_kept(folder, method))
    about = {
        "what": form.what,
        "minutes": minutes,
        "training": {name: value for name, value in training.items() if isinstance(value, int | float)},
        "sets": list(form.sets or ()),
        "steps": steps if form.sets is not None else 0,
        "commit": commit(),
        "date": today(),
        "machine": machine(),
    }
    write_json(folder / "cell.json", {**about, "methods": found})
    print(folder.parent.name, form.name, found["generator alone"]["searches per order"], flush=True)


def small_sets(small: Sequence[str]) -> list[str]:
    """Of the settings of a smoke test those of alignment."""
    return [one for one in small if one.startswith("grpo.")]


def _sums(engine: SearchEngine, base: Path, sessions: int) -> NDArray[np.float64]:
    found, _ = sessions_of(engine, need(base, "data"), sessions, BUDGET, TEST_STREAM)
    return session_sums(found, BUDGET)


def keep(runs: Path, seeds: Iterable[int] = SEEDS) -> None:
    """Take figures of finished cells over, with the paired differences that two of them allow."""
    made: dict[str, dict[str, Any]] = {"cells": {}, "pairs": {}}
    for seed in seeds:
        folder, market = _folder(runs, seed), f"market-{seed}"
        finished = [form.name for form in FORMS if (folder / form.name / "cell.json").is_file()]
        made["cells"] |= {f"{market}/{name}": read_json(folder / name / "cell.json") for name in finished}
        for a, b in PAIRS:
            if a not in finished or b not in finished:
                continue
            made["pairs"][f"{market}/{b} - {a}"] = {
                method: paired_figures(*(_kept(folder / name, method) for name in (a, b))) for method in METHODS
            }
    earlier = FILES.figures()
    FILES.write_figures({group: {**earlier.get(group, {}), **entries} for group, entries in made.items()})


def _kept(folder: Path, method: str) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = np.load(folder / f"{method.replace(' ', '-')}.npy", allow_pickle=False)
    return sums


def render() -> None:
    """Write docs/results/agents.md."""
    made, lines = FILES.figures(), FILES.head()
    cells: Mapping[str, Any] = made.get("cells", {})
    if not cells:
        lines += ["", "Not measured yet: `python -m benchmarks.agents run RUNS` makes the figures."]
    for market in sorted({name.partition("/")[0] for name in cells}):
        lines += ["", f"## {market}", ""]
        columns = " | ".join(METRICS)
        for method in METHODS:
            lines += [f"### {method}", "", f"| form | {columns} |", "|---" * (len(METRICS) + 1) + "|"]
            for form in FORMS:
                if (cell := cells.get(f"{market}/{form.name}")) is not None:
                    row = " | ".join(_text(cell["methods"][method][name]) for name in METRICS)
                    lines.append(f"| {form.what} | {row} |")
            lines += ["", f"| difference, paired | {columns} |", "|---" * (len(METRICS) + 1) + "|"]
            for a, b in PAIRS:
                if (pair := made.get("pairs", {}).get(f"{market}/{b} - {a}")) is not None:
                    row = " | ".join(_text(pair[method][name], sign="+") for name in METRICS)
                    lines.append(f"| {b} less {a} | {row} |")
            lines.append("")
        one = next(cell for name, cell in cells.items() if name.startswith(f"{market}/"))
        sessions = one["methods"][METHODS[0]]["sessions"]
        lines.append(
            f"{sessions:,} sessions of at most {BUDGET} searches; made by "
            f"`python -m benchmarks.agents run RUNS {market}`, commit {one['commit']}, {one['date']}, {one['machine']}."
        )
    FILES.write_page(lines)


def _text(figure: Mapping[str, float | None], sign: str = "") -> str:
    """A figure with its interval, and p where it has one."""
    if figure["value"] is None or figure["low"] is None or figure["high"] is None:
        return "–"
    text = f"{figure['value']:{sign}.3f} ({figure['low']:{sign}.3f} to {figure['high']:{sign}.3f})"
    return text if figure.get("p") is None else f"{text}, p {figure['p']:.2g}"


if __name__ == "__main__":
    main(run, render, __doc__ or "")
