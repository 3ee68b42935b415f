"""Figures, charts and page of the study of a month (:mod:`benchmarks.month`), from what its cells left day by day."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.month_cell import DONE, STATES, Cell
from benchmarks.result_files import ResultFiles
from onesearch.common.artefact import read_json
from onesearch.common.extras import from_extra
from onesearch.evaluation.charts import COLOURS, method_styles, save_figure
from onesearch.evaluation.significance import permutation_test
from onesearch.market.later_days import LaterSettings

with from_extra("train"):
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Values = Mapping[str, NDArray[Any]]
METRICS: Final = ("regret", "clicks", "orders", "NDCG@10", "new shown", "new clicks", "cold shown", "cold clicks")
TESTED: Final = ("regret", "clicks", "orders", "NDCG@10", "new clicks", "cold clicks")
REFERENCES: Final = ("frozen", "learning", "rounds", "thoughts", "retrained")
"""Cells that all others are compared with."""
ADDS_TO: Final = {
    "learning": "frozen",
    "rounds": "learning",
    "thoughts": "rounds",
    "full": "thoughts",
    "retrained": "learning",
    "explore-5": "learning",
    "explore-10": "learning",
}
"""What each cell has everything of."""
_WEEK: Final = 7
_NORMAL: Final = 1.96


def load_days(folder: Path, days: int) -> list[Values]:
    """The values of each day's page views."""
    return [dict(np.load(folder / "days" / f"{day:03d}.npz", allow_pickle=False)) for day in range(days)]


def figures_of(folder: Path, cells: Sequence[Cell], later: LaterSettings) -> dict[str, dict[str, Any]]:
    """Figures of finished cells by name: by day with intervals, over the month, and against the references.

    Shoppers are what varies: intervals and tests are over sums of a shopper's page views.
    """
    values = {cell.name: load_days(folder / cell.name, later.days) for cell in cells}
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        days, place = values[cell.name], folder / cell.name
        notes = [read_json(place / "days" / f"{day:03d}.json") for day in range(later.days)]
        every = {name: np.concatenate([day[name] for day in days]) for name in days[0]}
        found[cell.name] = {
            "by day": {name: [mean_by_shopper(day[name], day["user"]) for day in days] for name in METRICS},
            "coverage": _coverage(days),
            "distilled queries": [note["distilled"] for note in notes],
            "waiting queries": [note["queue"]["waiting"] for note in notes],
            "shoppers a day": round(float(np.mean([len(np.unique(day["user"])) for day in days]))),
            "page views": len(every["user"]),
            "month": {name: mean_by_shopper(every[name], every["user"]) for name in METRICS},
            "groups": _groups(every),
            "rounds": [_round(note["round"]) for note in notes if "round" in note],
            "newly covered": _newly_covered(
                [(day, note["round"]) for day, note in enumerate(notes) if "round" in note]
            ),
            "explored": _explored(every),
            "new items": _first_clicks(place, later),
            "against": {
                other: _compared(every, {name: np.concatenate([day[name] for day in values[other]]) for name in TESTED})
                for other in REFERENCES
                if other in values and other != cell.name
            },
            "by week": _by_week(days, values["learning"]) if "learning" in values and cell.name != "learning" else [],
        }
    return found


def by_shopper(values: NDArray[Any], user: NDArray[np.integer]) -> Floats:
    """A value per shopper [U] whose mean is that of the values [n]: sums over a shopper's page views, scaled.

    Where nothing is defined, nan, a page view counts nothing.
    """
    known = np.isfinite(values)
    _, number = np.unique(user, return_inverse=True)
    sums = np.bincount(number, np.where(known, values, 0))
    return np.asarray(sums * (len(sums) / max(int(known.sum()), 1)), np.float64)


def mean_by_shopper(values: NDArray[Any], user: NDArray[np.integer]) -> list[float]:
    """Mean over page views with the bounds of its 95 % interval, where shoppers are drawn."""
    sums, counts = (by_shopper(one, user) for one in (values, np.where(np.isfinite(values), 1.0, np.nan)))
    mean = float(sums.mean())
    # A ratio of two sums over shoppers: what varies is a shopper's sum around the mean times their page views.
    around = sums - mean * counts
    half = _NORMAL * float(around.std(ddof=1)) / len(sums) ** 0.5 if len(sums) > 1 else float("nan")
    return [round(mean, 5), round(mean - half, 5), round(mean + half, 5)]


