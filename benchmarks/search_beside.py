"""What a search takes in this checkout and at an earlier commit, over the same run, in turn. Prints one JSON object.

    python -m benchmarks.search_beside COMMIT RUN

The sources of COMMIT are laid out in a temporary worktree. A process of each side loads the run, on one thread, and
answers the same requests: single ones, then in batches of 32. Which side comes first changes from request to request,
so that what else runs on the machine hits both alike. ``single`` and ``batch`` have the medians of the processor
milliseconds of a search for both sides, and of the ratios of the pairs; ``same_ids`` is the share of the single
searches with the same ten items in the same order, and ``largest_difference`` that of their scores in these.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.provenance import ROOT, sources_of
from benchmarks.sizing import searches
from onesearch.data.dataset import Dataset

BATCH: Final = 32
_WARM_UP: Final = 5
_ANSWER: Final = """
import json, sys, time
from pathlib import Path
import torch
from onesearch.search.engine import SearchRequest, load_engine
torch.set_num_threads(1)
engine = load_engine(Path(sys.argv[1]))
for line in sys.stdin:
    requests = [SearchRequest(query, user) for query, user in json.loads(line)]
    start = time.process_time()
    pages = engine.search_batch(requests)
    took = 1e3 * (time.process_time() - start) / len(requests)
    print(json.dumps([took, [[[one.item_id, float(one.score)] for one in page] for page in pages]]), flush=True)
"""
Request = tuple[str, str | None]
Page = list[tuple[str, float]]


class Side:
    """A process that answers searches of a run with the package below some sources."""

    def __init__(self, sources: Path, run: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ANSWER, str(run.resolve())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, requests: Sequence[Request]) -> tuple[float, list[Page]]:
        """Processor milliseconds of a search, and the pages.

        Raises:
            RuntimeError: the process ended, and said why.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(requests)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended with code {self._process.wait()}; what it said stands above")
        took, pages = json.loads(line)
        return took, [[(item, score) for item, score in page] for page in pages]

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def compare(commit: str, run: Path, requests: int = 512) -> dict[str, Any]:
    """The figures of this module's JSON: of this checkout ("now") and of a commit ("then")."""
    asked = [(one.query, one.user) for one in searches(Dataset.load(run / "data"), requests)]
    with sources_of(commit) as tree:
        sides = [Side(tree / "src", run), Side(ROOT / "src", run)]
        try:
            for side in sides:
                side.answer(asked[:_WARM_UP])
            single, pages = _in_turn(sides, [[one] for one in asked])
            batch, _ = _in_turn(sides, [asked[at : at + BATCH] for at in range(0, len(asked), BATCH)])
        finally:
            for side in sides:
                side.end()
    return {"requests": len(asked), "single": _medians(single), "batch": _medians(batch), **agreement(pages)}


def agreement(pages: Sequence[tuple[Page, Page]]) -> dict[str, float]:
    """How many pages of two sides show the same items in the same order, and how far apart their scores are there."""
    same = [pair for pair in pages if [item for item, _ in pair[0]] == [item for item, _ in pair[1]]]
    apart = [abs(one - other) for then, now in same for (_, one), (_, other) in zip(then, now, strict=True)]
    return {"same_ids": round(len(same) / len(pages), 4), "largest_difference": float(f"{max(apart, default=0):.2g}")}


def _in_turn(
    sides: Sequence[Side], asked: Sequence[Sequence[Request]]
) -> tuple[list[tuple[float, float]], list[tuple[Page, Page]]]:
    """Milliseconds of both sides for each of the calls, and the pages of both."""
    times, pages = [], []
    for number, requests in enumerate(asked):
        found = {at: sides[at].answer(requests) for at in ((0, 1) if number % 2 else (1, 0))}
        times.append((found[0][0], found[1][0]))
        pages += list(zip(found[0][1], found[1][1], strict=True))
    return times, pages


def _medians(times: Sequence[tuple[float, float]]) -> dict[str, float]:
    then, now = np.array(times).T
    ratio = float(np.median(now / then))
    return {
        "then_ms": round(float(np.median(then)), 2),
        "now_ms": round(float(np.median(now)), 2),
        "ratio": round(ratio, 3),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What a search takes, in this checkout and at an earlier commit.")
    parser.add_argument("commit", help="what to compare with, such as main or a hash")
    parser.add_argument("run", type=Path, help="folder of a finished run that both can serve")
    parser.add_argument("--requests", type=int, default=512, help="searches of each kind")
    given = parser.parse_args()
    print(json.dumps(compare(given.commit, given.run, given.requests)))


if __name__ == "__main__":
    main()
