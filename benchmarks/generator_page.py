"""Renders ``docs/results/generator.md`` from the figures that the generator's grid has kept; none is typed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from benchmarks.generator_grid import (
    DOUBLE,
    FLAGSHIP,
    METHODS,
    OF_QUERIES,
    PAIRS,
    PAPER,
    SETS,
    SHORT,
    SIMPLE,
    TRIALS,
    TRIED,
    compared_with,
)
from benchmarks.result_files import ResultFiles
from benchmarks.v2_distillation_page import Page, difference, number, verdict
from onesearch.evaluation.baselines import CASCADE, DENSE, TOGETHER
from onesearch.evaluation.charts import save_figure
from onesearch.pipeline.engine_stage import ONE_MODEL, WITHOUT_GENERATOR
from onesearch.pipeline.report_stage import ENGINE_NAME, GENERATOR_ALONE

HR, MRR, ORDER_HR, ORDER_MRR = "click/HR@10", "click/MRR@10", "order/HR@10", "order/MRR@10"
NDCG, TRUE_NDCG = "click/NDCG@10", "ndcg@10"
_CLICKS = {HR: "HR@10", MRR: "MRR@10"}
_ONE_TARGET = {"click/HR@5": "R@5", "click/NDCG@5": "N@5", HR: "R@10", NDCG: "N@10"}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "homedepot": _CLICKS,
    "market": {
        HR: "click HR@10",
        MRR: "click MRR@10",
        ORDER_HR: "order HR@10",
        ORDER_MRR: "order MRR@10",
        TRUE_NDCG: "true NDCG@10",
    },
    "toys": {**_ONE_TARGET, MRR: "MRR@10"},
    "bestbuy": _CLICKS,
}
"""Metrics of a set with their names in its tables."""
ABOUT = {
    "homedepot": (
        "Home Depot",
        "A real catalogue with ratings by people who were asked. The seeds of the split are new: nobody has looked at "
        "these test parts before. No query is in two parts of one split. Seeds are pooled as samples of their own; "
        "about a fifth of a seed's test queries test in another seed, too, so pooled intervals are a little narrow.",
    ),
    "market": (
        "The simulated market",
        "No real shop. Each seed is a market of its own that nobody has looked at before; seeds are pooled as samples "
        "of their own. The weight of relevance (`search.relevance`) was raised from 0.8 to 1.6 on validation page "
        "views of seed 11, after its test part had been read once with 0.8: there the engine's true NDCG@10 was below "
        "that of dense, and every other target was reached. The other seeds have only been read with 1.6.",
    ),
    "toys": (
        "Toys",
        "What shoppers of a real shop buy next, without queries. The split is the published one, leave-one-out: one "
        "target for each shopper, so that recall is the hit rate. Nobody has looked at the test part before.",
    ),
    "bestbuy": (
        "Best Buy",
        "A real shop. The split is by time, so the test part is the same for every seed, and **it has been seen "
        "before**, by the studies of V1 and V2. Seeds are those of encoder and training, pooled request by request.",
    ),
}
PUBLISHED = {"SASRec": (0.0463, 0.0306, 0.0675, 0.0374), "TIGER": (0.0521, 0.0371, 0.0712, 0.0432)}
"""R@5, N@5, R@10, N@10 on Toys and Games: Rajput et al. 2023, arXiv 2305.05065, table 1. Typed in, nothing else is."""
STAGES = (
    "data",
    "encoder",
    "khqe",
    "index",
    "lexical",
    "baselines",
    "sft1",
    "sft2",
    "pseudo",
    "sft3",
    "engine",
    "report",
)


@dataclass(frozen=True)
class Reach:
    """A method's pooled figures are at least these."""

    data: str
    method: str
    least: Mapping[str, float]

    def rows(self, study: "Study") -> list[list[str]]:
        """The target, whether it holds, and what was measured."""
        names = COLUMNS[self.data]
        text = ", ".join(f"{names[metric]} ≥ {least:g}" for metric, least in self.least.items())
        found = {metric: study.mean_of(self.data, self.method, metric) for metric in self.least}
        holds = None
        if all(value is not None for value in found.values()):
            holds = all((found[metric] or 0) >= least for metric, least in self.least.items())
        shown = ", ".join(f"{names[metric]} {number(value)}" for metric, value in found.items())
        return [verdict(f"{self.method}: {text}", holds, shown)]


