"""The training log: one JSON object per line, averages over the steps since the last line."""

import json
import os
from pathlib import Path
from typing import Any


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
    def of(cls, state: dict[str, Any]) -> "Averages":
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
