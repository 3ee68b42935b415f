"""What the reward's weights do to a shop: relevance against orders, and a boost for emerging sellers.

    python -m benchmarks.balance run RUNS [CELL]     # cells that are not finished; RUNS as in v2.py
    python -m benchmarks.balance render              # docs/results/balance.md

A cell is a short round of alignment from the full V2 of ``fresh-21`` with other rewards, and two A/B tests of the
generators alone: against that V2 before the round, and against a round without rewards. The festival, a boost of
emerging sellers, is also measured on the pages of the engines, with the boost in their order (``search.boost``) and
without. Paired, on known shoppers and newcomers. Reports stay in RUNS; what the page shows of them goes to
``docs/results/balance.json``.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.grid import Grid
from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.result_files import ResultFiles
from benchmarks.run_or_render import main
from onesearch import pipeline
from onesearch.common.artefact import read_json, write_json
from onesearch.common.run_lock import RunLock
from onesearch.evaluation.abtest_estimates import GROUP_METRICS
from onesearch.evaluation.abtest_report import lift_text
from onesearch.evaluation.charts import save_figure
from onesearch.market.market import Market
from onesearch.pipeline.abtest_runs import compare_engines
from onesearch.pipeline.run_data import RunData
from onesearch.search.run_parts import need

FILES = ResultFiles("balance")
DATA, SEED = "fresh", 21
CONFIG = ROOT / "configs" / "market-v2.yaml"
# Without the guard of validation clicks: what a reward does is to be seen, also where it costs clicks.
ROUND = ("grpo.steps=100", "grpo.loop.learning_rate=1e-3", "grpo.item_weight=1", "grpo.loop.best=''")
PAGE_VIEWS, NEWCOMERS = 15_000, 4_000
EMERGING, CURVE = "emerging sellers", "orders_over_relevance.png"
METRICS = ("item CTR", "conversion", "orders", "GMV")


@dataclass(frozen=True)
class Round:
    """One cell: its name, and what it sets."""

    name: str
    what: str
    sets: tuple[str, ...] = ()
    boost: float = 1.0
    served: bool = False
    """Whether the engines are compared, too, and not the generators alone."""
    order: tuple[float, ...] = ()
    """Weights of the boost in the engines' order (``search.boost``) that are compared beside 0."""


CONTROL, WEIGHTLESS = "clicks", "over relevance weight 0"
GRPO = ("grpo.algorithm=grpo",)
ROUNDS = (
    Round(CONTROL, "no reward: the likelihood of clicks alone", ("grpo.policy=0",)),
    *(Round(f"relevance-{w}", f"relevance weight {w}", (f"rewards.relevance={w}",)) for w in (0, 0.5, 1, 4, 8)),
    Round("boost-4.0", "relevance of emerging sellers times 4.0", (), 4.0, served=True, order=(0.3, 1.0)),
    # Plain GRPO has no gate that could shut before what is boosted.
    Round("grpo", "plain GRPO", GRPO, served=True),
    *(
        Round(f"grpo-boost-{b}", f"plain GRPO, relevance of emerging sellers times {b}", GRPO, b, served=True)
        for b in (4.0, 16.0)
    ),
    *(
        Round(f"grpo-relevance-{w}", f"plain GRPO, relevance weight {w}", (*GRPO, f"rewards.relevance={w}"))
        for w in (0, 4)
    ),
)


def run(
    runs: Path,
    only: str = "",
    small: tuple[str, ...] = (),
    page_views: int = PAGE_VIEWS,
    newcomers: int = NEWCOMERS,
) -> None:
    """Every unfinished cell; ``small`` settings make a smoke test."""
    study = Grid(runs, small)
    study.run(f"{DATA}-{SEED}/full")
    before = study.folder(DATA, SEED, "full")
    for cell in [one for one in ROUNDS if one.name == only] or [one for one in ROUNDS if one.name.startswith(only)]:
        report = _report(study, cell.name)
        if report.is_file():
            continue
        folder = study.folder(DATA, SEED, f"balance/{cell.name}")
        emerging = _emerging(before)
        with RunLock(study.folder(DATA, SEED, f"balance/{cell.name}.work")):
            start = time.perf_counter()
            pipeline.run_config(CONFIG, folder, _sets(study, cell, folder), reuse=(before,), until="engine_v2")
            minutes = (time.perf_counter() - start) / 60
            found = _compared(before, folder, emerging, page_views, newcomers)
        about = {
            "cell": cell.name,
            "what": cell.what,
            "market": f"{DATA}-{SEED}",
            "minutes_to_a_new_version": minutes,
            "commit": commit(),
            "date": today(),
            "machine": machine(),
            "config": "configs/market-v2.yaml",
            "sets": [*ROUND, *cell.sets],
            "boost": cell.boost,
            "page_views": page_views,
            "newcomers": newcomers,
        }
        write_json(report, {**about, **found})
        print(cell.name, {name: round(one["lift"], 4) for name, one in found["paired"].items()}, flush=True)
    _compare_further(study, before)
    made = {cell.name: _report(study, cell.name) for cell in ROUNDS}
    FILES.write_figures({**FILES.figures(), **{name: read_json(path) for name, path in made.items() if path.is_file()}})


