"""A generator that several processes train, each holding a part of it, as a script.

Usage: python in_parts.py FOLDER KIND [shard] [recompute] [teacher] [fgm]
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from onesearch.common.processes import exchanged, joined
from onesearch.model.prompt_batch import PromptBatch
from onesearch.model.token_vocabulary import MARKS
from onesearch.training import loop
from onesearch.training.batching import BatchSource, TaskMixture
from onesearch.training.held_model import ShardedModel
from onesearch.training.loop_settings import LoopSettings
from onesearch.training.self_distillation import DistillationSettings, SelfDistillationObjective, distillation_loss
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.tasks import TaskBatch, item_targets
from small_models import R, catalogue, generator, prompts

N, ROWS, STEPS = 40, 32, 9


def batch(task: str, rows: np.ndarray, teacher: bool) -> TaskBatch:
    """Of all rows the same length, so that a share's padding is that of the whole."""
    pool, chosen = prompts(ROWS), torch.from_numpy(rows)
    prompt = PromptBatch(
        pool.tokens[chosen], pool.mask[chosen], pool.query_vectors[chosen], pool.query_head_rows[chosen], None
    )
    if task == "codes":
        return TaskBatch(task, prompt, sids=torch.stack([chosen % size for size in (5, 4, 3, 6, 6)], 1))
    if task == "text":
        return TaskBatch(task, prompt, text=torch.stack([chosen % 3 + 4, chosen % 7 + 8, chosen % 2 + 2], 1))
    items = item_targets(rows * 7 % N, np.arange(len(rows)), np.ones(len(rows)), N, N, rows)
    made = TaskBatch(task, prompt, items=items)
    known = torch.arange(len(rows))[chosen % 8 == 3]  # a share may have no row with a teacher
    if teacher and len(known):
        tokens = prompt.tokens[known].clone()
        tokens[:, 1] = 20 + MARKS.index("kw")
        made.teacher = PromptBatch(
            tokens, prompt.mask[known], *(x[known] for x in (prompt.query_vectors, prompt.query_head_rows)), None,
            keyword_vectors=prompt.query_vectors[known].flip(0),
        )  # fmt: skip
        made.with_teacher = known
    return made


def main(folder: str, kind: str, *flags: str) -> None:
    torch.set_num_threads(1)
    held = []
    plain = ShardedModel.__init__

    def watched(self, model, device, sharding):
        plain(self, model, device, sharding)
        held.append([sharding, sum(part.numel() for part in self.parts.values())])

    ShardedModel.__init__ = watched
    rows = torch.randn(N, R, generator=torch.Generator().manual_seed(0))
    model = generator(kind, dtype=torch.float32, word_rows=True)
    if os.environ.get("RANK") == "1":  # the first process's weights count
        model.begin.data += 1
    parts = (model, catalogue(N), rows, 0.5, 0.1)
    if "teacher" in flags:
        distilled = DistillationSettings(r_drop=0, fgm=0.5 if "fgm" in flags else 0)
        objective, loss = SelfDistillationObjective(*parts, distilled), distillation_loss
    else:
        objective, loss = SupervisedObjective(*parts), lambda model, batch: model(batch)
    names = ("items", "codes", "text")
    made = {
        name: BatchSource(
            np.ones(ROWS, int), lambda rows, name=name: batch(name, rows, "teacher" in flags), 8, seed=place, name=name
        )
        for place, name in enumerate(names)
    }
    config = LoopSettings(
        precision="no", learning_rate=1e-2, average=0.5, curves=False, log_steps=3, checkpoint_steps=4,
        shard="shard" in flags, recompute="recompute" in flags, learning_rates={"generator.word_": 5},
    )  # fmt: skip

    def validate(_):
        with torch.no_grad():
            return {"loss": float(objective.eval()(batch("items", np.arange(ROWS), False))["loss"])}

    with joined() as job:
        mixture = TaskMixture(made, dict.fromkeys(names, 1.0), STEPS, seed=1)
        report = loop.fit(objective, mixture, loss, config, Path(folder), validate, seed=1)
        every = exchanged({"held": held, "metrics": report.metrics, "shares": report.shares})
        if job.first:
            size = sum(p.numel() for p in objective.parameters())
            (Path(folder) / "found.json").write_text(json.dumps({"size": size, "every": every}))


if __name__ == "__main__":
    main(*sys.argv[1:])
