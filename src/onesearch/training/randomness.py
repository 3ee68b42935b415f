"""States of the global random generators (torch, numpy, Python) as tensors and JSON."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from onesearch.data.artefact import read_json, write_json


@dataclass(frozen=True)
class RandomState:
    """``tensors``: torch's states on CPU and GPU; ``values``: numpy's and Python's as JSON."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    @classmethod
    def now(cls) -> "RandomState":
        """The states of this process."""
        tensors = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        version, internal, next_gauss = random.getstate()
        numpy_state = [kind, np.asarray(keys).tolist(), position, has_gauss, gauss]
        return cls(tensors, {"numpy": numpy_state, "python": [version, list(internal), next_gauss]})

    def restore(self) -> None:
        """Make it the state of this process."""
        torch.set_rng_state(self.tensors["cpu"])
        if "cuda" in self.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.tensors["cuda"])
        kind, keys, position, has_gauss, gauss = self.values["numpy"]
        np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, gauss))
        version, internal, next_gauss = self.values["python"]
        random.setstate((version, tuple(internal), next_gauss))

    def save(self, folder: Path, rank: int) -> None:
        """Write ``random-<rank>.safetensors`` and ``.json``."""
        save_file(self.tensors, str(folder / f"random-{rank}.safetensors"))
        write_json(folder / f"random-{rank}.json", self.values)

    @classmethod
    def load(cls, folder: Path, rank: int) -> "RandomState":
        """Undo :meth:`save`."""
        return cls(load_file(str(folder / f"random-{rank}.safetensors")), read_json(folder / f"random-{rank}.json"))


@contextmanager
def kept() -> Iterator[None]:
    """What is drawn inside leaves no trace outside."""
    state = RandomState.now()
    try:
        yield
    finally:
        state.restore()
