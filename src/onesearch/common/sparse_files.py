"""Sparse matrices from files that anybody may have written."""

from pathlib import Path

import numpy as np
from scipy import sparse

_PARTS = ("data", "indices", "indptr")


def load_csr(folder: Path, prefix: str, columns: int, rows: int | None = None) -> sparse.csr_matrix:
    """The matrix in ``PREFIXdata.npy``, ``PREFIXindices.npy`` and ``PREFIXindptr.npy``; None: any number of rows.

    Raises:
        ValueError: the arrays do not fit together. scipy believes them: a number out of range would have it read and
            write elsewhere in the memory.
    """
    data, indices, indptr = (np.load(folder / f"{prefix}{part}.npy", allow_pickle=False) for part in _PARTS)
    try:
        if data.dtype.kind not in "fiu" or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
            raise ValueError(f"numbers of type {data.dtype}, {indices.dtype}, {indptr.dtype}")
        matrix = sparse.csr_matrix((data, indices, indptr), (len(indptr) - 1 if rows is None else rows, columns))
        matrix.check_format(full_check=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}/{prefix}*.npy hold no matrix ({error}); make the run's stage again") from None
    return matrix
