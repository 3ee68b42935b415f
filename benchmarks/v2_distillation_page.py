"""Renders ``docs/results/v2_distillation.md`` from the figures that the grid has kept; none is typed in."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.grid import (
    COMPLEX,
    ENGINES,
    FRESH,
    HEAD,
    MARKET,
    RARE,
    REAL,
    SAMPLED,
    SETS,
    THINKERS,
    Cell,
    DataSet,
)
from benchmarks.result_files import ResultFiles

Report = dict[str, Any]

MARKETS = ("market", "fresh")
TRUE = ("ehr@10", "ndcg@10")
NAMES = {"ehr@10": "expected HR@10", "ndcg@10": "true NDCG@10"}


class Page:
    """Reports by (data set, seed, cell), the paired tests, and the lines written so far."""

    def __init__(self, files: ResultFiles) -> None:
        figures = files.figures()
        self.reports: dict[tuple[str, int, str], Report] = {
            (cell["data"], cell["seed"], cell["cell"]): cell for cell in figures.get("cells", {}).values()
        }
        self.tests: dict[str, Any] = figures.get("tests", {})
        self.lines: list[str] = []

    def seeds(self, data: str, cell: str) -> list[int]:
        """Seeds that a cell is finished with."""
        return sorted(seed for name, seed, found in self.reports if (name, found) == (data, cell))

    def mean(
        self,
        data: str,
        method: str,
        metric: str,
        part: tuple[str, str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> float | None:
        """Mean over seeds of a figure of ``cell/variant``; None where there is none."""
        cell, variant = method.split("/")
        found = []
        for seed in self.seeds(data, cell) if seeds is None else seeds:
            report = self.reports[data, seed, cell]
            methods = report["methods"]
            if part is not None:
                group = report["slices"].get(part[0], {}).get(part[1])
                methods = group["methods"] if group else {}
            value = methods.get(variant, {}).get(metric, {}).get("mean")
            if value is not None:
                found.append(value)
        return sum(found) / len(found) if found else None

    def test(self, data: str, pair: tuple[str, str], metric: str, part: tuple[str, str] | None = None) -> Report | None:
        """The paired test of two methods in a metric on a slice."""
        found = self.tests.get(f"{data}: {pair[0]} - {pair[1]}")
        for one in found["tests"] if found else []:
            if one["metric"] == metric and (tuple(one["slice"]) if one["slice"] else None) == part:
                return {**one, "seeds": found["seeds"]}
        return None

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A Markdown table, or nothing without rows."""
        if rows:
            self.lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            self.lines += [f"| {' | '.join(row)} |" for row in rows]


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def difference(test: Report | None) -> str:
    """Difference with interval and p."""
    if test is None:
        return "–"
    p = "p < 0.0002" if test["p"] < 2e-4 else f"p = {test['p']:.4f}"
    return f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}], {p}"


Column = tuple[str, tuple[str, str] | None]
"""A metric on a slice, None for all requests."""
ON_COMPLEX: tuple[Column, ...] = (("ehr@10", COMPLEX), ("click/HR@10", COMPLEX))
ON_ALL: tuple[Column, ...] = (("click/HR@10", None), ("click/MRR@10", None))


def effects(
    page: Page, data: str, against: str, methods: Sequence[tuple[str, str]], columns: Sequence[Column] | None = None
) -> None:
    """Methods with their figures, and the difference from one of them; on complex and all requests by default."""
    if columns is None:
        columns = (*ON_COMPLEX, *ON_ALL) if data in MARKETS else ON_ALL
    names = [f"{part[1] if part else 'all'}: {NAMES.get(metric, metric.replace('/', ' '))}" for metric, part in columns]
    head = ["", "seeds", *(cell for name in names for cell in (name, "difference"))]
    rows = []
    for method, what in methods:
        cell = method.split("/")[0]
        if not page.seeds(data, cell):
            continue
        row = [what, ", ".join(map(str, page.seeds(data, cell)))]
        for metric, part in columns:
            row.append(number(page.mean(data, method, metric, part)))
            row.append("" if method == against else difference(page.test(data, (method, against), metric, part)))
        rows.append(row)
    page.table(head, rows)


