"""Seconds of a full V2 step over those of a plain SFT step on the same batches, as ``benchmarks.speed training`` says.

Both take the path of stage 3 as a run takes it (:func:`onesearch.training.loop.fit`), with the shipped form of the
model and the default settings. The V2 step encodes two student copies and the teachers of a third of the prompts, and a
perturbed student: with every pass as long as SFT's that would be 3.3 times its time, and 4 times with all teachers, as
a teacher learns from its own cross-entropy, too.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.speed.bench_workload import Corpus, Workload, corpus
from onesearch.index.sid_index import SidIndex
from onesearch.model.generator import Generator
from onesearch.model.model_settings import PromptSettings
from onesearch.training.batching import BatchSource
from onesearch.training.loop import LoopSettings, fit
from onesearch.training.self_distillation import DistillationSettings, SelfDistillationObjective, distillation_loss
from onesearch.training.sft_settings import PersonalisationSettings
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.tasks import Task, TaskBatch, search_task

WARM_UP: Final = 3
TAUGHT: Final = 1 / 3  # of the page views are complex, as on the simulated markets (0.31)
TARGETS: Final = 3
KEYWORDS: Final = 8

Terms = dict[str, Tensor]
Loss = Callable[[nn.Module, Any], Terms | Iterator[Terms]]


def v2_step_ratios(size: Workload, precision: Literal["no", "bf16"], steps: int, repeats: int) -> dict[str, Any]:
    """Time both kinds of step, the sides taking turns.

    Args:
        size: of data and model.
        precision: of both sides.
        steps: timed per side and repeat, after the first few.
        repeats: turns; a step's time is the median over them.

    Keys: ``v2_step_over_sft_step`` (a third of the prompts have a teacher), ``v2_step_over_sft_step_all`` (every one),
    both medians over the steps, which have the same prompts on all sides; and median milliseconds of each step.
    """
    found = corpus(size, PromptSettings(), TARGETS, KEYWORDS)
    generator, index = found.generator(), found.index()
    some = np.random.default_rng(1).random(size.requests) < TAUGHT
    parts = (generator, index, torch.from_numpy(found.rows))

    def side(taught: NDArray[np.bool_] | None) -> Callable[[], NDArray[np.float64]]:
        task = _task(found, taught)
        objective, loss = _objective(parts, None if taught is None else DistillationSettings())
        return lambda: step_seconds(objective, loss, task, size.batch_size, precision, steps)

    sides = {"sft_step": side(None), "v2_step": side(some), "v2_step_all": side(np.ones_like(some))}
    taken: dict[str, list[NDArray[np.float64]]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            taken[name].append(measure())
    seconds = {name: np.median(np.stack(of), 0) for name, of in taken.items()}
    return {
        "v2_step_over_sft_step": _ratio(seconds["v2_step"], seconds["sft_step"]),
        "v2_step_over_sft_step_all": _ratio(seconds["v2_step_all"], seconds["sft_step"]),
        **{f"{name}_ms": round(float(1e3 * np.median(of)), 1) for name, of in seconds.items()},
        "v2_taught_share": round(float(some.mean()), 3),
    }


def _ratio(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return round(float(np.median(first / second)), 3)


def _task(found: Corpus, taught: NDArray[np.bool_] | None) -> Task:
    weights = np.ones(len(found.targets.values), np.float32)
    negatives = PersonalisationSettings().score_negatives
    return search_task(
        "search", found.builder, found.columns, found.targets, weights, found.size.items, negatives, has_teacher=taught
    )


def _objective(
    parts: tuple[Generator, SidIndex, Tensor], settings: DistillationSettings | None
) -> tuple[SupervisedObjective, Loss]:
    """V2's objective and loss under ``settings``, or plain SFT's; the weights of the other heads are stage 3's."""
    stage = PersonalisationSettings()
    if settings is None:
        return SupervisedObjective(*parts, stage.score_weight, stage.codebook_weight), lambda model, batch: model(batch)
    return SelfDistillationObjective(*parts, stage.score_weight, stage.codebook_weight, settings), distillation_loss


def step_seconds(
    objective: nn.Module, loss: Loss, task: Task, batch_size: int, precision: Literal["no", "bf16"], steps: int
) -> NDArray[np.float64]:
    """Seconds of each of ``steps`` whole steps, optimizer included, after the first few; [steps]."""
    times: list[float] = []

    def timed(model: nn.Module, batch: TaskBatch) -> Terms | Iterator[Terms]:
        times.append(time.perf_counter())
        return loss(model, batch)

    source = BatchSource(task.lengths, task.batch, batch_size, steps=steps + WARM_UP + 1)
    config = LoopSettings(precision=precision, checkpoint_seconds=0, curves=False)
    with tempfile.TemporaryDirectory() as folder:
        fit(objective, source, timed, config, Path(folder), label="benchmark")
    return np.diff(times)[WARM_UP:]
