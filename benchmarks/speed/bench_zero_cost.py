"""``python -m benchmarks.speed zero-cost``: what V2 costs in serving beside V1, which should be nothing.

Thoughts teach V2 while it trains and are gone when it serves, so its latency, its size and its input should be V1's.
Both engines of one run share everything but the model and answer the same requests in turns, one at a time; which of
them is first changes from request to request and from repeat to repeat, so that caches and slow spells favour neither.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.bench_search import sampled
from onesearch.common.artefact import read_json
from onesearch.model.generator import GeneratorMemory
from onesearch.model.prompt_batch import PromptBatch
from onesearch.search.engine import SearchEngine, load_engines
from onesearch.search.engine_file import ENGINE
from onesearch.search.run_parts import GENERATOR, STAGE_OF, Model, choose_model, need

MODELS: Final[tuple[Model, ...]] = ("v1", "v2")
# The lowest and the highest of six repeats hold the median ratio between them with probability 1 - 2 / 2^6 = 97 %.
REPEATS: Final = 6
REQUESTS: Final = 200


def bench_zero_cost(run: Path, threads: int = 1, requests: int = REQUESTS, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure V2's engine against V1's.

    Args:
        run: folder of a finished run with V2.
        threads: of torch, 1 as `onesearch serve` has it.
        requests: test page views served in each repeat, after a first round that the clock does not see.
        repeats: each gives one ratio of the median latencies; even, so that each engine is first equally often.

    Keys: ``latency_v2_over_v1``, the median over the repeats, between the lowest and the highest of them
    (``..._low``, ``..._high``); ``size_v2_over_v1`` of the model files; ``tokens_v2_over_v1`` of the positions that
    the encoder reads, soft tokens included; the figures behind each; and the sizes.

    Raises:
        FileNotFoundError: the run, its V2 or another stage is missing or unfinished.
        ValueError: there are no page views, the engines search under different settings, or V2 reads keywords.
    """
    if run.is_dir():
        choose_model(run, "v2")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        engines: dict[str, SearchEngine] = dict(zip(MODELS, load_engines(run, MODELS, measured=True), strict=True))
        page_views = sampled(run, "test", requests)
        asked = list(zip(page_views["query"].fill_null("").to_list(), page_views["user_id"].to_list(), strict=True))
        return {
            "run": run.name,
            **compared(engines, asked, repeats),
            **_sizes(run),
            "threads": threads,
            "items": len(engines["v1"]),
            "width": engines["v1"].config.width,
        }
    finally:
        torch.set_num_threads(before)


def compared(engines: dict[str, SearchEngine], asked: Sequence[tuple[str, str | None]], repeats: int) -> dict[str, Any]:
    """Latency and input of the engines ``v1`` and ``v2`` over requests of query and user.

    Raises:
        ValueError: the engines search under different settings, or one reads keywords.
    """
    if engines["v1"].config != engines["v2"].config:
        raise ValueError("the engines of V1 and V2 have different search settings: bring the run up to date first")
    # This first round also warms both engines up.
    tokens = {name: prompt_tokens(name, engine, asked).mean() for name, engine in engines.items()}

    def answer(engine: SearchEngine) -> Callable[[int], Any]:
        return lambda row: engine.search(*asked[row])

    times = latencies_in_turns([answer(engine) for engine in engines.values()], len(asked), repeats)
    medians = dict(zip(engines, np.median(times, 2).T, strict=True))
    ratios = medians["v2"] / medians["v1"]
    return {
        "latency_v2_over_v1": round(float(np.median(ratios)), 4),
        "latency_v2_over_v1_low": round(float(ratios.min()), 4),
        "latency_v2_over_v1_high": round(float(ratios.max()), 4),
        "tokens_v2_over_v1": round(float(tokens["v2"] / tokens["v1"]), 4),
        **{f"p50_ms_{name}": round(float(1e3 * np.median(one)), 3) for name, one in medians.items()},
        **{f"tokens_{name}": round(float(mean), 2) for name, mean in tokens.items()},
        "requests": len(asked),
        "repeats": repeats,
    }


def latencies_in_turns(
    systems: Sequence[Callable[[int], Any]],
    requests: int,
    repeats: int,
    clock: Callable[[], float] = perf_counter,
) -> NDArray[np.float64]:
    """Seconds of each request under each system, [repeats, systems, requests]; every other request is in reverse."""
    times = np.zeros((repeats, len(systems), requests))
    for repeat in range(repeats):
        for row in range(requests):
            order = range(len(systems))
            for i in order if (repeat + row) % 2 == 0 else reversed(order):
                begin = clock()
                systems[i](row)
                times[repeat, i, row] = clock() - begin
    return times


def prompt_tokens(name: str, engine: SearchEngine, asked: Sequence[tuple[str, str | None]]) -> NDArray[np.int64]:
    """Positions that the engine's encoder reads for each request, soft tokens and further passes included, int64 [n].

    Raises:
        ValueError: the engine gave its model keywords, as only a teacher may read them.
    """
    mark = engine.snapshot.builder.vocabulary.mark("kw")
    read = np.zeros(len(asked), np.int64)
    for row, (query, user) in enumerate(asked):
        with _watched(engine) as passes:
            engine.search(query, user)
        for batch, memory in passes:
            if batch.keyword_vectors is not None or bool((batch.tokens == mark).any()):
                raise ValueError(
                    f"the {name} engine reads keywords for the query {query!r}: it would need thoughts to serve, and "
                    "that is not free"
                )
            read[row] += int(memory.prompts.mask.sum())
    return read


@contextmanager
def _watched(engine: SearchEngine) -> Iterator[list[tuple[PromptBatch, GeneratorMemory]]]:
    """What goes into the model's encoder inside, and what comes out."""
    model, passes = engine.generator, []
    encode = model.encode

    def noted(batch: PromptBatch) -> GeneratorMemory:
        memory = encode(batch)
        passes.append((batch, memory))
        return memory

    model.encode = noted  # type: ignore[method-assign]
    try:
        yield passes
    finally:
        del model.encode


def _sizes(run: Path) -> dict[str, Any]:
    """Bytes of the files of each engine's model."""
    sizes = {}
    for name, stage in STAGE_OF.items():
        folder = need(run, read_json(need(run, stage) / ENGINE)["model"]) / GENERATOR
        sizes[name] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "size_v2_over_v1": round(sizes["v2"] / sizes["v1"], 4),
        **{f"bytes_{name}": size for name, size in sizes.items()},
    }
