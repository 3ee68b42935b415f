"""What an A/B test found, as ``abtest.json``, tables and charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onesearch.common.artefact import write_json
from onesearch.common.extras import from_extra
from onesearch.evaluation.abtest_estimates import METRICS
from onesearch.evaluation.charts import save_figure

with from_extra("train"):
    from matplotlib.figure import Figure

_ESTIMATES = {"paired": "paired", "split": "split", "split_cuped": "split, CUPED"}


def write(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Write ``abtest.json``, ``abtest.md`` and a chart per dimension; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    # JSON objects have no order, and bands of frequency or age have one.
    found = {"order": [[dimension, list(groups)] for dimension, groups in found["slices"].items()], **found}
    write_json(folder / "abtest.json", found)
    # One chart of lifts per dimension, and one of click rates by query frequency.
    charts = []
    for dimension, groups in found["slices"].items():
        path = folder / f"lift_by_{dimension.replace(' ', '_')}.png"
        save_figure(_lift_chart(dimension, groups), path)
        charts.append(path.name)
    if "query frequency" in found["slices"]:
        save_figure(_rate_chart(found["slices"]["query frequency"], found["a"], found["b"]), folder / "ctr.png")
        charts.insert(0, "ctr.png")
    (folder / "abtest.md").write_text(markdown(found, charts), encoding="utf-8")
    return found


def _lift_chart(dimension: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    figure = Figure(figsize=(max(5.0, 0.7 * len(groups) + 2), 3.8), layout="constrained")
    axes: Any = figure.add_subplot()
    # Bars with the interval's ends as error bars.
    rows = [one["item CTR"] for one in groups.values()]
    middle = np.array([100 * row["lift"] for row in rows])
    ends = np.array([[100 * (row["lift"] - row["low"]), 100 * (row["high"] - row["lift"])] for row in rows]).T
    there = np.flatnonzero(np.isfinite(middle))  # nobody clicked in A: no lift to draw
    errors = np.maximum(np.nan_to_num(ends[:, there]), 0)
    axes.bar(there, middle[there], yerr=errors, color="C0", width=0.6, capsize=3)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set_xticks(np.arange(len(rows)), list(groups), rotation=30 if len(rows) > 5 else 0, fontsize=8)
    axes.set_ylabel("lift of item CTR, %")
    axes.set_title(f"B over A by {dimension}, 95 % intervals", fontsize=10)
    return figure


def _rate_chart(groups: Mapping[str, Mapping[str, Mapping[str, float]]], a: str, b: str) -> Figure:
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes: Any = figure.add_subplot()
    for key, name in (("a", f"A: {a}"), ("b", f"B: {b}")):
        axes.plot(range(len(groups)), [100 * one["item CTR"][key] for one in groups.values()], "o-", label=name)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlabel("training page views of the query")
    axes.set_ylabel("item CTR, %")
    axes.legend(fontsize=8, frameon=False)
    return figure


def markdown(found: Mapping[str, Any], charts: Sequence[str] = (), by_group: bool = True) -> str:
    """The estimates as tables; ``by_group`` off leaves those of groups out."""
    # What was compared, and how.
    kinds = [(kind, name) for kind, name in _ESTIMATES.items() if kind in found]
    lines = [f"# A: {found['a']}, B: {found['b']}", ""]
    if "paired" in found:
        lines += [
            f"{found['page_views']:,} page views of {found['shoppers']:,} shoppers (at most {found['newcomers']:,} of "
            f"them new to the shop), pages of {found['page']}. *Paired*: every shopper meets both engines on the same "
            "fate, which only a simulation can offer. *Split*: half of the shoppers meet A, half B, as in a real test; "
            "*CUPED* takes out what their past explains.",
        ]
    elif "newcomers" in found:
        lines.append(
            f"{found['page_views']:,} page views of {found['shoppers']:,} shoppers (at most "
            f"{found['newcomers']:,} of them new to the shop), pages of {found['page']}. Half of the shoppers "
            "meet A, half B, as in a real test; *CUPED* takes out what their past explains."
        )
    else:
        lines.append(
            f"{found['page_views']:,} page views of {found['shoppers']:,} shoppers; {found['in_both_arms']:,} "
            "who met both arms are left out."
        )
    # One row per metric.
    lines += [
        "",
        "Lift of B over A, 95 % intervals from a bootstrap over shoppers. *Detectable*: the smallest lift that a "
        "split of so many shoppers finds with 80 % power.",
        "",
        f"| metric | A | B | {' | '.join(name for _, name in kinds)} | detectable |",
        "|---" * (len(kinds) + 4) + "|",
    ]
    for name in METRICS:
        first = found[kinds[0][0]][name]
        cells = [lift_text(found[kind][name]) for kind, _ in kinds]
        lines.append(
            f"| {name} | {first['a']:.4f} | {first['b']:.4f} | {' | '.join(cells)} | {found['detectable'][name]:.1%} |"
        )
    # How well the test's p-values behave where nothing differs.
    if "a_a" in found:
        check = found["a_a"]
        uniform, below = check["uniform_p"], check["share_below_0.05"]
        lines += [
            "",
            f"A/A: arm A's log split {check['splits']} times by other salts. p-values should be uniform.",
            "",
            "| metric | p of uniformity | share below .05 |",
            "|---|---|---|",
        ]
        lines += [f"| {name} | {uniform[name]:.3f} | {below[name]:.1%} |" for name in METRICS]
    # The same within groups of page views and of items.
    for dimension, names in found["order"] if by_group else ():
        groups = {name: found["slices"][dimension][name] for name in names}
        columns = ("item CTR", "exposure", "conversion", "orders")
        shown = [name for name in columns if all(name in one for one in groups.values())]
        lines += ["", f"## By {dimension}", "", f"| {dimension} | {' | '.join(shown)} |"]
        lines.append("|---" * (len(shown) + 1) + "|")
        for group, one in groups.items():
            lines.append(f"| {group} | {' | '.join(lift_text(one[name]) for name in shown)} |")
    lines += ["", *(f"![{name}]({name})" for name in charts)]
    return "\n".join(lines) + "\n"


def lift_text(lift: Mapping[str, float]) -> str:
    """A lift with its interval and p-value, as in all tables; a dash where there is none."""
    if np.isnan(lift["lift"]):
        return "–"
    p = "p < 0.0001" if lift["p"] < 1e-4 else f"p = {lift['p']:.4f}"
    return f"{lift['lift']:+.2%} [{lift['low']:+.2%}, {lift['high']:+.2%}], {p}"
