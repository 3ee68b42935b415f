"""Videos and live rooms in one ID space with products, against separate indexes of each kind.

    python -m benchmarks.kinds run RUNS [CELL]     # cells that are not finished, such as kinds-31/one
    python -m benchmarks.kinds render              # docs/results/kinds.md

One market with videos and live rooms, one split of its log. The forms are one run over all items; the same without the
pull of links; and a run for each kind, over its items alone, with the log's clicks on them, as many epochs of each. All
are asked the same test page views for each kind, filtered to it, at the page view's time. Values of single requests
stay in RUNS, figures go to ``docs/results/kinds.json``.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.result_files import ResultFiles
from benchmarks.run_or_render import main
from onesearch import pipeline
from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.common.run_lock import RunLock
from onesearch.data.dataset import DESCRIPTION, Dataset
from onesearch.data.metrics import hit_rate, mrr
from onesearch.data.records import PARTS
from onesearch.data.split import split
from onesearch.evaluation.significance import bootstrap, permutation_test
from onesearch.market.make_market import make_market
from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.report_stage import engine_of
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import RunSettings
from onesearch.search.engine import SearchEngine
from onesearch.search.run_parts import need

FILES = ResultFiles("kinds")
CONFIG: Final = ROOT / "configs" / "market.yaml"
SEEDS: Final = (31,)
SHOWN: Final = ("product", "video", "live")
ALL: Final = "all"
"""Pages without a filter, of one ID space alone."""
METRICS: Final = ("HR@10", "MRR@10")
METHODS: Final = ("generator alone", "engine")
ASKED: Final = 800
"""Test page views of each kind, at most."""
SETTINGS: Final = (
    "data.market={items: 3000, users: 1500, days: 60, page_views: 30000, videos: 0.15, live_rooms: 0.3}",
    "data.test=0.2",
    "encoder.fields=[title, brand, category, attributes, transcript, host]",
    "khqe.layers=[128,64,32]",
    "khqe.opq_size=64",
    "model.backbone={kind: bart, d_model: 64, heads: 4, encoder_layers: 2, decoder_layers: 2, ffn: 256, dropout: 0.1}",
    "model.text_vocabulary=3000",
    "sft1.steps=100",
    "sft2.steps=50",
    "sft3.epochs=2",
    "evaluation.baselines=false",
    "evaluation.fit_requests=1000",
)
"""In the place of the configuration file's: small enough for half an hour on one core."""


@dataclass(frozen=True)
class Form:
    """How kinds are indexed: its name, what it is, its settings, and the runs that it is made of."""

    name: str
    what: str
    sets: tuple[str, ...] = ()
    runs: tuple[str, ...] = (ALL,)


ONE, UNPULLED, SEPARATE = "one", "unpulled", "separate"
FORMS: Final = (
    Form(ONE, "one ID space"),
    Form(UNPULLED, "one ID space, links pull nothing", ("khqe.linked=0",)),
    Form(SEPARATE, "an index of each kind", runs=SHOWN),
)
PAIRS: Final = ((SEPARATE, ONE), (UNPULLED, ONE), (SEPARATE, UNPULLED))
Values = dict[str, NDArray[np.float32]]
"""By kind and method, as ``video/engine``: METRICS of each page view, [n, 2]."""


def run(
    runs: Path, only: str = "", small: Sequence[str] = (), asked: int = ASKED, seeds: Iterable[int] = SEEDS
) -> None:
    """Every unfinished cell, a form on a market; ``small`` settings make a smoke test."""
    for seed in seeds:
        folder, sets = runs / f"kinds-{seed}", (*SETTINGS, *small, f"seed={seed}")
        for form in (one for one in FORMS if f"kinds-{seed}/{one.name}".startswith(only)):
            if (folder / form.name / "cell.json").is_file():
                continue
            with RunLock(folder / f"{form.name}.work"):
                _data(folder / "data", sets, seed)
                _cell(folder, form, sets, asked, seed)
    keep(runs, seeds)


def _data(folder: Path, sets: Sequence[str], seed: int) -> None:
    """The market with its split, and of each kind its items with what the log says of them."""
    if (folder / SHOWN[-1] / DESCRIPTION).is_file():
        return
    settings = load_settings(RunSettings, CONFIG, sets).data
    if settings.market is None:
        raise ValueError("the study needs a simulated market")
    market = make_market(settings.market.updated(seed=seed), folder / "market")
    parts = split(market.page_views, settings.valid, settings.test, "time", seed)
    page_views = pl.concat(getattr(parts, part).with_columns(split=pl.lit(part)) for part in PARTS)
    Dataset.write(folder / ALL, market.items, market.users, page_views, market.judgments, source="market")
    for kind in SHOWN:
        items = market.items.filter(pl.col("kind") == kind)
        ids = items["item_id"].implode()
        of_kind = page_views.with_columns(
            pl.col(name).list.eval(pl.element().filter(pl.element().is_in(ids.item().to_list())))
            for name in ("shown", "clicked", "ordered")
        ).filter(pl.col("shown").list.len() > 0)
        judged = market.judgments.filter(pl.col("item_id").is_in(items["item_id"].to_list()))
        Dataset.write(folder / kind, items, market.users, of_kind, judged, source="market")


