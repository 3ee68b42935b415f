"""A training that several processes share, as a script: two tasks with a head each, terms that not every share has.

Usage: python several.py FOLDER [dropout] [accumulate] [differ] [shard] [stop=BATCHES]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from onesearch.common.processes import exchanged, joined, place
from onesearch.training.batching import BatchSource, TaskMixture
from onesearch.training.loop import LoopSettings, fit

STEPS = 24
CONFIG = LoopSettings(
    precision="no",
    learning_rate=1e-2,
    checkpoint_steps=5,
    validate_steps=4,
    best="score",
    average=0.5,
    curves=False,
    log_steps=6,
)


class StoppedError(Exception):
    pass


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.heads = nn.ModuleDict({name: nn.Linear(6, 2) for name in ("first", "second")})
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.0)

    def forward(self, batch, again=False):
        task, x, number = batch
        found = self.heads[task](self.dropout(self.body(x)).tanh()) * self.scale
        terms = {"loss": (found - x[:, :2] * (2 if again else 1)).square().mean()}
        return {**terms, "rare": found.detach().mean()} if number == 0 else terms


def main(folder, *flags):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(96, 4, generator=torch.Generator().manual_seed(1))
    model = Model()
    sources = {
        name: BatchSource(np.ones(96, int), lambda rows, name=name: (name, x[rows], place()[0]), 8, seed=number)
        for number, name in enumerate(model.heads)
    }
    mixture = TaskMixture(sources, {"first": 1, "second": 1}, STEPS, seed=1)
    steps, draws = [], []
    stop = next((int(flag[5:]) for flag in flags if flag.startswith("stop=")), None)

    def loss(wrapped, batch):
        steps.append(len(batch[1]))
        draws.append(float(torch.rand(())))
        if len(steps) - 1 == stop:
            raise StoppedError
        yield wrapped(batch)
        yield wrapped(batch, again=True)  # a second pass with a backward of its own

    def validate(model):
        # Differs between processes, as figures of several GPUs may in their last digits: the first one's counts.
        return {"score": -float(model.body.weight.norm()) + 1000 * place()[0] * len(steps) * (-1) ** len(steps)}

    with joined() as job:
        model.dropout.p = 0.3 if "dropout" in flags else 0.0
        if "differ" in flags and not job.first:
            plain = torch.optim.AdamW.step

            def differing(self, *rest):
                self.param_groups[0]["params"][0].data.add_(1e-3)
                return plain(self, *rest)

            torch.optim.AdamW.step = differing
        config = CONFIG.updated(accumulate=2 if "accumulate" in flags else 1, shard="shard" in flags)
        report = fit(model, mixture, loss, config, Path(folder), validate, seed=1)
        total = [float(value.detach().sum()) for value in model.parameters()]
        every = exchanged([total, report.shares, report.loss, report.chosen_step, draws[-1:], sum(steps)])
        if job.first:
            (Path(folder) / "found.json").write_text(json.dumps(every))
    # A thread of the job that still ran as the interpreter ends would abort it now and then.
    threads = [comm.read_text() for comm in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in threads), threads


if __name__ == "__main__":
    main(*sys.argv[1:])
