"""The whole state of a training run as safetensors and JSON, in folders that appear complete or not at all.

``checkpoints/step-00000120/`` holds ``model.safetensors``, ``optimizer.safetensors``, ``random-<rank>.safetensors`` and
``random-<rank>.json`` per process, ``average.safetensors`` when weights are averaged, and ``state.json``. The folder
is written under a temporary name and renamed last. Whether processes held parts of the model or all of it cannot be
told from a checkpoint: it holds whole tensors.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from onesearch.common.artefact import read_json, write_json


@dataclass(frozen=True)
class RandomState:
    """``tensors``: torch's states on CPU and GPU; ``values``: numpy's and Python's as JSON."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    @classmethod
    def now(cls) -> "RandomState":
        """The states of this process."""
        # Tensors and numbers alone, nothing pickled; the generators of Python and numpy keep a second normal value.
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
def random_state_restored() -> Iterator[None]:
    """What is drawn inside leaves no trace outside."""
    state = RandomState.now()
    try:
        yield
    finally:
        state.restore()


_TEMPORARY = ".writing-"


class Checkpoints:
    """The checkpoints of one training run, newest last; keeps the last ``keep``."""

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder = folder
        self.keep = keep

    def newest(self) -> Path | None:
        """The complete checkpoint with the highest step, or None."""
        found = sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []
        return found[-1] if found else None

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of ``step`` into; what a killed process left half written goes."""
        for left in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left)
        temporary = self.writing(step)
        temporary.mkdir(parents=True)
        return temporary

    def writing(self, step: int) -> Path:
        """The temporary name of a checkpoint."""
        return self.folder / f"{_TEMPORARY}{step:08d}"

    def finish(self, step: int) -> Path:
        """Give the written folder its name, then drop the oldest ones."""
        temporary = self.writing(step)
        final = self.folder / f"step-{step:08d}"
        # First the contents reach the disk, then the name, then the old ones go: there is a whole one at any time.
        for file in temporary.iterdir():
            _flush(file)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _flush(self.folder)
        for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
            shutil.rmtree(old)
        return final

    def clear(self) -> None:
        """Remove all checkpoints (the finished weights are elsewhere by then)."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_weights(model: nn.Module, file: Path) -> None:
    """Weights and buffers as safetensors, atomically; tied weights are written once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.writing")
    save_model(model, str(temporary))
    _flush(temporary)
    temporary.replace(file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Fill a model of the same shape.

    Raises:
        ValueError: names or shapes differ; the message names the file.
    """
    try:
        load_model(model, str(file), device="cpu")
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{file} does not fit this model: {error}. Delete the folder to start afresh") from error


Convert = Callable[[str, Tensor], Tensor]
"""The name of a parameter, and a tensor of its kind → that tensor in another form: a part of it, or all."""


def as_it_is(name: str, value: Tensor) -> Tensor:
    """The form of what a process holds as a whole."""
    return value


def optimizer_tensors(optimizer: torch.optim.Optimizer, whole: Convert = as_it_is) -> dict[str, Tensor]:
    """Flatten ``state`` to tensors named ``<parameter>/<key>``; the groups are rebuilt from the configuration.

    Raises:
        TypeError: a state value that is neither tensor nor number.
    """
    # By the parameter's name, so that the order of parameters may change.
    tensors: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                if not isinstance(value, (Tensor, int, float)):
                    raise TypeError(f"optimizer state '{key}' of {name} is a {type(value).__name__}, not a tensor")
                tensors[f"{name}/{key}"] = whole(name, torch.as_tensor(value).detach()).clone().contiguous()
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, file: Path, part: Convert = as_it_is) -> None:
    """Fill an optimizer over parameters of the same names with :func:`optimizer_tensors` that were saved."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for full, value in load_file(str(file)).items():
        name, key = full.rsplit("/", 1)
        by_name.setdefault(name, {})[key] = value
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if name in by_name:
                # Adam's step counter belongs beside the parameter for the fused kernel, on the CPU for the plain one.
                optimizer.state[parameter] = {
                    key: part(name, value).to(parameter.device) if value.ndim or group.get("fused") else value
                    for key, value in by_name[name].items()
                }


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Named tensors that share no memory, as safetensors."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, str(file))


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Undo :func:`save_tensors`."""
    return dict(load_file(str(file)))


def check_same_run(state: Mapping[str, Any], expected: str, folder: Path) -> None:
    """A checkpoint continues only the run that wrote it.

    Raises:
        ValueError: the settings, data or model differ from those of the checkpoint.
    """
    if state.get("fingerprint") != expected:
        raise ValueError(
            f"{folder} holds a checkpoint of another training run (other settings, data, seed or model): "
            "delete the folder to start afresh, or restore the settings to continue"
        )
