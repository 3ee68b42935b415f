"""Arrays on disk."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def map_array(path: Path) -> NDArray[Any]:
    """An array of a ``.npy`` file, mapped into memory: read where it is asked for, shared by all that map it.

    What is written to it stays in this process. Never runs code. The file may be removed or replaced by another of
    its name meanwhile, not written over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no array, or objects of Python.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:
        # An array without a value cannot be mapped; anything else that is wrong is said again.
        return np.asarray(np.load(path, allow_pickle=False))
