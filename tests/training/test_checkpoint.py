import random

import numpy as np
import pytest
import torch
from torch import nn

from onesearch.training.checkpoint import (
    Checkpoints,
    RandomState,
    check_same_run,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    random_state_restored,
    save_tensors,
    save_weights,
)
from onesearch.training.optimizer import adamw, parameter_groups


def trained(fused, steps):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = adamw(parameter_groups(model, 1e-2, 0.1, {}), (0.9, 0.99))
    for group in optimizer.param_groups:
        group["lr"], group["fused"], group["foreach"] = 1e-2, fused, False
    advance(model, optimizer, steps)
    return model, optimizer


def advance(model, optimizer, steps):
    for step in range(steps):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("fused", [True, False])
def test_optimizer_state_returns_bit_equal(tmp_path, fused):
    model, optimizer = trained(fused, 5)
    save_weights(model, tmp_path / "model.safetensors")
    save_tensors(optimizer_tensors(optimizer), tmp_path / "optimizer.safetensors")
    other, restored = trained(fused, 0)
    load_weights(other, tmp_path / "model.safetensors")
    load_optimizer(restored, tmp_path / "optimizer.safetensors")
    advance(model, optimizer, 5)
    advance(other, restored, 5)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_tied_weights_are_written_once_and_stay_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embedding.weight

    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_size < 2 * 40 * 4
    load_weights(other, tmp_path / "m.safetensors")
    assert torch.equal(other.head.weight, model.embedding.weight) and other.head.weight is other.embedding.weight


def test_weights_of_another_model_are_refused_with_the_file_name(tmp_path):
    save_weights(nn.Linear(2, 3), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"m\.safetensors does not fit"):
        load_weights(nn.Linear(3, 3), tmp_path / "m.safetensors")


def test_only_complete_checkpoints_are_found_and_old_ones_go(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.newest() is None
    for step in (5, 10, 15):
        (checkpoints.begin(step) / "file").write_text(str(step))
        checkpoints.finish(step)
    half = checkpoints.begin(20)
    (half / "file").write_text("half")
    assert checkpoints.newest().name == "step-00000015"
    assert sorted(p.name for p in checkpoints.folder.glob("step-*")) == ["step-00000010", "step-00000015"]
    checkpoints.begin(25)
    assert not half.exists()


def draws():
    return [torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.gauss(0, 1)]


def test_random_states_return(tmp_path):
    draws()  # leaves a second normal value waiting inside the generators
    RandomState.now().save(tmp_path, 0)
    first = draws()
    RandomState.load(tmp_path, 0).restore()
    assert draws() == first
    RandomState.load(tmp_path, 0).restore()
    with random_state_restored():
        draws()
    assert draws() == first


def test_another_runs_checkpoint_is_refused(tmp_path):
    check_same_run({"fingerprint": "a"}, "a", tmp_path)
    with pytest.raises(ValueError, match="another training run"):
        check_same_run({"fingerprint": "a"}, "b", tmp_path)
