"""The GPU benchmark at a tiny size on the CPU; how beams are compared, by hand."""

import pytest
import torch
from benchmarks.gpu import compared, measure, peak_flops

from onesearch.search.beam_search import Beams


def test_every_part_runs_on_the_cpu():
    figures = measure("cpu", quick=True)
    training, decoding = figures["training"], figures["decoding"]
    assert training["samples_per_s"] > 0 and training["times_trainer"] > 0 and 0 < training["share_of_peak"] < 1
    assert set(decoding["batch_ms_per_search"]) == {"1", "2"} and decoding["search_ms"] > decoding["products_ms"] > 0
    assert decoding["times_as_fast_as_generate"] > 0
    assert figures["agreement"]["float32"] == {"overlap@10": 1.0, "log-probability off": 0.0}
    assert 0.5 < figures["agreement"]["bfloat16"]["overlap@10"] <= 1


def test_beams_are_compared_by_hand():
    def beams(nodes, scores):
        return Beams(torch.tensor(nodes), torch.tensor(scores), torch.zeros(len(nodes), 0))

    one = beams([[1, 2, 3], [4, 5, 6]], [[-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]])
    other = beams([[2, 1, 9], [4, 5, 7]], [[-1.0, -1.5, -3.0], [-1.0, -2.25, -3.0]])
    assert compared(one, other, 2) == (1.0, 1.0)
    assert compared(one, other, 3) == (pytest.approx(4 / 6), 1.0)
    assert compared(one, one, 10) == (1.0, 0.0)


def test_the_peak_is_counted_in_operations(monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.measure_in_turns", lambda runs, turns, device: {"product": 0.5})
    assert peak_flops("cpu", 100) == 4_000_000