@dataclass(frozen=True)
class Ahead:
    """A method is ahead of others, of each by itself.

    Attributes:
        data: the set.
        method: that is to be ahead.
        others: of whom.
        metrics: in which it is to be ahead.
        by: at least so much; 0 means above.
        in_one: in one of the metrics, not in all.
        sure: metrics among those in which it is ahead whose p must be below .05.
    """

    data: str
    method: str
    others: Sequence[str]
    metrics: Sequence[str] = (HR, MRR)
    by: float = 0.0
    in_one: bool = False
    sure: int = 0

    def rows(self, study: "Study") -> list[list[str]]:
        """The target, whether it holds, and what was measured, for each other method."""
        names = COLUMNS[self.data]
        text = (" or " if self.in_one else " and ").join(names[metric] for metric in self.metrics)
        by = f"at least +{self.by:g} over" if self.by else "above"
        sure = ("", ", there p < .05" if self.in_one else ", p < .05 in one", ", p < .05 in both")[self.sure]
        rows = []
        for other in self.others:
            tests = [study.tested(self.data, self.method, other, metric) for metric in self.metrics]
            known = [test for test in tests if test is not None]
            holds = None
            if len(known) == len(tests):
                ahead = [test for test in known if test["difference"] > 0 and test["difference"] >= self.by]
                enough = bool(ahead) if self.in_one else len(ahead) == len(known)
                holds = enough and sum(test["p"] < 0.05 for test in ahead) >= self.sure
            rows.append(verdict(f"{self.method} {by} {other} in {text}{sure}", holds, named(self, tests)))
        return rows


@dataclass(frozen=True)
class NotBelow:
    """A method is below another in no metric with p < .05."""

    data: str
    method: str
    other: str
    metrics: Sequence[str] = (HR, MRR)

    def rows(self, study: "Study") -> list[list[str]]:
        """The target, whether it holds, and what was measured."""
        tests = [study.tested(self.data, self.method, self.other, metric) for metric in self.metrics]
        known = [test for test in tests if test is not None]
        below = any(test["difference"] < 0 and test["p"] < 0.05 for test in known)
        holds = None if len(known) < len(tests) else not below
        return [verdict(f"{self.method} nowhere below {self.other} with p < .05", holds, named(self, tests))]


def named(goal: Ahead | NotBelow, tests: Sequence[dict[str, Any] | None]) -> str:
    """The differences in a goal's metrics."""
    return "; ".join(
        f"{COLUMNS[goal.data][metric]} {difference(test)}" for metric, test in zip(goal.metrics, tests, strict=True)
    )


@dataclass(frozen=True)
class Valid:
    """Cells whose share of valid SIDs without constraint is at least so much."""

    data: str
    cell: str
    least: float

    def rows(self, study: "Study") -> list[list[str]]:
        """The target, whether it holds, and what was measured."""
        seed = SETS[self.data].seeds[0]
        report = study.reports.get((self.data, seed, self.cell))
        share = None if report is None else report["valid_sid_share"]
        what = f"valid SIDs without constraint ≥ {self.least:.0%}, cell `{self.cell}`"
        return [verdict(what, None if share is None else share >= self.least, percent(share))]


