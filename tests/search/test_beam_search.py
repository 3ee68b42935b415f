"""The beam search against its plain twin, in every batch composition, with filters, ties and forced paths."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onesearch.index.changed_index import ChangedIndex
from onesearch.index.sid_index import SidIndex
from onesearch.search.beam_search import Beams, beam_search
from onesearch.search.path_scoring import score_paths
from onesearch.search.ragged_scores import Children, best, pad_rows, ragged_logsumexp, ragged_products
from search.reference_beam import reference_beam_search
from small_models import CODEBOOKS, B, R, catalogue, generator, remember


class Only:
    """A filter that allows the items at some sorted positions."""

    def __init__(self, index: SidIndex, positions: list[int]) -> None:
        self.index, self.allowed_items = index, torch.zeros(len(index) + 1, dtype=torch.long)
        self.allowed_items[torch.tensor(positions, dtype=torch.long) + 1] = 1
        self.before = self.allowed_items.cumsum(0)

    def allowed(self, level, nodes):
        first, last = self.index.positions(level, nodes)
        return self.before[last] > self.before[first]


def same(beams: Beams, row: int, reference: list[tuple[int, float]]) -> None:
    n = len(reference)
    assert beams.nodes[row, :n].tolist() == [node for node, _ in reference]
    np.testing.assert_allclose(beams.log_probs[row, :n], [score for _, score in reference], atol=1e-9)
    assert (beams.nodes[row, n:] == -1).all() and (beams.log_probs[row, n:] == -math.inf).all()


@pytest.mark.parametrize("kind", ["bart", "gpt2", "qwen3"])
@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("width", [1, 7, 200])
def test_equals_the_reference(kind, anchored, width):
    index, model = catalogue(), generator(kind, anchored)
    memory = remember(model)
    beams = beam_search(model, memory, index, width)
    assert beams.nodes.shape == beams.log_probs.shape == (B, width)
    for row in range(B if width < 200 else 1):
        same(beams, row, reference_beam_search(model, memory, row, index, width))


@pytest.mark.parametrize("width", [6, 60])
def test_forced_paths_need_no_decoding(width, monkeypatch):
    index, model = catalogue(), generator()
    memory = remember(model)
    decoded = []
    step = model.step
    monkeypatch.setattr(
        model, "step", lambda state, embeds, parents: decoded.append(embeds.shape[1]) or step(state, embeds, parents)
    )
    skipping = beam_search(model, memory, index, width)
    few = sum(decoded)
    every = beam_search(model, memory, index, width, decode_forced=True)
    assert few < sum(decoded) - few
    assert torch.equal(skipping.nodes, every.nodes)
    torch.testing.assert_close(skipping.log_probs, every.log_probs, atol=1e-12, rtol=0)


def test_exhaustive_search_sums_to_one():
    index, model = catalogue(), generator()
    beams = beam_search(model, remember(model), index, 200)
    assert index.size(4) < 200
    torch.testing.assert_close(beams.log_probs.exp().sum(1), torch.ones(B, dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, B - 1), min_size=1, max_size=5), st.integers(1, 30), st.booleans())
def test_batch_composition_does_not_matter(rows, width, anchored):
    index, model = catalogue(), generator(anchored=anchored)
    together = beam_search(model, remember(model), index, width)
    some = beam_search(model, remember(model, rows), index, width)
    assert torch.equal(some.nodes, together.nodes[rows])
    torch.testing.assert_close(some.log_probs, together.log_probs[rows], atol=1e-11, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 119), max_size=40), st.integers(1, 12), st.integers(0, 2**31))
def test_filters_equal_the_reference(positions, width, seed):
    index, model = catalogue(), generator()
    memory = remember(model)
    mask = Only(index, sorted(positions))
    masks = [mask, None, mask, Only(index, [seed % 120])]
    beams = beam_search(model, memory, index, width, masks)
    for row in (0, 3):
        same(beams, row, reference_beam_search(model, memory, row, index, width, masks[row]))
    one = beam_search(model, memory, index, width, mask)
    assert torch.equal(one.nodes[[0, 2]], beams.nodes[[0, 2]])
    free = beam_search(model, memory, index, width)
    assert torch.equal(free.nodes[1], beams.nodes[1])


def test_filtered_exhaustive_search_is_the_unfiltered_ranking_without_the_others():
    index, model = catalogue(), generator()
    memory = remember(model)
    mask = Only(index, list(range(0, 120, 7)))
    free, held = beam_search(model, memory, index, 200), beam_search(model, memory, index, 200, mask)
    for row in range(B):
        nodes = free.nodes[row][free.nodes[row] >= 0]
        keep = mask.allowed(4, nodes)
        n = int(keep.sum())
        assert held.nodes[row, :n].tolist() == nodes[keep].tolist() and (held.nodes[row, n:] == -1).all()
        torch.testing.assert_close(held.log_probs[row, :n], free.log_probs[row][: len(nodes)][keep])


def test_ties_go_to_the_lower_node():
    index, model = catalogue(), generator(anchored=False)
    for parameter in model.code_transform.parameters():
        parameter.data.zero_()  # every legal child is equally likely
    memory = remember(model)
    for width in (3, 9, 40):
        beams = beam_search(model, memory, index, width)
        for row in range(B):
            node, score = beams.nodes[row], beams.log_probs[row]
            assert ((score[:-1] > score[1:] + 1e-12) | (node[:-1] < node[1:])).all()
    assert torch.equal(beams.nodes[0], beams.nodes[1])


def other_paths(index: SidIndex, seed: int, wanted: int = 9) -> torch.Tensor:
    """Random items' paths for each request, with repeats, and some that are none."""
    items = torch.tensor(np.random.default_rng(seed).integers(-4, 120, (B, wanted)))
    items[:, 3] = items[:, 0]
    return index.path(items.flatten()).view(B, wanted, -1)


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("width", [1, 7, 200])
def test_other_paths_have_the_log_probabilities_of_teacher_forcing_and_change_no_beam(kind, anchored, width):
    index, model = catalogue(), generator(kind, anchored)
    memory, paths = remember(model), other_paths(index, seed=width)
    alive = paths[..., 0] >= 0
    masks = [None, Only(index, []), Only(index, [3, 70]), None]
    for mask in (None, masks):
        plain = beam_search(model, memory, index, width, mask)
        beams = beam_search(model, memory, index, width, mask, others=paths)
        assert torch.equal(beams.nodes, plain.nodes)
        torch.testing.assert_close(beams.log_probs, plain.log_probs, atol=1e-12, rtol=0)
        expected, _ = score_paths(model, memory, paths[alive], alive.nonzero()[:, 0], index)
        torch.testing.assert_close(beams.others[alive].float(), expected.sum(1), atol=1e-5, rtol=1e-5)
        assert alive.any() and (~alive).any() and (beams.others[~alive] == -math.inf).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 40))