def _report(study: Grid, cell: str) -> Path:
    """Where a cell's report lies; with it the cell is finished."""
    return study.folder(DATA, SEED, f"balance/{cell}.json")


def _compare_further(study: Grid, before: Path) -> None:
    """Finished cells against the control and against relevance weight 0, once those are finished, and as engines."""
    emerging = _emerging(before)
    for cell in ROUNDS:
        report = _report(study, cell.name)
        if not report.is_file():
            continue
        made, folder = read_json(report), study.folder(DATA, SEED, f"balance/{cell.name}")
        traffic = made["page_views"], made["newcomers"]
        kind = cell.name.rpartition("relevance-")
        others = {"over the control": CONTROL, **({WEIGHTLESS: f"{kind[0]}relevance-0"} if kind[1] else {})}
        for key, other in others.items():
            if other != cell.name and _report(study, other).is_file() and key not in made:
                arm = study.folder(DATA, SEED, f"balance/{other}")
                made[key] = _compared(arm, folder, emerging, *traffic)
                write_json(report, made)
        if cell.served and "engines" not in made:
            made["engines"] = _compared(before, folder, emerging, *traffic, alone=False)
            write_json(report, made)
        for weight in cell.order:
            if (key := _in_order(weight)) in made:
                continue
            # The same round, whose engine is fitted again with the boost in its order.
            other = study.folder(DATA, SEED, f"balance/{cell.name}-order-{weight}")
            sets = [*_sets(study, cell, folder), f"search.boost={weight}"]
            pipeline.run_config(CONFIG, other, sets, reuse=(before, folder), until="engine_v2")
            made[key] = _compared(before, other, emerging, *traffic, alone=False)
            write_json(report, made)


def _in_order(weight: float) -> str:
    """The key of figures of engines with the boost in their order."""
    return f"engines, search.boost {weight:g}"


def _sets(study: Grid, cell: Round, folder: Path) -> list[str]:
    """What the run of a cell sets. A boost stands in a file beside the run and moves the generator alone."""
    full = next(one for _, _, one in study.cells(f"{DATA}-{SEED}/full") if one.name == "full")
    sets = [*study._sets(DATA, SEED, full), *ROUND, *cell.sets, *study.more]
    if cell.boost != 1.0:
        emerging = _emerging(study.folder(DATA, SEED, "full"))
        sets += [f"rewards_file={_boost(folder, emerging, cell.boost)}", "search.boost=0"]
    return sets


def _compared(
    a: Path, b: Path, emerging: list[str], page_views: int, newcomers: int, alone: bool = True
) -> dict[str, Any]:
    """Lifts of the V2 of run ``b`` over that of ``a``; pages of an arm are kept beside the runs and served once."""
    found = compare_engines(
        f"{a}:v2",
        f"{b}:v2",
        b.with_name("pages"),
        page_views,
        newcomers,
        splits=0,
        alone=alone,
        groups={"sellers": {EMERGING: _items(b, emerging)}},
    )
    return {"shoppers": found["shoppers"], "paired": found["paired"], EMERGING: found["slices"]["sellers"][EMERGING]}


def _emerging(run: Path) -> list[str]:
    """Sellers that are new to the shop, as the market knows."""
    market = Market.load(need(run, "data"))
    sellers = RunData(run).dataset.items["seller"].to_numpy()
    return sorted(set(sellers[market.emerging_items].tolist()))


def _items(run: Path, sellers: list[str]) -> list[str]:
    items = RunData(run).dataset.items
    return items.filter(items["seller"].is_in(sellers))["item_id"].to_list()


