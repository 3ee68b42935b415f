"""The decoding benchmark at a smoke scale: it runs, and its parts measure what they say."""

import numpy as np
import torch
from benchmarks.speed.bench_decoding import bench_decoding, measure_in_turns
from benchmarks.speed.decoding_parts import Ours, Shape, peer, synthetic_index, synthetic_mask, synthetic_sids


def test_keys_of_the_issue():
    figures = bench_decoding(threads=1, quick=True)
    for key in ("ratio_vs_generate_128", "ratio_vs_generate_512", "times_gemm_512", "growth_100k_to_5m"):
        assert figures[key] > 0
    assert figures["ours_precision_128"] in ("float32", "bfloat16")


def test_the_peer_obeys_the_same_constraint():
    shape = Shape(d=16, layers=1, prompt=4, codebooks=(6, 5, 4, 4, 4))
    index = synthetic_index(80, shape)
    found = peer(shape, index, Ours.make(shape, False, torch.float32), torch.float32)(4)
    starts = 20_000 + np.concatenate([[0], np.cumsum(shape.codebooks)[:-1]])
    assert (index.locate(found[:, 1:] - torch.from_numpy(starts)) >= 0).all()
    assert len(found.unique(dim=0)) == 4


def test_synthetic_catalogue_is_skewed_and_repeatable():
    sids = synthetic_sids(20_000, (64, 32, 16, 16, 16), seed=1)
    assert np.array_equal(sids, synthetic_sids(20_000, (64, 32, 16, 16, 16), seed=1))
    assert (sids.max(0) < [64, 32, 16, 16, 16]).all()
    counts = np.sort(np.bincount(sids[:, 0] * 32 + sids[:, 1], minlength=64 * 32))
    assert counts[-200:].mean() > 4 * counts[:200].mean()


def test_mask_allows_its_share():
    shape = Shape(codebooks=(6, 5, 4, 4, 4))
    index = synthetic_index(2_000, shape)
    assert 0.05 < synthetic_mask(index).count / 2_000 < 0.15


def test_turns_are_interleaved():
    order: list[str] = []
    times = measure_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == ["a", "b", "a", "b", "a", "b"] and set(times) == {"a", "b"}
