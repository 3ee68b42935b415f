"""Fill the results table of README.md from the reports in docs/results/v1/, so that no figure is typed by hand.

    python benchmarks/readme_table.py                                     # rewrite the table
    python benchmarks/readme_table.py --add market-0=runs/market/report/report.json    # take a report in, then rewrite
    python benchmarks/readme_table.py --check                             # fail if the table is out of date

A report is kept with its figures at cut-off 10 only (values as the run wrote them); the rest makes files of megabytes.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "v1"
START, END = "<!-- results:start -->", "<!-- results:end -->"
METHODS = ("BM25", "BM25 + dense", "most clicked", "cascade", "generator alone", "engine without BM25", "engine")
METRICS = ("click/HR@10", "click/MRR@10")
CUT = "@10"


def at_ten(report: dict[str, Any]) -> dict[str, Any]:
    """The report with its figures at cut-off 10 alone."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(part) for key, part in value.items() if "@" not in key or key.endswith(CUT)}
        if isinstance(value, list):
            return [kept(part) for part in value if not isinstance(part, dict) or _at_ten(part.get("metric"))]
        return value

    out: dict[str, Any] = kept(report)
    return out


def _at_ten(metric: str | None) -> bool:
    return metric is None or metric.endswith(CUT)


def add(name: str, report: Path, results: Path = RESULTS) -> Path:
    """Take the report of a finished run in as ``<dataset>-<seed>``."""
    if not re.fullmatch(r"[a-z0-9]+-\d+", name):
        raise SystemExit(f"'{name}' is not of the form dataset-seed, such as market-0")
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.json"
    small = at_ten(json.loads(report.read_text(encoding="utf-8")))
    path.write_text(json.dumps(small, separators=(",", ":")) + "\n", encoding="utf-8")
    return path


def cell(estimate: dict[str, Any] | None) -> str:
    """``mean (low-high)``, or a dash where the method has no such figure."""
    if not estimate or estimate.get("mean") is None:
        return "–"
    return f"{estimate['mean']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"


def table(results: Path = RESULTS) -> str:
    """One row per data set, seed and method, the best mean of each run and metric in bold."""
    lines = ["| data | seed | method | " + " | ".join(METRICS) + " |", "|---|---|---|" + "---|" * len(METRICS)]
    levels: set[float] = set()
    for path in sorted(results.glob("*-*.json")):
        dataset, _, seed = path.stem.rpartition("-")
        report = json.loads(path.read_text(encoding="utf-8"))
        levels.add(report["level"])
        methods = {name: report["methods"][name] for name in METHODS if name in report["methods"]}
        best = {m: max((row[m]["mean"] for row in methods.values() if m in row), default=None) for m in METRICS}
        for name, row in methods.items():
            cells = [f"**{cell(row.get(m))}**" if row.get(m, {}).get("mean") == best[m] else cell(row.get(m))
                     for m in METRICS]  # fmt: skip
            lines.append(f"| {dataset} | {seed} | {name} | " + " | ".join(cells) + " |")
    if len(lines) == 2:
        return "No report has been taken in yet."
    share = ", ".join(f"{level:.0%}" for level in sorted(levels))
    lines += ["", f"In brackets: {share} bootstrap intervals. Test part of each data set; settings and weights were "
              "chosen on its validation part."]  # fmt: skip
    return "\n".join(lines)


def filled(readme: str, results: Path = RESULTS) -> str:
    """The README's text with the table between the markers."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"README.md lacks the markers {START} and {END}")
    return f"{before}{START}\n{table(results)}\n{END}{after}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fill the results table of README.md.")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=REPORT", help="dataset-seed=report.json")
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    options = parser.parse_args()
    for given in options.add:
        name, _, path = given.partition("=")
        print("wrote", add(name, Path(path)))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    new = filled(text)
    if options.check:
        raise SystemExit("the table in README.md is out of date" if new != text else 0)
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