def _compared(a: Values, b: Values) -> dict[str, Any]:
    """Differences to a reference on the same page views, with intervals and p-values; shoppers are drawn."""
    user = a["user"]
    one, other = (np.stack([by_shopper(values[name], user) for name in TESTED], 1) for values in (a, b))
    test = permutation_test(one.astype(np.float32), other.astype(np.float32))
    return {
        name: {
            "difference": round(float(test.difference[at]), 5),
            "interval": [round(float(end[at]), 5) for end in (test.low, test.high)],
            "p": float(f"{test.p[at]:.2g}"),
        }
        for at, name in enumerate(TESTED)
    }


def _by_week(days: Sequence[Values], others: Sequence[Values]) -> list[dict[str, Any]]:
    """Differences to another cell, week by week; the last one may be short."""
    found = []
    for first in range(0, len(days), _WEEK):
        one, other = (
            {name: np.concatenate([day[name] for day in some[first : first + _WEEK]]) for name in ("user", *TESTED)}
            for some in (days, others)
        )
        found.append(_compared(one, other)["regret"])
    return found


def _coverage(days: Sequence[Values]) -> dict[str, list[list[float]]]:
    """Shares of page views by state, in the order of :data:`STATES`, day by day: of all, and of complex queries."""
    found: dict[str, list[list[float]]] = {"all": [], "complex": []}
    for day in days:
        for name, rows in (("all", np.ones(len(day["state"]), bool)), ("complex", day["complex"])):
            counts = np.bincount(day["state"][rows], minlength=len(STATES))
            found[name].append([round(float(count), 4) for count in counts / max(int(counts.sum()), 1)])
    return found


def _groups(every: Values) -> dict[str, list[float]]:
    """Regret on page views of some kinds."""
    kinds = {"plain": ~every["complex"], "complex": every["complex"], "with a new word": every["new words"]}
    return {
        name: mean_by_shopper(every["regret"][rows], every["user"][rows]) for name, rows in kinds.items() if rows.any()
    }


def _round(note: Mapping[str, Any]) -> dict[str, Any]:
    """Of a night's round whether it was published, and its judge's gain before and after."""
    if "left out" in note:
        return {"left out": note["left out"]}
    gain = [round(note[name]["gain"], 4) for name in ("before", "after")]
    judged = {"better": note["published"], "gain": gain, "same": round(note["same"], 3)}
    return {**judged, "served": note["served"], "distilled": note["distilled"], "chosen step": note["chosen step"]}


def _newly_covered(notes: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """The week's page views of queries that a round was first to distil, before and after it: by round, and all.

    Beside them those of queries that were distilled earlier, as many on each day. Shoppers are drawn.
    """
    rounds = [(day, note["covered"]) for day, note in notes if note.get("covered")]
    found: dict[str, Any] = {"page views": 0, "days": [day for day, _ in rounds]}
    if not rounds:
        return found
    found["page views"] = sum(len(covered["new"]["user"]) for _, covered in rounds)
    for group in ("new", "old"):
        users = np.concatenate([np.array(covered[group]["user"], np.int64) for _, covered in rounds])
        found[group] = {}
        for metric in ("clicks@10", "ndcg@10"):
            sides = [
                [np.array(one[group][side][metric], np.float64) for _, one in rounds] for side in ("before", "after")
            ]
            before, after = (np.concatenate(side) for side in sides)
            if not np.isfinite(before).any():
                continue
            test = permutation_test(*(by_shopper(one, users)[:, None].astype(np.float32) for one in (after, before)))
            found[group][metric] = {
                "before, after": [round(float(np.nanmean(one)), 4) for one in (before, after)],
                "difference": round(float(test.difference[0]), 5),
                "interval": [round(float(test.low[0]), 5), round(float(test.high[0]), 5)],
                "p": float(f"{test.p[0]:.2g}"),
                "by round": [[_mean(one) for one in pair] for pair in zip(*sides, strict=True)],
            }
    return found


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 4) if len(known) else None


def _explored(every: Values) -> dict[str, float]:
    """How many places were drawn, and how often drawn and other results were clicked."""
    drawn, clicks = int(every["explored"].sum()), int(every["clicks"].sum())
    drawn_clicks = int(every["explored clicks"].sum())
    places = 10 * len(every["clicks"])
    return {
        "share": round(drawn / places, 4),
        "clicks of a drawn place": round(drawn_clicks / max(drawn, 1), 4),
        "clicks of another place": round((clicks - drawn_clicks) / max(places - drawn, 1), 4),
    }


