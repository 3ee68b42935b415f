"""``benchmarks.speed decoding``: constrained beam search against transformers' ``generate``, and how it scales.

All figures are ratios of two things measured in turns (A, B, A, B, ...) in this process, medians over the turns, so
that what else runs on the machine hits both alike. Weights are random; SIDs are synthetic (:func:`synthetic_sids`).
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.speed.decoding_parts import Ours, Shape, bare_products, peer, synthetic_index, synthetic_mask
from onesearch.index.sid_index import SidIndex
from onesearch.search.beam_search import Mask, beam_search

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALL, LARGE = 100_000, 5_000_000


def bench_decoding(threads: int = 2, quick: bool = False) -> dict[str, Any]:
    """Run the benchmark; ``quick`` is a smoke test at tiny sizes, whose figures mean nothing.

    Keys: ``ratio_vs_generate_128`` and ``_512`` (times as fast as ``generate``, plain form, each side in its faster
    precision), ``times_gemm_512`` (anchored latency over the bare matrix products with every beam decoded at every
    level), ``growth_100k_to_5m`` (anchored latency as shipped, 512 beams, the worse of with and without a filter; see
    :func:`_growth`), and what they were computed from.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _bench(threads, quick)
    finally:
        torch.set_num_threads(before)


def _bench(threads: int, quick: bool) -> dict[str, Any]:
    shape = Shape(d=32, layers=1, prompt=8, codebooks=(32, 16, 16, 16, 16)) if quick else Shape()
    small, large = (300, 600) if quick else (SMALL, LARGE)
    turns, widths = (1, (4, 8)) if quick else (5, (128, 512))
    out: dict[str, Any] = {
        "threads": threads,
        "items": small,
        "shape": {"d": shape.d, "layers": f"{shape.layers}+{shape.layers}", "prompt": shape.prompt},
        "codebooks": list(shape.codebooks),
        "row_dim": 128,
    }
    index = synthetic_index(small, shape)
    for name, width in zip((128, 512), widths, strict=True):
        out |= {f"{key}_{name}": value for key, value in _against_generate(shape, index, width, turns).items()}
    out |= _anchored(shape, index, widths[1], 4 * turns)
    del index
    out |= _growth(shape, small, large, widths[1], 4 * turns)
    return out


def _against_generate(shape: Shape, index: SidIndex, width: int, turns: int) -> dict[str, Any]:
    """The plain form against ``generate``, both in both precisions."""
    runs: dict[str, Callable[[], Any]] = {}
    for name, dtype in PRECISIONS.items():
        ours = Ours.make(shape, anchored=False, dtype=dtype)
        generate = peer(shape, index, ours, dtype)
        runs[f"ours {name}"] = _search(ours, index, width)
        runs[f"generate {name}"] = lambda generate=generate: generate(width)  # type: ignore[misc]
    times = measure_in_turns(runs, turns)
    mine = min((name for name in times if name.startswith("ours")), key=times.__getitem__)
    theirs = min((name for name in times if name.startswith("generate")), key=times.__getitem__)
    return {
        "ratio_vs_generate": round(times[theirs] / times[mine], 2),
        "ours_ms": round(1e3 * times[mine], 2),
        "ours_precision": mine.split()[1],
        "generate_ms": round(1e3 * times[theirs], 2),
        "generate_precision": theirs.split()[1],
    }


def _anchored(shape: Shape, index: SidIndex, width: int, turns: int) -> dict[str, Any]:
    """The anchored form against bare matrix products of the same precision."""
    out: dict[str, Any] = {}
    for name, dtype in PRECISIONS.items():
        products = bare_products(shape, width, index.levels, dtype)
        search = _search(Ours.make(shape, anchored=True, dtype=dtype), index, width)
        times = measure_in_turns({"search": search, "products": products}, turns)
        out[name] = {key: round(1e3 * value, 2) for key, value in times.items()}
    best = min(out, key=lambda name: float(out[name]["search"]))
    return {
        "times_gemm_512": round(out[best]["search"] / out[best]["products"], 3),
        "times_gemm_precision": best,
        "anchored_ms_512": out[best]["search"],
        "gemm_ms_512": out[best]["products"],
    }


def _growth(shape: Shape, small: int, large: int, width: int, turns: int) -> dict[str, Any]:
    """Latency over catalogue size, with and without a filter that allows a tenth of the items.

    Two ways. With every beam decoded at every level the work of the network is the same at both sizes, and what grows
    is the search. As shipped, beams with one item left are not decoded; in a small catalogue these are many, so that
    both sizes get faster, but the small one gains more.
    """
    ours = Ours.make(shape, anchored=True, dtype=torch.bfloat16)
    runs: dict[str, Callable[[], Any]] = {}
    for name, n in (("100k", small), ("5m", large)):
        index = synthetic_index(n, shape)
        for suffix, mask in (("", None), (" filtered", synthetic_mask(index))):
            runs[f"{name}{suffix}"] = _search(ours, index, width, mask)
            runs[f"{name}{suffix} every beam decoded"] = _search(ours, index, width, mask, decode_forced=True)
    times = measure_in_turns(runs, turns)
    growth = {name: times[f"5m{name}"] / times[f"100k{name}"] for name in (run[4:] for run in runs if run[0] == "1")}
    every = {name: value for name, value in growth.items() if "every" in name}
    return {
        "growth_100k_to_5m": round(max(growth[""], growth[" filtered"]), 3),
        "growth_100k_to_5m_every_beam_decoded": round(max(every.values()), 3),
        "growth": {name.strip() or "unfiltered": round(value, 3) for name, value in growth.items()},
        "growth_ms": {name: round(1e3 * value, 2) for name, value in times.items()},
        "growth_items": [small, large],
    }


def _search(
    ours: Ours, index: SidIndex, width: int, mask: Mask | None = None, decode_forced: bool = False
) -> Callable[[], Any]:
    return lambda: beam_search(ours.model, ours.encode(), index, width, mask, decode_forced)


def measure_in_turns(runs: Mapping[str, Callable[[], Any]], turns: int, device: str = "cpu") -> dict[str, float]:
    """Median seconds of each run, one warm-up each, then all of them in turns; of a GPU until its work is done."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for run in runs.values():
        run()
    wait()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            wait()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}
