"""Fill the results table of README.md from docs/results/v1.json, so that no figure is typed by hand.

    python -m benchmarks.readme_table                                     # rewrite the table
    python -m benchmarks.readme_table --check                             # fail if the table is out of date

``python -m benchmarks.v1 save RUN`` fills that file. The table shows the first seed of each data set.
"""

import argparse
from typing import Any

from benchmarks.provenance import ROOT
from benchmarks.v1 import FILES

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
METRICS = ("click/HR@10", "click/MRR@10")
DATA = {
    "bestbuy": "**Best Buy**: a real shop, clicks on games for one console",
    "homedepot": '**Home Depot**: a real catalogue; its "clicks" are good ratings by people who were asked',
    "market": "**The simulated market**: no real shop, and no real shoppers",
}
"""What the figures of a data set are figures of."""


def cell(estimate: dict[str, Any] | None, best: float | None) -> str:
    """``mean (low-high)``, bold for the best mean, or a dash where the method has no such figure."""
    if not estimate or estimate.get("mean") is None:
        return "–"
    text = f"{estimate['mean']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"
    return f"**{text}**" if estimate["mean"] == best else text


def table() -> str:
    """For each data set what it is and a row per method, of its first seed, with the milliseconds of a request."""
    lines: list[str] = []
    levels, machines, shown = set[float](), set[str](), set[str]()
    for name, report in FILES.figures().items():
        dataset, _, seed = name.rpartition("-")
        if dataset not in DATA or dataset in shown or "+" in name:  # an ablation, an earlier form, or another seed
            continue
        shown.add(dataset)
        levels.add(report["level"])
        source = report["provenance"]
        machines.add(source["machine"])
        sizes = source["data"]
        lines += [
            f"{DATA[dataset]}; {sizes['items']:,} items, {report['requests']:,} test page views (seed {seed})",
            "",
            "| method | " + " | ".join(METRICS) + " | ms |",
            "|---|" + "---|" * (len(METRICS) + 1),
        ]
        methods = {method: report["methods"][method] for method in METHODS if method in report["methods"]}
        best = {m: max((row[m]["mean"] for row in methods.values() if m in row), default=None) for m in METRICS}
        for method, row in methods.items():
            took = report.get("milliseconds", {}).get(method)
            cells = [cell(row.get(m), best[m]) for m in METRICS] + ["–" if took is None else f"{took:.2g}"]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    if not lines:
        return "No report has been taken in yet."
    share = ", ".join(f"{level:.0%}" for level in sorted(levels))
    lines.append(
        f"In brackets: {share} bootstrap intervals; bold: the best mean. Test part of each data set; settings and "
        "weights were chosen on its validation part. ms: mean time of a request, many at once, on "
        f"{', '.join(sorted(machines))}."
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