def figures(page: Page, data: str, methods: Sequence[tuple[str, str]]) -> None:
    """All metrics over all requests, share of valid SIDs, minutes of training."""
    metrics = [*SAMPLED, *(TRUE if data in MARKETS else ())]
    rows = []
    for method, what in methods:
        cell = method.split("/")[0]
        seeds = page.seeds(data, cell)
        if not seeds or page.mean(data, method, metrics[0]) is None:
            continue
        shares = [page.reports[data, seed, cell]["valid_sid_share"] for seed in seeds]
        minutes = [sum(page.reports[data, seed, cell]["training_seconds"].values()) / 60 for seed in seeds]
        rows.append(
            [
                what,
                *(number(page.mean(data, method, metric)) for metric in metrics),
                f"{sum(shares) / len(shares):.1%}" if shares[0] is not None else "–",
                f"{sum(minutes) / len(minutes):.1f}",
            ]
        )
    names = [NAMES.get(metric, metric) for metric in metrics]
    page.table(["", *names, "valid SIDs without constraint", "minutes of training"], rows)


def slices(page: Page, data: str, methods: Sequence[tuple[str, str]], dimension: str, metric: str) -> None:
    """One metric by the groups of a dimension."""
    first = next((r for (name, _, cell), r in page.reports.items() if (name, cell) == (data, "v1")), None)
    groups = first["slices"].get(dimension, {}) if first else {}
    head = [f"{NAMES.get(metric, metric)} by {dimension}", *(f"{g} ({v['requests']})" for g, v in groups.items())]
    rows = []
    for method, what in methods:
        values = [page.mean(data, method, metric, (dimension, group)) for group in groups]
        if any(value is not None for value in values):
            rows.append([what, *map(number, values)])
    page.table(head, rows)


def verdicts(page: Page) -> None:
    """The targets that were set before the runs, and whether each holds."""
    rows: list[Sequence[str]] = []

    def check(target: str, holds: bool | None, figure: str) -> None:
        rows.append(verdict(target, holds, figure))

    def positive(pair: tuple[str, str], metric: str, part: tuple[str, str] | None) -> tuple[bool | None, str]:
        return above(page.test("market", pair, metric, part))

    for metric in ("ehr@10", "click/HR@10"):
        found = above(page.test("fresh", ("full/engine", "v1/engine"), metric, COMPLEX))
        check(f"fresh markets: V2's engine above V1's on complex queries, {NAMES.get(metric, metric)}", *found)
    room = page.test("market", ("rag/keywords", "v1/student"), "ehr@10", COMPLEX)
    check(
        "RAG over V1 on complex queries, expected HR@10: at least +.03 of room",
        None if room is None else room["difference"] >= 0.03,
        difference(room),
    )
    for metric in ("ehr@10", "click/HR@10"):
        name = NAMES.get(metric, metric)
        found = positive(("full/student", "v1/student"), metric, COMPLEX)
        check(f"full V2 above V1 on complex queries, {name}", *found)
    for cell, what in (
        ("placebo", "the placebo"),
        ("v1-time", "V1 of the same wall time"),
        ("no-kl", "teacher CE without KL"),
    ):
        for metric in ("ehr@10", "click/HR@10"):
            check(
                f"full V2 above {what} on complex queries, {NAMES.get(metric, metric)}",
                *positive(("full/student", f"{cell}/student"), metric, COMPLEX),
            )
    for metric in ("click/HR@10", "click/MRR@10"):
        check(f"full V2 above V1 over all queries, {metric}", *positive(("full/student", "v1/student"), metric, None))
    seeds = page.seeds("market", "rag")
    values = [
        page.mean("market", method, "ehr@10", COMPLEX, seeds)
        for method in ("v1/student", "full/student", "rag/keywords")
    ]
    if all(value is not None for value in values) and seeds:
        v1, full, rag = (float(value or 0) for value in values)
        kept = (full - v1) / (rag - v1) if rag != v1 else float("nan")
        check("at least half of the RAG gain on complex queries kept without keywords", kept >= 0.5, f"{kept:.0%}")
    gains = [page.test("market", ("full/student", "v1/student"), "ehr@10", part) for part in (COMPLEX, RARE, HEAD)]
    if all(gains):
        a, b, c = (float(one["difference"]) for one in gains if one)
        check(
            "the gain on complex and on rare complex queries is larger than on head queries",
            min(a, b) > c,
            f"complex {a:+.4f}, unseen complex {b:+.4f}, queries seen 16 times or more {c:+.4f}",
        )
    check(
        "the distilled student reaches the base teacher (RAG) on complex queries",
        *_reaches(page.test("market", ("full/student", "rag/keywords"), "ehr@10", COMPLEX)),
    )
    page.lines += ["", "## Targets set before the runs"]
    page.table(["target", "holds", "measured"], rows)


