"""Tensors on disk: safetensors, replaced atomically."""

import os
from pathlib import Path

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
