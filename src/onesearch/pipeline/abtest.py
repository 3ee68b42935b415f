"""``onesearch abtest``: two engines before the shoppers of one market, or two arms of a service's exposure log."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onesearch.data.artefact import fingerprint, read_manifest, write_json
from onesearch.data.dataset import read_parquet
from onesearch.data.requests import Requests
from onesearch.evaluation.abtest import (
    GROUP_METRICS,
    METRICS,
    Dimension,
    Lift,
    Totals,
    arm_of,
    detectable,
    of_items,
    paired_lifts,
    sliced,
    split_again,
    split_lifts,
)
from onesearch.evaluation.charts import save_figure
from onesearch.evaluation.evaluate import rank_all
from onesearch.evaluation.laboratory import Laboratory
from onesearch.evaluation.slices import ACTIVITY, CLICKS, COUNTS, banded, item_ages, query_frequency, query_type
from onesearch.pipeline.workbench import Workbench
from onesearch.search.engine import SearchEngine
from onesearch.search.storage import STAGE_OF, Model, load_engine, need

Lifts = Mapping[str, Lift]
PAGE = 10
_ESTIMATES = {"paired": "paired", "split": "split", "split_cuped": "split, CUPED"}
_AGES = ((-10_000, "under 7 days"), (7, "7-29 days"), (30, "30 days or more"))


def open_arm(place: str) -> SearchEngine:
    """The engine of ``RUN``, ``RUN:v1`` or ``RUN:v2``."""
    path, _, model = place.rpartition(":")
    chosen: Model | None = {"v1": "v1", "v2": "v2"}.get(model) if path else None  # type: ignore[assignment]
    return load_engine(Path(path), chosen) if chosen else load_engine(Path(place))


def compare_engines(
    a: str,
    b: str,
    folder: Path,
    page_views: int = 40_000,
    newcomers: int = 0,
    salt: str = "ab",
    resamples: int = 1000,
    splits: int = 200,
    alone: bool = False,
    groups: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> dict[str, Any]:
    """Serve the same requests by both engines, let the market's shoppers act, and compare.

    Args:
        a: run of arm A, with ``:v1`` or ``:v2`` for one of its models.
        b: run of arm B, over the same data.
        folder: gets ``abtest.json``, ``abtest.md``, charts, and the pages served: the same test goes on from them.
        page_views: requests after the end of the log.
        newcomers: shoppers beside those of the log.
        salt: deals shoppers to arms.
        resamples: of the bootstrap.
        splits: A/A splits; 0 leaves them out.
        alone: compare the generators alone.
        groups: more groups of item ids by dimension, such as those of emerging sellers.

    Raises:
        ValueError: the runs have different data.
        FileNotFoundError: the data is no market's.
    """
    engines = [open_arm(place) for place in (a, b)]
    runs = [Path(place.removesuffix(":v1").removesuffix(":v2")) for place in (a, b)]
    benches = [Workbench(run) for run in runs]
    # Markets number their items alike, so ids alone do not tell them apart.
    if not benches[0].dataset.items.equals(benches[1].dataset.items):
        raise ValueError(f"{runs[0]} and {runs[1]} have different catalogues; compare engines of one market")
    data = need(runs[0], "data")
    laboratory = Laboratory(data, page_views, newcomers)
    requests, logs, milliseconds = laboratory.requests(), [], []
    for run, engine in zip(runs, engines, strict=True):
        pages, spent = _pages(folder, run, engine, requests, alone, [page_views, newcomers])
        logs.append(laboratory.exposures(pages))
        milliseconds.append(spent)
    bench = benches[0]
    activity = banded((requests.clicked >= 0).sum(1), ACTIVITY)
    frequency = query_frequency(requests.query, bench.split.train["query"].fill_null("").to_list())
    by_items = {**item_groups(bench, logs[0]), **(groups or {})}
    found = analyse(bench, logs, dimensions_of(logs[0], activity, frequency), by_items, salt, resamples, splits)
    about = {"a": a, "b": b, "page_views": page_views, "newcomers": newcomers, "page": PAGE, "salt": salt,
             "generator_alone": alone, "milliseconds": milliseconds}  # fmt: skip
    return write(folder, {**about, **found})


def _pages(
    folder: Path, run: Path, engine: SearchEngine, requests: Requests, alone: bool, traffic: Sequence[int]
) -> tuple[NDArray[np.int32], float]:
    """The pages of one arm and the milliseconds per request; kept, so that a test that was killed goes on with them."""
    stages = [(read_manifest(run / name) or {}).get("fingerprint") for name in (*STAGE_OF.values(), "data")]
    made_by = [version("onesearch"), PAGE, str(run.resolve()), engine.name, stages]
    key = fingerprint([*made_by, engine.config.model_dump(), alone, *traffic])
    kept = folder / f"pages_{key}.npz"
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as found:
            return found["pages"], float(found["milliseconds"])
    pages, spent = rank_all(engine.alone() if alone else engine.as_searcher(), requests, PAGE)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(".part.npz")
    np.savez_compressed(unfinished, pages=pages, milliseconds=spent)
    unfinished.replace(kept)
    return pages, spent


def compare_arms(path: Path, folder: Path, resamples: int = 1000, splits: int = 200) -> dict[str, Any]:
    """Compare the two arms of an exposure log of a real service.

    Args:
        path: Parquet file with a row per page view: ``user_id``, ``arm``, ``shown``, ``clicked``, ``ordered`` (lists of
            item ids), and perhaps ``query_type``. The arm that sorts first is A.
        folder: gets ``abtest.json``, ``abtest.md`` and charts. Shoppers who met both arms are left out and counted.
        resamples: of the bootstrap.
        splits: A/A splits of arm A; 0 leaves them out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or the log has not two arms.
    """
    log = read_parquet(path)
    missing = [name for name in ("user_id", "arm", "shown", "clicked", "ordered") if name not in log.columns]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; an exposure log has a row per page view")
    log = log.filter(pl.col("user_id").is_not_null() & pl.col("arm").is_not_null()).cast({"arm": pl.String})
    arms = sorted(log["arm"].unique().to_list())
    if len(arms) != 2:
        raise ValueError(f"{path} has {len(arms)} arms ({', '.join(arms[:5])}); two are compared")
    met = log.group_by("user_id", maintain_order=True).agg(pl.col("arm").unique())
    clean = met.filter(pl.col("arm").list.len() == 1)
    log = log.join(clean.select("user_id"), on="user_id", how="semi", maintain_order="left")
    total = Totals.of(log)
    of_shopper = dict(zip(clean["user_id"].cast(pl.String).to_list(), clean["arm"].list.first().to_list(), strict=True))
    arm = np.fromiter((arms.index(of_shopper[name]) for name in total.shoppers), np.int64, len(total))
    kinds = {"query type": Dimension(sorted(set(query_type(log)) - {""}), query_type(log))} if (
        "query_type" in log.columns) else {}  # fmt: skip

    def part(kept: NDArray[np.bool_]) -> Lifts:
        return split_lifts(Totals.of(log, shoppers=total.shoppers, kept=kept), arm, None, resamples)

    first = Totals([total.shoppers[row] for row in np.flatnonzero(arm == 0)], total.values[arm == 0])
    found: dict[str, Any] = {
        "a": f"{path}, arm {arms[0]}", "b": f"{path}, arm {arms[1]}", "page_views": len(log), "shoppers": len(total),
        "in_both_arms": len(met) - len(clean),
        "split": _plain(split_lifts(total, arm, resamples=resamples)),
        "detectable": {name: detectable(total, name) for name in METRICS},
        "slices": {
            dimension: {group: _plain(lifts) for group, lifts in groups.items()}
            for dimension, groups in sliced(kinds, part).items()
        },
    }  # fmt: skip
    if splits:
        found["a_a"] = _checked(first, splits)
    return write(folder, found)


def dimensions_of(
    page_views: pl.DataFrame, activity: NDArray[Any], frequency: NDArray[Any]
) -> dict[str, Dimension]:
    """Groups of page views: by shopper, by query, by kind of query."""
    kinds = query_type(page_views)
    return {
        "user activity": Dimension([name for _, name in ACTIVITY], activity),
        "query frequency": Dimension([name for _, name in COUNTS], frequency),
        "query type": Dimension(sorted(set(kinds.tolist()) - {""}), kinds),
    }


def item_groups(bench: Workbench, page_views: pl.DataFrame) -> dict[str, dict[str, list[str]]]:
    """Ids of the items of each group: by age, by training clicks, by top category."""
    items, ids = bench.dataset.items, np.array(bench.dataset.items["item_id"].to_list(), object)
    labels = {
        "item hotness": ([name for _, name in CLICKS], banded(bench.statistics.clicked, CLICKS)),
        "category": _tops(items),
    }
    ages = item_ages(items, page_views["time"].min())
    if ages is not None:
        labels["item age"] = ([name for _, name in _AGES], banded(np.nan_to_num(ages, nan=1e9), _AGES))
    return {
        name: {group: ids[of_item == group].tolist() for group in groups if (of_item == group).any()}
        for name, (groups, of_item) in labels.items()
    }


def _tops(items: pl.DataFrame) -> tuple[list[str], NDArray[Any]]:
    top = np.array(items["category"].list.first().fill_null("").to_list(), object)
    return sorted(set(top.tolist()) - {""}), top


def analyse(
    bench: Workbench,
    logs: Sequence[pl.DataFrame],
    dimensions: Mapping[str, Dimension],
    groups: Mapping[str, Mapping[str, Sequence[str]]],
    salt: str,
    resamples: int,
    splits: int,
) -> dict[str, Any]:
    """All estimates from the exposure logs of two engines on the same page views and fates."""
    items = bench.dataset.items
    prices = dict(zip(items["item_id"].to_list(), items["price"].fill_null(0.0).to_list(), strict=True))
    a, b = (Totals.of(log, prices) for log in logs)
    before = Totals.of(bench.dataset.page_views, prices, a.shoppers)
    arm = arm_of(a.shoppers, salt)
    mixed = Totals(a.shoppers, np.where(arm[:, None] == 1, b.values, a.values))

    def part(kept: NDArray[np.bool_]) -> Lifts:
        one, two = (Totals.of(log, prices, kept=kept) for log in logs)
        return paired_lifts(one, two, resamples)

    def part_of_items(ids: Sequence[str]) -> Lifts:
        one, two = (Totals.of(of_items(log, ids), prices) for log in logs)
        return paired_lifts(one, two, resamples, metrics=GROUP_METRICS)

    by_items = {name: {group: part_of_items(ids) for group, ids in found.items()} for name, found in groups.items()}
    out: dict[str, Any] = {
        "shoppers": len(a),
        "paired": _plain(paired_lifts(a, b, resamples)),
        "split": _plain(split_lifts(mixed, arm, resamples=resamples)),
        "split_cuped": _plain(split_lifts(mixed, arm, before, resamples)),
        "detectable": {name: detectable(a, name) for name in METRICS},
        "slices": {
            dimension: {group: _plain(lifts) for group, lifts in found.items()}
            for dimension, found in {**sliced(dimensions, part), **by_items}.items()
        },
    }  # fmt: skip
    if splits:
        out["a_a"] = _checked(a, splits)
    return out


def _checked(log: Totals, splits: int) -> dict[str, Any]:
    values, uniform = split_again(log, splits)
    shares = {name: float((ps < 0.05).mean()) for name, ps in values.items()}
    return {"splits": splits, "uniform_p": uniform, "share_below_0.05": shares}


def _plain(lifts: Lifts) -> dict[str, dict[str, float]]:
    return {name: asdict(lift) for name, lift in lifts.items()}


def write(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Write ``abtest.json``, ``abtest.md`` and a chart per dimension; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    # JSON objects have no order, and bands of frequency or age have one.
    found = {"order": [[dimension, list(groups)] for dimension, groups in found["slices"].items()], **found}
    write_json(folder / "abtest.json", found)
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
    rows = [one["item CTR"] for one in groups.values()]
    middle = np.array([100 * row["lift"] for row in rows])
    ends = np.array([[100 * (row["lift"] - row["low"]), 100 * (row["high"] - row["lift"])] for row in rows]).T
    axes.bar(np.arange(len(rows)), middle, yerr=np.maximum(np.nan_to_num(ends), 0), color="C0", width=0.6, capsize=3)
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
    kinds = [(kind, name) for kind, name in _ESTIMATES.items() if kind in found]
    lines = [f"# A: {found['a']}, B: {found['b']}", ""]
    if "paired" in found:
        lines += [
            f"{found['page_views']:,} page views of {found['shoppers']:,} shoppers (at most {found['newcomers']:,} of "
            f"them new to the shop), pages of {found['page']}. *Paired*: every shopper meets both engines on the same "
            "fate, which only a simulation can offer. *Split*: half of the shoppers meet A, half B, as in a real test; "
            "*CUPED* takes out what their past explains.",
        ]  # fmt: skip
    else:
        lines.append(f"{found['page_views']:,} page views of {found['shoppers']:,} shoppers; {found['in_both_arms']:,} "
                     "who met both arms are left out.")  # fmt: skip
    lines += [
        "", "Lift of B over A, 95 % intervals from a bootstrap over shoppers. *Detectable*: the smallest lift that a "
        "split of so many shoppers finds with 80 % power.", "",
        f"| metric | A | B | {' | '.join(name for _, name in kinds)} | detectable |", "|---" * (len(kinds) + 4) + "|",
    ]  # fmt: skip
    for name in METRICS:
        first = found[kinds[0][0]][name]
        cells = [lift_text(found[kind][name]) for kind, _ in kinds]
        lines.append(f"| {name} | {first['a']:.4f} | {first['b']:.4f} | {' | '.join(cells)} | "
                     f"{found['detectable'][name]:.1%} |")  # fmt: skip
    if "a_a" in found:
        check = found["a_a"]
        uniform, below = check["uniform_p"], check["share_below_0.05"]
        lines += ["", f"A/A: arm A's log split {check['splits']} times by other salts. p-values should be uniform.", "",
                  "| metric | p of uniformity | share below .05 |", "|---|---|---|"]  # fmt: skip
        lines += [f"| {name} | {uniform[name]:.3f} | {below[name]:.1%} |" for name in METRICS]
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
