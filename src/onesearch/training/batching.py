"""Which rows make up the batch of a step: a pure function of (seed, epoch, step), so that resuming costs nothing.

A source never draws from a stateful generator: ``rows(step)`` is the same whenever and wherever it is asked. That makes
an interrupted run end as an unbroken one, and lets every process of a distributed run know its share without talking.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.artefact import fingerprint

_T = TypeVar("_T")
Rows = NDArray[np.int64]
Collate = Callable[[Rows], Any]
_MEGA_BATCHES = 64  # batches whose rows are sorted by length together


@dataclass(frozen=True)
class Batch:
    """What one step trains on: ``content``, made by the source's collate function from ``samples`` rows of ``task``."""

    content: Any
    samples: int
    task: str = ""


class Batches(Protocol):
    """A finite sequence of batches, addressable by step."""

    @property
    def steps(self) -> int:
        """Number of batches in all epochs."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` of ``world`` in the batch of ``step`` (0 ≤ step < steps)."""

    def epoch(self, step: int) -> float:
        """How many passes over the data are done before ``step``."""

    def fingerprint(self) -> str:
        """Changes when the sequence of row numbers changes."""


class BatchSource:
    """Length-bucketed batches over the rows of one data set.

    Each epoch shuffles the rows (or draws them by weight), sorts them by length inside blocks of 64 batches, cuts the
    blocks into batches and shuffles the batches. So a batch holds rows of similar length and little padding, and which
    rows meet in a batch is still random.

    Args:
        lengths: prompt length of each row, int [n]; only its order matters for ``batch_size``, its sum for ``tokens``.
        collate: row numbers int64 [b] → content of the batch. Must depend on the row numbers alone: it runs ahead in
            another thread, and again after a resume.
        batch_size: rows per step over all processes (at most; the batches of an epoch are of equal size up to one row).
        epochs: passes over the data; fractions allowed. Ignored when ``steps`` is given.
        steps: number of batches.
        tokens: if given, a step holds about this many units of ``lengths`` instead of ``batch_size`` rows.
        weights: sampling weights ≥ 0 per row [n]. An epoch then draws n rows systematically: row i comes
            floor or ceil of n·w_i/Σw times.
        seed: of the shuffling.
        name: the task's name in the log.

    Raises:
        ValueError: no rows, a size below 1, or weights that are negative, not finite or all zero.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer],
        collate: Collate,
        batch_size: int,
        *,
        epochs: float = 1.0,
        steps: int | None = None,
        tokens: int | None = None,
        weights: NDArray[np.floating] | None = None,
        seed: int = 0,
        name: str = "",
    ) -> None:
        where = f" of task '{name}'" if name else ""  # for messages
        if len(lengths) == 0:
            raise ValueError(f"no rows to train on{where}: the training part of the data set is empty for it")
        if batch_size < 1 or (tokens is not None and tokens < 1):
            raise ValueError(f"batch_size and tokens{where} must be >= 1, got {batch_size} and {tokens}")
        if weights is not None:
            if weights.shape != lengths.shape:
                raise ValueError(f"weights{where} have shape {weights.shape}, lengths {lengths.shape}")
            if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
                raise ValueError(f"sampling weights{where} must be finite, >= 0 and not all zero")
        self.lengths = np.asarray(lengths, np.int64)
        self.weights = None if weights is None else np.asarray(weights, np.float64) / float(weights.sum())
        self.collate, self.seed, self.name = collate, seed, name
        self.steps_per_epoch = self._steps_per_epoch(batch_size, tokens)
        self._by_tokens = tokens is not None
        self._steps = max(1, round(epochs * self.steps_per_epoch)) if steps is None else steps
        self._plan: tuple[int, list[Rows]] = (-1, [])

    def _steps_per_epoch(self, batch_size: int, tokens: int | None) -> int:
        n = len(self.lengths)
        if tokens is None:
            return math.ceil(n / batch_size)
        mean = self.lengths.mean() if self.weights is None else self.weights @ self.lengths
        return max(1, min(n, math.ceil(n * float(mean) / tokens)))

    @property
    def steps(self) -> int:
        """Number of batches in all epochs."""
        return self._steps

    def epoch(self, step: int) -> float:
        """How many passes over the data are done before ``step``."""
        return step / self.steps_per_epoch

    def rows(self, step: int, rank: int = 0, world: int = 1) -> Rows:
        """Row numbers of ``rank``'s share of a step, int64 [b]; never empty, so that all processes stay in step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._plan[0] != epoch:
            self._plan = (epoch, self._epoch_plan(epoch))
        rows = self._plan[1][within]
        # Rows are sorted by length, so every world-th row gives each process about the same work.
        share = rows[rank::world]
        return share if len(share) else rows[:1]

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` of ``world`` in the batch of ``step``."""
        rows = self.rows(step, rank, world)
        return Batch(self.collate(rows), len(rows), self.name)

    def fingerprint(self) -> str:
        """Changes when the sequence of row numbers changes."""
        return fingerprint([self._digest, self.seed, self.steps_per_epoch, self._by_tokens, self._steps, self.name])

    @cached_property
    def _digest(self) -> list[int]:
        # Of bytes, not of sums: a sum's last bits depend on the number of threads, and a resume must not.
        weights = [] if self.weights is None else [crc32(self.weights.tobytes())]
        return [len(self.lengths), crc32(self.lengths.tobytes()), *weights]

    def _epoch_plan(self, epoch: int) -> list[Rows]:
        n, steps = len(self.lengths), self.steps_per_epoch
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(n)
        # Systematic sampling: n equally spaced points on the cumulated weights, from one random start.
        if self.weights is not None:
            at = np.minimum((np.arange(n) + rng.random()) / n, np.nextafter(1.0, 0.0))
            reach = np.cumsum(self.weights[order])
            order = order[np.searchsorted(reach / reach[-1], at, side="right")][rng.permutation(n)]
        # Every other block is sorted downwards: where one block ends and the next begins lengths are then alike, and a
        # batch across both is as even as the others.
        block = np.arange(n) * steps // (n * _MEGA_BATCHES)
        length = self.lengths[order]
        order = order[np.lexsort((np.where(block % 2 == 0, length, -length), block))]
        # Cut where the cumulated cost (rows, or tokens) passes the next multiple of an equal share.
        cost = np.cumsum(self.lengths[order]) if self._by_tokens else np.arange(1, n + 1)
        edges = np.searchsorted(cost, cost[-1] * np.arange(1, steps) / steps, side="right")
        # No batch may be empty, even where one row costs more than a batch.
        edges = np.maximum.accumulate(edges - np.arange(steps - 1)) + np.arange(steps - 1)
        edges = np.minimum(np.maximum(edges, np.arange(1, steps)), n - steps + np.arange(1, steps))
        batches = np.split(order.astype(np.int64), edges)
        return [batches[i] for i in rng.permutation(steps)]


class TaskMixture:
    """Several sources taking turns in fixed proportions; each batch holds one task.

    The numbers of batches per task are exact up to rounding over the whole run, their order is shuffled in blocks, so
    that every stretch of the run has about the same mixture. Each source goes on where its last batch ended and starts
    another epoch when it is through::

        n_t     = share of task t · steps, rounded so that they add up
        times_t = (0 … n_t - 1, each plus a random part of one) / n_t
        order   = all tasks' steps by their times;  batch of a step = the next one of its task's source

    Args:
        sources: by task name.
        shares: relative number of batches per task; tasks that are missing or 0 are left out.
        steps: number of batches in all.
        seed: of the order.

    Raises:
        ValueError: a share for an unknown task, a negative one, or none above 0.
    """

    def __init__(
        self, sources: Mapping[str, BatchSource], shares: Mapping[str, float], steps: int, seed: int = 0
    ) -> None:
        unknown = sorted(set(shares) - set(sources))
        if unknown:
            raise ValueError(f"shares name unknown tasks {unknown}; the tasks are {sorted(sources)}")
        self.names = [name for name in sorted(sources) if shares.get(name, 0) > 0]
        share = np.array([shares[name] for name in self.names], np.float64)
        if not self.names or not np.isfinite(share).all() or any(value < 0 for value in shares.values()):
            raise ValueError(f"shares must be >= 0, finite and not all zero, got {dict(shares)}")
        self.sources = [sources[name] for name in self.names]
        self._steps, self._seed, self._share = steps, seed, share / share.sum()
        self.task = _schedule(self._share, steps, seed)
        self.turn = np.zeros(steps, np.int64)
        for task in range(len(self.names)):
            steps_of_task = self.task == task
            self.turn[steps_of_task] = np.arange(int(steps_of_task.sum()))  # number of the source's own batch

    @property
    def steps(self) -> int:
        """Number of batches in all."""
        return self._steps

    def epoch(self, step: int) -> float:
        """Passes done over the task that is furthest ahead."""
        counts = np.bincount(self.task[:step], minlength=len(self.names))
        return max(source.epoch(int(count)) for source, count in zip(self.sources, counts, strict=True))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` of ``world`` in the batch of ``step``."""
        task = int(self.task[step])
        made = self.sources[task].batch(int(self.turn[step]), rank, world)
        return Batch(made.content, made.samples, self.names[task])

    def fingerprint(self) -> str:
        """Changes when the sequence of tasks or row numbers changes."""
        parts = [source.fingerprint() for source in self.sources]
        return fingerprint([self.names, self._share.tolist(), self._steps, self._seed, parts])


def _schedule(share: NDArray[np.float64], steps: int, seed: int) -> Rows:
    """Task number of each step, int64 [steps]: each task evenly spread with a random phase, then sorted by time."""
    # Largest remainders get the steps that rounding down has left.
    counts = np.floor(share * steps).astype(np.int64)
    rest = np.argsort(counts - share * steps, kind="stable")[: steps - int(counts.sum())]
    counts[rest] += 1
    rng = np.random.default_rng([seed, 7919])
    times = np.concatenate([(np.arange(count) + rng.random(count)) / max(count, 1) for count in counts])
    return np.repeat(np.arange(len(share)), counts)[np.argsort(times, kind="stable")]


def to_device(value: Any, device: torch.device) -> Any:
    """``value`` with every tensor in its dataclasses, dicts, lists and tuples on ``device`` (for the CPU: as it is)."""
    if device.type == "cpu":
        return value
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        inner = [part.name for part in fields(value) if part.init]
        return replace(value, **{name: to_device(getattr(value, name), device) for name in inner})
    if isinstance(value, dict):
        return {key: to_device(part, device) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(part, device) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(part, device) for part in value)
    return value


def made_ahead(make: Callable[[int], _T], numbers: Sequence[int], ahead: int) -> Generator[_T, None, None]:
    """What ``make`` gives for each number in turn, the next ``ahead`` of them under way in a thread.

    With 0 each is made when it is asked for. Closed before its end, it makes none of those that are left.
    """
    if ahead == 0:
        yield from map(make, numbers)
        return
    with ThreadPoolExecutor(1, "batches") as pool:
        begun = deque(pool.submit(make, number) for number in numbers[:ahead])
        try:
            # One that is taken is replaced by a later one.
            for place in range(len(numbers)):
                made = begun.popleft().result()
                if place + ahead < len(numbers):
                    begun.append(pool.submit(make, numbers[place + ahead]))
                yield made
        finally:
            pool.shutdown(cancel_futures=True)
