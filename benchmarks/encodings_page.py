"""Renders ``docs/results/encodings.md`` from the figures that the grid of encodings has kept; none is typed in."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.result_files import ResultFiles
from benchmarks.v2_distillation_page import Page, difference, number
from onesearch.evaluation.charts import save_figure

FILES = ResultFiles("encodings")
ENCODINGS: Mapping[str, str] = {
    "text": "text alone",
    "unified": "picture and text in one tower",
    "concat": "encoded apart, side by side",
}
VECTORS, SIDS, GENERATOR = "vectors", "SIDs", "generator"
HR = "click/HR@10"
METRICS: Mapping[str, str] = {HR: "HR@10", "click/Recall@10": "Recall@10", "click/MRR@10": "MRR@10"}
ABOUT = {
    "emoji": ("Emoji", "texts without the name"),
    "market": ("The simulated market", "colours and patterns that pictures alone tell"),
}
PAIRS = (("unified", "text"), ("concat", "text"), ("concat", "unified"))
LEVELS = 3  # of the prefixes that are shown


class Study(Page):
    """Figures by set, share of what pictures alone know, text encoder and encoding."""

    def shares(self, name: str, encoder: str) -> list[int]:
        """Shares, in percent, at which text alone is measured."""
        found = {data for data, _, cell in self.reports if cell == f"{encoder}-text"}
        return sorted(int(data.partition(".")[2]) for data in found if data.startswith(f"{name}."))

    def encoders(self, name: str) -> list[str]:
        """Text encoders of a set."""
        return sorted({cell.partition("-")[0] for data, _, cell in self.reports if data.startswith(f"{name}.")})

    def over_seeds(self, data: str, cell: str, *keys: str) -> float | None:
        """Mean over seeds of a figure of the cell's own, such as ``icr``."""
        found = []
        for seed in self.seeds(data, cell):
            value: Any = self.reports[data, seed, cell]
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else value[int(key)]
                if value is None:
                    break
            else:
                found.append(value)
        return sum(found) / len(found) if found else None


def render(files: ResultFiles = FILES) -> None:
    """Write the page and its charts."""
    study = Study(files)
    study.lines += files.head()
    for name, (title, what) in ABOUT.items():
        if not study.encoders(name):
            study.lines += ["", f"## {title}", "", "Not measured yet."]
            continue
        study.lines += ["", f"## {title}"]
        for encoder in study.encoders(name):
            _section(study, files, name, encoder, what)
    _provenance(study)
    files.write_page(study.lines)


def _section(study: Study, files: ResultFiles, name: str, encoder: str, what: str) -> None:
    """One text encoder on one set: figures, paired tests, and where the lines cross."""
    shares = study.shares(name, encoder)
    if not shares:
        return
    data = [f"{name}.{share}" for share in shares]
    one = next(report for (found, _, cell), report in study.reports.items() if found == data[0] and encoder in cell)
    seeds = study.seeds(data[0], f"{encoder}-text")
    study.lines += [
        "",
        f"### {encoder} text encoder",
        "",
        f"{one['items']:,} items, {one['requests']:,} test searches, seeds "
        f"{', '.join(map(str, seeds))}. Share: {what}.",
    ]
    # What each encoding finds.
    methods = [method for method in (VECTORS, SIDS, GENERATOR) if study.mean(data[0], f"{encoder}-text/{method}", HR)]
    rows = []
    for place, share in zip(data, shares, strict=True):
        for encoding, words in ENCODINGS.items():
            cell = f"{encoder}-{encoding}"
            if not study.seeds(place, cell):
                continue
            found = [
                number(study.mean(place, f"{cell}/{method}", metric))
                for method in methods
                for metric in (METRICS if method != GENERATOR else (HR, "click/MRR@10"))
            ]
            rows.append([f"{share} %", words, *found])
    head = [
        f"{method}: {METRICS[metric]}"
        for method in methods
        for metric in (METRICS if method != GENERATOR else (HR, "click/MRR@10"))
    ]
    study.table(["share", "encoding", *head], rows)
    _ids(study, encoder, data, shares)
    # Paired tests.
    for method in methods:
        tested = [
            [f"{share} %", *(difference(study.test(place, _pair(encoder, pair, method), HR)) for pair in PAIRS)]
            for place, share in zip(data, shares, strict=True)
        ]
        study.lines += ["", f"HR@10 of {method}, paired differences:"]
        study.table(["share", *(f"{a} − {b}" for a, b in PAIRS)], [row for row in tested if set(row[1:]) != {"–"}])
    if len(shares) > 1:
        crossings = [crossing(study, encoder, data, shares, pair) for pair in PAIRS[:2]]
        study.lines += ["", " ".join(crossings)]
        path = files.charts / f"{name}_{encoder}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(chart(study, encoder, data, shares, f"{ABOUT[name][0]}, {encoder} text encoder", what), path)
        study.lines += ["", f"![HR@10 of vectors over the share of {what}](encodings/{path.name})"]


