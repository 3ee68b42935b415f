"""Evidence below nodes: the flat forms against plain loops, gradients included."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.model.evidence import EVIDENCE_NUMBERS, EvidencePointer, products_with, with_evidence


def plain(logits: list[float], at: list[list[int]], values: list[list[float]]) -> list[float]:
    out = [math.exp(value) for value in logits]
    for places, row in zip(at, values, strict=True):
        for place, value in zip(places, row, strict=True):
            if place >= 0:
                out[place] += math.exp(value)
    return [math.log(value) for value in out]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_evidence_counts_beside_the_node(data: st.DataObject):
    n, t, e = data.draw(st.integers(1, 3)), 7, data.draw(st.integers(1, 4))
    # Each of n requests has its own stretch of the list; -1 stands for evidence that lies below none of its nodes.
    at = [[data.draw(st.integers(-1, t - 1)) for _ in range(e)] for _ in range(n)]
    at = [[place + row * t if place >= 0 else -1 for place in places] for row, places in enumerate(at)]
    rng = np.random.default_rng(0)
    logits, values = rng.normal(size=n * t), rng.normal(size=(n, e))
    place = torch.tensor(at)
    found = with_evidence(torch.tensor(logits), place, torch.tensor(values), place >= 0)
    torch.testing.assert_close(found, torch.tensor(plain(logits.tolist(), at, values.tolist()), dtype=torch.float64))


def test_gradients_go_to_the_node_and_to_each_item_once():
    place = torch.tensor([[0, 0, 2, -1], [4, 5, 4, 4]])
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: with_evidence(a, place, b, place >= 0), (logits, values))


def test_an_untrained_pointer_thinks_alike_of_all_and_a_trained_one_is_the_arithmetic_done_by_hand():
    pointer = EvidencePointer(d_model=3, width=4, levels=2)
    keys, numbers = torch.randn(2, 5, 4), torch.rand(2, 5, len(EVIDENCE_NUMBERS))
    hidden = torch.randn(2, 3)
    for level in (-1, 0, 1):
        assert not pointer(level, hidden, pointer.key(keys), numbers).any()
    with torch.no_grad():
        pointer.query[2].weight.copy_(torch.eye(4, 3))
        pointer.numbers[2, 1], pointer.start[2] = 3.0, -1.0
    found = pointer(1, hidden, pointer.key(keys), numbers)
    expected = torch.einsum("nd,ned->ne", hidden, pointer.key(keys)[..., :3]) + 3 * numbers[..., 1] - 1
    torch.testing.assert_close(found, expected)
    assert not pointer(0, hidden, pointer.key(keys), numbers).any(), "each level has a query of its own"


def test_states_meet_the_rows_of_their_request_in_whatever_order_they_come():
    rows, owner = torch.randn(3, 4, 5), torch.tensor([2, 0, 2, 2, 0])
    states = torch.randn(5, 5, requires_grad=True)
    found = products_with(states, rows, owner)
    torch.testing.assert_close(found, torch.einsum("nr,ner->ne", states, rows[owner]))
    torch.testing.assert_close(products_with(states[:3], rows), torch.einsum("nr,ner->ne", states[:3], rows))
    (gradient,) = torch.autograd.grad(found.sum(), states)
    torch.testing.assert_close(gradient, rows[owner].sum(1))
    assert products_with(states[:0], rows, owner[:0]).shape == (0, 4)
