"""Arrays of files and what is asked of them before they are used."""

import numpy as np
import pytest

from onesearch.common.array_checks import are_finite, are_numbers, are_offsets, are_rising
from onesearch.common.array_files import map_array


@pytest.mark.parametrize("array", [np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((0, 5), np.int32)])
def test_a_mapped_array_is_the_saved_one_and_writing_stays_here(tmp_path, array):
    path = tmp_path / "a.npy"
    np.save(path, array)
    found = map_array(path)
    assert type(found) is np.ndarray and found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    found[...] = 7
    np.testing.assert_array_equal(map_array(path), array)


def test_an_array_is_mapped_and_not_read(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(10_000))
    assert isinstance(map_array(path).base, np.memmap)


def test_what_is_no_array_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        map_array(path)
    np.save(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError):
        map_array(path)
    with pytest.raises(FileNotFoundError):
        map_array(tmp_path / "b.npy")


def test_offsets_cut_all_values_into_lists():
    values = np.zeros(3, np.int32)
    assert are_offsets(np.array([0, 1, 1, 3]), values) and are_offsets(np.array([0]), values[:0])
    for wrong in ([1, 3], [0, 2], [0, 2, 1, 3], [], [0, 4]):
        assert not are_offsets(np.array(wrong, np.int64), values), wrong
    assert not are_offsets(np.array([0, 3], np.int32), values)
    assert not are_offsets(np.array([[0, 3]]), values) and not are_offsets(np.array([0, 3]), values[None])


def test_numbers_lie_in_their_range():
    assert are_numbers(np.array([0, 4], np.int32), np.int32, 5) and are_numbers(np.zeros(0, np.int32), np.int32, 0)
    assert are_numbers(np.array([-1, 4]), np.int64, 5, least=-1)
    for wrong in (np.array([5], np.int32), np.array([-1], np.int32), np.array([0]), np.array([[0]], np.int32)):
        assert not are_numbers(wrong, np.int32, 5), wrong


def test_finite_and_rising():
    assert are_finite(np.ones((2, 1), np.float32), (2, 1)) and are_rising(np.array([-3, 0, 9]))
    assert not are_finite(np.array([np.nan], np.float32), (1,)) and not are_finite(np.array([np.inf], np.float32), (1,))
    assert not are_finite(np.ones(2, np.float32), (3,)) and not are_finite(np.ones(2), (2,))
    assert not are_rising(np.array([0, 0])) and not are_rising(np.array([1, 0])) and not are_rising(np.array([0.0, 1]))
