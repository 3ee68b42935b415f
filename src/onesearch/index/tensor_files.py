"""Tensors and arrays on disk: safetensors, replaced atomically."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors; a reader sees the old file or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors.

    Raises:
        FileNotFoundError: the file is missing; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; was the index stage finished?")
    return dict(load_file(path))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """As :func:`write_tensors`, of named arrays."""
    # A tensor cannot stand on memory that nobody may write to.
    write_tensors(path, {name: torch.from_numpy(np.array(one)) for name, one in arrays.items()})


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Named arrays, mapped into memory: read where they are asked for, what is written to them stays here.

    Raises:
        FileNotFoundError: as :func:`read_tensors`.
    """
    return {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