Goal = Reach | Ahead | NotBelow | Valid
GOALS: Sequence[Goal] = (
    Reach("homedepot", ONE_MODEL, {HR: 0.755, MRR: 0.49}),
    Ahead("homedepot", ENGINE_NAME, (CASCADE,), sure=1),
    Reach("bestbuy", ONE_MODEL, {HR: 0.887, MRR: 0.714}),
    Reach("bestbuy", ENGINE_NAME, {HR: 0.90, MRR: 0.725}),
    Ahead("bestbuy", ENGINE_NAME, (*(one for one in SIMPLE if one != TOGETHER), CASCADE)),
    Ahead("market", ONE_MODEL, (CASCADE,), (HR, MRR, ORDER_HR, ORDER_MRR)),
    Ahead("market", ENGINE_NAME, (CASCADE,), (HR,), by=0.02),
    Ahead("market", ENGINE_NAME, (DENSE,), (TRUE_NDCG,)),
    Reach("toys", GENERATOR_ALONE, {HR: 0.075, NDCG: 0.045}),
    Reach("toys", ENGINE_NAME, {HR: 0.100, NDCG: 0.062}),
    Ahead("toys", ENGINE_NAME, (TOGETHER,), (HR, NDCG), sure=2),
    *(Ahead(data, ENGINE_NAME, (WITHOUT_GENERATOR,), by=0.01, in_one=True, sure=1) for data in SETS),
    *(NotBelow(data, ENGINE_NAME, WITHOUT_GENERATOR) for data in SETS),
    *(Valid(data, PAPER, 0.9) for data in ("bestbuy", "toys")),
)
"""What the study was to reach, set before its runs."""


class Study(Page):
    """The page with the figures pooled over seeds."""

    def __init__(self, files: ResultFiles) -> None:
        super().__init__(files)
        figures = files.figures()
        self.pooled: dict[str, Any] = figures.get("pooled", {})
        self.open: dict[str, str] = figures.get("open", {})
        self.lines = files.head()

    def mean_of(self, data: str, method: str, metric: str) -> float | None:
        """A pooled figure of the flagships; None where there is none."""
        found = self.pooled.get(data, {}).get("methods", {}).get(method, {}).get(metric)
        return None if found is None else found["mean"]

    def tested(self, data: str, method: str, other: str, metric: str) -> dict[str, Any] | None:
        """The paired test of two methods of the flagships."""
        return self.test(data, (f"{FLAGSHIP.name}/{method}", f"{FLAGSHIP.name}/{other}"), metric)


def render(files: ResultFiles) -> None:
    """Write the page and its charts."""
    study = Study(files)
    goals(study)
    for data in COLUMNS:
        if data in study.pooled:
            flagships(study, files, data)
    for data in COLUMNS:
        if study.seeds(data, SHORT):
            trials(study, data)
    provenance(study)
    files.write_page(study.lines)


def goals(study: Study) -> None:
    """The targets that were set before the runs, and whether each is reached."""
    rows = []
    for goal in GOALS:
        wanted = list(SETS[goal.data].seeds)
        seeds = study.pooled.get(goal.data, {}).get("seeds", [])
        if isinstance(goal, Valid):
            wanted, seeds = wanted[:1], study.seeds(goal.data, goal.cell)
        later = ", so far" if seeds and seeds != wanted else ""
        for target, holds, measured in goal.rows(study):
            rows.append([ABOUT[goal.data][0], target, holds + later, measured, ", ".join(map(str, seeds)) or "–"])
    study.lines += ["", "## Targets set before the runs"]
    study.table(["set", "target", "reached", "measured", "seeds"], rows)


