"""Which device models run on."""

import pytest
import torch

from onesearch.common.device import best_device, device_of


def test_the_best_device_is_a_gpu_where_there_is_one(monkeypatch):
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert best_device().type == device_kind(None) == kind


def device_kind(name):
    return device_of(name).type


def test_a_device_that_is_not_there_is_an_error():
    assert device_kind("cpu") == "cpu"
    for name in ("abacus", "cuda:99"):
        with pytest.raises(ValueError, match="cannot be used here"):
            device_of(name)