@example(1626281073, 4, 3)  # filling has the row of a wider step before
@example(927624393, 2, 6)
def test_other_paths_of_requests_with_more_and_with_fewer_of_them(seed, width, most):
    """Some are down to one item early, so that their rows are those of a step long ago."""
    index, model = catalogue(n=40, seed=seed % 7), generator()
    rng = np.random.default_rng(seed)
    items = torch.tensor(rng.integers(0, 40, (B, most)))
    items[torch.tensor(rng.random((B, most)) < rng.random((B, 1)))] = -1
    paths = index.path(items.flatten()).view(B, most, -1)
    alive, memory = items >= 0, remember(model)
    found = beam_search(model, memory, index, width, others=paths).others
    if alive.any():
        expected, _ = score_paths(model, memory, paths[alive], alive.nonzero()[:, 0], index)
        torch.testing.assert_close(found[alive].float(), expected.sum(1), atol=1e-5, rtol=1e-5)


def test_other_paths_share_the_steps_of_beams_and_of_each_other(monkeypatch):
    """Of one request: the items of the best beams cost nothing; ten times the same path costs one row a step."""
    index, model = catalogue(), generator()
    memory = remember(model, [0])
    decoded, step = [], model.step
    monkeypatch.setattr(
        model, "step", lambda state, embeds, parents: decoded.append(embeds.shape[1]) or step(state, embeds, parents)
    )

    def rows(others: torch.Tensor | None) -> int:
        decoded.clear()
        beam_search(model, memory, index, 6, others=others)
        return sum(decoded)

    best = index.item_rows(index.positions(4, beam_search(model, memory, index, 6).nodes[0])[0])
    alone = rows(None)
    assert rows(index.path(best)[None]) == alone
    # A path apart from the best beams: all five first nodes are beams, then a row for each level that has a choice.
    every = index.path(torch.arange(120))
    beams = set(index.path(best)[:, 0].tolist())
    far = next(path for path in every if path[0].item() not in beams and index.counts(3, path[3:4]).item() > 1)
    assert rows(far.expand(1, 1, -1)) == rows(far.expand(1, 10, -1)) == alone + 3