def flagships(study: Study, files: ResultFiles, data: str) -> None:
    """A set's shipped runs: figures, tests, what other people published, training curves and costs."""
    title, note = ABOUT[data]
    names, pooled = COLUMNS[data], study.pooled[data]
    cells = {seed: study.reports[data, seed, FLAGSHIP.name] for seed in pooled["seeds"]}
    sizes = next(iter(cells.values()))["sizes"]
    level = next(iter(cells.values()))["level"]
    # All methods over all seeds, and the first two metrics seed by seed.
    missing = [seed for seed in SETS[data].seeds if seed not in cells]
    later = f" (still to come: {', '.join(map(str, missing))})" if missing else ""
    study.lines += ["", f"## {title}", "", note, ""]
    study.lines += [
        f"Seeds {', '.join(map(str, cells))}{later}; {sizes['items']:,} items, {pooled['requests']:,} test requests "
        f"together. Means with {level:.0%} bootstrap intervals; ms: of a request, many at once."
    ]
    if pooled.get("joined"):
        study.lines.append(
            "Not all seeds were measured at one place: they were joined by their means and intervals, as samples "
            "of their own (`benchmarks/pooled_seeds.py`)."
        )
    rows = []
    for method in (method for method in METHODS if method in pooled["methods"]):
        took = [cell["milliseconds"][method] for cell in cells.values()]
        row = pooled["methods"][method]
        rows.append([method, *(estimate(row.get(metric)) for metric in names), f"{sum(took) / len(took):.2f}"])
    study.table(["method", *names.values(), "ms"], rows)
    if len(cells) > 1:
        main = list(names)[:2]
        rows = []
        for method in (method for method in METHODS if method in pooled["methods"]):
            by_seed = (cell["methods"][method][metric]["mean"] for cell in cells.values() for metric in main)
            rows.append([method, *map(number, by_seed)])
        study.table(["by seed", *(f"{seed}: {names[metric]}" for seed in cells for metric in main)], rows)
    # Paired differences.
    study.lines += ["", "Paired differences, two-sided sign-flip tests:"]
    rows = []
    for pair in PAIRS:
        tests = [study.tested(data, *pair, metric) for metric in names]
        if any(tests):
            rows.append([" − ".join(pair), *map(difference, tests)])
    study.table(["", *names.values()], rows)
    if data == "toys":
        published(study, data)
    costs(study, files, data, cells)


def published(study: Study, data: str) -> None:
    """Figures of others on the same split beside ours."""
    study.lines += [
        "",
        "Beside what others published of the same split (Rajput et al. 2023, arXiv 2305.05065, table 1). Ours leave "
        "out what a shopper has bought.",
    ]
    rows = [[f"{name}, published", *map(number, figures)] for name, figures in PUBLISHED.items()]
    for method in (TOGETHER, GENERATOR_ALONE, ONE_MODEL, ENGINE_NAME):
        rows.append([f"{method}, here", *(number(study.mean_of(data, method, metric)) for metric in _ONE_TARGET)])
    study.table(["", *_ONE_TARGET.values()], rows)


def costs(study: Study, files: ResultFiles, data: str, cells: Mapping[int, Mapping[str, Any]]) -> None:
    """How long the flagships trained, what their stages cost, and the curve of validation over samples."""
    study.lines += ["", "Training, and minutes of each stage:"]
    stages = [stage for stage in STAGES if any(stage in cell["seconds"] for cell in cells.values())]
    rows = []
    for seed, cell in cells.items():
        minutes = [f"{cell['seconds'].get(stage, 0) / 60:.1f}" for stage in stages]
        total = f"{sum(cell['seconds'].values()) / 60:.0f}"
        rows.append(
            [
                str(seed),
                f"{cell['epochs']:g}",
                f"{cell['samples']:,}",
                percent(cell["valid_sid_share"]),
                *minutes,
                total,
            ]
        )
    study.table(["seed", "epochs", "samples", "valid SIDs without constraint", *stages, "all"], rows)
    curves = {f"seed {seed}": cell["curve"] for seed, cell in cells.items()}
    for name in ("half", DOUBLE):
        for (found, seed, cell_name), cell in study.reports.items():
            if (found, cell_name) == (data, name):
                curves[f"seed {seed}, trial: {cell['what'].removeprefix('as shipped, ')}"] = cell["curve"]
    if any(curves.values()):
        files.charts.mkdir(parents=True, exist_ok=True)
        save_figure(chart(ABOUT[data][0], curves), files.charts / f"{data}.png")
        study.lines += ["", f"![Validation HR@10 of the generator alone over samples]({files.name}/{data}.png)"]


