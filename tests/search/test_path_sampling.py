"""Drawn paths against the distribution that the exhaustive search and teacher forcing give."""

import pytest
import torch

from onesearch.index.sid_index import SidIndex
from onesearch.search.beam_search import beam_search
from onesearch.search.path_sampling import sample_paths
from onesearch.search.path_scoring import OwnClicks, score_paths
from small_models import CODEBOOKS, B, catalogue, generator, remember


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


@pytest.mark.parametrize("anchored", [True, False])
def test_whole_codebooks_train_the_head_that_decodes(anchored):
    """The item head, which a loss over whole codebooks leaves as it is, has no say in what is found."""
    index, model = catalogue(), generator(anchored=anchored, legal_softmax=False)
    memory = remember(model)
    assert not model.anchored
    # What is trained: by hand, the codebook head's cross-entropy over all codes, and nothing of the item head.
    item, owner = torch.tensor([7]), torch.tensor([1])
    path = index.path(item)
    trained, hidden = score_paths(model, memory, path, owner, index, legal_softmax=False)
    sid = index.sids(4, path[:, -1])
    for level in range(5):
        of_codes = model.codebook_logits(level, hidden[:, level]).log_softmax(1)
        torch.testing.assert_close(trained[0, level].double(), of_codes[0, sid[0, level]], atol=1e-5, rtol=1e-5)
    trained.sum().backward()
    untrained = [*model.item_head.parameters(), *model.from_row.parameters()]
    assert all(parameter.grad is None for parameter in untrained)
    # What decodes: the same logits over the legal children; that of item 7 is exact by hand on its first level.
    before = beam_search(model, memory, index, 20)
    legal = model.codebook_logits(0, hidden[:, 0])[0, index.codes(0, torch.arange(index.size(0))).long()].log_softmax(0)
    decoded, _ = score_paths(model, memory, path, owner, index)
    torch.testing.assert_close(decoded[0, 0].double(), legal[path[0, 0]], atol=1e-5, rtol=1e-5)
    found = sample_paths(model, memory, index, 40, draw=drawn())
    expected, _ = score_paths(model, memory, found.nodes.flatten(0, 1), torch.arange(B).repeat_interleave(40), index)
    torch.testing.assert_close(found.log_probs.flatten(0, 1), expected.float(), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for parameter in untrained:
            parameter.add_(torch.randn_like(parameter))
    after = beam_search(model, memory, index, 20)
    assert torch.equal(before.nodes, after.nodes) and torch.equal(before.log_probs, after.log_probs)


@pytest.mark.parametrize("form", [{"anchored": False}, {"legal_softmax": False}])
def test_codebook_rows_know_nothing_of_own_clicks(form):
    """What the page view that is learnt added to an item's row is no part of a logit that has no row."""
    index, model = catalogue(), generator(**form)
    memory, path, owner = remember(model), index.path(torch.tensor([7])), torch.tensor([1])
    own = OwnClicks(path.unsqueeze(1), torch.tensor([[[0.5, -1.0, 2.0]]]))
    plain, left = (score_paths(model, memory, path, owner, index, leave_out=given)[0] for given in (None, own))
    assert torch.equal(plain, left)


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


def test_own_clicks_are_taken_off_wherever_their_items_are_candidates():
    """Paths of all items, as if a page view with two clicks had never been counted."""
    model, index, n = generator(), catalogue(40), 40
    with torch.no_grad():
        model.from_row.weight.zero_()
    clicked, own = torch.tensor([8, 12]), torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.5, -0.5]])
    rows = index.item_vectors(index.position_of(torch.arange(n))).clone()
    rows[clicked, -3:] -= own
    paths, owner = index.path(torch.arange(n)), torch.zeros(n, dtype=torch.long)
    before = SidIndex.build(index.sids(4, paths[:, 4]).numpy(), rows.numpy(), CODEBOOKS)
    memory = remember(model, [0])
    # Of two page views with one and two clicks the second is asked for: fewer clicks are filled up with none.
    others = torch.cat([index.path(torch.tensor([20])), paths[clicked]]), torch.cat([own[:1], own])
    left = OwnClicks.from_items(*others, torch.tensor([0, 1, 1]), 2)
    found, _ = score_paths(model, memory, paths, owner, index, leave_out=left.select(owner + 1))
    expected, _ = score_paths(model, memory, paths, owner, before)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    alone, _ = score_paths(model, memory, paths, owner, index, leave_out=left.select(owner))
    rows[clicked, -3:] += own
    rows[20, -3:] -= own[0]
    before = SidIndex.build(index.sids(4, paths[:, 4]).numpy(), rows.numpy(), CODEBOOKS)
    torch.testing.assert_close(alone, score_paths(model, memory, paths, owner, before)[0], atol=1e-5, rtol=1e-4)
