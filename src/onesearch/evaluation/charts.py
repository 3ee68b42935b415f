"""PNG charts of a report: the main metrics of all methods, and one chart per slice dimension."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from onesearch.evaluation.report import Estimate, Report


def draw(report: Report, folder: Path) -> list[Path]:
    """Write ``methods.png`` and ``slice_<dimension>.png``; returns the files."""
    files = [folder / "methods.png"]
    metrics = report.main_metrics()
    methods = list(report.methods)
    figure = _bars(
        metrics,
        methods,
        [[report.methods[method].get(name) for name in metrics] for method in methods],
        f"{report.requests:,} requests, 95 % intervals",
    )
    save_figure(figure, files[0])
    for dimension, groups in report.slices.items():
        if not metrics:
            continue
        labels = [f"{label}\n(n={group.requests:,})" for label, group in groups.items()]
        rows = [[group.methods[method].get(metrics[0]) for group in groups.values()] for method in methods]
        files.append(folder / f"slice_{dimension.replace(' ', '_')}.png")
        save_figure(_bars(labels, methods, rows, f"{metrics[0]} by {dimension}"), files[-1])
    return files


def _bars(groups: list[str], series: list[str], rows: list[list[Estimate | None]], title: str) -> Figure:
    """Grouped bars with error bars: one group per label, one colour per method."""
    figure = Figure(figsize=(max(6.0, 0.28 * len(groups) * (len(series) + 2)), 4.2), layout="constrained")
    axes: Any = figure.add_subplot()
    width = 0.84 / max(len(series), 1)
    places = np.arange(len(groups))
    for number, (name, row) in enumerate(zip(series, rows, strict=True)):
        mean = np.array([one.mean if one else np.nan for one in row], float)
        low = np.array([one.low if one else np.nan for one in row], float)
        high = np.array([one.high if one else np.nan for one in row], float)
        axes.bar(
            places + (number - (len(series) - 1) / 2) * width,
            mean,
            width,
            label=name,
            yerr=np.maximum(np.stack([mean - low, high - mean]), 0),
            error_kw={"elinewidth": 0.8},
            color=f"C{number % 10}",
        )
    axes.set_xticks(places, groups, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=min(len(series), 4), frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    FigureCanvasAgg(figure).print_png(path)
