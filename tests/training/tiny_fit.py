"""A small training run with dropout, two tasks, averaged weights and validation; also a script to be killed.

Usage: python tiny_fit.py FOLDER [SECONDS_PER_BATCH]
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from onesearch.training.batching import BatchSource, TaskMixture
from onesearch.training.loop import LoopSettings, fit

STEPS = 60
CONFIG = LoopSettings(
    learning_rate=2e-2,
    precision="no",
    checkpoint_steps=7,
    validate_steps=20,
    log_steps=10,
    average=0.9,
    warmup=0.1,
    curves=False,
)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, 2)

    def forward(self, batch):
        rows, task = batch
        logits = self.head(self.norm(self.dropout(self.embedding(rows % 50))))
        # Advanced indexing adds in its backward pass, which is where thread timing can show.
        picked = self.embedding.weight[rows % 50].square().mean()
        losses = nn.functional.cross_entropy(logits, rows % 2)
        return {"loss": losses + 0.01 * picked + 0.0 * task, "entropy": losses.detach()}


def batches(pause=0.0):
    def collate(task):
        def made(rows):
            time.sleep(pause)
            return torch.from_numpy(rows), task

        return made

    lengths = np.random.default_rng(0).integers(1, 30, 400)
    sources = {
        name: BatchSource(lengths, collate(number), 32, seed=number) for number, name in enumerate(("first", "second"))
    }
    return TaskMixture(sources, {"first": 2, "second": 1}, STEPS, seed=1)


def accuracy(model):
    rows = torch.arange(50)
    torch.rand(100)  # validation may draw: training must not notice
    logits = model.head(model.norm(model.embedding(rows)))
    return {"accuracy": float((logits.argmax(1) == rows % 2).float().mean())}


def train(folder, config=CONFIG, pause=0.0, validate=accuracy, loss=lambda model, batch: model(batch)):
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = Model()
    return model, fit(model, batches(pause), loss, config, Path(folder), validate, seed=5)


if __name__ == "__main__":
    train(sys.argv[1], pause=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
