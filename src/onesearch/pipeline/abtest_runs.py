"""``onesearch abtest``: two engines before the shoppers of one market, or two arms of a service's exposure log."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.artefact import fingerprint, read_manifest
from onesearch.data.dataset import read_parquet
from onesearch.data.requests import Requests
from onesearch.evaluation.abtest_analysis import AbTestAnalysis
from onesearch.evaluation.abtest_estimates import PageViewGroups, assign_arms
from onesearch.evaluation.abtest_report import write
from onesearch.evaluation.evaluate import rank_all
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.evaluation.slices import ACTIVITY, CLICKS, COUNTS, band_labels, item_ages, query_frequency, query_type
from onesearch.pipeline.run_data import RunData
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.run_parts import FINAL, STAGE_OF, Model, need

PAGE = 10
_KEPT = 25_600  # page views whose pages are kept at once
_AGES = ((-10_000, "under 7 days"), (7, "7-29 days"), (30, "30 days or more"))


def open_arm(place: str) -> SearchEngine:
    """The engine of ``RUN``, ``RUN:v1`` or ``RUN:v2``, as it is served or, with ``:measured`` behind it, measured."""
    run, model, measured = _arm(place)
    return load_engine(run, model, measured=measured)


def arm_of(place: str) -> Path:
    """The run of ``RUN``, ``RUN:v1``, ``RUN:v2``, with ``:measured`` behind it or not."""
    return _arm(place)[0]


def _arm(place: str) -> tuple[Path, Model | None, bool]:
    """The run, the model and whether the measured engine is asked for."""
    rest = place.removesuffix(":measured")
    path, _, model = rest.rpartition(":")
    chosen: Model | None = {"v1": "v1", "v2": "v2"}.get(model) if path else None  # type: ignore[assignment]
    return Path(path if chosen else rest), chosen, rest != place


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
    paired: bool = True,
) -> dict[str, Any]:
    """Serve requests by two engines, let the market's shoppers act, and compare.

    Args:
        a: run of arm A, with ``:v1`` or ``:v2`` for one of its models, as :func:`open_arm` reads it.
        b: run of arm B, over the same data.
        folder: gets ``abtest.json``, ``abtest.md``, charts, and the pages served: the same test goes on from them.
        page_views: requests after the end of the log.
        newcomers: shoppers beside those of the log.
        salt: deals shoppers to arms.
        resamples: of the bootstrap.
        splits: A/A splits; 0 leaves them out.
        alone: compare the generators alone.
        groups: more groups of item ids by dimension, such as those of emerging sellers.
        paired: both engines serve every request. Without it each serves its own shoppers alone, as in a real test: half
            the work for as many shoppers, and no paired estimate.

    Raises:
        ValueError: the runs have different data, or a split has no shopper in an arm.
        FileNotFoundError: the data is no market's.
    """
    engines = [open_arm(place) for place in (a, b)]
    runs = [_arm(place)[0] for place in (a, b)]
    benches = [RunData(run) for run in runs]
    # Markets number their items alike, so ids alone do not tell them apart.
    if not benches[0].dataset.items.equals(benches[1].dataset.items):
        raise ValueError(f"{runs[0]} and {runs[1]} have different catalogues; compare engines of one market")
    # The same requests of the same shoppers for both; a shopper's arm is a hash of its id.
    data = need(runs[0], "data")
    laboratory = Laboratory(data, page_views, newcomers)
    requests, traffic = laboratory.requests(), [page_views, newcomers]
    everything = np.arange(page_views)
    arm = assign_arms(laboratory.page_views["user_id"].to_list(), salt)
    pages = np.full((2 if paired else 1, page_views, PAGE), -1, np.int32)
    milliseconds = []
    for number, (run, engine) in enumerate(zip(runs, engines, strict=True)):
        rows, part = (everything, ()) if paired else (np.flatnonzero(arm == number), (salt, number))
        served, spent = _pages(folder, run, engine, requests.select(rows), alone, [*traffic, *part])
        pages[number if paired else 0, rows] = served
        milliseconds.append(spent)
    logs = [laboratory.exposures(one) for one in pages]
    run_data = benches[0]
    activity = band_labels((requests.clicked >= 0).sum(1), ACTIVITY)
    frequency = query_frequency(requests.query, run_data.split.train["query"].fill_null("").to_list())
    dimensions = dimensions_of(logs[0], activity, frequency)
    by_items = {**item_groups(run_data, logs[0]), **(groups or {})}
    items, earlier = run_data.dataset.items, run_data.dataset.page_views
    prices = dict(zip(items["item_id"].to_list(), items["price"].fill_null(0.0).to_list(), strict=True))
    analysis = AbTestAnalysis(dimensions, by_items, prices, resamples, splits)
    if paired:
        found = analysis.paired(logs[0], logs[1], earlier, salt)
    else:
        found = analysis.split(logs[0], lambda shoppers: assign_arms(shoppers, salt), earlier)
    about = {
        "a": a,
        "b": b,
        "page_views": page_views,
        "newcomers": newcomers,
        "page": PAGE,
        "salt": salt,
        "generator_alone": alone,
        "milliseconds": milliseconds,
    }
    return write(folder, {**about, **found})


def _pages(
    folder: Path, run: Path, engine: SearchEngine, requests: Requests, alone: bool, traffic: Sequence[int | str]
) -> tuple[NDArray[np.int32], float]:
    """The pages of one arm and the milliseconds per request; kept, so that a test that was killed goes on with them."""
    stages = [(read_manifest(run / name) or {}).get("fingerprint") for name in (*STAGE_OF.values(), FINAL, "data")]
    made_by = [version("onesearch"), PAGE, str(run.resolve()), engine.name, stages]
    key = fingerprint([*made_by, engine.config.model_dump(), alone, *traffic])
    searcher = engine.alone() if alone else engine
    folder.mkdir(parents=True, exist_ok=True)
    parts, spent = [np.zeros((0, PAGE), np.int32)], 0.0
    for first in range(0, len(requests), _KEPT):
        rows = np.arange(first, min(first + _KEPT, len(requests)))
        path = folder / f"pages_{key}_{first}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                pages, each = kept["pages"], float(kept["milliseconds"])
        else:
            pages, each = rank_all(searcher, requests.select(rows), PAGE)
            unfinished = path.with_suffix(".part.npz")
            np.savez_compressed(unfinished, pages=pages, milliseconds=each)
            unfinished.replace(path)
        parts.append(pages)
        spent += each * len(rows)
    return np.concatenate(parts), spent / max(len(requests), 1)


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
    # Shoppers who met both arms tell nothing of either.
    met = log.group_by("user_id", maintain_order=True).agg(pl.col("arm").unique())
    clean = met.filter(pl.col("arm").list.len() == 1)
    log = log.join(clean.select("user_id"), on="user_id", how="semi", maintain_order="left")
    of_shopper = dict(zip(clean["user_id"].cast(pl.String).to_list(), clean["arm"].list.first().to_list(), strict=True))
    # The log's own groups, where it has any.
    kinds = (
        {"query type": PageViewGroups(sorted(set(query_type(log)) - {""}), query_type(log))}
        if ("query_type" in log.columns)
        else {}
    )
    analysis = AbTestAnalysis(kinds, {}, None, resamples, splits)
    found = analysis.split(log, lambda shoppers: np.array([arms.index(of_shopper[name]) for name in shoppers]))
    about = {
        "a": f"{path}, arm {arms[0]}",
        "b": f"{path}, arm {arms[1]}",
        "page_views": len(log),
        "in_both_arms": len(met) - len(clean),
    }
    return write(folder, {**about, **found})


def dimensions_of(
    page_views: pl.DataFrame, activity: NDArray[Any], frequency: NDArray[Any]
) -> dict[str, PageViewGroups]:
    """Groups of page views: by shopper, by query, by kind of query."""
    kinds = query_type(page_views)
    return {
        "user activity": PageViewGroups([name for _, name in ACTIVITY], activity),
        "query frequency": PageViewGroups([name for _, name in COUNTS], frequency),
        "query type": PageViewGroups(sorted(set(kinds.tolist()) - {""}), kinds),
    }


def item_groups(run_data: RunData, page_views: pl.DataFrame) -> dict[str, dict[str, list[str]]]:
    """Ids of the items of each group: by age, by training clicks, by top category."""
    items, ids = run_data.dataset.items, np.array(run_data.dataset.items["item_id"].to_list(), object)
    labels = {
        "item hotness": ([name for _, name in CLICKS], band_labels(run_data.statistics.clicked, CLICKS)),
        "category": _tops(items),
    }
    ages = item_ages(items, page_views["time"].min())
    if ages is not None:
        labels["item age"] = ([name for _, name in _AGES], band_labels(np.nan_to_num(ages, nan=1e9), _AGES))
    return {
        name: {group: ids[of_item == group].tolist() for group in groups if (of_item == group).any()}
        for name, (groups, of_item) in labels.items()
    }


def _tops(items: pl.DataFrame) -> tuple[list[str], NDArray[Any]]:
    top = np.array(items["category"].list.first().fill_null("").to_list(), object)
    return sorted(set(top.tolist()) - {""}), top
