"""An index with changes on top, against one built anew from the same items."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_trie import DIMENSION, SIZES, TOLERANCE, PlainTrie, arrays, assert_same, built, items_of

from onesearch.index.changed_index import ChangedIndex
from onesearch.index.changed_nodes import NodeTable
from onesearch.index.sid_index import SidIndex


def found_below(index: SidIndex, level: int, nodes: torch.Tensor) -> list[list[int]]:
    """Item rows below each node, by the ranges that it names."""
    out: list[list[int]] = [[] for _ in nodes]
    for first, end in index.ranges(level, nodes):
        for at, (a, b) in enumerate(zip(first.tolist(), end.tolist(), strict=True)):
            positions = torch.arange(a, b)
            present = index.present(positions)
            kept = positions if present is None else positions[present]
            out[at] += index.item_rows(kept).tolist()
    return [sorted(rows) for rows in out]


def assert_answers(index: SidIndex, new: SidIndex) -> None:
    """Everything that a search asks, level by level from the root; nodes are matched by their order among siblings."""
    assert len(index) == len(new)
    mine, theirs = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    for level in range(index.levels):
        (first, count), (first_, count_) = index.children(level, mine), new.children(level, theirs)
        assert torch.equal(count, count_)
        mine = torch.cat(
            [torch.arange(a, a + n) for a, n in zip(first.tolist(), count.tolist(), strict=True)] or [mine[:0]]
        )
        theirs = torch.cat(
            [torch.arange(a, a + n) for a, n in zip(first_.tolist(), count_.tolist(), strict=True)] or [mine[:0]]
        )
        if not len(new):
            return
        assert (mine < index.size(level)).all() and int(count.max()) <= index.max_children[level]
        assert torch.equal(index.codes(level, mine), new.codes(level, theirs))
        assert torch.equal(index.counts(level, mine), new.counts(level, theirs))
        assert torch.equal(index.vectors(level, mine), new.vectors(level, theirs))
        assert torch.equal(index.table.read(index.vector_rows(level, mine)), new.vectors(level, theirs))
        assert torch.equal(index.sids(level, mine), new.sids(level, theirs))
        assert torch.equal(index.locate(index.sids(level, mine)), mine)
        assert found_below(index, level, mine) == found_below(new, level, theirs)
    assert torch.equal(index.vector_block(0, 0, index.size(0)), new.vector_block(0, 0, new.size(0)))
    # The items of each leaf, in their order, and back from the items to their places and paths.
    (first, end), (first_, end_) = index.positions(index.levels - 1, mine), new.positions(new.levels - 1, theirs)
    positions = torch.cat([torch.arange(a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)])
    positions_ = torch.cat([torch.arange(a, b) for a, b in zip(first_.tolist(), end_.tolist(), strict=True)])
    rows = index.item_rows(positions)
    assert torch.equal(rows, new.item_rows(positions_)) and torch.equal(index.position_of(rows), positions)
    assert torch.equal(index.item_vectors(positions), new.item_vectors(positions_))
    path = index.path(rows)
    assert torch.equal(index.sids(index.levels - 1, path[:, -1]), new.sids(new.levels - 1, new.path(rows)[:, -1]))
    for level in range(1, index.levels):
        first, count = index.children(level, path[:, level - 1])
        assert ((path[:, level] >= first) & (path[:, level] < first + count)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(1, 5), st.sampled_from(sorted(TOLERANCE)), st.data())
def test_changes_equal_building_anew(seed, n, spread, precision, data):
    rng = np.random.default_rng(seed)
    plain = PlainTrie(len(SIZES), items_of(seed, n, spread=spread))
    index, next_row = ChangedIndex.over(built(plain.items, precision)), n
    versions = [(index, plain)]
    for step in range(data.draw(st.integers(1, 6))):
        present = [item.row for item in plain.items]
        kind = data.draw(st.sampled_from(["add", "remove", "upsert", "merge"]))
        if kind == "merge":
            index = ChangedIndex.over(index.merged())
        elif kind == "remove" and present:
            gone = rng.choice(present, rng.integers(1, len(present) + 1), replace=False)
            index, plain = index.remove(gone), plain.remove(set(gone.tolist()))
        else:
            k = int(rng.integers(0, 8))
            rows = list(range(next_row, next_row + k))
            if kind == "upsert" and present:
                rows[: k // 2] = rng.choice(present, min(k // 2, len(present)), replace=False).tolist()
                rows, k = list(dict.fromkeys(rows)), len(dict.fromkeys(rows))
            next_row += 8
            new = items_of(seed + step + 1, k, rows, spread)
            index = (index.upsert if kind == "upsert" else index.add)(*arrays(new))
            plain = plain.remove(set(rows)).add(new)
        versions.append((index, plain))
    for index, plain in versions:  # readers of earlier versions see no change
        new = built(plain.items, precision)
        assert_answers(index, new)
        assert_same(index.merged(), new)
    absent = torch.tensor([-1, next_row + 100])
    assert index.position_of(absent).tolist() == [-1, -1] and (index.path(absent) == -1).all()


def test_readers_and_both_of_two_writers_see_their_own_version():
    items = items_of(8, 400)
    index = ChangedIndex.over(built(items))
    vectors = index.item_vectors(torch.arange(400)).clone()
    one, two = index.remove([0]), index.remove([1])  # both write to the same table, to different slots
    assert one.table is index.table is two.table
    assert_answers(one, built([item for item in items if item.row != 0]))
    assert_answers(two, built([item for item in items if item.row != 1]))
    tables, row = {id(index.table)}, 1000
    current = index
    for step in range(40):
        new = items_of(step, 50, list(range(row, row + 50)))
        items, row = items + new, row + 50
        current = current.add(*arrays(new))
        tables.add(id(current.table))
    assert 1 < len(tables) < 20  # a full table is copied to a larger one
    assert_answers(current, built(items))
    assert torch.equal(index.item_vectors(torch.arange(400)), vectors)


def test_a_small_index_takes_many_items_at_once():
    """Far more than a new table has room for: each with nodes of its own."""
    rng, k = np.random.default_rng(0), 3000
    sizes = (64, 64, 64, 64, 64)
    sids = rng.integers(0, 64, (k, 5))
    vectors = rng.standard_normal((k, 4)).astype(np.float32)
    index = SidIndex.build(sids[:2], vectors[:2], sizes, np.zeros(2))
    grown = ChangedIndex.over(index).upsert(sids, vectors, np.arange(k), np.zeros(k))
    assert_answers(grown, SidIndex.build(sids, vectors, sizes, np.zeros(k)))
    assert len(index) == 2


def test_a_table_of_nodes_that_grows_keeps_what_it_holds():
    table = NodeTable(torch.device("cpu"), 0)
    first = np.arange(4000).reshape(4, 1000)
    assert table.append(1000, partial(np.copyto, src=first))[0] == 0
    readers = table.tensor
    begin, nodes = table.append(1000, partial(np.copyto, src=first + 5))
    assert begin == 1000 and table.used == 2000 and table.nbytes == 2000 * 4 * 8
    assert (nodes == first + 5).all() and (table.array[:, :2000] == np.hstack([first, first + 5])).all()
    assert (readers[:, :1000].numpy() == first).all() and readers.shape[1] < table.array.shape[1]


def test_items_of_one_sid_stand_by_popularity_then_row():
    sids, eye = np.zeros((4, 1), int), np.eye(4, dtype=np.float32)
    index = SidIndex.build(sids, eye, [1], np.array([1.0, 5, 1, 7]), np.array([9, 4, 2, 3]))
    more = ChangedIndex.over(index).add(sids[:2], eye[:2], [5, 1], np.array([1.0, 6]))
    first, end = more.positions(0, torch.tensor([0]))
    assert more.item_rows(torch.arange(int(first), int(end))).tolist() == [3, 1, 4, 2, 5, 9]


def test_a_mean_counts_items_and_not_children():
    sids = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    index = ChangedIndex.over(SidIndex.build(sids, np.array([[0.0], [3.0], [9.0], [5.0]], np.float32), [2, 2, 2]))
    grown = index.add(np.array([[0, 1, 1]]), np.array([[0.0]], np.float32), rows=[7])
    assert grown.vectors(0, torch.tensor([0, 1])).ravel().tolist() == [3.0, 5.0]
    assert grown.counts(0, torch.tensor([0, 1])).tolist() == [4, 1]


def test_an_emptied_index_fills_again():
    items = items_of(3, 20)
    empty = ChangedIndex.over(built(items)).remove([item.row for item in items])
    assert len(empty) == 0 and empty.size(0) == 0 and empty.locate(torch.tensor([list(items[0].sid)])).tolist() == [-1]
    assert_same(empty.merged(), built([]))
    again = items_of(4, 5)
    for one in (empty, ChangedIndex.over(empty.merged())):
        assert_answers(one.add(*arrays(again)), built(again))


def test_a_change_copies_only_what_it_changes():
    """One item of a leaf of its own: the children of its ancestors are written anew, and no other node."""
    index = ChangedIndex.over(built(items_of(5, 300)))
    path = index.path(torch.tensor([7]))
    changed = index.remove([7])
    written = [changed.size(level) - index.size(level) for level in range(1, 5)]
    assert written == [
        int(index.children(level, path[:, level - 1])[1]) - (0 if int(index.counts(level, path[:, level])) > 1 else 1)
        for level in range(1, 5)
    ]
    assert 0 < changed.changes < 30 and index.changes == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sids": [[0, 3, 0, 0, 0]]}, r"sids\[0, 1\] is 3.*codes 0 to 2"),
        ({"sids": [[0, 0]]}, r"shape \[n, 5\]"),
        ({"vectors": np.ones((2, DIMENSION), np.float32)}, "vectors has 2 entries, but sids has 1"),
        ({"vectors": np.ones((1, 2), np.float32)}, "index has 6"),
        ({"popularity": [np.nan]}, "not a finite"),
        ({"rows": [3]}, r"\[3\] are already in the index; use upsert"),
        ({"rows": [-2]}, "must be 0 to"),
    ],
)
def test_add_names_what_is_wrong(change, message):
    index = ChangedIndex.over(built(items_of(6, 10)))
    good = {"sids": [[0] * 5], "vectors": np.ones((1, DIMENSION), np.float32), "rows": [10], "popularity": [1.0]}
    given_ = {key: np.asarray(value) for key, value in (good | change).items()}
    with pytest.raises(ValueError, match=message):
        index.add(**given_)


def test_what_is_not_there_cannot_be_removed():
    index = ChangedIndex.over(built(items_of(7, 10)))
    with pytest.raises(ValueError, match=r"\[10\] are not in the index"):
        index.remove([3, 10])
    with pytest.raises(ValueError, match="two ranges"):
        index.positions(0, torch.tensor([0]))
    plain = ChangedIndex.over(SidIndex.build(np.zeros((1, 1), int), np.ones((1, 2), np.float32), [1]))
    with pytest.raises(ValueError, match="without popularity"):
        plain.add(np.zeros((1, 1), int), np.ones((1, 2), np.float32), [3], np.ones(1))
    assert len(plain.add(np.zeros((1, 1), int), np.ones((1, 2), np.float32), [3])) == 2


def test_a_changed_index_is_saved_merged(tmp_path):
    items, new = items_of(3, 60), items_of(4, 2, [70, 80])
    ChangedIndex.over(built(items)).add(*arrays(new)).save(tmp_path)
    assert_same(SidIndex.load(tmp_path), built(items + new))
