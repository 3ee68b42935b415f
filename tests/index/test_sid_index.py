import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_trie import (
    DIMENSION,
    SIZES,
    TOLERANCE,
    PlainItem,
    PlainTrie,
    assert_matches,
    assert_same,
    built,
    items_of,
)

from onesearch.index.changed_index import ChangedIndex
from onesearch.index.sid_index import SidIndex
from onesearch.index.tensor_files import read_tensors, write_tensors


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(1, 5), st.sampled_from(sorted(TOLERANCE)))
def test_index_answers_as_the_plain_trie(seed, n, spread, precision):
    items = items_of(seed, n, spread=spread)
    assert_matches(built(items, precision), PlainTrie(len(SIZES), items), TOLERANCE[precision])


def test_absent_sids_and_missing_nodes():
    items = [
        PlainItem(sid, np.ones(DIMENSION, np.float32), row)
        for row, sid in enumerate([(0, 1, 2, 0, 1), (3, 0, 0, 1, 2)])
    ]
    index = built(items)
    asked = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 0, 2], [2, 0, 0, 0, 0], [3, 0, 0, 1, 2], [3, 2, 0, 1, 2]])
    assert index.locate(asked).tolist() == [0, -1, -1, 1, -1]
    assert index.locate(asked[:, :1]).tolist() == [0, 0, -1, 1, 1]
    first, count = index.children(1, torch.tensor([[1, -1], [0, -1]]))
    assert count.tolist() == [[1, 0], [1, 0]] and first[0, 0] == 1
    index.vectors(2, torch.tensor([-1, 0]))  # a missing node must not raise; its value is masked by the caller


def test_a_hand_computed_tree():
    vectors = np.array([[1, 0], [3, 0], [0, 4]], np.float32)
    index = SidIndex.build(np.array([[1, 1], [1, 0], [0, 1]]), vectors, [2, 2])
    assert index.item_rows(torch.arange(3)).tolist() == [2, 1, 0]
    assert index.vectors(0, torch.tensor([0, 1])).tolist() == [[0, 4], [2, 0]]
    assert index.vectors(1, torch.tensor([[0, 1], [2, 2]])).tolist() == [[[0, 4], [3, 0]], [[1, 0], [1, 0]]]
    assert index.path(torch.tensor([0, 1, 2])).tolist() == [[1, 2], [1, 1], [0, 0]]
    assert index.max_children == (2, 2)


def test_items_of_one_sid_stand_by_popularity_then_row():
    sids = np.zeros((4, 1), int)
    index = SidIndex.build(sids, np.eye(4, dtype=np.float32), [1], np.array([1.0, 5, 1, 7]), np.array([9, 4, 2, 3]))
    assert index.item_rows(torch.arange(4)).tolist() == [3, 4, 2, 9]


@pytest.mark.parametrize("precision", sorted(TOLERANCE))
def test_save_and_load(tmp_path, precision):
    items = items_of(3, 60)
    index = built(items, precision)
    index.save(tmp_path)
    loaded = SidIndex.load(tmp_path)
    assert_same(index, loaded)
    assert_matches(loaded, PlainTrie(len(SIZES), items), TOLERANCE[precision])
    assert json.loads((tmp_path / "index.json").read_text())["items"] == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "index.safetensors"]


def set_to(value, *place):
    """A change of an array: one entry is another."""

    def change(array):
        array[place] = value

    return change


