"""V2 against V1 before the shoppers of the market, as an A/B test and on the same fate.

    python benchmarks/abtest.py run RUNS [TEST]     # tests that are not finished; RUNS as in v2.py, with its cells
    python benchmarks/abtest.py render              # docs/results/abtest.md

Reports and charts go to ``docs/results/abtest/TEST/``.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from onesearch.data.artefact import read_json, write_json
from onesearch.pipeline.abtest import compare_engines, lift_text, markdown, write
from provenance import ROOT, commit, machine, today
from run_or_render import main
from v2_distillation import Grid

FOLDER = ROOT / "docs" / "results" / "abtest"
ARTICLE = {"item CTR": 0.0398, "page CTR": 0.0117, "conversion": 0.0290, "buyers": 0.0207, "orders": 0.0211}
"""Lifts of V2 over V1 on Kuaishou's shoppers (arXiv 2603.24422)."""
PAGE_VIEWS, NEWCOMERS, SPLITS = 60_000, 22_000, 200


@dataclass(frozen=True)
class Test:
    """Two engines of ``market-1``: cells of the grids, and what they are called."""

    a: str
    b: str
    names: tuple[str, str]


TESTS = {"v2": Test("base:v1", "aligned/all:v2", ("V1", "V2"))}


def run(runs: Path, only: str = "", page_views: int = PAGE_VIEWS, newcomers: int = NEWCOMERS) -> None:
    """Every test that is not finished."""
    grid = Grid(runs)
    for name, test in TESTS.items():
        folder = FOLDER / name
        if (folder / "made.json").is_file() or not name.startswith(only):
            continue
        start = time.perf_counter()
        places = [str(grid.folder("market", 1, place)) for place in (test.a, test.b)]
        work = grid.folder("market", 1, f"abtest/{name}")
        found = compare_engines(*places, work, page_views, newcomers, splits=SPLITS)
        write(folder, {**found, "a": test.names[0], "b": test.names[1]})
        write_json(folder / "made.json", {
            "command": f"python benchmarks/abtest.py run RUNS {name}", "commit": commit(), "date": today(),
            "machine": machine(), "minutes": (time.perf_counter() - start) / 60,
        })  # fmt: skip
        print(name, {metric: round(one["lift"], 4) for metric, one in found["paired"].items()}, flush=True)


def render() -> None:
    """Write docs/results/abtest.md."""
    lines = FOLDER.with_suffix(".head.md").read_text(encoding="utf-8").rstrip().splitlines()
    for name, test in TESTS.items():
        if not (FOLDER / name / "made.json").is_file():
            continue
        found, made = read_json(FOLDER / name / "abtest.json"), read_json(FOLDER / name / "made.json")
        charts = [f"{FOLDER.name}/{name}/{path.name}" for path in sorted((FOLDER / name).glob("*.png"))]
        table = markdown(found, charts).replace("\n## ", "\n### ").splitlines()
        lines += ["", f"## {test.names[1]} against {test.names[0]}, engines"]
        lines += ["", "| metric | the article | here, paired |", "|---|---|---|"]
        for metric, lift in ARTICLE.items():
            lines.append(f"| {metric} | {lift:+.2%} | {lift_text(found['paired'][metric])} |")
        lines += [*table[1:], "",
                  f"Made by `{made['command']}` in {made['minutes']:.0f} minutes, commit {made['commit']}, "
                  f"{made['date']}, {made['machine']}."]  # fmt: skip
    FOLDER.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(run, render, __doc__ or "")
