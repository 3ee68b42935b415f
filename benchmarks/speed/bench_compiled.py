"""``benchmarks.speed compiled``: the decoder's steps as they are against the same under ``torch.compile``.

A search's five steps, one token for every beam, each beam continuing itself; both sides in turns, medians. Compiling
works by shape: each number of tokens written before, prompt length and beam width is a graph of its own, and the
seconds of the first search with new shapes are given beside the gain.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.speed.bench_decoding import measure_in_turns
from benchmarks.speed.decoding_parts import Ours, Shape

_TOKENS: Final = 5
SIZES: Final = {
    "small": (Shape(d=64, layers=2), 64),
    "middle": (Shape(), 128),
    "base": (Shape(d=768, layers=6, heads=12), 512),
}
"""Model and beams: that of the demo, of the decoding benchmark, and BART-base with the article's beams."""


def bench_compiled(threads: int = 2, quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Run the benchmark; ``quick`` is a smoke test at a tiny size, whose figures mean nothing.

    For each size: ``ms`` of the steps of one search, ``compiled_ms``, ``ratio`` (compiled over not compiled),
    ``first_s`` (the first search, which compiles) and ``difference`` (the largest one of a hidden state).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    sizes = {"tiny": (Shape(d=16, layers=1, prompt=8), 4)} if quick else SIZES
    try:
        found = {name: _size(*size, device, 1 if quick else 15) for name, size in sizes.items()}
        return {"threads": threads, "device": device, **found}
    finally:
        torch.set_num_threads(before)


def _size(shape: Shape, width: int, device: str, turns: int) -> dict[str, float]:
    ours = Ours.make(shape, anchored=True, dtype=torch.float32, device=device)
    backbone = ours.model.backbone
    # CUDA graphs on a GPU; on a CPU the compiler's own default.
    mode = "reduce-overhead" if device.startswith("cuda") else "default"
    torch._dynamo.reset()
    compiled = torch.compile(backbone.step, dynamic=False, mode=mode)
    memory = ours.encode().prompts
    tokens = torch.randn(1, width, shape.d, device=device)

    def search(step: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            state = backbone.start(memory, width)
            return torch.stack([step(state, tokens, None).clone() for _ in range(_TOKENS)])

    begin = time.perf_counter()
    found = search(compiled)
    first = time.perf_counter() - begin
    difference = float((found - search(backbone.step)).abs().max())
    runs = {"plain": lambda: search(backbone.step), "compiled": lambda: search(compiled)}
    times = measure_in_turns(runs, turns, device)
    return {
        "ms": round(1e3 * times["plain"], 2),
        "compiled_ms": round(1e3 * times["compiled"], 2),
        "ratio": round(times["compiled"] / times["plain"], 3),
        "first_s": round(first, 1),
        "difference": float(f"{difference:.1g}"),
    }
