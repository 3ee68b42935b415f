"""Where models run, and what multiplies fast there."""

from functools import cache
from pathlib import Path

import torch


def best_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(name: str | None) -> torch.device:
    """The device of a name such as ``cpu`` or ``cuda:1``; the best one for None.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name is None:
        return best_device()
    # Names are cheap; only a tensor there tells whether the device is.
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error


@cache
def has_native_bf16() -> bool:
    """Whether the GPU, or without one the CPU (AVX-512 BF16 or AMX), multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    # Linux names what the CPU can do; elsewhere nothing is known, and float32 is right everywhere.
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return False
    flags = next((line for line in info.read_text(errors="replace").splitlines() if line.startswith("flags")), "")
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))
