"""Quality of OneSearch-V1: keep finished runs' reports in the repository, and render ``docs/results/v1.md`` from them.

    python -m benchmarks.v1 save runs/market          # docs/results/v1/market-0.json
    python -m benchmarks.v1 save runs/x model.anchored=false    # an ablation: market-0+model.anchored=false.json
    python -m benchmarks.v1 save runs/y again     # what ablations are compared with, where training code changed since
    python -m benchmarks.v1 render                    # docs/results/v1.md

A cell of the table is a run (``onesearch run configs/NAME.yaml --set seed=N --out RUNS/NAME-N``); runs are independent
and resume, finished stages are skipped. Every figure of the page comes from the saved reports.
"""

import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT, commit, machine, today
from onesearch.common.artefact import read_json, write_json
from onesearch.pipeline import settings_of

FOLDER = ROOT / "docs" / "results" / "v1"
PAGE = ROOT / "docs" / "results" / "v1.md"
TRUE = ("ndcg@10", "ehr@10", "order_ehr@10", "orders@10")
ABLATED = ("click/HR@10", "click/MRR@10")
AGAIN = "again"
AGAINST = ("BM25", "dense", "BM25 + dense", "most clicked", "cascade")


def save(run: Path, change: str = "") -> Path:
    """Copy a run's report with what made it: config, seed, commit, machine, date, seconds per stage.

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
    report["comparisons"] = [c for c in report["comparisons"] if not c["slice"] or c["slice"][0] == "query frequency"]
    path = FOLDER / f"{config.name}-{config.seed}{'+' + change if change else ''}.json"
    write_json(path, _at_ten(report))
    return path


def _at_ten(value: Any) -> Any:
    """The report without the figures at other cut-offs than 10: the page does not show them."""
    if isinstance(value, dict):
        return {k: _at_ten(v) for k, v in value.items() if "@" not in k or k.endswith("@10")}
    if isinstance(value, list):
        return [_at_ten(v) for v in value if not isinstance(v, dict) or str(v.get("metric", "@10")).endswith("@10")]
    return value


def render() -> None:
    """Write the page from the saved reports."""
    lines = (ROOT / "docs" / "results" / "v1.head.md").read_text(encoding="utf-8").rstrip().splitlines()
    reports = {path.stem: read_json(path) for path in sorted(FOLDER.glob("*.json"))}
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
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
    slices: tuple[list[str] | None, ...] = (None, ["query frequency", "unseen"])
    for other in AGAINST:
        for part in slices:
            cells = [_pooled(reports, other, metric, part, same) for metric in metrics]
            if any(cell != "–" for cell in cells):
                lines.append(f"| {other} | {part[1] if part else 'all'} | " + " | ".join(cells) + " |")
    return lines


def _pooled(reports: list[dict[str, Any]], other: str, metric: str, part: list[str] | None, same: bool) -> str:
    found = [
        c
        for r in reports
        for c in r["comparisons"]
        if c["method"] == "engine"
        and c["against"] == other
        and c["metric"] == metric
        and (list(c["slice"]) if c["slice"] else None) == part
    ]
    if len(found) != len(reports):
        return "–"
    mean = sum(c["difference"] for c in found) / len(found)
    if same:
        return f"{mean:+.4f}, {_p(max(c['p'] for c in found))}"
    error = math.sqrt(sum(((c["high"] - c["low"]) / (2 * 1.96)) ** 2 for c in found)) / len(found)
    p = math.erfc(abs(mean) / max(error, 1e-12) / math.sqrt(2))
    return f"{mean:+.4f} [{mean - 1.96 * error:+.4f}, {mean + 1.96 * error:+.4f}], {_p(p)}"


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _metrics(report: dict[str, Any]) -> list[str]:
    every = ("click/HR@10", "click/MRR@10", "order/HR@10", "order/MRR@10", *TRUE)
    row = report["methods"]["engine"]
    return [m for m in every if m in row and row[m]["mean"] is not None]


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
    ours = [c for c in report["comparisons"] if c["method"] == "engine" and not c["slice"]]
    found = {(c["against"], c["metric"]): c for c in ours}
    for other in AGAINST:
        if (other, metrics[0]) in found:
            cells = [f"{found[other, m]['difference']:+.4f}, {found[other, m]['p']:.4f}" for m in metrics]
            lines.append(f"| {other} | " + " | ".join(cells) + " |")
    for dimension in ("query type", "query frequency"):
        groups = report["slices"].get(dimension)
        if groups:
            lines += ["", f"click/HR@10 by {dimension}:", ""]
            lines.append("| method | " + " | ".join(f"{g} ({v['requests']})" for g, v in groups.items()) + " |")
            lines.append("|---" * (len(groups) + 1) + "|")
            for method in report["methods"]:
                means = [group["methods"][method]["click/HR@10"]["mean"] for group in groups.values()]
                lines.append(f"| {method} | " + " | ".join("–" if m is None else f"{m:.4f}" for m in means) + " |")
    share = report["notes"]["valid_sid_share_without_constraint"]
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
