"""The result of an evaluation: ``report.json``, ``report.md`` for reading, charts, and the per-request values.

``report.json`` (schema 1)::

    {"schema": 1, "requests": n, "level": 0.95, "resamples": 1000, "flips": 10000, "seed": 0,
     "methods": {method: {metric: {"mean", "low", "high", "n"}}},
     "milliseconds": {method: per request, measured in batches},
     "slices": {dimension: {label: {"requests": n, "methods": {method: {metric: {"mean", "low", "high", "n"}}}}}},
     "comparisons": [{"method", "against", "slice": null or [dimension, label], "metric",
                      "difference", "low", "high", "p", "wins", "ties", "losses", "n"}],
     "notes": {...}}

Metric names are ``click/HR@10`` (clicked items as targets), ``order/MRR@10`` (ordered items) or a name given by the
caller such as ``true/NDCG@10``. ``n`` counts the requests for which the metric is defined.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.artefact import write_json
from onesearch.evaluation.charts import panels, save_figure
from onesearch.evaluation.verdict import Question, give_verdict

Values = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""method -> metric -> per-request values [n]."""
MILLISECONDS = "ms per request"
"""The column of times in ``report.md``, which a report's legend may have a line for."""
_MEASURES = {
    "HR": "share of requests with one of them among the first {k}",
    "MRR": "1 / place of the first of them, 0 below place {k}; mean over requests",
    "NDCG": "gain of them among the first {k}, less the lower they stand, over that of the best order",
    "Recall": "share of them among the first {k}",
}
_TARGETS = {"click": "clicked items", "order": "ordered items"}


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval over ``n`` requests."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """``method`` minus ``against`` in one metric, on all requests or on one slice (dimension, label)."""

    method: str
    against: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int
    n: int
    slice: tuple[str, str] | None = None


@dataclass(frozen=True)
class SliceResult:
    """The figures of one group of requests."""

    requests: int
    methods: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Report:
    """Everything an evaluation found; see the module docstring for the file format."""

    requests: int
    methods: Mapping[str, Mapping[str, Estimate]]
    slices: Mapping[str, Mapping[str, SliceResult]]
    comparisons: Sequence[Comparison]
    values: Values = field(repr=False)
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    title: str = "Evaluation"
    legend: Mapping[str, str] = field(default_factory=dict)
    """A line for each method, for each metric that is not one of clicks or orders, and perhaps for the times."""
    question: Question | None = None
    """What the verdict is about."""

    def __getitem__(self, key: tuple[str, str]) -> Estimate:
        """``report["bm25", "click/HR@10"]``."""
        method, metric = key
        return self.methods[method][metric]

    def comparison(self, method: str, against: str, metric: str, of: tuple[str, str] | None = None) -> Comparison:
        """The comparison of two methods in one metric (``of``: on one slice)."""
        for found in self.comparisons:
            if (found.method, found.against, found.metric, found.slice) == (method, against, metric, of):
                return found
        raise KeyError(f"{method!r} was not compared with {against!r} in {metric!r}; give evaluate(compare=) the pair")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able value of the documented schema; undefined figures are null."""
        value = {
            "schema": 1,
            "requests": self.requests,
            **self.settings,
            "methods": _plain(self.methods),
            "milliseconds": dict(self.milliseconds),
            "slices": _plain(self.slices),
            "comparisons": [asdict(one) for one in self.comparisons],
            "notes": dict(self.notes),
        }
        cleaned: dict[str, Any] = _without_nan(value)
        return cleaned

    def markdown(self, metrics: Sequence[str] | None = None, by_group: bool = True) -> str:
        """For reading: verdict, table of all methods, legend, comparisons and, ``by_group``, slices of main metrics."""
        metrics = [name for name in metrics or self.main_metrics() if any(name in row for row in self.methods.values())]
        lines = [f"# {self.title}", "", f"{self.requests:,} requests; mean with 95 % bootstrap interval.", ""]
        if self.question is not None:
            found = give_verdict(self.values, metrics, self.question, *self._draws())
            lines += ["## Verdict", "", *found.lines(), "", "## Methods", ""]
        # One line a method, what they and the metrics are, then the tests over all requests.
        lines += _table(
            ["method", *metrics, MILLISECONDS],
            [
                [method, *(_cell(row.get(name)) for name in metrics), _number(self.milliseconds.get(method), 2)]
                for method, row in self.methods.items()
            ],
        )
        if explained := self._explained(metrics):
            lines += ["", *explained]
        overall = [one for one in self.comparisons if one.slice is None and one.metric in metrics]
        if overall:
            lines += ["", "## Paired comparisons", "", "Difference of two methods, two-sided sign-flip test.", ""]
            lines += _comparison_table(overall)
        # The same within groups of requests, whose numbers are many.
        if not by_group:
            return "\n".join(lines) + "\n"
        sliced = [one for one in self.comparisons if one.slice is not None and one.metric in metrics]
        if sliced:
            lines += ["", "## Paired comparisons within groups of requests", ""]
            lines += _comparison_table(sliced)
        for dimension, groups in self.slices.items():
            lines += ["", f"## By {dimension} ({metrics[0]})", ""]
            lines += _table(
                ["method", *(f"{label} (n={group.requests:,})" for label, group in groups.items())],
                [
                    [method, *(_cell(group.methods[method].get(metrics[0])) for group in groups.values())]
                    for method in self.methods
                ],
            )
        return "\n".join(lines) + "\n"

    def _draws(self) -> tuple[int, int]:
        """Flips and resamples of the tests."""
        return int(self.settings.get("flips", 10_000)), int(self.settings.get("resamples", 1000))

    def _explained(self, metrics: Sequence[str]) -> list[str]:
        """The legend: a line for each method and metric that something is known about."""
        lines = [f"- *{name}*: {self.legend[name]}" for name in self.methods if name in self.legend]
        for name in metrics:
            kind, _, measure = name.partition("/")
            what = _MEASURES.get(measure.partition("@")[0]) if kind in _TARGETS else None
            if what is not None:
                lines.append(f"- **{name}**: of the {_TARGETS[kind]}, {what.format(k=_at(name))}")
            elif name in self.legend:
                lines.append(f"- **{name}**: {self.legend[name]}")
        if MILLISECONDS in self.legend:
            lines.append(f"- **{MILLISECONDS}**: {self.legend[MILLISECONDS]}")
        return lines

    def main_metrics(self) -> list[str]:
        """HR@10 and MRR@10 of clicks and orders (or the largest k measured), then the caller's own metrics."""
        names = list(dict.fromkeys(name for row in self.methods.values() for name in row))
        sampled = [name for name in names if name.startswith(("click/", "order/"))]
        k = 10 if any(name.endswith("@10") for name in sampled) else max((_at(name) for name in sampled), default=0)
        main = [name for name in sampled if _at(name) == k and ("HR@" in name or "MRR@" in name)]
        return main + [name for name in names if name not in sampled]

    def save(self, folder: Path, charts: bool = True) -> None:
        """Write ``report.json``, ``report.md``, ``values.parquet`` (columns ``method|metric``) and PNG charts."""
        folder.mkdir(parents=True, exist_ok=True)
        # Per-request values and slice labels, from which other comparisons can be made later.
        columns = {f"{method}|{name}": row for method, rows in self.values.items() for name, row in rows.items()}
        columns |= {f"slice|{name}": labels for name, labels in self.labels.items()}
        pl.DataFrame(columns).write_parquet(folder / "values.parquet")
        drawn = draw(self, folder) if charts else []
        pictures = "".join(f"\n![{path.stem}]({path.name})\n" for path in drawn)
        (folder / "report.md").write_text(self.markdown() + pictures, encoding="utf-8")
        write_json(folder / "report.json", self.to_json())


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return asdict(value)
    if isinstance(value, SliceResult):
        return {"requests": value.requests, "methods": _plain(value.methods)}
    return {key: _plain(one) for key, one in value.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _at(name: str) -> int:
    tail = name.rpartition("@")[2]
    return int(tail) if tail.isdigit() else 0


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _comparison_table(rows: Sequence[Comparison]) -> list[str]:
    return _table(
        ["comparison", "on", "metric", "difference", "p", "win / tie / loss"],
        [
            [
                f"{one.method} − {one.against}",
                " ".join(one.slice) if one.slice else "all",
                one.metric,
                f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]",
                f"{one.p:.4f}",
                f"{one.wins} / {one.ties} / {one.losses}",
            ]
            for one in rows
        ],
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or not math.isfinite(estimate.mean):
        return "–"
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def draw(report: Report, folder: Path) -> list[Path]:
    """Write ``methods.png`` and ``slice_<dimension>.png``; returns the files."""
    metrics, methods = report.main_metrics(), list(report.methods)
    if not metrics:
        return []
    # A panel per metric over all requests; then per dimension a panel per group, in the first metric.
    files = [folder / "methods.png"]
    rows = {method: _ends([report.methods[method].get(name) for name in metrics]) for method in methods}
    save_figure(panels(metrics, rows, f"{report.title}: {report.requests:,} requests, 95 % intervals"), files[0])
    for dimension, groups in report.slices.items():
        if not groups:
            continue
        names = [f"{label} (n={group.requests:,})" for label, group in groups.items()]
        rows = {name: _ends([group.methods[name].get(metrics[0]) for group in groups.values()]) for name in methods}
        files.append(folder / f"slice_{dimension.replace(' ', '_')}.png")
        save_figure(panels(names, rows, f"{metrics[0]} by {dimension}, 95 % intervals"), files[-1])
    return files


def _ends(estimates: Sequence[Estimate | None]) -> NDArray[np.float64]:
    """Mean, low and high, [P, 3]; nan where there is no estimate."""
    return np.array([(one.mean, one.low, one.high) if one else (np.nan,) * 3 for one in estimates], float)
