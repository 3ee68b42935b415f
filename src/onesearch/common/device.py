"""Where models run."""

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
