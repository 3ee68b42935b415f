"""A simulated month: how coverage of traffic by thoughts rises, and what each way of learning from it is worth.

    python -m benchmarks.month run RUNS [CELL]     # cells that are not finished; a killed one goes on in its month
    python -m benchmarks.month render              # docs/results/month.md from docs/results/month.json

Cells are independent: each has a folder in RUNS/month, with a store, a cache and a copy of the run that all begin with.
What they share, the run and the market's days, is made first. A market of its own (seed 31) goes on for thirty days.
"""

import traceback
from dataclasses import dataclass
from pathlib import Path

from benchmarks.month_cell import Cell, MonthCell, Worker
from benchmarks.month_page import figures_of, page
from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.result_files import ResultFiles
from benchmarks.run_or_render import main
from benchmarks.v2 import DPO, GRPO
from onesearch import pipeline
from onesearch.common.artefact import read_json, write_json
from onesearch.common.run_lock import RunLockedError
from onesearch.market.later_days import LaterDays, LaterSettings
from onesearch.market.world_files import FOLDER, load_config
from onesearch.pipeline.update_round import Method

FILES = ResultFiles("month")
CELLS = (
    Cell("frozen", "frozen: nothing is learnt", clicks=False),
    Cell("learning", "clicks count while it serves"),
    Cell("rounds", "+ a round on the day's page views every night", epochs=1.0, thoughts=False, always=True),
    Cell("thoughts", "+ its teacher reads new thoughts", epochs=1.0, always=True),
    Cell("full", "+ at most 20 steps of alignment in it", epochs=1.0, steps=20, always=True),
    Cell("retrained", "clicks count; everything made anew in the middle of the month", retrain=15),
    Cell("explore-5", "clicks count; 5 % of the places drawn", explore=0.05),
    Cell("explore-10", "clicks count; 10 % of the places drawn", explore=0.10),
)
FIGURES = "figures.json"
"""Figures of a cell, in its folder; a cell that has them is finished."""


@dataclass(frozen=True)
class Study:
    """What all cells share.

    Attributes:
        config: configuration file of the run that they begin with.
        sets: settings of it that differ from the file's.
        later: the days, and what changes in the market.
        worker: who thinks about queries, and how many a day.
        method: of alignment rounds.
        cells: in the order of work.
        overrides: settings of rounds that differ from the run's.
        retrained: settings of a run of everything beside the first run's.
        reuse: finished runs whose stages may be taken over.
    """

    config: Path
    sets: tuple[str, ...]
    later: LaterSettings
    worker: Worker
    method: Method = "tpma"
    cells: tuple[Cell, ...] = CELLS
    overrides: tuple[str, ...] = ()
    retrained: tuple[str, ...] = ()
    reuse: tuple[Path, ...] = ()


STUDY = Study(
    ROOT / "configs" / "market-v2.yaml",
    (
        "seed=31",
        "data.market={items: 8000, users: 6000, days: 60, page_views: 52000}",
        "distill.r_drop=0",
        "distill.fgm=0",
        *DPO,
        *GRPO,
        "final=true",
        "evaluation.test_requests=1000",
    ),
    # So many that eight cells of thirty days take hours, not days.
    LaterSettings(days=30, page_views=4_000, drift=0.5, new_items=0.1, new_needs=0.1, repeated=0.3),
    Worker(thoughts=1_200, turns=6),
    retrained=("evaluation.test_requests=200",),
)


def run(runs: Path, only: str = "", study: Study = STUDY, files: ResultFiles = FILES) -> None:
    """Every cell that is not finished, and whose name begins so; one that another process works on is left to it."""
    folder = runs / "month"
    base, until = folder / "base", "final" if "final=true" in study.sets else "engine_v2"
    pipeline.run_config(study.config, base, study.sets, reuse=study.reuse, until=until)
    days = LaterDays(load_config(base / "data" / FOLDER), study.later)
    days.save(folder / "later")
    failed = []
    for cell in study.cells:
        place = folder / cell.name
        if (place / FIGURES).is_file() or not cell.name.startswith(only):
            continue
        try:
            MonthCell(
                place,
                base,
                days,
                folder / "later",
                cell,
                study.worker,
                study.method,
                study.overrides,
                study.retrained,
            ).run()
        except RunLockedError as error:
            print(f"{cell.name}: {error}", flush=True)
            continue
        except Exception:  # noqa: BLE001 - the other cells are worth having
            traceback.print_exc()
            failed.append(cell.name)
            continue
        made = {
            "command": f"python -m benchmarks.month run RUNS {cell.name}",
            "commit": commit(),
            "date": today(),
            "machine": machine(),
        }
        write_json(place / FIGURES, made)
        print(f"{cell.name}: finished", flush=True)
    save(folder, study, files)
    if failed:
        raise SystemExit(f"not finished: {', '.join(failed)}")


def save(folder: Path, study: Study, files: ResultFiles) -> None:
    """Take the figures of the finished cells, and how they compare, into the repository."""
    finished = [cell for cell in study.cells if (folder / cell.name / FIGURES).is_file()]
    if not finished:
        return
    found = figures_of(folder, finished, study.later)
    for cell in finished:
        found[cell.name]["made"] = read_json(folder / cell.name / FIGURES)
    about = {"later": study.later.model_dump(), "thoughts a day": study.worker.thoughts, "turns": study.worker.turns}
    files.write_figures({"cells": found, "study": about})


def render(study: Study = STUDY, files: ResultFiles = FILES) -> None:
    """Write docs/results/month.md and its charts."""
    files.write_page([*files.head(), *page(files, [(cell.name, cell.what) for cell in study.cells])])


if __name__ == "__main__":
    main(run, render, __doc__ or "")