def _boost(folder: Path, sellers: list[str], times: float) -> Path:
    """The rewards' file that a shop would change on the day."""
    boost = {"name": EMERGING, "column": "seller", "values": sellers, "term": "relevance", "times": times}
    path = folder.with_suffix(".rewards.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"boosts": [boost]})  # JSON is YAML
    return path


def render() -> None:
    """Write docs/results/balance.md."""
    made = list(FILES.figures().values())
    order = {cell.name: place for place, cell in enumerate(ROUNDS)}
    made.sort(key=lambda one: order.get(one["cell"], len(order)))
    _draw(made)
    lines = [*FILES.head(), "", f"![Orders over the weight of relevance]({FILES.name}/{CURVE})"]
    weights = sorted({weight for cell in ROUNDS for weight in cell.order})
    lines += ["", "## Before and after the round, generators alone"]
    lines += _tables([(one["what"], one, f"{one['minutes_to_a_new_version']:.1f}") for one in made])
    for key, title in (
        ("over the control", "Against as many steps on clicks alone, generators alone"),
        (WEIGHTLESS, "Against relevance weight 0 under the same algorithm, generators alone"),
        ("engines", "Before and after the round, engines without the boost in their order"),
        *(
            (_in_order(w), f"Before and after the round, engines with the boost in their order, weight {w:g}")
            for w in weights
        ),
    ):
        if rows := [(one["what"], one[key], "") for one in made if key in one]:
            lines += ["", f"## {title}", *_tables(rows)]
    lines += ["", "## What made the figures", "", "| command | market | commit | date | shoppers | page views |"]
    lines.append("|---" * 6 + "|")
    for one in made:
        command = f"`python -m benchmarks.balance run RUNS {one['cell']}`"
        made_by = f"{command} | {one['market']} | {one['commit']} | {one['date']}"
        lines.append(f"| {made_by} | {one['shoppers']:,} | {one['page_views']:,} |")
    FILES.write_page(lines)


def _draw(made: list[dict[str, Any]]) -> None:
    """Orders over the weight of relevance, before and after the round."""
    weights = {f"relevance-{w:g}": w for w in (0, 0.5, 1, 4, 8)}
    curves = {"TPMA": weights, "plain GRPO": {f"grpo-{name}": w for name, w in weights.items()} | {"grpo": 1}}
    found = {one["cell"]: one for one in made}
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes: Any = figure.add_subplot()
    for shift, (label, cells) in enumerate(curves.items()):
        points = sorted((w, found[name]["paired"]["orders"]) for name, w in cells.items() if name in found)
        lifts = [100 * one["lift"] for _, one in points]
        ends = [[100 * (one["lift"] - one["low"]), 100 * (one["high"] - one["lift"])] for _, one in points]
        x = [w + 0.08 * shift for w, _ in points]
        axes.errorbar(x, lifts, list(zip(*ends, strict=True)) or None, fmt="o-", capsize=3, label=label)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set(xlabel="weight of relevance in the reward", ylabel="lift of orders, %")
    axes.legend(fontsize=8, frameon=False)
    FILES.charts.mkdir(parents=True, exist_ok=True)
    save_figure(figure, FILES.charts / CURVE)


def _tables(rows: list[tuple[str, dict[str, Any], str]]) -> list[str]:
    """Lifts over all items and over those of emerging sellers; a row's last part is the minutes, if any."""
    minutes = any(row[2] for row in rows)
    lines = ["", f"| round | {' | '.join(METRICS)} |" + (" minutes to the new version |" if minutes else "")]
    lines.append("|---" * (len(METRICS) + 1 + minutes) + "|")
    for what, found, took in rows:
        cells = [lift_text(found["paired"][name]) for name in METRICS]
        lines.append(f"| {what} | {' | '.join(cells)} |" + (f" {took} |" if minutes else ""))
    lines += ["", "Items of emerging sellers:", "", f"| round | {' | '.join(GROUP_METRICS)} |"]
    lines.append("|---" * (len(GROUP_METRICS) + 1) + "|")
    for what, found, _ in rows:
        lines.append(f"| {what} | {' | '.join(lift_text(found[EMERGING][name]) for name in GROUP_METRICS)} |")
    return lines


if __name__ == "__main__":
    main(run, render, __doc__ or "")
