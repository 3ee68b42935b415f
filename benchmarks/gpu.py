"""Training and decoding at the size of BART-base on a GPU: rates, share of the peak, and results beside the CPU's.

Run: ``python -m benchmarks.gpu`` on a machine with a GPU; it prints one JSON object, in under eight minutes. With
``--quick`` a smoke test at tiny sizes, on the CPU as well, whose figures mean nothing.

training    samples per second of the training loop and of ``Seq2SeqTrainer`` on the same model and rows, in turns;
            ``share of peak``: 6 operations for each weight and token that it reads, over what large products reach
decoding    one search of 512 beams over a million items: milliseconds, beside ``generate`` of transformers in the plain
            form and the bare matrix products of the anchored one; then batches of several searches, per search
agreement   the same searches on the CPU in float32: items among the ten best that both have, and the largest difference
            of a log-probability between items that both have

Decoding launches many small kernels: what it takes over the bare products is mostly that. A step has as many children
as its beams happen to have, so that no CUDA graph of it can be kept.
"""

import argparse
import contextlib
import json
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.provenance import commit, machine, today
from benchmarks.speed.bench_decoding import measure_in_turns
from benchmarks.speed.bench_trainer import SequencePairs, alternating, bart, loop_rate, trainer_rate
from benchmarks.speed.decoding_parts import Ours, Shape, bare_products, peer, synthetic_index
from onesearch.common.device import best_device
from onesearch.common.ragged import Ragged
from onesearch.index.sid_index import SidIndex
from onesearch.search.beam_search import Beams, beam_search

BASE = Shape(d=768, layers=6, heads=12, prompt=64, codebooks=(1024, 512, 256, 256, 256))
TINY = Shape(d=32, layers=1, heads=4, prompt=8, codebooks=(32, 16, 16, 16, 16))
ITEMS, WIDTH, BATCHES, VOCABULARY = 1_000_000, 512, (1, 2, 4, 8, 16, 32, 64), 30_000
PEER_ITEMS = 100_000  # of ``generate``, whose dictionary of prefixes takes minutes to build for a million
LABELS = 6


def measure(device: str, quick: bool = False) -> dict[str, Any]:
    """All parts; ``quick`` at tiny sizes."""
    shape, items, of_peer, width = (TINY, 300, 300, 8) if quick else (BASE, ITEMS, PEER_ITEMS, WIDTH)
    batches = (1, 2) if quick else BATCHES
    index = synthetic_index(items, shape)
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else machine(),
        "training": training(device, shape, quick),
        "decoding": decoding(device, shape, index, width, batches, 1 if quick else 10)
        | against_generate(device, shape, synthetic_index(of_peer, shape), width, 1 if quick else 3),
        "agreement": agreement(device, shape, index, width, 2 if quick else 4),
    }


