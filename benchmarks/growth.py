"""How the cost of every stage and of every call grows with catalogue and log. Prints one JSON object.

    python -m benchmarks.growth RUNS                                    # 20,000, 100,000, 500,000, a million items
    python -m benchmarks.growth RUNS --items 20000 --items 100000       # the sizes given
    python -m benchmarks.growth RUNS --items 20000 --run RUNS/million   # and finished runs, each for its own size

A run of the market for each size in ``RUNS/growth-ITEMS``, with one page view an item; stages that are finished there
stay. Trainings have as many steps at every size: what counts is the time of a sample, times the samples of one pass.
Serving is measured in a process of its own, on one thread, and in two that hold the same run.

``exponents``: the slope of the logarithm of the cost over that of the items, by least squares over all sizes; 1 is cost
in proportion, and what a small size pays for nothing makes it smaller, so that ``last`` has those of the two largest.
"""

import json
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer

from benchmarks.provenance import ROOT
from benchmarks.sizing import searches
from benchmarks.varied_items import varied_items
from onesearch import pipeline
from onesearch.common.artefact import read_manifest
from onesearch.common.memory import resident_mib
from onesearch.data.dataset import Dataset
from onesearch.search.engine import SearchEngine, SearchRequest, load_engine

SIZES = (20_000, 100_000, 500_000, 1_000_000)
TRAININGS = ("sft1", "sft2", "sft3", "cot", "distill")
_BATCH = 32
_CHANGED = 1000  # items of one change
T = TypeVar("T")


def main(
    runs: Annotated[Path, typer.Argument(help="Where the runs are, or are made.")],
    items: Annotated[list[int] | None, typer.Option(help="A size of the catalogue, repeatable.")] = None,
    run: Annotated[list[Path] | None, typer.Option(help="A finished run, for its own size, repeatable.")] = None,
    requests: Annotated[int, typer.Option(help="Searches of each kind.")] = 64,
    base: Annotated[Path, typer.Option(help="The configuration whose model is taken.")] = ROOT / "configs/million.yaml",
) -> None:
    """Make the runs, measure, print."""
    of_size = {finished_stages(one)["data"]["metrics"]["items"]: one for one in run or ()}
    for size in sorted(items or (() if of_size else SIZES)):
        if size not in of_size:
            of_size[size] = runs / f"growth-{size}"
            pipeline.run_config(base, of_size[size], overrides=settings_of(size))
    by_size: dict[int, dict[str, float]] = {}
    for size, one in sorted(of_size.items()):
        # Read elsewhere: a server that answers them does not hold the log that they are of.
        some = _alone(_searches, one)
        by_size[size] = {**stage_costs(one), **_alone(serving_costs, one, requests), **_alone(load_cost, one, some)}
        by_size[size] |= {"two replicas: pss over one": shared_memory(one, some)}
    print(json.dumps(found(by_size)))


def settings_of(size: int) -> list[str]:
    """What a run of so many items has other than its base: as many page views, and short trainings of one length."""
    steps, batch = 12, 64
    return [
        f"data.market={{items: {size}, users: {max(size // 5, 10)}, days: 60, page_views: {max(size, 100)}}}",
        *(f"{name}.steps={steps}" for name in ("sft1", "sft2", "cot")),
        *(f"{name}.batch_size={batch}" for name in ("sft1", "sft2", "cot", "sft3")),
        f"sft3.epochs={steps * batch / max(size, 100):.9f}",
        "sft3.pseudo_share=0",
        "sft3.loop.validate_steps=0",
        "sft3.loop.best=''",
    ]


# -- stages ----------------------------------------------------------------------------------------------------------


def stage_costs(run: Path) -> dict[str, float]:
    """Processor seconds and MiB at most of every finished stage; of trainings the seconds of a pass over the log."""
    costs: dict[str, float] = {}
    for stage, about in finished_stages(run).items():
        seconds = about["cpu_seconds"]
        if stage in TRAININGS:
            seconds = page_views(run) / about["metrics"]["samples_per_second"]
        costs[f"stage {stage}: cpu_s"] = seconds
        costs[f"stage {stage}: mib"] = about["peak_mib"]
    return costs


def finished_stages(run: Path) -> dict[str, Mapping[str, Any]]:
    """The manifests of a run's stages."""
    made = {folder.name: read_manifest(folder) for folder in sorted(run.iterdir()) if folder.is_dir()}
    return {name: about for name, about in made.items() if about is not None and "cpu_seconds" in about}


def page_views(run: Path) -> int:
    """How many the training part has."""
    return int(finished_stages(run)["data"]["metrics"]["train_page_views"])


# -- serving ---------------------------------------------------------------------------------------------------------


def load_cost(run: Path, requests: Sequence[SearchRequest]) -> dict[str, float]:
    """What it takes until a run can be searched, and the memory it has when it was."""
    torch.set_num_threads(1)
    before, wall, cpu = resident_mib(), time.perf_counter(), time.process_time()
    engine = load_engine(run)
    loaded = {"load: s": time.perf_counter() - wall, "load: cpu_s": time.process_time() - cpu}
    for request in requests:
        engine.search_batch([request])
    return {**loaded, "serving: mib": resident_mib() - before}


