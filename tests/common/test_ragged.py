import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onesearch.common.ragged import Ragged

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6)


def lists_of(ragged: Ragged) -> list[list[int]]:
    return [ragged[row].tolist() for row in range(len(ragged))]


@given(LISTS, st.data())
def test_it_is_a_list_of_lists(one, data):
    ragged = Ragged.from_lists(one)
    assert lists_of(ragged) == one
    assert ragged.lengths.tolist() == [len(row) for row in one]
    assert ragged.owners.tolist() == [i for i, row in enumerate(one) for _ in row]
    assert all(ragged[-i].tolist() == one[-i] for i in range(1, len(one) + 1))
    rows = data.draw(st.lists(st.integers(0, len(one) - 1), max_size=8)) if one else []
    assert lists_of(ragged.select(np.array(rows, np.int64))) == [one[row] for row in rows]


@given(LISTS, st.integers(0, 5))
def test_padded_keeps_the_last_or_the_first_values(rows, width):
    ragged = Ragged.from_lists(rows)
    newest = [[-1] * (width - len(row)) + row[max(len(row) - width, 0) :] for row in rows]
    oldest = [row[:width] + [7] * (width - len(row)) for row in rows]
    assert ragged.padded(width).tolist() == newest
    assert ragged.padded(width, fill=7, newest=False).tolist() == oldest
