"""Fill the results table of README.md from the studies' figures, so that none is typed by hand.

    python -m benchmarks.readme_table                                     # rewrite the table
    python -m benchmarks.readme_table --check                             # fail if the table is out of date

The table shows the first seed of each data set: what ``docs/results/generator.json`` has of it, else
``docs/results/v1.json``.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import generator_grid, v1
from benchmarks.generator_grid import FLAGSHIP, SIMPLE
from benchmarks.provenance import ROOT
from onesearch.evaluation.baselines import CASCADE
from onesearch.pipeline.engine_stage import ONE_MODEL, WITHOUT_GENERATOR
from onesearch.pipeline.report_stage import ENGINE_NAME, GENERATOR_ALONE

START, END = "<!-- results:start -->", "<!-- results:end -->"
METHODS = (
    "BM25",
    "BM25 x popularity",
    "BM25 + dense",
    "most clicked",
    "cascade",
    "generator alone",
    "engine without BM25",
    "engine",
)
CONTROLS = (CASCADE, GENERATOR_ALONE, ONE_MODEL, WITHOUT_GENERATOR, ENGINE_NAME)
"""Shown of a report of the generator's study, below the strongest simple baseline."""
METRICS = ("click/HR@10", "click/MRR@10")
DATA = {
    "bestbuy": "**Best Buy**: a real shop, clicks on games for one console",
    "homedepot": '**Home Depot**: a real catalogue; its "clicks" are good ratings by people who were asked',
    "market": "**The simulated market**: no real shop, and no real shoppers",
    "toys": "**Toys**: what shoppers of a real shop buy next, without queries",
}
"""What the figures of a data set are figures of."""


def cell(estimate: dict[str, Any] | None, best: float | None) -> str:
    """``mean (low-high)``, bold for the best mean, or a dash where the method has no such figure."""
    if not estimate or estimate.get("mean") is None:
        return "–"
    text = f"{estimate['mean']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"
    return f"**{text}**" if estimate["mean"] == best else text


@dataclass(frozen=True)
class Shown:
    """What the table shows of a data set."""

    dataset: str
    seed: int
    items: int
    report: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    machine: str


def shown() -> Iterator[Shown]:
    """The first seed of each data set: its flagship of the generator's study, else its run of V1's."""
    flagships: dict[str, dict[str, Any]] = {}
    for report in generator_grid.FILES.figures().get("cells", {}).values():
        first = flagships.get(report["data"])
        if report["cell"] == FLAGSHIP.name and (first is None or report["seed"] < first["seed"]):
            flagships[report["data"]] = report
    plain: dict[str, dict[str, Any]] = {}
    for name, report in v1.FILES.figures().items():
        if "+" not in name:  # no ablation
            plain.setdefault(name.rpartition("-")[0], report)
    for dataset in DATA:
        if report := flagships.get(dataset):
            rows = report["methods"]
            simple = [one for one in SIMPLE if one in rows]
            strongest = max(simple, key=lambda one: rows[one][METRICS[0]]["mean"])
            methods = {one: rows[one] for one in (strongest, *CONTROLS) if one in rows}
            yield Shown(dataset, report["seed"], report["sizes"]["items"], report, methods, report["machine"])
        elif report := plain.get(dataset):
            made = report["provenance"]
            methods = {one: report["methods"][one] for one in METHODS if one in report["methods"]}
            yield Shown(dataset, made["seed"], made["data"]["items"], report, methods, made["machine"])


def table() -> str:
    """For each data set what it is and a row per method, of its first seed, with the milliseconds of a request."""
    lines: list[str] = []
    sets = list(shown())
    for one in sets:
        lines += [
            f"{DATA[one.dataset]}; {one.items:,} items, {one.report['requests']:,} test page views (seed {one.seed})",
            "",
            "| method | " + " | ".join(METRICS) + " | ms |",
            "|---|" + "---|" * (len(METRICS) + 1),
        ]
        best = {m: max((row[m]["mean"] for row in one.methods.values() if m in row), default=None) for m in METRICS}
        for method, row in one.methods.items():
            took = one.report["milliseconds"].get(method)
            ms = "–" if took is None else f"{took:.2g}" if took < 100 else f"{took:.0f}"
            cells = [*(cell(row.get(m), best[m]) for m in METRICS), ms]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    if not lines:
        return "No report has been taken in yet."
    share = ", ".join(sorted({f"{one.report['level']:.0%}" for one in sets}))
    lines.append(
        f"In brackets: {share} bootstrap intervals; bold: the best mean. Test part of each data set; settings and "
        "weights were chosen on its validation part. ms: mean time of a request, many at once, on "
        f"{', '.join(sorted({one.machine for one in sets}))}."
    )
    return "\n".join(lines)


def filled(readme: str) -> str:
    """The README's text with the table between the markers."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"README.md lacks the markers {START} and {END}")
    return f"{before}{START}\n{table()}\n{END}{after}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fill the results table of README.md.")
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    new = filled(text)
    if options.check:
        raise SystemExit("the table in README.md is out of date" if new != text else 0)
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
