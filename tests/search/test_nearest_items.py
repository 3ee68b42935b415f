"""Nearest items through the trie against a plain product with every item."""

import numpy as np
import pytest
import torch

from onesearch.index.changed_index import ChangedIndex
from onesearch.index.sid_index import SidIndex
from onesearch.search.nearest_items import nearest_items

CODEBOOKS = (6, 4, 3, 5, 5)


@pytest.fixture(scope="module")
def catalogue() -> tuple[SidIndex, torch.Tensor]:
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, 200) for size in CODEBOOKS], 1)
    rows = torch.from_numpy(rng.normal(size=(200, 8)).astype(np.float32))
    return SidIndex.build(sids, rows, CODEBOOKS), rows


class Even:
    """Allows items of even rows."""

    def __init__(self, index: SidIndex) -> None:
        self.index = index

    def items_allowed(self, positions: torch.Tensor) -> torch.Tensor:
        return self.index.item_rows(positions) % 2 == 0


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_with_every_node_opened_it_is_exact(catalogue, precision):
    index, rows = catalogue
    states = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    if precision == "int8":
        sids = index.sids(4, index.path(torch.arange(200))[:, 4]).numpy()
        index = SidIndex.build(sids, rows, CODEBOOKS, precision="int8")
    found = nearest_items(states, index, 7, probes=99)
    scores = states @ rows.T
    best = scores.gather(1, found)
    exact = scores.topk(7, dim=1).values
    np.testing.assert_allclose(best, exact, atol=1e-6 if precision == "float32" else 0.05)


def test_fewer_probes_give_only_items_of_the_nearest_nodes(catalogue):
    index, _ = catalogue
    states = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    found = nearest_items(states, index, 200, probes=2)
    near = (states @ index.vector_block(0, 0, index.size(0)).T).topk(2, 1).indices
    for request, items in enumerate(found):
        items = items[items >= 0]
        first = index.path(items)[:, 0]
        assert set(first.tolist()) == set(near[request].tolist())
        expected = {i for i in range(200) if int(index.path(torch.tensor([i]))[0, 0]) in near[request].tolist()}
        assert set(items.tolist()) == expected


def test_a_filter_removes_items_and_moves_no_other(catalogue):
    index, _ = catalogue
    states = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
    everything = nearest_items(states, index, 200, probes=3)
    filtered = nearest_items(states, index, 200, probes=3, mask=Even(index))
    for all_items, kept in zip(everything.tolist(), filtered.tolist(), strict=True):
        assert [i for i in kept if i >= 0] == [i for i in all_items if i >= 0 and i % 2 == 0]


def test_after_changes_of_the_catalogue(catalogue):
    index, rows = catalogue
    new = torch.full((1, 8), 9.0)
    changed = ChangedIndex.over(index).remove([3]).add(np.array([[1, 1, 1, 1, 1]]), new, np.array([200]))
    states = torch.stack([torch.ones(8), rows[3] * 5])
    found = nearest_items(states, changed, 3, probes=99)
    assert found[0, 0] == 200 and 3 not in found[1].tolist()
    assert torch.equal(found, nearest_items(states, changed.merged(), 3, probes=99))


def test_an_empty_catalogue_gives_nothing(catalogue):
    index, _ = catalogue
    empty = ChangedIndex.over(index).remove(torch.arange(200))
    assert nearest_items(torch.randn(2, 8), empty, 4, probes=3).tolist() == [[-1] * 4] * 2