def verdict(target: str, holds: bool | None, figure: str) -> list[str]:
    """A row of a table of targets."""
    return [target, {True: "yes", False: "**no**", None: "not measured"}[holds], figure]


def above(test: Report | None) -> tuple[bool | None, str]:
    """Whether a difference is positive and significant, and how large it is."""
    return (None if test is None else test["difference"] > 0 and test["p"] < 0.05), difference(test)


def _reaches(test: Report | None) -> tuple[bool | None, str]:
    return (None if test is None else test["difference"] >= 0 or test["p"] >= 0.05), difference(test)


def provenance(page: Page, sets: Mapping[str, DataSet] = SETS) -> None:
    """What made each cell."""
    page.lines += ["", "## What made the figures", ""]
    machines = sorted({report["machine"] for report in page.reports.values()})
    page.lines.append(
        f"Machines: {'; '.join(machines)}. Settings beside the configuration file are in the page's JSON."
    )
    rows = [
        [
            f"{data}-{seed}/{cell}",
            f"`{report['command']}`",
            f"`{report['config']}`",
            report["commit"],
            report["date"],
            f"{report['requests']:,}",
            f"{report['epochs']:g}",
            f"{sum(report['training_seconds'].values()):.0f}",
        ]
        for (data, seed, cell), report in sorted(page.reports.items())
    ]
    page.table(["cell", "command", "config", "commit", "date", "test requests", "epochs", "seconds of training"], rows)
    missing = [
        f"{data}-{seed}/{cell.name}"
        for data, found in sets.items()
        for seed in found.seeds
        for cell in found.cells
        if seed in cell.seeds and (data, seed, cell.name) not in page.reports
    ]
    if missing:
        page.lines += ["", f"Not run yet: {', '.join(missing)}."]


def named(cells: Sequence[Cell], *names: str) -> list[tuple[str, str]]:
    """Student methods of cells with what they are, in the given order."""
    what = {cell.name: cell.what for cell in cells}
    return [(f"{name}/student", what[name]) for name in names]


def fresh_markets(page: Page) -> None:
    """V2 in the shipped form, with evidence at the input, on markets that nobody looked at before."""
    if not page.seeds("fresh", "v1"):
        return
    page.lines += ["", "## Fresh markets: the shipped form, with evidence at the input"]
    kinds = dict(zip(ENGINES, ("Generator alone", "Engine", "Engine without generator"), strict=True))
    for kind, what in kinds.items():
        page.lines += ["", f"{what}; the differences are from V1."]
        effects(page, "fresh", f"v1/{kind}", [(f"{cell.name}/{kind}", cell.what) for cell in FRESH])
    page.lines += [
        "",
        "Twice as long a training; the differences are from that V1.",
        "First generators alone, then engines, then the teacher with its keywords.",
    ]
    longer = [cell for cell in FRESH if cell.name.endswith("-long")]
    for kind in ENGINES[:2]:
        effects(page, "fresh", f"v1-long/{kind}", [(f"{cell.name}/{kind}", cell.what) for cell in longer])
    read = [("v1-long/student", "V1, twice as long"), ("kl-long/keywords", "the teacher of the KL, with keywords")]
    effects(page, "fresh", "v1-long/student", read)
    page.lines += ["", "What the generator brings to each engine: the difference from the same engine without it."]
    for cell in FRESH:
        both = [(f"{cell.name}/without", f"{cell.what}, engine without generator"), (f"{cell.name}/engine", "engine")]
        effects(page, "fresh", f"{cell.name}/without", both)
    figures(
        page,
        "fresh",
        [(f"{cell.name}/{kind}", f"{cell.what}, {kinds[kind].lower()}") for cell in FRESH for kind in kinds],
    )


