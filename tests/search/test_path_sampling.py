"""Drawn paths against the distribution that the exhaustive search and teacher forcing give."""

import pytest
import torch

from onesearch.search.beam_search import beam_search
from onesearch.search.path_sampling import sample_paths
from onesearch.search.path_scoring import score_paths
from small_models import B, catalogue, generator, remember


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["bart", "gpt2", "qwen3"])
@pytest.mark.parametrize("anchored", [True, False])
def test_paths_are_legal_and_have_the_log_probabilities_of_teacher_forcing(kind, anchored):
    index, model = catalogue(), generator(kind, anchored)
    memory = remember(model)
    samples = sample_paths(model, memory, index, 40, draw=drawn())
    assert samples.nodes.shape == samples.log_probs.shape == (B, 40, 5)
    for level in range(1, 5):
        first, count = index.children(level, samples.nodes[:, :, level - 1])
        assert ((samples.nodes[:, :, level] >= first) & (samples.nodes[:, :, level] < first + count)).all()
    owner = torch.arange(B).repeat_interleave(40)
    expected, _ = score_paths(model, memory, samples.nodes.flatten(0, 1), owner, index)
    torch.testing.assert_close(samples.log_probs.flatten(0, 1), expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_paths_come_as_often_as_they_are_likely(temperature):
    index, model, n = catalogue(40), generator(), 20_000
    memory = remember(model, [0, 1])
    samples = sample_paths(model, memory, index, n, temperature, drawn())
    beams = beam_search(model, memory, index, 200)
    for row in range(2):
        often = torch.bincount(samples.nodes[row, :, -1], minlength=index.size(4)) / n
        share = torch.zeros(index.size(4), dtype=torch.float64)
        real = beams.nodes[row] >= 0
        share[beams.nodes[row, real]] = beams.log_probs[row, real].exp()
        if temperature == 1.0:
            error = (often - share).abs() / (share * (1 - share) / n).sqrt().clamp(min=1e-4)
            assert error.max() < 5
        else:  # colder: likely paths come more often than their share
            assert (often * share).sum() > (share * share).sum()


def test_the_same_seed_draws_the_same():
    index, model = catalogue(), generator()
    memory = remember(model)
    one, two = (sample_paths(model, memory, index, 8, draw=drawn(5)).nodes for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, sample_paths(model, memory, index, 8, draw=drawn(6)).nodes)


def test_a_cold_draw_is_greedy():
    index, model = catalogue(), generator()
    memory = remember(model)
    samples = sample_paths(model, memory, index, 3, 1e-4, drawn())
    best = beam_search(model, memory, index, 1).nodes
    assert torch.equal(samples.nodes[:, :, -1], best.expand(B, 3))


def test_impossible_draws_are_refused():
    index, model = catalogue(), generator()
    with pytest.raises(ValueError, match="count"):
        sample_paths(model, remember(model), index, 0)
    with pytest.raises(ValueError, match="temperature"):
        sample_paths(model, remember(model), index, 1, 0.0)
    with pytest.raises(ValueError, match="no item"):
        sample_paths(model, remember(model), catalogue(0), 1)
