"""``benchmarks.speed search``: latency, throughput and quality of an engine over beam widths, beside other searchers.

Latency is of single requests, one after another, from query and shopper to finished results. All systems answer the
same request before the next one comes, so that a slow spell of the machine hits all of them alike.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.histories import Histories
from onesearch.data.metrics import hit_rate
from onesearch.data.requests import Requests
from onesearch.search.engine import SearchEngine
from onesearch.search.hits import Searcher
from onesearch.search.results import SearchRequest
from onesearch.search.run_parts import RunParts, need

WIDTHS: Final = (32, 128, 512)
CURVE: Final = (8, 16, 32, 64, 128, 256, 512)
BATCH: Final = 64
WARM_UP: Final = 5
SEED: Final = 0


def bench_search(
    run: Path,
    searchers: Mapping[str, Searcher] | None = None,
    threads: int = 1,
    requests: int = 300,
    widths: Sequence[int] = WIDTHS,
    curve: Sequence[int] = CURVE,
    curve_requests: int = 500,
) -> dict[str, Any]:
    """Measure a finished run.

    Args:
        run: its folder.
        searchers: others to measure beside the engine, by name, such as the cascade.
        threads: of torch, 1 as `onesearch serve` has it: a search is many small operations, and waking a second thread
            for each costs more than it brings. Searchers may use more of their own.
        requests: test page views measured.
        widths: beams of the latency and throughput figures.
        curve: beams of the quality curve.
        curve_requests: validation page views of the curve, all with a click. The engine's weights were fitted on
            validation clicks too, at its own width; the generator alone has nothing fitted there.

    Keys: for each width W and each searcher NAME ``p50_ms_W``, ``p95_ms_W``, ``p99_ms_W`` (single requests),
    ``queries_per_second_W`` (batches of 64), ``p50_ms_NAME`` ...; and ``hr10_over_width`` with the lists ``widths``,
    ``generator alone`` and ``engine``.

    Raises:
        FileNotFoundError: the run or one of its stages is missing or unfinished.
        ValueError: there are no page views to measure.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts, engine = RunParts(run), SearchEngine.load(run, measured=True)
        about = {"run": run.name, "items": len(engine), "threads": threads, "own_width": engine.config.width}
        histories = Histories(parts.dataset.page_views, parts.dataset.items, parts.dataset.users)
        found = _speed(engine, histories, sampled(run, "test", requests), searchers or {}, widths)
        return {**about, **found, "hr10_over_width": _curve(engine, histories, run, curve, curve_requests)}
    finally:
        torch.set_num_threads(before)


def sampled(run: Path, part: str, most: int, clicked: bool = False) -> pl.DataFrame:
    """At most ``most`` page views of a part of the log, drawn once."""
    page_views = pl.read_parquet(need(run, "data") / f"{part}.parquet")
    if clicked:
        page_views = page_views.filter(pl.col("clicked").list.len() > 0)
    if page_views.is_empty():
        raise ValueError(f"the {part} part of {run} has no page views to measure; give it a larger share in `data`")
    if len(page_views) > most:
        rows = np.random.default_rng(SEED).choice(len(page_views), most, replace=False)
        page_views = page_views[np.sort(rows)]
    return page_views


def _speed(
    engine: SearchEngine,
    histories: Histories,
    page_views: pl.DataFrame,
    searchers: Mapping[str, Searcher],
    widths: Sequence[int],
) -> dict[str, Any]:
    requests = histories.requests(page_views)
    users = page_views["user_id"].to_list()
    single: dict[str, Callable[[int], Any]] = {}
    many: dict[str, Callable[[Requests], Any]] = {}
    for width in widths:
        single[f"{width}"] = lambda row, width=width: engine.search_batch(  # type: ignore[misc]
            [SearchRequest(requests.query[row], users[row], width=width)]
        )
        many[f"{width}"] = lambda some, width=width: engine.rank(some, 10, width=width)  # type: ignore[misc]
    for name, searcher in searchers.items():
        single[name] = lambda row, of=searcher: of.rank(requests.select(np.array([row])), 10)  # type: ignore[misc]
        many[name] = lambda some, of=searcher: of.rank(some, 10)  # type: ignore[misc]
    seconds, rates = latencies(single, len(requests)), throughputs(many, requests)
    found: dict[str, Any] = {"requests": len(requests)}
    for name, times in seconds.items():
        for share in (50, 95, 99):
            found[f"p{share}_ms_{name}"] = round(float(1e3 * np.percentile(times, share)), 3)
        found[f"queries_per_second_{name}"] = round(rates[name], 1)
    return found


def latencies(systems: Mapping[str, Callable[[int], Any]], requests: int) -> dict[str, NDArray[np.float64]]:
    """Seconds of each request under each system, [requests]; the first few are answered before the clock starts."""
    for row in range(min(WARM_UP, requests)):
        for answer in systems.values():
            answer(row)
    times = {name: np.zeros(requests) for name in systems}
    for row in range(requests):
        for name, answer in systems.items():
            begin = time.perf_counter()
            answer(row)
            times[name][row] = time.perf_counter() - begin
    return times


def throughputs(systems: Mapping[str, Callable[[Requests], Any]], requests: Requests) -> dict[str, float]:
    """Requests per second of each system in batches of :data:`BATCH`, the systems taking turns at each batch."""
    rows = np.arange(len(requests))
    batches = [requests.select(some) for some in np.split(rows, range(BATCH, len(rows), BATCH))]
    spent = dict.fromkeys(systems, 0.0)
    for answer in systems.values():
        answer(batches[0])
    for batch in batches:
        for name, answer in systems.items():
            begin = time.perf_counter()
            answer(batch)
            spent[name] += time.perf_counter() - begin
    return {name: len(requests) / seconds for name, seconds in spent.items()}


def _curve(
    engine: SearchEngine, histories: Histories, run: Path, widths: Sequence[int], most: int
) -> dict[str, list[float]]:
    page_views = sampled(run, "valid", most, clicked=True)
    requests, clicked = histories.requests(page_views), histories.targets(page_views).clicked
    alone, whole = [], []
    own = engine.config
    for width in widths:
        engine.config = own.updated(width=width)
        alone.append(_hr10(engine.alone(), requests, clicked))
        whole.append(_hr10(engine, requests, clicked))
    engine.config = own
    return {"widths": list(widths), "generator alone": alone, "engine": whole, "requests": [len(requests)]}


def _hr10(searcher: Searcher, requests: Requests, clicked: Ragged) -> float:
    return round(float(np.nanmean(hit_rate(searcher.rank(requests, 10).items, clicked))), 4)


def plot_curve(figures: Mapping[str, Any], path: Path) -> None:
    """Draw ``hr10_over_width`` of :func:`bench_search` as a PNG."""
    curve = figures["hr10_over_width"]
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes: Any = figure.add_subplot()
    for name, mark in (("engine", "o"), ("generator alone", "s")):
        axes.plot(curve["widths"], curve[name], marker=mark, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve["widths"], [str(width) for width in curve["widths"]])
    axes.set_xlabel("beams")
    axes.set_ylabel("HR@10")
    axes.set_title(f"{figures['run']}: {curve['requests'][0]:,} validation page views", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)
