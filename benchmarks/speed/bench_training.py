"""``benchmarks.speed training``: samples per second of the last training stage over transformers' ``Seq2SeqTrainer``.

Both sides train a BART of the same size on the same token rows and the same five labels, with the same batch size and
precision, from random weights. Ours is the path of stage 3 as a run takes it (prompt builder, task batches, softmax
over legal children, :func:`onesearch.training.loop.fit`) with the generator in its plain form and without what the
peer does not have: item score, soft tokens. The sides take turns. V2's and TPMA's
steps are timed against SFT's in the same way.
"""

import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.bench_tpma_step import tpma_step_ratio
from benchmarks.speed.bench_trainer import SequencePairs, alternating, bart, trainer_rate
from benchmarks.speed.bench_v2_step import v2_step_ratios
from benchmarks.speed.bench_workload import POSITIONS, QUICK, Workload, corpus
from onesearch.common.ragged import Ragged
from onesearch.index.sid_index import SidIndex
from onesearch.model.generator import Generator
from onesearch.model.model_settings import PromptSettings
from onesearch.model.token_vocabulary import PAD
from onesearch.training.batching import BatchSource
from onesearch.training.loop import LoopSettings, fit
from onesearch.training.precision import Precision, resolve_precision
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.tasks import Task, TaskBatch, search_task

WARM_UP = 3


@dataclass(frozen=True)
class Sides:
    """The same work for both: our task, index and model, and the peer's rows and model."""

    task: Task
    index: SidIndex
    rows: Tensor
    generator: Generator
    pairs: SequencePairs
    peer: nn.Module


def bench_training(
    threads: int = 2, precision: Precision = "auto", steps: int = 20, quick: bool = False, repeats: int = 3
) -> dict[str, Any]:
    """Run the benchmarks; ``quick`` is a smoke test at tiny sizes, whose figures mean nothing.

    Args:
        threads: of torch, both sides.
        precision: of both sides; "auto" as in training.
        steps: measured per side and repeat, after the first few.
        quick: tiny sizes, one repeat.
        repeats: turns; each side's figure is the median of its turns.

    Keys: ``ratio_vs_trainer`` (ours over the trainer with its default, random batches), ``ratio_vs_grouped_trainer``
    (over the trainer with ``group_by_length``), samples per second of each, ``precision``, and the sizes; then those of
    :func:`~benchmarks.speed.bench_v2_step.v2_step_ratios` and of
    :func:`~benchmarks.speed.bench_tpma_step.tpma_step_ratio`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _bench(
            resolve_precision(precision), steps, QUICK if quick else Workload(), 1 if quick else repeats, threads
        )
    finally:
        torch.set_num_threads(before)


def _bench(precision: Literal["no", "bf16"], steps: int, size: Workload, repeats: int, threads: int) -> dict[str, Any]:
    sides = synthetic(size)

    def trainer(grouped: bool) -> float:
        # The trainer prints its own summary; standard output is for our figures alone.
        with contextlib.redirect_stdout(sys.stderr):
            return trainer_rate(sides.peer, sides.pairs, size.batch_size, precision, steps, WARM_UP, grouped)

    rates = alternating(
        {
            "onesearch": lambda: stage_rate(sides, size.batch_size, precision, steps),
            "trainer": lambda: trainer(False),
            "grouped_trainer": lambda: trainer(True),
        },
        repeats,
    )
    return {
        "ratio_vs_trainer": round(rates["onesearch"] / rates["trainer"], 3),
        "ratio_vs_grouped_trainer": round(rates["onesearch"] / rates["grouped_trainer"], 3),
        **{f"{name}_samples_per_second": round(rate, 1) for name, rate in rates.items()},
        "precision": precision,
        "threads": threads,
        "steps": steps,
        "repeats": repeats,
        "batch_size": size.batch_size,
        "items": size.items,
        "mean_prompt_tokens": round(float(sides.pairs.inputs.lengths.mean()), 1),
        "layer_parameters": sum(p.numel() for n, p in sides.generator.named_parameters() if ".layers." in n),
        "trainer_layer_parameters": sum(p.numel() for n, p in sides.peer.named_parameters() if ".layers." in n),
        **v2_step_ratios(size, precision, steps, repeats),
        **tpma_step_ratio(size, precision, steps, repeats),
    }


def stage_rate(sides: Sides, batch_size: int, precision: Precision, steps: int) -> float:
    """Samples per second of stage 3 over whole steps, optimizer included, after the first few."""
    times: list[float] = []
    counted: list[int] = []

    def losses(model: nn.Module, batch: TaskBatch) -> dict[str, Tensor]:
        times.append(time.perf_counter())
        counted.append(len(batch.prompt))
        out: dict[str, Tensor] = model(batch)
        return out

    objective = SupervisedObjective(sides.generator, sides.index, sides.rows, score_weight=0.0)
    source = BatchSource(sides.task.lengths, sides.task.batch, batch_size, steps=steps + WARM_UP + 1)
    config = LoopSettings(precision=precision, checkpoint_seconds=0, curves=False)
    with tempfile.TemporaryDirectory() as folder:
        fit(objective, source, losses, config, Path(folder), label="benchmark")
    return sum(counted[WARM_UP:-1]) / (times[-1] - times[WARM_UP])


def synthetic(size: Workload, seed: int = 0) -> Sides:
    """The workload in the plain form of prompt and model, one target each, as the peer's rows too."""
    made = corpus(size, PromptSettings(long=0, query_vector=False), seed=seed)
    n, wanted = size.requests, made.targets.values
    task = search_task("search", made.builder, made.columns, made.targets, np.ones(n, np.float32), size.items, 1)
    generator = made.generator(anchored=False, item_score=False)
    whole = made.builder.search_prompt(made.columns, np.arange(n))
    mask = whole.mask.numpy()
    inputs = Ragged.from_lengths(whole.tokens.numpy()[mask].astype(np.int32), mask.sum(1).astype(np.int64))
    pairs = SequencePairs(inputs, made.vocabulary.sid_tokens(made.sids[wanted]).astype(np.int64), PAD)
    text = made.vocabulary
    peer = bart(text.text_size + text.extra_size, size.d_model, size.layers, size.heads, POSITIONS)
    return Sides(task, made.index(), torch.from_numpy(made.rows), generator, pairs, peer)
