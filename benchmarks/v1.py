"""Quality of OneSearch-V1: keep finished runs' reports in the repository, and render ``docs/results/v1.md`` from them.

    python benchmarks/v1.py save runs/market          # docs/results/v1/market-0.json
    python benchmarks/v1.py render                    # docs/results/v1.md

A cell of the table is a run (``onesearch run configs/NAME.yaml --set seed=N --out RUNS/NAME-N``); runs are independent
and resume, finished stages are skipped. Every figure of the page comes from the saved reports.
"""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onesearch.data.artefact import read_json, write_json
from onesearch.pipeline import settings_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "results" / "v1"
PAGE = ROOT / "docs" / "results" / "v1.md"
TRUE = ("ndcg@10", "ehr@10", "order_ehr@10", "orders@10")
AGAINST = ("BM25", "dense", "BM25 + dense", "most clicked", "cascade")


def save(run: Path) -> Path:
    """Copy a run's report with what made it: config, seed, commit, machine, date, seconds per stage."""
    report: dict[str, Any] = read_json(run / "report" / "report.json")
    config = settings_of(run)
    manifests = {folder.name: read_json(folder / "manifest.json") for folder in run.iterdir()
                 if (folder / "manifest.json").is_file()}  # fmt: skip
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True)
    report["provenance"] = {
        "command": f"onesearch run configs/{config.name}.yaml --set seed={config.seed}",
        "settings": config.model_dump(mode="json", exclude_defaults=True),
        "seed": config.seed, "commit": commit.stdout.strip(), "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "data": {k: v for k, v in manifests["data"]["metrics"].items() if isinstance(v, int | str)},
        "seconds": {name: manifest["seconds"] for name, manifest in manifests.items()},
        "versions": manifests["report"]["versions"],
    }  # fmt: skip
    path = FOLDER / f"{config.name}-{config.seed}.json"
    write_json(path, _at_ten(report))
    return path


def _at_ten(value: Any) -> Any:
    """The report without the figures at other cut-offs than 10: the page does not show them."""
    if isinstance(value, dict):
        return {k: _at_ten(v) for k, v in value.items() if "@" not in k or k.endswith("@10")}
    if isinstance(value, list):
        return [_at_ten(v) for v in value if not isinstance(v, dict) or str(v.get("metric", "@10")).endswith("@10")]
    return value


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if (
        info.is_file()) else []  # fmt: skip
    return names[0] if names else platform.processor()


def render() -> None:
    """Write the page from the saved reports."""
    lines = (ROOT / "docs" / "results" / "v1.head.md").read_text(encoding="utf-8").rstrip().splitlines()
    for path in sorted(FOLDER.glob("*.json")):
        lines += ["", *_section(path.stem, read_json(path))]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _section(name: str, report: dict[str, Any]) -> list[str]:
    made = report["provenance"]
    metrics = [m for m in ("click/HR@10", "click/MRR@10", "order/HR@10", "order/MRR@10", *TRUE)
               if m in report["methods"]["engine"] and report["methods"]["engine"][m]["mean"] is not None]  # fmt: skip
    data = ", ".join(f"{key} {value}" for key, value in made["data"].items())
    lines = [
        f"## {name}", "",
        f"`{made['command']}` · commit {made['commit']} · {made['date']} · {made['machine']}",
        f"Data: {data}. {report['requests']} test requests; mean and 95 % bootstrap interval over them.", "",
        "| method | " + " | ".join(metrics) + " | ms per request |", "|---" * (len(metrics) + 2) + "|",
    ]  # fmt: skip
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
    weights = ", ".join(f"{name} {value:.3f}" for name, value in report["notes"]["weights"].items())
    minutes = sum(made["seconds"].values()) / 60
    lines += ["", f"Valid SIDs when decoding without the constraint: {share:.1%}. Engine weights: {weights}.",
              f"All stages together took {minutes:.0f} minutes."]  # fmt: skip
    return lines


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "save":
        print(save(Path(sys.argv[2])))
    elif sys.argv[1:] == ["render"]:
        render()
    else:
        sys.exit(f"usage: {sys.argv[0]} save RUN | render")
