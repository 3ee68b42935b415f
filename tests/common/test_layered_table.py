import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.common.layered_table import ChangedRows, LayeredTable


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.lists(st.integers(0, 400), max_size=6))
def test_every_version_answers_as_a_plain_array(seed, n, sizes):
    rng = np.random.default_rng(seed)
    plain = {row: rng.random(3).astype(np.float32) for row in range(n)}
    table = LayeredTable.over(torch.from_numpy(np.array(list(plain.values()), np.float32).reshape(-1, 3)))
    versions = [(table, dict(plain))]
    for size in sizes:
        rows = rng.permutation(max(len(plain), 1) + size)[:size]
        values = rng.random((size, 3)).astype(np.float32)
        base, _ = versions[int(rng.integers(len(versions)))]  # of the newest version, or of one before
        changed = base.changed.with_rows(rows, base.used)
        table = base.with_rows(changed, torch.from_numpy(values))
        plain = next(known for one, known in versions if one is base) | dict(zip(rows.tolist(), values, strict=True))
        versions.append((table, plain))
    for table, plain in versions:
        assert len(table) == max(plain, default=-1) + 1
        rows = rng.permutation(list(plain)).astype(np.int64)
        wanted = np.array([plain[row] for row in rows.tolist()], np.float32).reshape(-1, 3)
        np.testing.assert_array_equal(table.take(rows), wanted)
        np.testing.assert_array_equal(table[torch.from_numpy(rows[None])][0], wanted)
        np.testing.assert_array_equal(table.flat()[torch.from_numpy(rows)], wanted)


def test_a_tail_is_shared_by_versions_that_follow_each_other():
    table = LayeredTable.over(torch.zeros(2, 1))
    one = table.with_rows(table.changed.with_rows(np.array([1]), 0), torch.ones(1, 1))
    two = one.with_rows(one.changed.with_rows(np.array([5]), 1), torch.full((1, 1), 2.0))
    other = one.with_rows(one.changed.with_rows(np.array([5]), 1), torch.full((1, 1), 3.0))
    assert two.tail is one.tail and other.tail is not one.tail
    assert two.take(np.array([0, 1, 5])).ravel().tolist() == [0, 1, 2] and other.take(np.array([5])).item() == 3


def test_rows_that_did_not_change_have_no_place():
    changed = ChangedRows.none().with_rows(np.array([7, 3]), 4).with_rows(np.array([3]), 6)
    found, place = changed.find(torch.tensor([[3, 4], [7, 9]]))
    assert found.tolist() == [[True, False], [True, False]] and place.tolist() == [[6, 0], [4, 0]]


def test_products_are_those_of_the_plain_table():
    table = LayeredTable.over(torch.arange(12.0).view(4, 3))
    for rows in ([5, 1], [1, 4], [2]):
        changed = table.changed.with_rows(np.array(rows), table.used)
        table = table.with_rows(changed, torch.randn(len(rows), 3))
    vector = torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(table.products(vector), table.flat() @ vector)
