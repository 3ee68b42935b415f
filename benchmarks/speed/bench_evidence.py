"""``python -m benchmarks.speed evidence``: what evidence at the input costs in serving.

The same engine answers the same requests with and without the evidence in its prompts, in turns; which of both is first
changes from request to request. Times are CPU seconds of the process, so that other work on the machine counts little.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.bench_search import sampled
from benchmarks.speed.bench_zero_cost import latencies_in_turns
from onesearch.data.histories import Histories
from onesearch.data.requests import Requests
from onesearch.model.generator import Generator
from onesearch.model.prompt import PromptBuilder
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.search import batch_search, candidate_search
from onesearch.search.candidate_search import CandidateSearch
from onesearch.search.engine import SearchEngine
from onesearch.search.evidence_finder import EvidenceFinder
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.run_parts import RunParts

BATCHES: Final = (1, 32)
REQUESTS: Final = 96
REPEATS: Final = 4
OFF: Final = {"clicked": 0, "lexical": 0, "nearest": 0, "together": 0}
# Which calls make a part of a search: the object that has the function, and its name.
PARTS: Final[dict[str, tuple[tuple[Any, str], ...]]] = {
    "evidence": ((EvidenceFinder, "prepare"), (EvidenceFinder, "_find")),
    "bm25": ((LexicalSearcher, "match"),),
    "prompt": ((PromptInputs, "from_requests"), (PromptBuilder, "search_prompt")),
    "encoder": ((Generator, "encode"),),
    "beams": ((candidate_search, "beam_search"),),
    "other_candidates": ((Generator, "ask"), (candidate_search, "nearest_items"), (candidate_search, "score_items")),
    "ranking": (
        (CandidateSearch, "_model_features"),
        (CandidateSearch, "_with_log_features"),
        (batch_search, "ordered"),
    ),
}


class PartClock:
    """CPU seconds by part; what a part spends in another one counts for that one alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inside: list[float] = []  # of each open part, what others inside of it have spent

    def timed(self, part: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """``plain`` with its time counted to ``part``."""

        def call(*arguments: Any, **options: Any) -> Any:
            begin = process_time()
            self._inside.append(0.0)
            try:
                return plain(*arguments, **options)
            finally:
                spent = process_time() - begin
                self.seconds[part] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The parts of all searches inside are counted."""
        with ExitStack() as stack:
            for part, calls in PARTS.items():
                for owner, name in calls:
                    stack.enter_context(patch.object(owner, name, self.timed(part, getattr(owner, name))))
            yield


def bench_evidence(
    runs: Sequence[Path], threads: int = 1, requests: int = REQUESTS, repeats: int = REPEATS
) -> dict[str, Any]:
    """:func:`evidence_cost` of each finished run, by its name.

    Args:
        runs: their folders.
        threads: of torch, 1 as `onesearch serve` has it.
        requests: test page views searched for in each repeat.
        repeats: each gives one ratio; even, so that each engine is first equally often.

    Raises:
        FileNotFoundError: a run or one of its stages is missing or unfinished.
        ValueError: there are no page views to measure, or the run's prompts have no evidence.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = {}
        for run in runs:
            parts, engine = RunParts(run), SearchEngine.load(run, measured=True)
            histories = Histories(parts.dataset.page_views, parts.dataset.items, parts.dataset.users)
            found[run.name] = evidence_cost(engine, histories.requests(sampled(run, "test", requests)), repeats)
        return {**found, "threads": threads, "repeats": repeats}
    finally:
        torch.set_num_threads(before)


def evidence_cost(
    engine: SearchEngine, requests: Requests, repeats: int, batches: Sequence[int] = BATCHES
) -> dict[str, Any]:
    """Milliseconds of a search with and without evidence, for each batch size B.

    Keys: ``ratio_B`` of CPU time, the median over the repeats, between ``ratio_B_low`` and ``ratio_B_high``;
    ``with_ms_B`` and ``without_ms_B`` a request, and of each part ``PART_with_ms_B`` and ``PART_without_ms_B``.

    Raises:
        ValueError: the engine's prompts have no evidence.
    """
    config = engine.snapshot.builder.config
    if not config.evidence.any:
        raise ValueError(f"prompts of {engine.name} have no evidence: set model.prompt.evidence and train it again")
    engines = {"with": engine, "without": without_evidence(engine)}
    rows, inputs = np.arange(len(requests)), engine.prompt_inputs(requests, engine.snapshot)
    found: dict[str, Any] = {"items": len(engine), "requests": len(requests), "width": engine.config.width}
    if inputs.evidence is not None:
        found["evidence_items"] = round(float((inputs.evidence(rows).items >= 0).sum(1).mean()), 1)
    for size in batches:
        groups = [requests.select(some) for some in np.split(rows, range(size, len(rows), size))]
        times, spent = _in_turns(list(engines.values()), groups, repeats)
        ratios, per_request = times[:, 0] / times[:, 1], 1e3 / (len(requests) * repeats)
        found[f"ratio_{size}"] = round(float(np.median(ratios)), 3)
        found[f"ratio_{size}_low"] = round(float(ratios.min()), 3)
        found[f"ratio_{size}_high"] = round(float(ratios.max()), 3)
        for name, total in zip(engines, times.sum(0), strict=True):
            found[f"{name}_ms_{size}"] = round(float(total) * per_request, 2)
        for part in PARTS:
            for name, seconds in zip(engines, spent, strict=True):
                found[f"{part}_{name}_ms_{size}"] = round(seconds[part] * per_request, 2)
    return found


def _in_turns(
    engines: Sequence[SearchEngine], groups: Sequence[Requests], repeats: int
) -> tuple[NDArray[np.float64], list[dict[str, float]]]:
    """CPU seconds of all groups of requests in each repeat under each engine, [repeats, engines]; and by part."""
    clock, spent = PartClock(), [dict.fromkeys(PARTS, 0.0) for _ in engines]

    def system(number: int) -> Callable[[int], Any]:
        def search(group: int) -> Any:
            clock.seconds = spent[number]
            return engines[number].rank(groups[group], 10)

        return search

    with clock.watching():
        for engine in engines:  # a first search warms each engine up
            engine.rank(groups[0], 10)
        systems = [system(number) for number in range(len(engines))]
        return latencies_in_turns(systems, len(groups), repeats, process_time).sum(2), spent


def without_evidence(engine: SearchEngine) -> SearchEngine:
    """The same engine with prompts that have no evidence, which then finds and adds none."""
    snapshot, builder = engine.snapshot, engine.snapshot.builder
    config = builder.config.updated(evidence=OFF)
    plain = PromptBuilder(builder.vocabulary, config, snapshot.sids, snapshot.item_head_rows)
    return SearchEngine(engine.featurizer, replace(snapshot, builder=plain), engine.config, engine.weights)