def test_small_and_empty_catalogues():
    model = generator()
    memory = remember(model)
    one = SidIndex.build(np.array([[1, 2, 0, 3, 5]]), np.ones((1, R), np.float32), CODEBOOKS)
    beams = beam_search(model, memory, one, 3)
    assert beams.nodes.tolist() == [[0, -1, -1]] * B and beams.log_probs[:, 0].tolist() == [0.0] * B
    empty = ChangedIndex.over(one).remove([0])
    assert (beam_search(model, memory, empty.merged(), 3).nodes == -1).all()
    assert (beam_search(model, memory, empty, 3).nodes == -1).all()
    paths = torch.tensor([[[0] * 5, [-1] * 5]] * B)
    assert beam_search(model, memory, one, 3, others=paths).others.tolist() == [[0.0, -math.inf]] * B
    assert (beam_search(model, memory, empty, 3, others=paths - 1).others == -math.inf).all()
    with pytest.raises(ValueError, match="width"):
        beam_search(model, memory, one, 0)
    with pytest.raises(ValueError, match="filters"):
        beam_search(model, memory, one, 2, [None])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_float32_and_bfloat16_models(precision):
    index = catalogue(precision=precision)
    wide = beam_search(generator(), remember(generator()), index, 8)
    model = generator(dtype=torch.float32)
    single = beam_search(model, remember(model), index, 8)
    assert single.log_probs.dtype == torch.float32
    torch.testing.assert_close(single.log_probs.double(), wide.log_probs, atol=1e-4, rtol=0)
    assert torch.equal(single.nodes, wide.nodes)
    model = generator(dtype=torch.bfloat16)
    half = beam_search(model, remember(model), index, 8)
    overlap = np.mean([len(set(half.nodes[i].tolist()) & set(wide.nodes[i].tolist())) / 8 for i in range(B)])
    assert overlap > 0.7


def test_result_may_take_part_in_training():
    index, model = catalogue(), generator()
    beams = beam_search(model, remember(model), index, 4)
    table = torch.randn(index.size(4), 3, requires_grad=True)
    table[beams.nodes.clamp(min=0)].mul(beams.log_probs.unsqueeze(-1)).sum().backward()
    assert table.grad is not None


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_children_products_and_softmax_by_hand():
    children = Children.from_ranges(torch.tensor([4, 0, 9]), torch.tensor([2, 0, 3]))
    assert children.nodes.tolist() == [4, 5, 9, 10, 11] and children.beam.tolist() == [0, 0, 2, 2, 2]
    index = catalogue()
    rows = index.vector_rows(3, children.nodes)
    for dtype in (torch.float32, torch.float64):
        states = torch.randn(3, R, dtype=dtype)
        expected = (states[children.beam] * index.vectors(3, children.nodes).to(dtype)).sum(1)
        torch.testing.assert_close(ragged_products(states, index.table, rows, children), expected)
    got = ragged_logsumexp(torch.tensor([0.0, math.log(3.0), 7.0, 7.0, 7.0]), children)
    torch.testing.assert_close(got, torch.tensor([math.log(4.0), -math.inf, 7 + math.log(3.0)]))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 12), st.integers(1, 6), st.integers(0, 2**31))
def test_best_equals_sorting(b, c, width, seed):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.0, -1.0, -2.0, -math.inf], size=(b, c))
    nodes = np.stack([rng.permutation(c) for _ in range(b)]) if c else np.zeros((b, 0), np.int64)
    columns, found = best(torch.tensor(scores), torch.tensor(nodes), width, lambda nodes: nodes)
    for row in range(b):
        order = sorted(
            (j for j in range(c) if scores[row, j] > -math.inf), key=lambda j: (-scores[row, j], nodes[row, j])
        )
        n = len(order[:width])
        assert columns[row, :n].tolist() == order[:width]
        assert found[row, :n].tolist() == [scores[row, j] for j in order[:width]]
        assert (found[row, n:] == -math.inf).all()


def test_pad_rows():
    (padded,) = pad_rows(torch.tensor([0, 2, 2]), 3, [(torch.tensor([5, 6, 7]), -1)])
    assert padded.tolist() == [[5, -1], [-1, -1], [6, 7]]
