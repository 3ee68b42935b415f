"""How much memory this process holds, as the system says."""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

_PROC = Path("/proc/self")


def resident_mib() -> float:
    """What the process holds in memory now, MiB; where the system does not say, what it held at most."""
    return _of_status("VmRSS") or _highest_mib()


def peak_mib() -> float:
    """What the process held at most since :func:`forget_peak`, MiB; where that is not to be had, in its whole life."""
    return _of_status("VmHWM") or _highest_mib()


def forget_peak() -> None:
    """Measure :func:`peak_mib` anew from here on; nothing happens where the system cannot do that."""
    # Not Linux, or not allowed: the peak stays that of the process's life.
    with contextlib.suppress(OSError):
        (_PROC / "clear_refs").write_text("5", encoding="ascii")


def give_back() -> None:
    """Give free memory back to the system, where the C library can: what many small parts left free it keeps."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def keep_few_kernels() -> None:
    """Have oneDNN keep few of the kernels that it makes, if it was not used yet and the user does not say how many.

    Each is for one shape of its input, with memory of its own, and batches of a training have many shapes: the 1,024
    that it keeps by itself hold hundreds of MiB, and a training is no slower with these. It is told by a variable
    of the environment, which stays.
    """
    if not any(f"{library}_PRIMITIVE_CACHE_CAPACITY" in os.environ for library in ("ONEDNN", "DNNL")):
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "64"


def _of_status(name: str) -> float:
    try:
        lines = (_PROC / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{name}:")), 0.0)


def _highest_mib() -> float:
    """The peak of the process's life: in KiB on Linux, in bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