def training(device: str, shape: Shape, quick: bool) -> dict[str, Any]:
    """Samples per second of both sides, and the loop's share of the peak."""
    rows, batch, steps, repeats = (40, 8, 2, 1) if quick else (20_000, 256, 40, 3)
    model = bart(300 if quick else VOCABULARY, shape.d, shape.layers, shape.heads)
    rng = np.random.default_rng(0)
    lengths = rng.integers(max(2, shape.prompt // 2), shape.prompt + 1, rows)
    words = rng.integers(5, 300, int(lengths.sum())).astype(np.int32)
    pairs = SequencePairs(Ragged.from_lengths(words, lengths), rng.integers(5, 300, (rows, LABELS)))
    precision = "bf16" if device.startswith("cuda") else "no"
    sides = {
        "ours": lambda: loop_rate(model, pairs, batch, precision, steps),
        "trainer": lambda: trainer_rate(model, pairs, batch, precision, steps),
    }
    with contextlib.redirect_stdout(sys.stderr):  # the trainer prints its figures
        rates = alternating(sides, repeats)
    # Forward and backward pass: two operations and four for each weight and token that it reads; no attention.
    weights = {
        half: sum(one.numel() for name, one in model.named_parameters() if f".{half}.layers" in name)
        for half in ("encoder", "decoder")
    }
    vocabulary = model.get_output_embeddings().weight.numel()  # type: ignore[operator]
    of_sample = 6 * (weights["encoder"] * float(lengths.mean()) + (weights["decoder"] + vocabulary) * LABELS)
    flops = of_sample * rates["ours"]
    peak = peak_flops(device, 256 if quick else 8192)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "batch": batch,
        "precision": precision,
        "samples_per_s": round(rates["ours"], 1),
        "trainer_samples_per_s": round(rates["trainer"], 1),
        "times_trainer": round(rates["ours"] / rates["trainer"], 3),
        "peak_tflops": round(peak / 1e12, 2),
        "share_of_peak": round(flops / peak, 4),
    }


def peak_flops(device: str, size: int, repeats: int = 10) -> float:
    """Operations a second of large square products: bfloat16 on a GPU, float32 on a CPU."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    one = torch.randn(size, size, device=device, dtype=dtype)
    seconds = measure_in_turns({"product": lambda: one @ one}, repeats, device)["product"]
    return 2 * size**3 / seconds


def decoding(
    device: str, shape: Shape, index: SidIndex, width: int, batches: tuple[int, ...], turns: int
) -> dict[str, Any]:
    """Milliseconds of one search, of the bare products, and of each search in batches."""
    dtype, there = torch.bfloat16, index.to(device)
    one = Ours.make(shape, anchored=True, dtype=dtype, device=device)
    runs = {
        "search": lambda: beam_search(one.model, one.encode(), there, width),
        "products": bare_products(shape, width, index.levels, dtype, device),
    }
    times = measure_in_turns(runs, turns, device)
    found: dict[str, Any] = {
        "items": len(index),
        "beams": width,
        "search_ms": round(1e3 * times["search"], 3),
        "products_ms": round(1e3 * times["products"], 3),
        "times_products": round(times["search"] / times["products"], 2),
        "batch_ms_per_search": {},
    }
    for batch in batches:
        many = replace(
            one,
            embeds=one.embeds.expand(batch, -1, -1) + torch.randn_like(one.embeds.expand(batch, -1, -1)),
            query_head_rows=one.query_head_rows.expand(batch, -1),
        )
        search = {"search": lambda many=many: beam_search(many.model, many.encode(), there, width)}  # type: ignore[misc]
        seconds = measure_in_turns(search, turns, device)["search"]
        found["batch_ms_per_search"][str(batch)] = round(1e3 * seconds / batch, 3)
    return found


def against_generate(device: str, shape: Shape, index: SidIndex, width: int, turns: int) -> dict[str, Any]:
    """The plain form and ``generate`` of transformers on the same weights and SIDs."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    ours, there = Ours.make(shape, anchored=False, dtype=dtype, device=device), index.to(device)
    generate = peer(shape, there, ours, dtype)
    runs = {
        "ours": lambda: beam_search(ours.model, ours.encode(), there, width),
        "generate": lambda: generate(width),
    }
    times = measure_in_turns(runs, turns, device)
    return {
        "generate_items": len(index),
        "plain_ms": round(1e3 * times["ours"], 2),
        "generate_ms": round(1e3 * times["generate"], 2),
        "times_as_fast_as_generate": round(times["generate"] / times["ours"], 2),
    }


def agreement(device: str, shape: Shape, index: SidIndex, width: int, searches: int) -> dict[str, Any]:
    """The device in its precision and in float32, beside the CPU in float32."""
    reference = beams_of(Ours.make(shape, True, torch.float32, "cpu", searches), index, width)
    out = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        beams = beams_of(Ours.make(shape, True, dtype, device, searches), index.to(device), width)
        shared, off = compared(reference, beams, 10)
        out[name] = {"overlap@10": round(shared, 4), "log-probability off": round(off, 6)}
    return {"searches": searches, **out}


def beams_of(ours: Ours, index: SidIndex, width: int) -> Beams:
    """The beams of all prompts, on the CPU."""
    beams = beam_search(ours.model, ours.encode(), index, width)
    return Beams(beams.nodes.cpu(), beams.log_probs.float().cpu(), beams.others.cpu())


def compared(one: Beams, other: Beams, k: int) -> tuple[float, float]:
    """The share of the ``k`` best that both have, and the largest difference of a score of those."""
    shared, off = 0, 0.0
    for row in range(len(one.nodes)):
        mine, theirs = (
            dict(zip(beams.nodes[row, :k].tolist(), beams.log_probs[row, :k].tolist(), strict=True))
            for beams in (one, other)
        )
        both = mine.keys() & theirs.keys()
        shared += len(both)
        off = max([off, *(abs(mine[node] - theirs[node]) for node in both)])
    return shared / min(k, one.nodes.shape[1]) / len(one.nodes), off


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test at tiny sizes")
    arguments = parser.parse_args()
    where = str(best_device())
    if where == "cpu" and not arguments.quick:
        parser.exit(1, "there is no GPU here; --quick tries the benchmark out on the CPU\n")
    begin = time.perf_counter()
    figures = measure(where, arguments.quick)
    about = {"commit": commit(), "date": today(), "seconds": round(time.perf_counter() - begin, 1)}
    print(json.dumps({**about, **figures}))
