"""What arrays from a file must be before anything is looked up by them: anybody may have written the file."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def are_offsets(offsets: Array, values: Array) -> bool:
    """Whether int64 ``offsets`` [n + 1] cut ``values`` [total] into n lists."""
    fit = offsets.dtype == np.int64 and offsets.ndim == values.ndim == 1 and len(offsets) > 0
    return bool(fit and offsets[0] == 0 and offsets[-1] == len(values) and (np.diff(offsets) >= 0).all())


def are_numbers(values: Array, dtype: type[np.generic], limit: int, least: int = 0) -> bool:
    """Whether ``values`` [n] have the type and lie in [least, limit)."""
    within = values.dtype == dtype and values.ndim == 1
    return bool(within and (not len(values) or (int(values.min()) >= least and int(values.max()) < limit)))


def are_finite(values: Array, shape: tuple[int, ...]) -> bool:
    """Whether ``values`` are float32 of a shape, none of them infinite or not a number."""
    return bool(values.dtype == np.float32 and values.shape == shape and np.isfinite(values).all())


def are_rising(values: Array) -> bool:
    """Whether int64 ``values`` [n] are each larger than the one before."""
    return bool(values.dtype == np.int64 and values.ndim == 1 and (np.diff(values) > 0).all())
