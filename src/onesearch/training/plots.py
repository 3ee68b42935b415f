"""Curves of a training log as a PNG."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from onesearch.training.curves import CurveLog

_NOT_DRAWN = {"step", "epoch", "seconds"}


def plot_curves(log: Path, picture: Path, title: str) -> None:
    """Draw one panel per kind of figure: each task's losses, validation, learning rate, gradient norm, throughput."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: dict[str, dict[str, tuple[list[int], list[float]]]] = defaultdict(dict)
    for record in CurveLog(log).records():
        for name, value in record.items():
            if name in _NOT_DRAWN:
                continue
            steps, values = panels[_panel(name)].setdefault(name, ([], []))
            steps.append(record["step"])
            values.append(value)
    if not panels:
        return
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (panel, curves) in zip(axes.flat, sorted(panels.items(), key=_losses_first), strict=False):
        for name, (steps, values) in curves.items():
            axis.plot(steps, values, marker="." if len(steps) < 30 else None, label=name.split("/", 1)[-1])
        axis.set_title(panel, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        if len(curves) > 1:
            axis.legend(fontsize=7)
    figure.suptitle(title)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    temporary = picture.with_name(f".{picture.name}.writing")
    figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)
    temporary.replace(picture)


def _panel(name: str) -> str:
    if "/" in name:
        return name.split("/", 1)[0]
    return name if name in ("learning_rate", "gradient_norm", "samples_per_second") else "loss"


def _losses_first(item: tuple[str, Any]) -> tuple[int, str]:
    order = {"loss": 0, "valid": 1, "learning_rate": 7, "gradient_norm": 8, "samples_per_second": 9}
    return order.get(item[0], 3), item[0]