def _first_clicks(place: Path, later: LaterSettings) -> dict[str, Any]:
    """How soon items that were listed in the month are first clicked, and how many ever are."""
    morning = sorted(place.glob(f"morning-*/{DONE}"))[-1]
    state, listed = read_json(morning), np.array(read_json(place / "listed.json"), np.int64)
    first = np.array(state["first_click"][-len(listed) :], np.int64) if len(listed) else np.zeros(0, np.int64)
    waited, clicked = first - listed, first >= 0
    # Of items that are there for a week at least, how many are clicked within it.
    whole = listed + 7 <= later.days
    median = float(np.median(np.where(clicked, waited, np.inf))) if len(listed) else np.inf
    within = clicked[whole] & (waited[whole] < 7)
    return {
        "listed": len(listed),
        "clicked": int(clicked.sum()),
        "median days to the first click": median if len(listed) and np.isfinite(median) else None,
        "clicked within 7 days": round(float(within.mean()), 4) if whole.any() else None,
    }


# ---- the page --------------------------------------------------------------------------------------------------------


def page(files: ResultFiles, names: Sequence[tuple[str, str]]) -> list[str]:
    """Sections of the page below its head; charts are written beside it."""
    figures = files.figures()
    cells = [(name, what) for name, what in names if name in figures.get("cells", {})]
    if not cells:
        return ["", "## Not measured yet", "", "No cell of the study is finished."]
    found = figures["cells"]
    files.charts.mkdir(parents=True, exist_ok=True)
    lines = [*_regret(found, cells), *_coverage_section(found, cells), *_exploration(found, cells)]
    for name, figure in (
        ("regret", _lines(found, cells, "regret", "regret: expected clicks lost per page view")),
        ("new", _lines(found, cells, "new clicks", "clicks on items listed in the month, per page view")),
        ("coverage", _areas(found, cells)),
    ):
        save_figure(figure, files.charts / f"{name}.png")
    made = found[cells[-1][0]]["made"]
    by_name = "; ".join(f"`{found[name]['made']['command']}`" for name, _ in cells)
    return [*lines, "", f"Made by {by_name}; last: commit {made['commit']}, {made['date']}, {made['machine']}."]