def render(files: ResultFiles) -> None:
    """Write the page."""
    page = Page(files)
    page.lines = files.head()
    verdicts(page)
    fresh_markets(page)
    steps = named(MARKET, "v1", "cot", "sd", "full")
    page.lines += ["", "## Market: the steps", ""]
    page.lines += ["Generator alone, without keywords at serving; the differences are from V1."]
    effects(page, "market", "v1/student", steps)
    engines = [("v1/engine", "V1, engine"), ("full/engine", "full V2, engine")]
    figures(page, "market", [*steps, *engines])
    page.lines += ["", "Engine, full V2 against V1:"]
    effects(page, "market", "v1/engine", engines)
    page.lines += ["", "## Market: controls", ""]
    page.lines += ["Differences are from V1; full V2 against each control is among the targets."]
    controls = named(MARKET, "full", "placebo", "v1-time", "no-kl", "no-teacher-ce", "published")
    effects(page, "market", "v1/student", [*controls, ("rag/keywords", "keywords at the input (RAG)")])
    page.lines += ["", "Longer training: plain self-distillation of as many epochs, not minutes, against that V1."]
    effects(page, "market", "v1-time/student", named(MARKET, "v1-time", "sd-long"))
    page.lines += ["", "## Market: regularisers and alternatives, one by one", ""]
    page.lines += ["Differences are from plain self-distillation."]
    parts = named(
        MARKET,
        "sd",
        "kl-only",
        "row-only",
        "r-drop",
        "fgm",
        "focal",
        "think",
        "codi",
        "ema",
        "joint",
        "inject",
        "personal",
        "personal-llm",
    )
    effects(page, "market", "sd/student", parts)
    page.lines += [
        "",
        "## Market: teacher and student",
        "",
        (
            "*Base S* is trained and tested without keywords (the row + CoT), *base T* with them (RAG); "
            "*distilled S* and *T* are one distilled model tested without and with them; *direct CoT* writes its own "
            "keywords before the SID."
        ),
    ]
    effects(
        page,
        "market",
        "cot/student",
        [
            ("cot/student", "base S"),
            ("rag/keywords", "base T"),
            ("sd/student", "distilled S (self-distillation)"),
            ("sd/keywords", "distilled T (self-distillation)"),
            ("full/student", "distilled S (full V2)"),
            ("full/keywords", "distilled T (full V2)"),
            ("rag/own", "direct CoT"),
        ],
    )
    page.lines += ["", "## Market: who thinks", "", "Self-distillation with other producers; differences are from V1."]
    effects(page, "market", "v1/student", named(MARKET, "v1", "error-0", "sd", "error-30", "log-expert"))
    page.lines += ["", "## Market: by kind of query"]
    shown = [*steps, ("rag/keywords", "keywords at the input (RAG)")]
    for dimension in (
        "complexity",
        "query type",
        "query frequency",
        "complex, by query frequency",
        "rarest need word, uses in training",
    ):
        slices(page, "market", shown, dimension, "ehr@10")
    slices(page, "market", shown, "query type", "click/HR@10")
    for data in ("bestbuy", "homedepot"):
        if page.seeds(data, "v1"):
            page.lines += ["", f"## {data}: log expert as producer"]
            both = named(REAL, "v1", "full")
            effects(page, data, "v1/student", both)
            effects(page, data, "v1/engine", engines)
            figures(page, data, [*both, *engines])
            slices(page, data, [*both, *engines], "query frequency", "click/HR@10")
    if page.seeds("thinkers", "v1"):
        page.lines += ["", "## homedepot: who thinks", ""]
        page.lines += ["What the producers say: [keywords on real queries](language_model.md). Generator alone:"]
        names = [cell.name for cell in THINKERS]
        cells = named(THINKERS, *names)
        read = [
            (f"{cell.name}/keywords", f"{cell.what}, tested with keywords")
            for cell in THINKERS
            if "keywords" in cell.measured
        ]
        effects(page, "thinkers", "v1/student", [*cells, *read])
        page.lines += ["", "Engine:"]
        effects(page, "thinkers", "v1/engine", [(f"{cell.name}/engine", cell.what) for cell in THINKERS[:-1]])
        figures(page, "thinkers", cells)
    provenance(page)
    files.write_page(page.lines)
