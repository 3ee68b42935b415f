import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import quick

from onesearch.data.ingest.id_set import IdSet, hashes


@quick
@given(st.lists(st.lists(st.integers(0, 30)), max_size=8), st.lists(st.integers(0, 40)))
def test_it_is_a_set(parts, asked):
    known, plain = IdSet(), set()
    for part in parts:
        fresh = []
        for value in part:
            fresh.append(value not in plain)
            plain.add(value)
        assert known.add(np.array(part, np.uint64)).tolist() == fresh
    assert len(known) == len(plain)
    assert known.contains(np.array(asked, np.uint64)).tolist() == [value in plain for value in asked]
    other = IdSet()
    other.add(np.array(asked, np.uint64))
    assert known.shared(other) == len(plain & set(asked))


def test_hashes_tell_texts_apart():
    ids = pl.Series([str(n) for n in range(100_000)])
    assert len(np.unique(hashes(ids))) == 100_000
    assert np.array_equal(hashes(ids[:5]), hashes(ids)[:5])


def test_a_copy_stays_as_it_was():
    known = IdSet()
    known.add(np.array([1, 2], np.uint64))
    copied = known.copy()
    known.add(np.array([3], np.uint64))
    assert (len(copied), len(known)) == (2, 3) and not copied.contains(np.array([3], np.uint64))[0]