def _cell(folder: Path, form: Form, sets: Sequence[str], asked: int, seed: int) -> None:
    """Train and measure one form."""
    start, values = time.perf_counter(), Values()
    sids: dict[str, Any] = {}
    ids = _asked(folder / "data" / ALL, asked, seed)
    for name in form.runs:
        data = ("data.market=null", f"data.folder={folder / 'data' / name}", "data.split=given")
        made = folder / form.name / name
        pipeline.run_config(CONFIG, made, overrides=(*sets, *data, *form.sets), until="engine")
        quality = read_json(made / "khqe" / "quality.json")
        sids[name] = quality.get("kinds", {"icr": {name: quality["icr"]}})
        for kind in (*SHOWN, ALL) if name == ALL else (name,):
            values |= _values(made, kind, ids)
    np.savez(folder / form.name / "values.npz", **values)
    about = {
        "what": form.what,
        "sets": list(form.sets),
        "minutes": (time.perf_counter() - start) / 60,
        "asked": {kind: len(given) for kind, given in ids.items()},
        "sids": sids,
        "commit": commit(),
        "date": today(),
        "machine": machine(),
    }
    figures = {name: _with_interval(array) for name, array in values.items()}
    write_json(folder / form.name / "cell.json", {**about, "figures": figures})
    print(
        folder.name, form.name, {name: round(one[METRICS[0]]["value"], 4) for name, one in figures.items()}, flush=True
    )


def _asked(data: Path, most: int, seed: int) -> dict[str, list[str]]:
    """By kind the test page views that it is asked: those with a click on an item of it, drawn once."""
    dataset, rng = Dataset.load(data), np.random.default_rng(seed)
    kinds = dict(dataset.items.select("item_id", "kind").iter_rows())
    clicks = dataset.page_views.filter(pl.col("split") == "test").select("page_view_id", "clicked").explode("clicked")
    clicks = clicks.drop_nulls().with_columns(kind=pl.col("clicked").replace_strict(kinds, return_dtype=pl.String))
    found = {}
    for kind in (*SHOWN, ALL):
        of_kind = clicks if kind == ALL else clicks.filter(pl.col("kind") == kind)
        ids = of_kind["page_view_id"].unique(maintain_order=True).to_list()
        chosen = np.sort(rng.permutation(len(ids))[:most]).tolist()
        found[kind] = [ids[row] for row in chosen]
    return found


def _values(made: Path, kind: str, asked: Mapping[str, Sequence[str]]) -> Values:
    """Metrics of the page views of a kind, float32 [n, 2], by ``kind/method``, searched for at their times."""
    run_data = RunData(made)
    engine = engine_of(run_data, need(made, "engine"))
    test = run_data.split.test
    row = {page_view_id: i for i, page_view_id in enumerate(test["page_view_id"].to_list())}
    page_views = test[[row[one] for one in asked[kind]]]
    clicked = run_data.targets(page_views).clicked
    if kind != ALL:
        clicked = _only(clicked, (run_data.dataset.items["kind"] == kind).to_numpy())
    out: Values = {}
    for method in METHODS:
        searcher = engine if method == "engine" else engine.alone()
        ranked = _ranked(searcher, run_data, page_views, None if kind == ALL else {"kind": kind})
        out[f"{kind}/{method}"] = np.stack([hit_rate(ranked, clicked, 10), mrr(ranked, clicked, 10)], 1)
    return out


def _only(lists: Ragged, kept: NDArray[np.bool_]) -> Ragged:
    """The lists without items that are not ``kept``, bool [items]."""
    keep = kept[lists.values]
    return Ragged.from_lengths(lists.values[keep], np.bincount(lists.owners[keep], minlength=len(lists)))


def _ranked(
    engine: SearchEngine, run_data: RunData, page_views: pl.DataFrame, filters: Mapping[str, Any] | None
) -> NDArray[np.int32]:
    """The first ten of each page view, int32 [n, 10]; those between whose times nothing begins or ends go together."""
    requests, filters_of = run_data.requests(page_views), engine.snapshot.filters
    turns = [filters_of.turn(time) for time in page_views["time"].to_list()]
    groups: dict[float | None, list[int]] = {}
    for i, turn in enumerate(turns):
        groups.setdefault(turn, []).append(i)
    out = np.full((len(page_views), 10), -1, np.int32)
    for rows in groups.values():
        at = page_views["time"][rows[0]]
        for start in range(0, len(rows), 256):
            some = np.array(rows[start : start + 256])
            out[some] = engine.rank(requests.select(some), 10, filters, time=at).items
    return out


def _with_interval(values: NDArray[np.float32]) -> dict[str, Any]:
    found = bootstrap(values)
    return {
        metric: {"value": float(found.mean[i]), "low": float(found.low[i]), "high": float(found.high[i])}
        for i, metric in enumerate(METRICS)
    }