def _ids(study: Study, encoder: str, data: Sequence[str], shares: Sequence[int]) -> None:
    """What the encodings make of semantic IDs, and what they cost."""
    rows = []
    for place, share in zip(data, shares, strict=True):
        for encoding, words in ENCODINGS.items():
            cell = f"{encoder}-{encoding}"
            if study.seeds(place, cell):
                agreement = [study.over_seeds(place, cell, "prefix_agreement", str(level)) for level in range(LEVELS)]
                times = [study.over_seeds(place, cell, "milliseconds", key) for key in ("item", "picture", "query")]
                icr = study.over_seeds(place, cell, "icr")
                figures = [*(number(one) for one in (icr, *agreement)), *(_ms(one) for one in times)]
                rows.append([f"{share} %", words, *figures])
    levels = [f"prefix of {level + 1} agrees" for level in range(LEVELS)]
    costs = ["ms: a new item", "of it the picture", "ms: a query"]
    study.table(["share", "encoding", "ICR", *levels, *costs], rows)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _pair(encoder: str, pair: tuple[str, str], method: str) -> tuple[str, str]:
    return f"{encoder}-{pair[0]}/{method}", f"{encoder}-{pair[1]}/{method}"


def crossing(
    study: Study, encoder: str, data: Sequence[str], shares: Sequence[int], pair: tuple[str, str], method: str = VECTORS
) -> str:
    """Where an encoding overtakes another, on the straight lines between the shares that were measured.

    The interval is where the 95 % interval of the difference holds zero.
    """
    tests = [study.test(place, _pair(encoder, pair, method), HR) for place in data]
    known = [(share, test) for share, test in zip(shares, tests, strict=True) if test is not None]
    name = f"**{pair[0]} against {pair[1]}**, HR@10 of {method}:"
    if len(known) < 2:
        return f"{name} not measured."
    xs = [float(share) for share, _ in known]
    lines = {key: [float(test[key]) for _, test in known] for key in ("difference", "low", "high")}
    if all(_holds_zero(x, xs, lines) for x in xs):
        return f"{name} no difference is sure at any share; where the lines cross cannot be told."
    at = _roots(xs, lines["difference"])
    if not at:
        ahead = pair[0] if lines["difference"][0] > 0 else pair[1]
        return f"{name} {ahead} is ahead at every share; the lines do not cross."
    # The interval begins and ends where one of its bounds is zero, or with the shares.
    ends = [x for x in (*xs, *_roots(xs, lines["low"]), *_roots(xs, lines["high"])) if _holds_zero(x, xs, lines)]
    return f"{name} the lines cross at {at[0]:.0f} % [{min(ends):.0f}, {max(ends):.0f}]."


def _roots(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Where the line through the points is zero."""
    found = [x for x, y in zip(xs, ys, strict=True) if y == 0]
    for x0, x1, y0, y1 in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if y0 * y1 < 0:
            found.append(x0 + (x1 - x0) * y0 / (y0 - y1))
    return sorted(found)


def _holds_zero(x: float, xs: Sequence[float], lines: Mapping[str, Sequence[float]]) -> bool:
    low, high = (float(np.interp(x, xs, lines[key])) for key in ("low", "high"))
    return low <= 1e-12 and high >= -1e-12


def chart(study: Study, encoder: str, data: Sequence[str], shares: Sequence[int], title: str, what: str) -> Figure:
    """HR@10 of vectors and of SIDs over the share, a line for each encoding."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, method in zip(figure.subplots(1, 2, sharey=True), (VECTORS, SIDS), strict=True):
        for encoding, words in ENCODINGS.items():
            means = [study.mean(place, f"{encoder}-{encoding}/{method}", HR) for place in data]
            points = [(share, mean) for share, mean in zip(shares, means, strict=True) if mean is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=words)
        axes.set_title(f"{title}: {method}", fontsize=9)
        axes.set_xlabel(f"{what}, %", fontsize=8)
        axes.set_ylabel("HR@10", fontsize=8)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _provenance(study: Study) -> None:
    """What made the figures, each once."""
    made = sorted({(one["config"], one["commit"], one["date"], one["machine"]) for one in study.reports.values()})
    if made:
        study.lines += ["", "Made by `python -m benchmarks.encodings run RUNS`:"]
        study.table(["configuration", "commit", "date", "machine"], [list(row) for row in made])
