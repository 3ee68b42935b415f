"""``onesearch bench training``: samples per second of the last training stage over transformers' ``Seq2SeqTrainer``.

Both sides train a BART of the same size on the same token rows and the same five labels, with the same batch size and
precision, from random weights. Ours is the path of stage 3 as a run takes it (prompt builder, task batches, softmax
over legal children, :func:`onesearch.training.loop.fit`) with the generator in its plain form and without what the
peer does not have: item score, soft tokens. The sides take turns.
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

from onesearch.data.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.evaluation.bench_trainer import SequencePairs, alternating, bart, trainer_rate
from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import BackboneConfig
from onesearch.model.config import ModelConfig, PromptConfig
from onesearch.model.features import TextTable
from onesearch.model.generator import Generator, Sizes
from onesearch.model.prompt import PromptBuilder, prepare
from onesearch.model.vocabulary import PAD, Vocabulary
from onesearch.training.batching import BatchSource
from onesearch.training.loop import LoopConfig, fit
from onesearch.training.precision import Precision, resolve
from onesearch.training.tasks import Task, TaskBatch, search_task
from onesearch.training.trainee import Trainee

WARM_UP = 3
POSITIONS = 256
WORDS = ("red", "blue", "shoe", "boot", "lamp", "table", "small", "big", "steel", "wood", "drill", "garden")


@dataclass(frozen=True)
class Workload:
    """Sizes of the benchmark."""

    items: int = 20_000
    requests: int = 4096
    batch_size: int = 128
    d_model: int = 128
    layers: int = 2
    heads: int = 4
    codebooks: tuple[int, ...] = (256, 128, 64, 256, 256)
    subwords: int = 1000
    row: int = 128


QUICK = Workload(300, 64, 8, 16, 1, 2, (16, 8, 8, 16, 16), 300, 16)


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
    """Run the benchmark; ``quick`` is a smoke test at tiny sizes, whose figures mean nothing.

    Args:
        threads: of torch, both sides.
        precision: of both sides; "auto" as in training.
        steps: measured per side and repeat, after the first few.
        quick: tiny sizes, one repeat.
        repeats: turns; each side's figure is the median of its turns.

    Keys: ``ratio_vs_trainer`` (ours over the trainer with its default, random batches), ``ratio_vs_grouped_trainer``
    (over the trainer with ``group_by_length``), samples per second of each, ``precision``, and the sizes.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _bench(resolve(precision), steps, QUICK if quick else Workload(), 1 if quick else repeats, threads)
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
        "precision": precision, "threads": threads, "steps": steps, "repeats": repeats,
        "batch_size": size.batch_size, "items": size.items,
        "mean_prompt_tokens": round(float(sides.pairs.inputs.lengths.mean()), 1),
        "layer_parameters": sum(p.numel() for n, p in sides.generator.named_parameters() if ".layers." in n),
        "trainer_layer_parameters": sum(p.numel() for n, p in sides.peer.named_parameters() if ".layers." in n),
    }  # fmt: skip


def stage_rate(sides: Sides, batch_size: int, precision: Precision, steps: int) -> float:
    """Samples per second of stage 3 over whole steps, optimizer included, after the first few."""
    times: list[float] = []
    counted: list[int] = []

    def losses(model: nn.Module, batch: TaskBatch) -> dict[str, Tensor]:
        times.append(time.perf_counter())
        counted.append(len(batch.prompt))
        out: dict[str, Tensor] = model(batch)
        return out

    trainee = Trainee(sides.generator, sides.index, sides.rows, score_weight=0.0)
    source = BatchSource(sides.task.lengths, sides.task.batch, batch_size, steps=steps + WARM_UP + 1)
    config = LoopConfig(precision=precision, checkpoint_seconds=0, curves=False)
    with tempfile.TemporaryDirectory() as folder:
        fit(trainee, source, losses, config, Path(folder), label="benchmark")
    return sum(counted[WARM_UP:-1]) / (times[-1] - times[WARM_UP])


def synthetic(size: Workload, seed: int = 0) -> Sides:
    """Random items and page views: shoppers with none to many past clicks, prompts of about 64 tokens on average."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    n, books = size.requests, size.codebooks
    sids = np.stack([rng.integers(0, k, size.items) for k in books], 1).astype(np.int32)
    rows = _unit(rng, size.items, size.row)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(n)]
    vocabulary = Vocabulary.train(texts, size.subwords, books)

    def table(distinct: Any) -> TextTable:
        codes = np.stack([rng.integers(0, k, len(distinct)) for k in books], 1).astype(np.int32)
        vectors = _unit(rng, len(distinct), size.row)
        return TextTable(list(distinct), vocabulary.tokens(distinct, 24), vectors, codes, vectors)

    prompt = PromptConfig(long=0, query_vector=False)
    clicked, ordered, evidence = (_history(rng, n, size.items, most) for most in (12, 6, 5))
    recent = [tuple(texts[i] for i in rng.integers(0, n, rng.integers(0, 3))) for _ in range(n)]
    requests = Requests(
        texts, np.full(n, -1), ["F 24-30"] * n, recent, clicked, np.full_like(clicked, -1), ordered
    )  # fmt: skip
    columns = prepare(requests, table, prompt, evidence[:, ::-1])
    builder = PromptBuilder(vocabulary, prompt, sids)
    wanted = rng.integers(0, size.items, n).astype(np.int32)
    targets = Ragged.from_lengths(wanted, np.ones(n, np.int64))
    task = search_task("search", builder, columns, targets, np.ones(n, np.float32), size.items, 1)
    backbone = BackboneConfig(
        d_model=size.d_model, heads=size.heads, encoder_layers=size.layers, decoder_layers=size.layers,
        max_positions=POSITIONS,
    )  # fmt: skip
    config = ModelConfig(backbone=backbone, prompt=prompt, anchored=False, item_score=False, row_dim=size.row)
    centroids = [torch.randn(k, size.row) for k in books[:3]]
    generator = Generator(config, Sizes(vocabulary.text_size, books, size.row, size.row), centroids)
    whole = builder.search_prompt(columns, np.arange(n))
    mask = whole.mask.numpy()
    inputs = Ragged.from_lengths(whole.tokens.numpy()[mask].astype(np.int32), mask.sum(1).astype(np.int64))
    pairs = SequencePairs(inputs, vocabulary.sid_tokens(sids[wanted]).astype(np.int64), PAD)
    peer = bart(vocabulary.text_size + vocabulary.extra_size, size.d_model, size.layers, size.heads, POSITIONS)
    return Sides(task, SidIndex.build(sids, rows, books), torch.from_numpy(rows), generator, pairs, peer)


def _unit(rng: np.random.Generator, n: int, width: int) -> Any:
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _history(rng: np.random.Generator, n: int, items: int, most: int) -> Any:
    """0 to ``most`` items per request, right-aligned: int32 [n, most], -1 for none."""
    rows = rng.integers(0, items, (n, most)).astype(np.int32)
    return np.where(np.arange(most) >= most - rng.integers(0, most + 1, n)[:, None], rows, -1).astype(np.int32)
