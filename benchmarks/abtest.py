"""V2 against V1 before the shoppers of the market: on the same fate, and as an A/B test of many more shoppers.

    python -m benchmarks.abtest run RUNS [TEST]     # tests that are not finished; RUNS as in v2.py, with its cells
    python -m benchmarks.abtest render              # docs/results/abtest.md

The report of a test stays in RUNS; its figures go to ``docs/results/abtest.json`` and its charts to
``docs/results/abtest/TEST/``.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.grid import Grid
from benchmarks.provenance import commit, machine, today
from benchmarks.result_files import ResultFiles
from benchmarks.run_or_render import main
from onesearch.common.artefact import read_json
from onesearch.evaluation.abtest_estimates import power
from onesearch.evaluation.abtest_report import lift_text, markdown, write
from onesearch.market.word_tables import read_words
from onesearch.pipeline.abtest_runs import compare_engines
from onesearch.pipeline.run_data import RunData

FILES = ResultFiles("abtest")
ARTICLE = {"item CTR": 0.0398, "page CTR": 0.0117, "conversion": 0.0290, "buyers": 0.0207, "orders": 0.0211}
"""Lifts of V2 over V1 on Kuaishou's shoppers (arXiv 2603.24422)."""
SPLITS = 200


@dataclass(frozen=True)
class Test:
    """Two engines of a market: its data set and seed, cells of the grids, what they are called, their traffic, and
    whether every shopper meets both.
    """

    data: str
    seed: int
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


_V2 = ("aligned/all:v2", ("V1", "V2"))
TESTS = {
    "v2": Test("fresh", 21, "v1:v1", *_V2, 60_000, 22_000, paired=True),
    "split": Test("market", 1, "base:v1", *_V2, 600_000, 220_000, paired=False),
}


def run(runs: Path, only: str = "") -> None:
    """Every test that is not finished."""
    grid = Grid(runs)
    for name, test in TESTS.items():
        work = grid.folder(test.data, test.seed, f"abtest/{name}")
        report = work / "report"
        if (report / "abtest.json").is_file() or not name.startswith(only):
            continue
        places = [str(grid.folder(test.data, test.seed, place)) for place in (test.a, test.b)]
        groups = {"departments": _departments(Path(places[0].rpartition(":")[0]))}
        found = compare_engines(
            *places, work, test.page_views, test.newcomers, splits=SPLITS, paired=test.paired, groups=groups
        )
        made = {
            "command": f"python -m benchmarks.abtest run RUNS {name}",
            "market": f"{test.data}-{test.seed}",
            "commit": commit(),
            "date": today(),
            "machine": machine(),
        }
        write(report, {**found, "a": test.names[0], "b": test.names[1], "made": made})
        FILES.write_figures({**FILES.figures(), name: read_json(report / "abtest.json")})
        (FILES.charts / name).mkdir(parents=True, exist_ok=True)
        for chart in report.glob("*.png"):
            shutil.copyfile(chart, FILES.charts / name / chart.name)
        print(name, {metric: round(one["lift"], 4) for metric, one in found[test.kind].items()}, flush=True)


def _departments(run: Path) -> dict[str, list[str]]:
    """Item ids of ambiguous departments, whose titles say less and contradict themselves more often, and of others."""
    ambiguous = [one["name"] for one in read_words("catalogue")["departments"].values() if one["ambiguous"]]
    items = RunData(run).dataset.items
    inside = items["category"].list.first().is_in(ambiguous)
    return {name: items.filter(of)["item_id"].to_list() for name, of in (("ambiguous", inside), ("clear", ~inside))}


def render() -> None:
    """Write docs/results/abtest.md."""
    lines, figures = FILES.head(), FILES.figures()
    for name, test in TESTS.items():
        if name not in figures:
            continue
        found, made = figures[name], figures[name]["made"]
        charts = [f"{FILES.name}/{name}/{path.name}" for path in sorted((FILES.charts / name).glob("*.png"))]
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
            f"Of `{made['market']}`; made by `{made['command']}`, commit {made['commit']}, {made['date']}, "
            f"{made['machine']}; serving took {serving:.0f} minutes of one core.",
        ]
    FILES.write_page(lines)


if __name__ == "__main__":
    main(run, render, __doc__ or "")
