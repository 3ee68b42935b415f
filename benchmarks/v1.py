"""Quality of OneSearch-V1: keep what finished runs report in the repository, and render ``docs/results/v1.md`` from it.

    python -m benchmarks.v1 save runs/market                    # entry market-0 of docs/results/v1.json
    python -m benchmarks.v1 save runs/x model.anchored=false    # an ablation: market-0+model.anchored=false
    python -m benchmarks.v1 save runs/y again     # what ablations are compared with, where training code changed since
    python -m benchmarks.v1 render                              # docs/results/v1.md

A cell of the table is a run (``onesearch run configs/NAME.yaml --set seed=N --out RUNS/NAME-N``); runs are independent
and resume, finished stages are skipped. Every figure of the page comes from what was saved; the whole
report stays in the run.
"""

import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.provenance import commit, machine, today
from benchmarks.result_files import ResultFiles
from onesearch.common.artefact import read_json
from onesearch.pipeline import settings_of

FILES = ResultFiles("v1")
TRUE = ("ndcg@10", "ehr@10", "order_ehr@10", "orders@10")
ABLATED = ("click/HR@10", "click/MRR@10")
AGAIN = "again"
AGAINST = ("BM25", "dense", "BM25 + dense", "most clicked", "cascade")
METRICS = ("click/HR@10", "click/MRR@10", "order/HR@10", "order/MRR@10", *TRUE)
SLICES = ("query type", "query frequency")
UNSEEN = ("query frequency", "unseen")
SHARE = "valid_sid_share_without_constraint"


def save(run: Path, change: str = "") -> str:
    """Keep a run's main figures with what made them: config, seed, commit, machine, date, seconds per stage.

    ``change`` names the one setting in which an ablation differs from the shipped configuration; "again" is the shipped
    configuration trained by the ablations' code.
    """
    report: dict[str, Any] = read_json(run / "report" / "report.json")
    config = settings_of(run)
    manifests = {
        folder.name: read_json(folder / "manifest.json")
        for folder in run.iterdir()
        if (folder / "manifest.json").is_file()
    }
    settings = config.model_dump(mode="json", exclude_defaults=True)
    if config.data.mapping is not None:
        settings["data"]["root"] = "${ONESEARCH_DATA}"  # where it lay on this machine is nobody's business
    changes = [f"seed={config.seed}", *([change] if change not in ("", AGAIN) else [])]
    report["provenance"] = {
        "command": " --set ".join([f"onesearch run configs/{config.name}.yaml", *changes]),
        "settings": settings,
        "seed": config.seed,
        "commit": commit(),
        "date": today(),
        "machine": machine(),
        "data": {k: v for k, v in manifests["data"]["metrics"].items() if isinstance(v, int | str)},
        "seconds": {name: manifest["seconds"] for name, manifest in manifests.items()},
        "versions": manifests["report"]["versions"],
    }
    name = f"{config.name}-{config.seed}{'+' + change if change else ''}"
    FILES.write_figures({**FILES.figures(), name: shown(report)})
    return name


def shown(report: dict[str, Any]) -> dict[str, Any]:
    """What the page and the README show of a report."""
    clicks = METRICS[0]
    return {
        **{key: report[key] for key in ("level", "requests", "milliseconds", "provenance")},
        "notes": {SHARE: report["notes"][SHARE]},
        "methods": {
            method: {metric: row[metric] for metric in METRICS if metric in row}
            for method, row in report["methods"].items()
        },
        "comparisons": {
            f"{c['against']}, {c['metric']}, {part[1] if part else 'all'}": c
            for c in report["comparisons"]
            for part in [tuple(c["slice"]) if c["slice"] else None]
            if c["method"] == "engine" and c["against"] in AGAINST and c["metric"] in METRICS and part in (None, UNSEEN)
        },
        "slices": {
            dimension: {
                group: {
                    "requests": part["requests"],
                    "methods": {method: {clicks: row[clicks]} for method, row in part["methods"].items()},
                }
                for group, part in report["slices"][dimension].items()
            }
            for dimension in SLICES
            if dimension in report["slices"]
        },
    }


def render() -> None:
    """Write the page from the saved reports."""
    lines, reports = FILES.head(), FILES.figures()
    sets: dict[str, list[dict[str, Any]]] = {}
    for name, report in reports.items():
        if not _variant(name):
            sets.setdefault(name.rpartition("-")[0], []).append(report)
    for name, same in sets.items():
        if len(same) > 1:
            lines += ["", *_over_seeds(name, same)]
    lines += _ablations(reports)
    for name, report in reports.items():
        if not _variant(name):
            lines += ["", *_section(name, report)]
    FILES.write_page(lines)


def _variant(name: str) -> bool:
    """Whether a report is an ablation's: ``bestbuy-1+model.anchored=false``."""
    return "+" in name