DAMAGE = {
    "rows: item row 5 is given more": ("rows", lambda rows: rows.copy_(torch.where(rows == 6, 5, rows))),
    "item rows must be 0": ("rows", set_to(-1, 0)),
    "rows must be int32": ("rows", lambda rows: rows.long()),
    "popularity of item 3": ("popularity", set_to(float("nan"), 3)),
    "popularity must be float32 .60.": ("popularity", lambda old: old[:-1]),
    "vectors must be a matrix": ("vectors", lambda old: old[:, 0]),
    "vectors must be a matrix.*float64": ("vectors", lambda old: old.double()),
    "with int8 vectors alone": ("vectors", lambda old: old.to(torch.int8)),
    "to 71 vectors": ("vectors", lambda old: old[:71]),
    "codes.1 must be int16 from 0 to 2": ("codes.1", set_to(3, 0)),
    "codes.1 must rise": ("codes.1", set_to(0, 1)),
    "codes.2 must be int16": ("codes.2", lambda old: old.int()),
    "children.0 must be int32": ("children.0", lambda old: old[:-1]),
    "children.0 must rise": ("children.0", set_to(0, 1)),
    "children.4 must rise from 0 to 60": ("children.4", set_to(61, -1)),
    "vector_rows.1 must be int32": ("vector_rows.1", set_to(-1, 0)),
    "vector_rows.0 must be int32 .*": ("vector_rows.0", set_to(10**6, 0)),
    "spans must be int32": ("spans", lambda old: old[:, 1:]),
    "spans must be ranges": ("spans", set_to(61, 1, 0)),
    "spans must be ranges .*": ("spans", set_to(10**6, 0, 0)),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_a_damaged_index_is_refused_when_it_is_read(tmp_path, words):
    """Not at the first search that meets the damage."""
    built(items_of(3, 60)).save(tmp_path)
    tensors = read_tensors(tmp_path / "index.safetensors")
    name, change = DAMAGE[words]
    changed = change(tensors[name])
    write_tensors(tmp_path / "index.safetensors", tensors | ({} if changed is None else {name: changed}))
    with pytest.raises(ValueError, match=rf"index.safetensors: damaged: .*{words.removeprefix('rows: ')}"):
        SidIndex.load(tmp_path)


@pytest.mark.parametrize(
    "bases",
    [[], [60, 60], [60, 71], [60, 62, 65, 90, 68, 71], [60, 62, 65, 66, 67, 71.0], [[60], 62, 65, 66, 67, 71], ["x"]],
)
def test_bases_that_fit_no_table_are_refused(tmp_path, bases):
    built(items_of(3, 60)).save(tmp_path)
    about = json.loads((tmp_path / "index.json").read_text())
    size = about["bases"][-1]
    bases = [type(base)(size) if base == 71 else base for base in bases]
    (tmp_path / "index.json").write_text(json.dumps(about | {"bases": bases}))
    with pytest.raises(ValueError, match=r"index\.safetensors: damaged: bases must be"):
        SidIndex.load(tmp_path)


def test_vectors_come_in_the_asked_precision_and_rows_serve_fused_kernels():
    index = built(items_of(5, 30), "int8")
    nodes = torch.arange(index.size(1))
    assert index.vectors(1, nodes, torch.bfloat16).dtype == torch.bfloat16
    for one in (index, ChangedIndex.over(index).remove([3, 5]).merged()):
        nodes = torch.arange(one.size(1))
        slots, store = one.vector_rows(1, nodes), one.table
        assert torch.equal(store.data[slots].float() * store.scale[slots][:, None], one.vectors(1, nodes))
    assert torch.equal(index.item_vectors(torch.arange(30)), index._vectors.read(torch.arange(30)))


def test_bytes_stay_below_64_per_item_in_the_worst_tree():
    n, rng = 20_000, np.random.default_rng(0)
    sizes = (32768, 64, 64, 256, 256)  # nearly every item is alone from the first level on
    sids = np.stack([rng.integers(0, size, n) for size in sizes], 1)
    sids[:, 0] = rng.permutation(32768)[:n]
    index = SidIndex.build(sids, np.ones((n, 4), np.float32), sizes, np.ones(n))
    chains = SidIndex.build(sids[:, [1, 2, 0, 3, 4]], np.ones((n, 4), np.float32), np.array(sizes)[[1, 2, 0, 3, 4]])
    assert chains.nbytes.structure / n <= 64
    assert index.nbytes.structure / n <= 72  # level 0 stores its nodes; only a catalogue below K_0 items can do this
    assert index.nbytes.vectors == index._vectors.rows * 4 * 4


def test_other_errors(tmp_path):
    with pytest.raises(ValueError, match="more than once"):
        SidIndex.build(np.zeros((2, 1), int), np.ones((2, 2), np.float32), [1], rows=np.array([4, 4]))
    with pytest.raises(ValueError, match="bits per SID"):
        SidIndex.build(np.zeros((1, 5), int), np.ones((1, 2), np.float32), [32768] * 5)
    with pytest.raises(ValueError, match="precision 'float8'"):
        built(items_of(7, 10), "float8")
    with pytest.raises(FileNotFoundError):
        SidIndex.load(tmp_path / "nothing")


def test_a_mean_counts_items_and_not_children():
    """Below the first node lie three items: two share a child, one is alone in another."""
    sids = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    vectors = np.array([[0.0], [3.0], [9.0], [5.0]], np.float32)
    index = SidIndex.build(sids, vectors, [2, 2, 2])
    assert index.vectors(0, torch.tensor([0, 1])).ravel().tolist() == [4.0, 5.0]  # not (1.5 + 9) / 2
    assert index.vectors(1, torch.tensor([0, 1, 2])).ravel().tolist() == [1.5, 9.0, 5.0]


def test_int8_vectors_use_their_whole_range():
    vectors = np.array([[127.0, -63.5], [0.001, 0.0005]], np.float32)
    index = SidIndex.build(np.array([[0], [1]]), vectors, [2], precision="int8")
    assert index.table.data[:2].tolist() == [[127, -64], [127, 64]]
    np.testing.assert_allclose(index.item_vectors(torch.arange(2)), vectors, rtol=0.01)