def serving_costs(run: Path, requests: int) -> dict[str, float]:
    """Processor milliseconds of every kind of call, the median of several; of changes all that a caller waits for."""
    torch.set_num_threads(1)
    engine, dataset = load_engine(run), Dataset.load(run / "data")
    asked = searches(dataset, requests)
    items = dataset.items["item_id"].sample(requests, seed=0, with_replacement=True).to_list()
    brands = dataset.items["brand"].drop_nulls().unique(maintain_order=True).to_list()
    facets = ("category", "brand", "price")
    batches = [asked[begin : begin + _BATCH] for begin in range(0, len(asked), _BATCH)]
    calls: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "search": (lambda one: engine.search_batch([one]), asked),
        "search in a batch": (engine.search_batch, batches),
        "recommendation": (lambda one: engine.search("", one.user), asked),
        "search with a brand": (lambda i: engine.search(asked[i].query, filters={"brand": brands[i % len(brands)]}),
                                range(len(asked))),
        "search with facets": (
            lambda one: engine.search_batch([SearchRequest(one.query, one.user, count=True, facets=facets)]),
            asked,
        ),
        "page 5": (lambda one: engine.search(one.query, one.user, offset=40), asked),
        "by price": (lambda one: engine.search_batch([SearchRequest(one.query, sort="price")]), asked),
        "bm25": (lambda one: engine.search_lexical(one.query), asked),
        "suggestions": (lambda one: engine.suggest(one.query[:3]), asked),
        "similar items": (engine.similar, items),
    }  # fmt: skip
    costs = {}
    for name, (call, inputs) in calls.items():
        for first in inputs[:2]:
            call(first)  # what is made once, at the first call, is not the call's
        costs[f"{name}: cpu_ms"] = milliseconds(call, inputs) / (_BATCH if name == "search in a batch" else 1)
    return {**costs, **change_costs(engine, dataset)}


def change_costs(engine: SearchEngine, dataset: Dataset) -> dict[str, float]:
    """Processor milliseconds of bringing in one item and a thousand, and of taking a thousand out."""
    new = varied_items(dataset, "new")
    some = [[next(new) for _ in range(_CHANGED)] for _ in range(4)]
    single = [[next(new)] for _ in range(9)]
    engine.upsert([next(new)])
    # What came in goes out again.
    return {
        "upsert of 1: cpu_ms": milliseconds(engine.upsert, single),
        f"upsert of {_CHANGED}: cpu_ms": milliseconds(engine.upsert, some),
        f"delete of {_CHANGED}: cpu_ms": milliseconds(engine.delete, [[item.item_id for item in one] for one in some]),
    }


def shared_memory(run: Path, requests: Sequence[SearchRequest]) -> float:
    """Memory of two processes that serve the same run over that of one, pages that they share counted by halves."""
    one, two = _pss(run, requests, 1), _pss(run, requests, 2)
    return two / one


def _pss(run: Path, requests: Sequence[SearchRequest], replicas: int) -> float:
    """MiB of so many processes together, each of them loaded and searched in."""
    context = multiprocessing.get_context("spawn")
    ready, done, sizes = context.Barrier(replicas), context.Barrier(replicas), context.Queue()
    processes = [
        context.Process(target=_replica, args=(run, requests, ready, done, sizes), daemon=True) for _ in range(replicas)
    ]
    for process in processes:
        process.start()
    found = [sizes.get(timeout=3600) for _ in processes]
    for process in processes:
        process.join()
    return float(sum(found))


def _searches(run: Path) -> list[SearchRequest]:
    return searches(Dataset.load(run / "data"), 8)


def _replica(run: Path, requests: Sequence[SearchRequest], ready: Any, done: Any, sizes: Any) -> None:
    torch.set_num_threads(1)
    engine = load_engine(run)
    for request in requests:
        engine.search_batch([request])
    ready.wait()  # all of them hold what they hold
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    sizes.put(next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**10)
    done.wait()  # none leaves before all were measured


def milliseconds(call: Callable[[Any], object], inputs: Sequence[Any]) -> float:
    """Median processor time of the calls."""
    times = []
    for one in inputs:
        start = time.process_time()
        call(one)
        times.append(1e3 * (time.process_time() - start))
    return float(np.median(times))


def _alone(measure: Callable[..., T], *arguments: Any) -> T:
    """What a function finds in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        return fresh.apply(measure, arguments)


# -- what came of it -------------------------------------------------------------------------------------------------


def found(by_size: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """The costs by size, their exponents, and what an item more takes in memory and time to load."""
    sizes = sorted(by_size)
    names = [name for name in by_size[sizes[-1]] if all(by_size[size].get(name, 0) > 0 for size in sizes)]
    grown = [name for name in names if "over one" not in name]
    result: dict[str, Any] = {"by_items": {str(size): _rounded(by_size[size]) for size in sizes}}
    if len(sizes) < 2:
        return result
    result["exponents"] = _rounded({name: exponent(sizes, [by_size[size][name] for size in sizes]) for name in grown})
    last = sizes[-2:]
    result["last"] = _rounded({name: exponent(last, [by_size[size][name] for size in last]) for name in grown})
    result["largest_exponent"] = max(result["exponents"].values())
    more = by_size[last[1]]["serving: mib"] - by_size[last[0]]["serving: mib"]
    result["kb_per_item"] = round(more * 2**20 / 1e3 / (last[1] - last[0]), 3)
    return result


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log(cost) over log(size), by least squares."""
    return float(np.polyfit([math.log(size) for size in sizes], [math.log(cost) for cost in costs], 1)[0])


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}


if __name__ == "__main__":
    typer.run(main)
