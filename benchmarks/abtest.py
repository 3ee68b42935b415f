"""V2 against V1 before the shoppers of the market: on the same fate, and as an A/B test of many more shoppers.

    python -m benchmarks.abtest run RUNS [TEST]     # tests that are not finished; RUNS as in v2.py, with its cells
    python -m benchmarks.abtest render              # docs/results/abtest.md

Reports and charts go to ``docs/results/abtest/TEST/``.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.grid import Grid
from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.run_or_render import main
from onesearch.common.artefact import read_json, write_json
from onesearch.evaluation.abtest_estimates import power
from onesearch.evaluation.abtest_report import lift_text, markdown, write
from onesearch.pipeline.abtest_runs import compare_engines

FOLDER = ROOT / "docs" / "results" / "abtest"
ARTICLE = {"item CTR": 0.0398, "page CTR": 0.0117, "conversion": 0.0290, "buyers": 0.0207, "orders": 0.0211}
"""Lifts of V2 over V1 on Kuaishou's shoppers (arXiv 2603.24422)."""
SPLITS = 200


@dataclass(frozen=True)
class Test:
    """Two engines of ``market-1``: cells of the grids, what they are called, their traffic, and who meets whom."""

    a: str
    b: str
    names: tuple[str, str]
    page_views: int
    newcomers: int
    paired: bool

    @property
    def kind(self) -> str:
        """The estimate to look at."""
        return "paired" if self.paired else "split"


_V2 = ("base:v1", "aligned/all:v2", ("V1", "V2"))
TESTS = {"v2": Test(*_V2, 60_000, 22_000, paired=True), "split": Test(*_V2, 600_000, 220_000, paired=False)}


def run(runs: Path, only: str = "") -> None:
    """Every test that is not finished."""
    grid = Grid(runs)
    for name, test in TESTS.items():
        folder = FOLDER / name
        if (folder / "made.json").is_file() or not name.startswith(only):
            continue
        places = [str(grid.folder("market", 1, place)) for place in (test.a, test.b)]
        work = grid.folder("market", 1, f"abtest/{name}")
        found = compare_engines(*places, work, test.page_views, test.newcomers, splits=SPLITS, paired=test.paired)
        write(folder, {**found, "a": test.names[0], "b": test.names[1]})
        write_json(
            folder / "made.json",
            {
                "command": f"python -m benchmarks.abtest run RUNS {name}",
                "commit": commit(),
                "date": today(),
                "machine": machine(),
            },
        )
        print(name, {metric: round(one["lift"], 4) for metric, one in found[test.kind].items()}, flush=True)


def render() -> None:
    """Write docs/results/abtest.md."""
    lines = FOLDER.with_suffix(".head.md").read_text(encoding="utf-8").rstrip().splitlines()
    for name, test in TESTS.items():
        if not (FOLDER / name / "made.json").is_file():
            continue
        found, made = read_json(FOLDER / name / "abtest.json"), read_json(FOLDER / name / "made.json")
        charts = [f"{FOLDER.name}/{name}/{path.name}" for path in sorted((FOLDER / name).glob("*.png"))]
        table = markdown(found, charts).replace("\n## ", "\n### ").splitlines()
        kind = test.kind
        lines += [
            "",
            f"## {test.names[1]} against {test.names[0]}, engines, {kind}",
            "",
            f"| metric | the article | here, {kind} | power of the split for the article's lift |",
            "|---|---|---|---|",
        ]
        for metric, lift in ARTICLE.items():
            chance = power(found["detectable"][metric], lift)
            lines.append(f"| {metric} | {lift:+.2%} | {lift_text(found[kind][metric])} | {chance:.0%} |")
        # Of a split, each engine serves half. Arms may be served by two processes at a time, so that this, not the
        # clock's time, is what the test costs.
        serving = sum(found["milliseconds"]) * found["page_views"] / (1 if test.paired else 2) / 60_000
        lines += [
            *table[1:],
            "",
            f"Made by `{made['command']}`, commit {made['commit']}, {made['date']}, {made['machine']}; "
            f"serving took {serving:.0f} minutes of one core.",
        ]
    FOLDER.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(run, render, __doc__ or "")
