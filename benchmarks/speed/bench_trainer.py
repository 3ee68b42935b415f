"""The peer of the training benchmark: samples per second of ``transformers``' ``Seq2SeqTrainer``, and of our loop.

Both train the same ``BartForConditionalGeneration`` on the same rows with the same batch size, precision and optimizer.
The trainer pads each batch to its longest row, as its ``DataCollatorForSeq2Seq`` does; with ``grouped`` it also gathers
rows of similar length, which is not its default. Start-up, the first steps and saving are measured on neither side.
"""

import copy
import logging
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from onesearch.common.ragged import Ragged
from onesearch.training.batching import BatchSource
from onesearch.training.loop import LoopSettings, fit

IGNORED = -100


@dataclass(frozen=True)
class SequencePairs:
    """Training rows: token ids in, token ids out.

    Shapes: ``inputs`` n rows; ``labels`` int64 [n, T], all of one length.
    """

    inputs: Ragged
    labels: NDArray[np.int64]
    pad: int = 1

    def batch(self, rows: NDArray[np.integer]) -> dict[str, Tensor]:
        """Padded to the longest row: ``input_ids`` and ``attention_mask`` int64 [b, S], ``labels`` int64 [b, T]."""
        picked = self.inputs.select(rows)
        lengths = picked.lengths
        ids = picked.padded(max(1, int(lengths.max(initial=0))), fill=self.pad, newest=False)
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        return {
            "input_ids": torch.from_numpy(ids.astype(np.int64)),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "labels": torch.from_numpy(self.labels[rows]),
        }


def bart(vocabulary: int, d_model: int, layers: int, heads: int, positions: int = 256) -> nn.Module:
    """An untrained ``BartForConditionalGeneration`` with ``layers`` encoder and as many decoder layers."""
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=vocabulary,
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * d_model,
        decoder_ffn_dim=4 * d_model,
        max_position_embeddings=positions,
    )
    model: nn.Module = BartForConditionalGeneration(config)
    return model


class _Rows(Dataset[dict[str, Any]]):
    """Row dicts for the trainer; padding is left to the collator, as it would be."""

    def __init__(self, pairs: SequencePairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs.inputs)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_ids": self.pairs.inputs[row], "row": row, "length": len(self.pairs.inputs[row])}


def trainer_rate(
    model: nn.Module,
    pairs: SequencePairs,
    batch_size: int,
    precision: Literal["no", "bf16"] = "no",
    steps: int = 20,
    warmup: int = 3,
    grouped: bool = False,
    learning_rate: float = 5e-4,
) -> float:
    """Samples per second of ``Seq2SeqTrainer`` over ``steps`` steps after ``warmup``, on a copy of ``model``."""
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # the library is untyped
        """Notes when each step ends."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return pairs.batch(np.array([row["row"] for row in rows]))

    noisy = logging.getLogger("transformers.trainer")
    level, noisy.level = noisy.level, logging.ERROR
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            max_steps=steps + warmup,
            learning_rate=learning_rate,
            bf16=precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            remove_unused_columns=False,
            train_sampling_strategy="group_by_length" if grouped else "random",
            length_column_name="length",
        )
        trainer = Seq2SeqTrainer(
            model=copy.deepcopy(model),
            args=arguments,
            train_dataset=_Rows(pairs),
            data_collator=collate,
            callbacks=[Clock()],
        )
        trainer.train()
    noisy.level = level
    return batch_size * steps / (times[-1] - times[warmup - 1])


def loop_rate(
    model: nn.Module,
    pairs: SequencePairs,
    batch_size: int,
    precision: Literal["no", "bf16"] = "no",
    steps: int = 20,
    warmup: int = 3,
    learning_rate: float = 5e-4,
) -> float:
    """Samples per second of :func:`onesearch.training.loop.fit` on the same work; a copy of ``model`` is trained."""
    times: list[float] = []
    counted: list[int] = []

    def loss(module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        times.append(time.perf_counter())
        counted.append(len(batch["labels"]))
        return {"loss": module(**batch).loss}

    source = BatchSource(pairs.inputs.lengths, pairs.batch, batch_size, steps=steps + warmup + 1)
    config = LoopSettings(
        learning_rate=learning_rate, precision=precision, checkpoint_seconds=0, curves=False, log_steps=10_000
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(copy.deepcopy(model), source, loss, config, Path(folder), label="benchmark")
    # From the start of step `warmup` to the start of the last one: whole steps, optimizer included.
    return sum(counted[warmup:-1]) / (times[-1] - times[warmup])


def alternating(sides: dict[str, Any], repeats: int) -> dict[str, float]:
    """Median of each side's rate, the sides taking turns so that a slow spell of the machine hits all."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            found[name].append(float(side()))
    return {name: statistics.median(rates) for name, rates in found.items()}