def _interval(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def _difference(found: Mapping[str, Any], other: str, metric: str) -> str:
    if other not in found["against"]:
        return ""
    return _told(found["against"][other][metric])


def _told(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p {one['p']:g}"


def _regret(found: Mapping[str, Any], cells: Sequence[tuple[str, str]]) -> list[str]:
    shoppers = min(found[name]["shoppers a day"] for name, _ in cells)
    lines = [
        "",
        "## Regret",
        "",
        f"Per page view over the month, {shoppers:,} shoppers a day; differences are on the same page views.",
        "",
        "| cell | regret | clicks | orders | NDCG@10 |",
        "|---|---|---|---|---|",
    ]
    for name, what in cells:
        figures = " | ".join(_interval(found[name]["month"][one]) for one in ("regret", "clicks", "orders", "NDCG@10"))
        lines.append(f"| {what} | {figures} |")
    lines += ["", "| regret of | against frozen | against learning | against what it adds to | against retrained |"]
    lines.append("|---|---|---|---|---|")
    for name, what in cells:
        others = ("frozen", "learning", ADDS_TO.get(name, ""), "retrained")
        lines.append(f"| {what} | {' | '.join(_difference(found[name], other, 'regret') for other in others)} |")
    weeks = max(len(found[name]["by week"]) for name, _ in cells)
    if weeks:
        lines += ["", f"| regret against learning | {' | '.join(f'week {number + 1}' for number in range(weeks))} |"]
        lines.append("|---|" + "---|" * weeks)
        lines += [
            f"| {what} | {' | '.join(_told(one) for one in found[name]['by week'])} |"
            for name, what in cells
            if found[name]["by week"]
        ]
    kinds = list(dict.fromkeys(kind for name, _ in cells for kind in found[name]["groups"]))
    lines += ["", f"| regret of queries | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    for name, what in cells:
        groups = found[name]["groups"]
        lines.append(f"| {what} | {' | '.join(_interval(groups[kind]) if kind in groups else '' for kind in kinds)} |")
    return [*lines, "", "![regret by day](month/regret.png)"]


def _coverage_section(found: Mapping[str, Any], cells: Sequence[tuple[str, str]]) -> list[str]:
    lines = [
        "",
        "## Coverage",
        "",
        "Shares of page views whose query had keywords when it was searched: covered if distilled or cached.",
        "",
        "| cell | covered, first day | last day | distilled, first day | last day | complex: distilled, last day |",
        "|---|---|---|---|---|---|",
    ]
    cached, distilled = STATES.index("cached"), STATES.index("distilled")
    for name, what in cells:
        every, hard = found[name]["coverage"]["all"], found[name]["coverage"]["complex"]
        shares = [every[0][cached] + every[0][distilled], every[-1][cached] + every[-1][distilled]]
        shares += [every[0][distilled], every[-1][distilled], hard[-1][distilled]]
        lines.append(f"| {what} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    lines += [
        "",
        "![coverage by day](month/coverage.png)",
        "",
        "The page views of the next seven days for queries whose thoughts a night's round was first to teach, on the"
        " engine before and after that round; beside them as many for queries that were distilled earlier. *Better* are"
        " the rounds that the judge of `onesearch update` would have served:",
        "",
        "| cell | rounds, better, served | queries | page views | clicks@10, before and after |"
        " NDCG@10, before and after |",
        "|---|---|---|---|---|---|",
    ]
    for name, what in cells:
        new, rounds = found[name]["newly covered"], found[name]["rounds"]
        if not rounds:
            continue
        better, served = (sum(one.get(name, False) for one in rounds) for name in ("better", "served"))
        for group, queries in (("new", "newly covered"), ("old", "distilled earlier")):
            figures = [
                f"{one['before, after'][0]:.3f}, {one['before, after'][1]:.3f}; {_told(one)}" if one else ""
                for one in (new.get(group, {}).get(metric) for metric in ("clicks@10", "ndcg@10"))
            ]
            counts = f"{len(rounds)}, {better}, {served} | {queries} | {new['page views']:,}"
            lines.append(f"| {what} | {counts} | {' | '.join(figures)} |")
    return lines


def _exploration(found: Mapping[str, Any], cells: Sequence[tuple[str, str]]) -> list[str]:
    lines = [
        "",
        "## Exploration and new items",
        "",
        "| cell | places drawn | clicks of a drawn place, of another | regret against learning | new items clicked |"
        " within 7 days | median days to the first click | clicks on new items per page view | cold items shown |"
        " clicked |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, what in cells:
        one, drawn, new = found[name], found[name]["explored"], found[name]["new items"]
        rates = f"{drawn['clicks of a drawn place']:.3f}, " if drawn["share"] else ""
        days, week = new["median days to the first click"], new["clicked within 7 days"]
        row = (
            what,
            f"{drawn['share']:.1%}",
            f"{rates}{drawn['clicks of another place']:.3f}",
            _difference(one, "learning", "regret"),
            f"{new['clicked']:,} of {new['listed']:,}",
            "" if week is None else f"{week:.1%}",
            "" if days is None else f"{days:g}",
            *(_interval(one["month"][name]) for name in ("new clicks", "cold shown", "cold clicks")),
        )
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, "", "![clicks on new items by day](month/new.png)"]


def _lines(found: Mapping[str, Any], cells: Sequence[tuple[str, str]], metric: str, label: str) -> Figure:
    """A metric by day, a line with its interval for each cell."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes, styles = figure.subplots(), method_styles([name for name, _ in cells])
    for name, what in cells:
        days = np.array(found[name]["by day"][metric], np.float64)
        number, (colour, marker) = np.arange(1, len(days) + 1), styles[name]
        axes.plot(number, days[:, 0], color=colour, marker=marker, markersize=3, linewidth=1.2, label=what)
        axes.fill_between(number, days[:, 1], days[:, 2], color=colour, alpha=0.12, linewidth=0)
    axes.set_xlabel("day after the log")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _areas(found: Mapping[str, Any], cells: Sequence[tuple[str, str]]) -> Figure:
    """What was known of the queries by day, and what pages of newly covered ones are worth before and after each round:
    of the cell that learns most of it.
    """
    chosen = max((name for name, _ in cells), key=lambda name: found[name]["distilled queries"][-1])
    figure = Figure(figsize=(12, 4), layout="constrained")
    *both, third = figure.subplots(1, 3)
    for axes, (kind, title) in zip(both, (("all", "all page views"), ("complex", "complex queries")), strict=True):
        shares = np.array(found[chosen]["coverage"][kind], np.float64).T[::-1]
        axes.stackplot(np.arange(1, shares.shape[1] + 1), shares, labels=STATES[::-1], colors=COLOURS[1:6])
        axes.set_title(f"{dict(cells)[chosen]}: {title}", fontsize=8)
        axes.set_xlabel("day after the log")
        axes.set_ylim(0, 1)
    both[0].set_ylabel("share of page views by what was known of the query")
    both[1].legend(fontsize=7, loc="lower right")
    new = found[chosen]["newly covered"]
    third.set_title("expected clicks per page view of newly covered queries", fontsize=8)
    third.set_xlabel("night")
    if new["page views"] and "clicks@10" in new["new"]:
        worth = np.array(new["new"]["clicks@10"]["by round"], np.float64)
        for at, label in enumerate(("before its round", "after it")):
            third.plot(
                np.array(new["days"]) + 1, worth[:, at], color=COLOURS[at], marker="o", markersize=3, label=label
            )
        third.legend(fontsize=7, frameon=False)
    return figure