def chart(title: str, curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Validation HR@10 of the generator alone over the samples of stage 3, a line for each run."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes: Any = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot([one[0] for one in curve], [one[1] for one in curve], marker=".", label=name)
    axes.set_xlabel("samples of stage 3")
    axes.set_ylabel("validation HR@10")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def trials(study: Study, data: str) -> None:
    """A set's trials beside the shipped run of the same length."""
    title, seed = ABOUT[data][0], study.seeds(data, SHORT)[0]
    metrics = (HR, NDCG if data == "toys" else MRR)
    short = study.reports[data, seed, SHORT]
    study.lines += [
        "",
        f"## {title}: one setting changed",
        "",
        f"Seed {seed}, {short['requests']:,} test requests. In brackets the paired difference from the shipped run of "
        f"as many epochs (`{SHORT}`; `{DOUBLE}` for twice as many) with its 95 % interval, bold where p < .05. Minutes "
        "are without stages taken over.",
    ]
    rows = []
    for cell in (*TRIALS, *OF_QUERIES):
        report = study.reports.get((data, seed, cell.name))
        if report is None:
            continue
        row = [f"{cell.what} (`{cell.name}`)", f"{report['epochs']:g}", f"{sum(report['seconds'].values()) / 60:.0f}"]
        row.append(percent(report["valid_sid_share"]))
        for method in TRIED:
            pair = (f"{cell.name}/{method}", f"{compared_with(cell.name)}/{method}")
            for metric in metrics:
                test = study.test(data, pair, metric)
                row.append(beside(study.mean(data, pair[0], metric, seeds=[seed]), test))
        rows.append(row)
    names = [f"{method}: {COLUMNS[data][metric]}" for method in TRIED for metric in metrics]
    study.table(["", "epochs", "minutes", "valid SIDs without constraint", *names], rows)


def provenance(study: Study) -> None:
    """What made each cell and what it cost; cells that are still to be run."""
    study.lines += ["", "## What made the figures", ""]
    machines = sorted({report["machine"] for report in study.reports.values()})
    study.lines.append(f"Machines: {'; '.join(machines) or 'none yet'}. Minutes are without stages taken over.")
    rows = []
    for (data, seed, cell), report in sorted(study.reports.items()):
        name, settings = f"{data}-{seed}/{cell}", " ".join(f"`{one}`" for one in report["sets"])
        minutes = f"{sum(report['seconds'].values()) / 60:.0f}"
        made = [
            f"`{report['config']}` {settings}",
            report["commit"],
            report["date"],
            f"{report['requests']:,}",
            minutes,
        ]
        rows.append([name, f"`{report['command']}`", *made])
    study.table(["cell", "command", "config and settings", "commit", "date", "test requests", "minutes"], rows)
    if study.open:
        study.lines += ["", "Not run yet:", "", *(f"- `{name}`: {what}" for name, what in sorted(study.open.items()))]


def estimate(found: Mapping[str, Any] | None) -> str:
    """Mean and interval, or a dash."""
    if found is None or found["mean"] is None:
        return "–"
    return f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"


def beside(value: float | None, test: Mapping[str, Any] | None) -> str:
    """A figure with its paired difference and half of the difference's interval, bold where p < .05."""
    if value is None or test is None:
        return number(value)
    text = f"{test['difference']:+.4f} ± {(test['high'] - test['low']) / 2:.4f}"
    return f"{value:.4f} ({f'**{text}**' if test['p'] < 0.05 else text})"


def percent(share: float | None) -> str:
    """A share, or a dash."""
    return "–" if share is None else f"{share:.1%}"
