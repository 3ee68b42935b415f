"""Matrices from files: only arrays that fit together reach scipy, which would believe any."""

import numpy as np
import pytest
from scipy import sparse

from onesearch.common.sparse_files import load_csr

DENSE = np.array([[1.0, 0, 2, 0], [0, 0, 0, 0], [0, 3, 0, 4]], np.float32)


@pytest.fixture
def folder(tmp_path):
    matrix = sparse.csr_matrix(DENSE)
    for part in ("data", "indices", "indptr"):
        np.save(tmp_path / f"m_{part}.npy", getattr(matrix, part))
    return tmp_path


def test_what_fits_is_read(folder):
    for rows in (None, 3):
        np.testing.assert_array_equal(load_csr(folder, "m_", 4, rows).toarray(), DENSE)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("indices", np.array([0, 2, 1, 10**9], np.int32)),
        ("indices", np.array([0, 2, 1, 4], np.int32)),
        ("indices", np.array([0, -1, 1, 3], np.int32)),
        ("indices", np.array([0, 2, 1], np.int32)),
        ("indices", np.array([0.0, 2, 1, 3])),
        ("indptr", np.array([0, 2, 2, 10**9], np.int32)),
        ("indptr", np.array([0, 3, 2, 4], np.int32)),
        ("indptr", np.array([-5, 2, 2, 4], np.int32)),
        ("indptr", np.array([], np.int32)),
        ("data", np.array(["a", "b", "c", "d"])),
        ("data", np.array([1.0], np.float32)),
        ("data", np.ones((2, 2), np.float32)),
    ],
)
def test_what_does_not_fit_is_refused(folder, part, values):
    np.save(folder / f"m_{part}.npy", values)
    with pytest.raises(ValueError, match="hold no matrix"):
        load_csr(folder, "m_", 4, 3)


def test_another_shape_is_refused(folder):
    for columns, rows in ((3, None), (4, 2), (4, 5)):
        with pytest.raises(ValueError, match="hold no matrix"):
            load_csr(folder, "m_", columns, rows)
