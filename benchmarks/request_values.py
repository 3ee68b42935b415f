"""Values of single requests in a small file, so that methods can be tested against each other long after their runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = dict[str, dict[str, NDArray[np.float32]]]
Labels = dict[str, NDArray[Any]]


def save_values(path: Path, values: Mapping[str, Mapping[str, NDArray[Any]]], labels: Labels) -> None:
    """Write metrics [n] by variant, and the slice of each request by dimension.

    Values lose all but three digits (float16), which a test over thousands of requests does not notice.
    """
    flat: dict[str, NDArray[Any]] = {}
    for variant, row in values.items():
        flat |= {f"{variant}|{metric}": np.asarray(one, np.float16) for metric, one in row.items()}
    for dimension, groups in labels.items():
        names, codes = np.unique(np.asarray(groups, str), return_inverse=True)
        flat[f"names|{dimension}"], flat[f"codes|{dimension}"] = names, codes.astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **flat)


def load_values(path: Path) -> tuple[Values, Labels]:
    """Read what :func:`save_values` wrote."""
    values: Values = {}
    labels: Labels = {}
    with np.load(path, allow_pickle=False) as flat:
        for key in flat.files:
            kind, _, name = key.partition("|")
            if kind == "codes":
                labels[name] = flat[f"names|{name}"][flat[key]].astype(object)
            elif kind != "names":
                values.setdefault(kind, {})[name] = flat[key].astype(np.float32)
    return values, labels
