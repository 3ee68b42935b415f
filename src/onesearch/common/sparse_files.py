"""Sparse matrices from files that anybody may have written."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from scipy import sparse

from onesearch.common.array_files import map_array

_PARTS = ("data", "indices", "indptr")


def load_csr(folder: Path, prefix: str, columns: int, rows: int | None = None) -> sparse.csr_matrix:
    """The matrix in ``PREFIXdata.npy``, ``PREFIXindices.npy`` and ``PREFIXindptr.npy``; None: any number of rows.

    Raises:
        ValueError: the arrays do not fit together. scipy believes them: a number out of range would have it read and
            write elsewhere in the memory.
    """
    data, indices, indptr = (map_array(folder / f"{prefix}{part}.npy") for part in _PARTS)
    try:
        return checked_csr(data, indices, indptr, columns, rows)
    except ValueError as error:
        raise ValueError(f"{folder}/{prefix}*.npy hold no matrix ({error}); make the run's stage again") from None


def checked_csr(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], columns: int, rows: int | None = None
) -> sparse.csr_matrix:
    """The matrix that three arrays make, without a copy.

    Raises:
        ValueError: they do not fit together.
    """
    try:
        if data.dtype.kind not in "fiu" or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
            raise ValueError(f"numbers of type {data.dtype}, {indices.dtype}, {indptr.dtype}")
        matrix = sparse.csr_matrix((data, indices, indptr), (len(indptr) - 1 if rows is None else rows, columns))
        matrix.check_format(full_check=True)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return matrix
