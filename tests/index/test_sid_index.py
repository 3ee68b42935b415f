import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_trie import PlainItem, PlainTrie

from onesearch.index.sid_index import SidIndex

SIZES = (4, 3, 5, 2, 3)
DIMENSION = 6
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.1}


def items_of(seed: int, n: int, rows: list[int] | None = None, spread: int = 10) -> list[PlainItem]:
    """Random items; a small ``spread`` makes prefixes and whole SIDs collide."""
    rng = np.random.default_rng(seed)
    sids = np.stack([rng.integers(0, min(size, spread), n) for size in SIZES], 1)
    vectors = rng.standard_normal((n, DIMENSION)).astype(np.float32)
    popularity = rng.integers(0, 3, n)
    rows = rng.permutation(n).tolist() if rows is None else rows
    return [
        PlainItem(tuple(int(code) for code in sid), vector, int(row), float(count))
        for sid, vector, row, count in zip(sids, vectors, rows, popularity, strict=True)
    ]


def arrays(items: list[PlainItem]):
    return (
        np.array([item.sid for item in items]).reshape(-1, len(SIZES)),
        np.array([item.vector for item in items], np.float32).reshape(-1, DIMENSION),
        np.array([item.row for item in items], np.int64),
        np.array([item.popularity for item in items], np.float32),
    )


def built(items: list[PlainItem], precision="float32") -> SidIndex:
    sids, vectors, rows, popularity = arrays(items)
    return SidIndex.build(sids, vectors, SIZES, popularity, rows, precision)


def assert_matches(index: SidIndex, plain: PlainTrie, tolerance: float = 1e-5) -> None:
    ordered = plain.sorted_items()
    assert len(index) == len(ordered)
    assert index.item_rows(torch.arange(len(index))).tolist() == [item.row for item in ordered]
    parents: list[tuple[int, ...]] = [()]
    for level in range(index.levels):
        prefixes = plain.prefixes(level)
        every = torch.arange(len(prefixes))
        assert index.size(level) == len(prefixes)
        first, count = index.children(level, torch.arange(len(parents)))
        for number, prefix in enumerate(parents):
            children = plain.children(level, prefix)
            assert list(range(int(first[number]), int(first[number] + count[number]))) == children
        assert index.codes(level, every).tolist() == [prefix[-1] for prefix in prefixes]
        assert [tuple(sid) for sid in index.sids(level, every).tolist()] == prefixes
        below = [plain.below(prefix) for prefix in prefixes]
        assert index.counts(level, every).tolist() == [len(items) for items in below]
        starts, ends = index.positions(level, every)
        assert [ordered[start:end] for start, end in zip(starts, ends, strict=True)] == below
        if prefixes:
            means = np.array([plain.mean(prefix) for prefix in prefixes])
            np.testing.assert_allclose(index.vectors(level, every).numpy(), means, atol=tolerance)
            np.testing.assert_array_equal(index.vector_block(level, 0, len(every)), index.vectors(level, every))
            assert index.locate(torch.tensor(prefixes)).tolist() == every.tolist()
        parents = prefixes
    numbers = [{prefix: number for number, prefix in enumerate(plain.prefixes(level))} for level in range(index.levels)]
    path = index.path(torch.tensor([item.row for item in ordered] + [-1, 10**6], dtype=torch.long))
    expected = [[numbers[level][item.sid[: level + 1]] for level in range(index.levels)] for item in ordered]
    assert path.tolist() == [*expected, [-1] * index.levels, [-1] * index.levels]


def assert_same(one: SidIndex, other: SidIndex) -> None:
    """Bit-equal, arrays and vectors."""
    mine, theirs = one._arrays(), other._arrays()
    np.testing.assert_array_equal(mine.items.keys, theirs.items.keys)
    np.testing.assert_array_equal(mine.items.rows, theirs.items.rows)
    np.testing.assert_array_equal(mine.items.popularity, theirs.items.popularity)
    for name in ("codes", "children", "vector_rows"):
        for a, b in zip(getattr(mine.trie, name), getattr(theirs.trie, name), strict=True):
            np.testing.assert_array_equal(a, b)
    assert mine.trie.bases == theirs.trie.bases
    np.testing.assert_array_equal(mine.trie.spans, theirs.trie.spans)
    for a, b in zip(mine.vectors.stored(), theirs.vectors.stored(), strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(1, 5), st.sampled_from(sorted(TOLERANCE)))
