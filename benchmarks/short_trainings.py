"""What the generator makes of other SIDs and losses: short trainings on Best Buy, read on validation queries only.

    python -m benchmarks.short_trainings RUNS [CELL]     # cells that are not finished
    python -m benchmarks.quantizers --render             # docs/results/quantizers.md

A cell is stage 3 of one epoch after the stages of the shipped configuration, the same for all. The generator alone is
measured, and the engine: its weights are fitted on one half of the page views and read on the other, both ways round.
Values of single requests stay in RUNS; what the page shows goes to ``docs/results/quantizers.json``.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.request_values import Values, load_values, save_values
from benchmarks.result_files import ResultFiles
from onesearch import pipeline
from onesearch.common.artefact import read_json, write_json
from onesearch.data.metrics import hit_rate, mrr
from onesearch.evaluation.significance import permutation_test
from onesearch.pipeline import settings_of
from onesearch.pipeline.engine_stage import PLAIN, positives
from onesearch.pipeline.run_data import RunData
from onesearch.search.candidates import ordered
from onesearch.search.engine import SearchEngine
from onesearch.search.ranking_weights import GENERATOR_ALONE, fit_weights

FILES, GROUP = ResultFiles("quantizers"), "short trainings"
CONFIG = ROOT / "configs" / "bestbuy.yaml"
SETS = ("seed=5", "sft3.epochs=1", "evaluation.baselines=false")
SHIPPED = "shipped"
CELLS: dict[str, tuple[str, ...]] = {
    SHIPPED: (),
    "first-by-clicks": ("khqe.first_by_clicks=0.8",),
    "label-smoothing": ("sft3.label_smoothing=0.1",),
}
MOST = 2000  # validation page views, at most
METRICS = ("HR@10", "MRR@10")
METHODS = ("generator alone", "engine")


def run(runs: Path, only: str = "") -> None:
    """Every unfinished cell, or the one that is named."""
    for cell, sets in CELLS.items():
        folder = runs / cell
        if (only and cell != only) or (folder / "cell.json").is_file():
            continue
        pipeline.run_config(CONFIG, folder, [*SETS, *sets], reuse=[runs / SHIPPED], until="sft3")
        values = measure(folder)
        save_values(folder / "request_values.npz", values, {})
        means = {method: {name: float(np.nanmean(one)) for name, one in row.items()} for method, row in values.items()}
        seconds = read_json(folder / "sft3" / "manifest.json")["seconds"]
        about = {"sets": [*SETS, *sets], "commit": commit(), "date": today(), "machine": machine(), "seconds": seconds}
        write_json(folder / "cell.json", {**about, "means": means})
        print(cell, means, flush=True)
    keep(runs)


def measure(run: Path) -> Values:
    """Metrics [n] of the validation page views with a click, by method."""
    run_data = RunData(run)
    page_views, clicked = run_data.sample_with_clicks(run_data.split.valid, MOST, 0)
    requests, search = run_data.requests(page_views), settings_of(run).search
    engine = SearchEngine.from_parts(run_data, "sft3", search, GENERATOR_ALONE)
    pages = {METHODS[0]: engine.alone().rank(requests, 10).items}
    # The engine, cross-fitted: weights of each half of the page views order the other half's candidates.
    half = np.random.default_rng(0).permutation(len(page_views)) % 2
    found = [engine.candidates(requests.select(np.flatnonzero(half == side))) for side in (0, 1)]
    both = np.full((len(page_views), 10), -1)
    for side in (0, 1):
        fit, gain = found[1 - side], positives(found[1 - side], clicked.select(np.flatnonzero(half != side)))
        weights = fit_weights(fit.features, fit.items >= 0, gain.astype(np.float32), fit.contexts, PLAIN)
        both[half == side] = ordered(found[side], weights, 10, engine.snapshot.popularity).items
    pages[METHODS[1]] = both
    measures = dict(zip(METRICS, (hit_rate, mrr), strict=True))
    return {method: {name: of(items, clicked, 10) for name, of in measures.items()} for method, items in pages.items()}


def keep(runs: Path) -> None:
    """Take figures of finished cells over, each with its paired test against the shipped configuration."""
    made = {cell: read_json(runs / cell / "cell.json") for cell in CELLS if (runs / cell / "cell.json").is_file()}
    values = {cell: load_values(runs / cell / "request_values.npz")[0] for cell in made}
    for cell, about in made.items():
        if cell != SHIPPED and SHIPPED in made:
            about["tests"] = {method: _test(values[cell][method], values[SHIPPED][method]) for method in METHODS}
            about["requests"] = len(values[cell][METHODS[0]][METRICS[0]])
    FILES.write_figures({**FILES.figures(), GROUP: made})


def _test(one: dict[str, NDArray[np.float32]], other: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    a, b = (np.stack([values[name] for name in METRICS], 1) for values in (one, other))
    test = permutation_test(a, b)
    return {
        name: {
            "difference": float(test.difference[i]),
            "low": float(test.low[i]),
            "high": float(test.high[i]),
            "p": float(test.p[i]),
        }
        for i, name in enumerate(METRICS)
    }


def section(made: dict[str, Any]) -> list[str]:
    """Lines of the page: figures of each cell, and its difference from the shipped configuration."""
    if not made:
        return []
    lines = ["", *ResultFiles("quantizers_trainings").head(), ""]
    lines.append(
        "| cell | sets | "
        + " | ".join(f"{method} {name}" for method in METHODS for name in METRICS)
        + " | commit, date |"
    )
    lines.append("|---" * (len(METHODS) * len(METRICS) + 3) + "|")
    for cell in (one for one in CELLS if one in made):
        about, columns = made[cell], []
        for method in METHODS:
            for name in METRICS:
                text = f"{about['means'][method][name]:.4f}"
                if test := about.get("tests", {}).get(method, {}).get(name):
                    text += (
                        f" ({test['difference']:+.4f}, {test['low']:+.4f} to {test['high']:+.4f}, p {test['p']:.2g})"
                    )
                columns.append(text)
        sets = ", ".join(f"`{one}`" for one in CELLS[cell]) or "–"
        lines.append(f"| {cell} | {sets} | {' | '.join(columns)} | `{about['commit']}`, {about['date']} |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit((__doc__ or "").split("\n\n")[1])
    run(Path(sys.argv[1]), "".join(sys.argv[2:3]))