def keep(runs: Path, seeds: Iterable[int] = SEEDS) -> None:
    """Take figures of finished cells over, with the paired tests that two of them allow."""
    made: dict[str, dict[str, Any]] = {"cells": {}, "pairs": {}}
    for seed in seeds:
        folder = runs / f"kinds-{seed}"
        finished = [form.name for form in FORMS if (folder / form.name / "cell.json").is_file()]
        made["cells"] |= {f"kinds-{seed}/{name}": read_json(folder / name / "cell.json") for name in finished}
        for a, b in PAIRS:
            if a in finished and b in finished:
                one, other = (dict(np.load(folder / name / "values.npz", allow_pickle=False)) for name in (a, b))
                made["pairs"][f"kinds-{seed}/{b} - {a}"] = {
                    name: _paired(other[name], one[name]) for name in other if name in one
                }
    earlier = FILES.figures()
    FILES.write_figures({group: {**earlier.get(group, {}), **entries} for group, entries in made.items()})


def _paired(first: NDArray[np.float32], second: NDArray[np.float32]) -> dict[str, Any]:
    test = permutation_test(first, second)
    columns = {"value": test.difference, "low": test.low, "high": test.high, "p": test.p}
    return {metric: {name: float(column[i]) for name, column in columns.items()} for i, metric in enumerate(METRICS)}


# -- the page --------------------------------------------------------------------------------------------------------


def render() -> None:
    """Write docs/results/kinds.md."""
    made, lines = FILES.figures(), FILES.head()
    cells: Mapping[str, Any] = made.get("cells", {})
    if not cells:
        lines += ["", "Not measured yet: `python -m benchmarks.kinds run RUNS` makes the figures."]
    for market in sorted({name.partition("/")[0] for name in cells}):
        found = {form.name: cells[f"{market}/{form.name}"] for form in FORMS if f"{market}/{form.name}" in cells}
        pairs = {(a, b): made.get("pairs", {}).get(f"{market}/{b} - {a}") for a, b in PAIRS}
        lines += ["", f"## {market}", *_quality(found, pairs), *_sids(found)]
        one = next(iter(found.values()))
        lines += ["", "Page views asked: " + ", ".join(f"{kind} {n:,}" for kind, n in one["asked"].items()) + "."]
        lines += [
            f"`{market}/{name}`: {one['minutes']:.0f} minutes, commit {one['commit']}, {one['date']}, {one['machine']}."
            for name, one in found.items()
        ]
    FILES.write_page(lines)


def _quality(found: Mapping[str, Any], pairs: Mapping[tuple[str, str], Any]) -> Iterable[str]:
    """Tables of each method: forms and their differences, by kind and metric."""
    columns = [(kind, metric) for kind in (*SHOWN, ALL) for metric in METRICS]
    for method in METHODS:
        yield from ("", f"### {method}", "")
        yield f"| form | {' | '.join(f'{kind} {metric}' for kind, metric in columns)} |"
        yield "|---" * (len(columns) + 1) + "|"
        for cell in found.values():
            row = (_text(cell["figures"].get(f"{kind}/{method}", {}).get(metric)) for kind, metric in columns)
            yield f"| {cell['what']} | {' | '.join(row)} |"
        for (a, b), pair in pairs.items():
            if pair is not None:
                row = (_text(pair.get(f"{kind}/{method}", {}).get(metric), "+") for kind, metric in columns)
                yield f"| {b} less {a}, paired | {' | '.join(row)} |"


def _sids(found: Mapping[str, Any]) -> Iterable[str]:
    """ICR of each kind, and agreement of prefixes of linked items."""
    yield from ("", "### Semantic IDs", "", f"| form | {' | '.join(f'ICR {kind}' for kind in SHOWN)} |")
    yield "|---" * (len(SHOWN) + 1) + "|"
    for cell in found.values():
        icr = {kind: share for one in cell["sids"].values() for kind, share in one["icr"].items()}
        yield f"| {cell['what']} | {' | '.join(f'{icr[kind]:.4f}' for kind in SHOWN)} |"
    yield from (
        "",
        "Pairs whose first codes agree:",
        "",
        "| form | pairs | 1 | 2 | 3 | 4 | 5 |",
        "|---|---|---|---|---|---|---|",
    )
    for cell in found.values():
        sids = cell["sids"].get(ALL, {})
        for name, what in (("linked", "an item and what it shows"), ("same_category", "another of that category")):
            if name in sids:
                yield f"| {cell['what']} | {what} | {' | '.join(f'{share:.3f}' for share in sids[name])} |"


def _text(figure: Mapping[str, float] | None, sign: str = "") -> str:
    """A figure with its interval, and p where it has one."""
    if figure is None:
        return "–"
    text = f"{figure['value']:{sign}.3f} ({figure['low']:{sign}.3f} to {figure['high']:{sign}.3f})"
    return text if "p" not in figure else f"{text}, p {figure['p']:.2g}"


if __name__ == "__main__":
    main(run, render, __doc__ or "")