def test_index_answers_as_the_plain_trie(seed, n, spread, precision):
    items = items_of(seed, n, spread=spread)
    assert_matches(built(items, precision), PlainTrie(len(SIZES), items), TOLERANCE[precision])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(1, 5), st.sampled_from(sorted(TOLERANCE)), st.data())
def test_adding_and_removing_equals_building_anew(seed, n, spread, precision, data):
    rng = np.random.default_rng(seed)
    plain = PlainTrie(len(SIZES), items_of(seed, n, spread=spread))
    index, next_row = built(plain.items, precision), n
    for step in range(data.draw(st.integers(1, 3))):
        present = [item.row for item in plain.items]
        if present and data.draw(st.booleans()):
            gone = rng.choice(present, rng.integers(1, len(present) + 1), replace=False)
            index, plain = index.remove(gone), plain.remove(set(gone.tolist()))
        else:
            k = int(rng.integers(0, 12))
            new = items_of(seed + step + 1, k, list(range(next_row, next_row + k)), spread)
            next_row += k
            sids, vectors, rows, popularity = arrays(new)
            index, plain = index.add(sids, vectors, rows, popularity), plain.add(new)
        assert_same(index, built(plain.items, precision))
    assert_matches(index, plain, TOLERANCE[precision])


def test_upsert_replaces_and_adds():
    items = items_of(1, 20)
    new = items_of(2, 3, [items[4].row, items[7].row, 50])
    sids, vectors, rows, popularity = arrays(new)
    index = built(items)
    after = index.upsert(sids, vectors, rows, popularity)
    kept = [item for item in items if item.row not in rows]
    assert_same(after, built(kept + new))
    assert_same(index, built(items))  # readers of the old index see no change


def test_vectors_stay_in_their_slots_until_the_store_is_full():
    items = items_of(8, 400)
    index = built(items)
    vectors = index.item_vectors(torch.arange(400)).clone()
    one, two = index.remove([0]), index.remove([1])  # both write to the same store, to different slots
    assert one.table is index.table is two.table
    assert_same(one, built([item for item in items if item.row != 0]))
    assert_same(two, built([item for item in items if item.row != 1]))
    stores = {id(index.table)}
    current, row = index, 1000
    for step in range(40):
        new = items_of(step, 50, list(range(row, row + 50)))
        items, row = items + new, row + 50
        current = current.add(*arrays(new))
        stores.add(id(current.table))
    assert 1 < len(stores) < 20
    assert_same(current, built(items))
    assert torch.equal(index.item_vectors(torch.arange(400)), vectors)


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
    more = index.add(sids[:2], np.eye(4, dtype=np.float32)[:2], [5, 1], np.array([1.0, 6]))
    assert more.item_rows(torch.arange(6)).tolist() == [3, 1, 4, 2, 5, 9]


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
    sids, vectors, rows, popularity = arrays(items_of(4, 2, [70, 80]))
    assert_same(loaded.add(sids, vectors, rows, popularity), index.add(sids, vectors, rows, popularity))


def test_vectors_come_in_the_asked_precision_and_rows_serve_fused_kernels():
    index = built(items_of(5, 30), "int8")
    nodes = torch.arange(index.size(1))
    assert index.vectors(1, nodes, torch.bfloat16).dtype == torch.bfloat16
    for one in (index, index.remove([3, 5])):
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
    index = built(items_of(6, 10))
    good = {"sids": [[0] * 5], "vectors": np.ones((1, DIMENSION), np.float32), "rows": [10], "popularity": [1.0]}
    given_ = {key: np.asarray(value) for key, value in (good | change).items()}
    with pytest.raises(ValueError, match=message):
        index.add(**given_)


def test_other_errors(tmp_path):
    index = built(items_of(7, 10))
    with pytest.raises(ValueError, match=r"\[10\] are not in the index"):
        index.remove([3, 10])
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
    grown = index.add(np.array([[0, 1, 1]]), np.array([[0.0]], np.float32), rows=[7])
    assert grown.vectors(0, torch.tensor([0, 1])).ravel().tolist() == [3.0, 5.0]
    assert grown.counts(0, torch.tensor([0, 1])).tolist() == [4, 1]


def test_int8_vectors_use_their_whole_range():
    vectors = np.array([[127.0, -63.5], [0.001, 0.0005]], np.float32)
    index = SidIndex.build(np.array([[0], [1]]), vectors, [2], precision="int8")
    assert index.table.data[:2].tolist() == [[127, -64], [127, 64]]
    np.testing.assert_allclose(index.item_vectors(torch.arange(2)), vectors, rtol=0.01)
