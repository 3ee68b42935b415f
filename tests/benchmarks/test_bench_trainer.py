import copy

import numpy as np
import torch
from benchmarks.speed.bench_trainer import SequencePairs, alternating, bart, loop_rate, trainer_rate

from onesearch.common.ragged import Ragged


def pairs(n=40):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, n)
    inputs = Ragged.from_lengths(rng.integers(5, 50, lengths.sum()).astype(np.int32), lengths)
    return SequencePairs(inputs, rng.integers(5, 50, (n, 4)))


def test_batches_are_padded_to_their_longest_row():
    data = SequencePairs(Ragged.from_lists([[7, 8, 9], [5]]), np.array([[1, 2], [3, 4]]))
    batch = data.batch(np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[5, 1, 1], [7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]] and batch["labels"].tolist() == [[3, 4], [1, 2]]


def test_both_sides_train_and_leave_the_model_alone():
    model = bart(60, 16, 1, 2)
    before = copy.deepcopy(model.state_dict())
    assert trainer_rate(model, pairs(), 8, steps=2, warmup=1) > 0
    assert trainer_rate(model, pairs(), 8, steps=2, warmup=1, grouped=True) > 0
    assert loop_rate(model, pairs(), 8, steps=2, warmup=1) > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sides_take_turns():
    order = []
    rates = {"a": iter([1.0, 9.0, 2.0]), "b": iter([5.0, 5.0, 6.0])}
    sides = {name: lambda name=name: order.append(name) or next(rates[name]) for name in rates}
    assert alternating(sides, 3) == {"a": 2.0, "b": 5.0} and order == ["a", "b"] * 3
