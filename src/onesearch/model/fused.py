"""Weights rearranged for decoding, kept until the weights they come from change."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Fused(Generic[T]):
    """A cache of tensors derived from a module's parameters; an optimizer step, a load or a move makes them anew."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._key: tuple[tuple[int, int, torch.dtype], ...] | None = None
        self._value: T | None = None

    def of(self, module: nn.Module) -> T:
        """The derived tensors of the module's present weights."""
        key = tuple(_identity(parameter) for parameter in module.parameters())
        if self._value is None or key != self._key:
            with torch.inference_mode(False), torch.no_grad():
                self._value, self._key = self._make(), key
        return self._value


def _identity(parameter: Tensor) -> tuple[int, int, torch.dtype]:
    # Tensors made under inference mode have no version; they are not trained either.
    version = -1 if parameter.is_inference() else parameter._version
    return parameter.data_ptr(), version, parameter.dtype
