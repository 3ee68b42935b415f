"""Which arithmetic to train in, and repeatable kernels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from onesearch.common.device import has_native_bf16

Precision = Literal["auto", "no", "bf16"]


def resolve_precision(precision: Precision) -> Literal["no", "bf16"]:
    """The precision that "auto" stands for on this machine."""
    if precision == "auto":
        return "bf16" if has_native_bf16() else "no"
    return precision


@contextmanager
def deterministic(active: bool = True) -> Iterator[None]:
    """Kernels whose result does not depend on thread timing, where torch has them; afterwards the old setting."""
    if not active:
        yield
        return
    # Where torch has no deterministic kernel it warns, once per operation; uninitialised memory need not be filled.
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