def _ablations(reports: dict[str, dict[str, Any]]) -> list[str]:
    """Each ablation beside the run it changes one setting of."""
    variants = [name for name in reports if _variant(name)]
    if not variants:
        return []
    lines = ["", "## Ablations", ""]
    lines += ["One setting changed, same test requests and training code; the difference in brackets.", ""]
    lines += ["| run | setting | method | " + " | ".join(ABLATED) + " |", "|---" * (len(ABLATED) + 3) + "|"]
    for name in variants:
        base, _, change = name.partition("+")
        shipped = reports.get(f"{base}+{AGAIN}", reports[base])
        for method in ("generator alone", "engine without BM25", "engine"):
            ours, plain = reports[name]["methods"][method], shipped["methods"][method]
            cells = [f"{ours[m]['mean']:.4f} ({ours[m]['mean'] - plain[m]['mean']:+.4f})" for m in ABLATED]
            what = "as shipped" if change == AGAIN else f"`{change}`"
            lines.append(f"| {base} | {what} | {method} | " + " | ".join(cells) + " |")
    return lines


def _over_seeds(name: str, reports: list[dict[str, Any]]) -> list[str]:
    """Means over seeds, and the engine's differences pooled: seeds are independent, so their variances add up."""
    metrics = _metrics(reports[0])
    seeds = ", ".join(str(report["provenance"]["seed"]) for report in reports)
    lines = [f"## {name}, seeds {seeds} together", "", "| method | " + " | ".join(metrics) + " |"]
    lines.append("|---" * (len(metrics) + 1) + "|")
    for method in reports[0]["methods"]:
        means = [sum(r["methods"][method][m]["mean"] for r in reports) / len(reports) for m in metrics]
        lines.append(f"| {method} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")
    same = len({report["methods"]["BM25"]["click/HR@10"]["mean"] for report in reports}) == 1
    how = (
        "all seeds have the same test requests: mean difference over seeds, the largest p of any seed"
        if same
        else "mean over seeds with 95 % interval, p of the pooled two-sided z-test"
    )
    lines += ["", f"Engine minus baseline; {how}:", ""]
    lines += ["| against | slice | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for other in AGAINST:
        for part in ("all", UNSEEN[1]):
            cells = [_pooled(reports, other, metric, part, same) for metric in metrics]
            if any(cell != "–" for cell in cells):
                lines.append(f"| {other} | {part} | " + " | ".join(cells) + " |")
    return lines


def _pooled(reports: list[dict[str, Any]], other: str, metric: str, part: str, same: bool) -> str:
    key = f"{other}, {metric}, {part}"
    if not all(key in report["comparisons"] for report in reports):
        return "–"
    found = [report["comparisons"][key] for report in reports]
    mean = sum(c["difference"] for c in found) / len(found)
    if same:
        return f"{mean:+.4f}, {_p(max(c['p'] for c in found))}"
    error = math.sqrt(sum(((c["high"] - c["low"]) / (2 * 1.96)) ** 2 for c in found)) / len(found)
    p = math.erfc(abs(mean) / max(error, 1e-12) / math.sqrt(2))
    return f"{mean:+.4f} [{mean - 1.96 * error:+.4f}, {mean + 1.96 * error:+.4f}], {_p(p)}"


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _metrics(report: dict[str, Any]) -> list[str]:
    row = report["methods"]["engine"]
    return [m for m in METRICS if m in row and row[m]["mean"] is not None]


def _section(name: str, report: dict[str, Any]) -> list[str]:
    made = report["provenance"]
    metrics = _metrics(report)
    data = ", ".join(f"{key} {value}" for key, value in made["data"].items())
    lines = [
        f"## {name}",
        "",
        f"`{made['command']}` · commit {made['commit']} · {made['date']} · {made['machine']}",
        f"Data: {data}. {report['requests']} test requests; mean and 95 % bootstrap interval over them.",
        "",
        "| method | " + " | ".join(metrics) + " | ms per request |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for method, row in report["methods"].items():
        cells = [f"{row[m]['mean']:.4f} [{row[m]['low']:.4f}, {row[m]['high']:.4f}]" for m in metrics]
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {report['milliseconds'][method]:.2f} |")
    lines += ["", "Paired sign-flip tests, engine against each baseline (difference, p):", ""]
    lines += ["| against | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for other in AGAINST:
        tests = [report["comparisons"].get(f"{other}, {m}, all") for m in metrics]
        if tests[0]:
            cells = [f"{test['difference']:+.4f}, {test['p']:.4f}" for test in tests]
            lines.append(f"| {other} | " + " | ".join(cells) + " |")
    for dimension in SLICES:
        groups = report["slices"].get(dimension)
        if groups:
            lines += ["", f"click/HR@10 by {dimension}:", ""]
            lines.append("| method | " + " | ".join(f"{g} ({v['requests']})" for g, v in groups.items()) + " |")
            lines.append("|---" * (len(groups) + 1) + "|")
            for method in report["methods"]:
                means = [group["methods"][method]["click/HR@10"]["mean"] for group in groups.values()]
                lines.append(f"| {method} | " + " | ".join("–" if m is None else f"{m:.4f}" for m in means) + " |")
    share = report["notes"][SHARE]
    minutes = sum(made["seconds"].values()) / 60
    lines += [
        "",
        f"Valid SIDs when decoding without the constraint: {share:.1%}.",
        f"All stages together took {minutes:.0f} minutes.",
    ]
    return lines


if __name__ == "__main__":
    if len(sys.argv) in (3, 4) and sys.argv[1] == "save":
        print(save(Path(sys.argv[2]), *sys.argv[3:]))
    elif sys.argv[1:] == ["render"]:
        render()
    else:
        sys.exit(f"usage: {sys.argv[0]} save RUN [CHANGE] | render")
