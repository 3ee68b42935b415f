"""How a training run went: averages over steps, a log of one JSON object per line, and a picture of it."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from onesearch.common.extras import from_extra


class Averages:
    """Running means by name since the last :meth:`take`; part of a checkpoint, so that a resumed log is the same."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}
        self._before = (0, 0.0)  # samples and seconds at the last take
        self.samples = 0

    def add(self, name: str, value: float) -> None:
        """Take in one step's value."""
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = (total + value, count + 1)

    def take(self, seconds: float) -> dict[str, float]:
        """The means and the throughput since the last call, ``seconds`` after the start; begins the next window."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        passed = max(seconds - self._before[1], 1e-9)
        means["samples_per_second"] = round((self.samples - self._before[0]) / passed, 2)
        means["seconds"] = round(seconds, 3)
        self._sums, self._before = {}, (self.samples, seconds)
        return means

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {"sums": self._sums, "before": self._before, "samples": self.samples}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Averages":
        """Undo :meth:`state`."""
        made = cls()
        made._sums = {name: (float(total), int(count)) for name, (total, count) in state["sums"].items()}
        made._before = (int(state["before"][0]), float(state["before"][1]))
        made.samples = int(state["samples"])
        return made


class CurveLog:
    """An append-only JSONL file of one training run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, step: int, values: dict[str, float], **more: float) -> None:
        """Append one line and flush it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **more, **values}) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All complete lines; a half line that a kill left behind is skipped."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found

    def keep_until(self, step: int) -> None:
        """Drop what a killed process logged after its last checkpoint: those steps are done again."""
        if not self.path.is_file():
            return
        kept = [json.dumps(record) + "\n" for record in self.records() if record["step"] <= step]
        temporary = self.path.with_name(f".{self.path.name}.writing")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def last(self, name: str) -> float:
        """The newest value of a column; NaN if there is none."""
        values = [record[name] for record in self.records() if name in record]
        return float(values[-1]) if values else float("nan")


_NOT_DRAWN = {"step", "epoch", "seconds"}


def plot_curves(log: Path, picture: Path, title: str) -> None:
    """Draw one panel per kind of figure: each task's losses, validation, learning rate, gradient norm, throughput."""
    with from_extra("train"):
        import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Curves by panel: steps and values of each figure, in the order of the log.
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
    # A grid of at most three panels a line, the losses first; places that are left over stay empty.
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
    # Written beside and renamed, so that nobody reads half a picture.
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
