"""Batches to a device, whatever they are made of."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch


def moved(value: Any, device: torch.device) -> Any:
    """``value`` with every tensor in its dataclasses, dicts, lists and tuples on ``device`` (for the CPU: as it is)."""
    if device.type == "cpu":
        return value
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        inner = [part.name for part in fields(value) if part.init]
        return replace(value, **{name: moved(getattr(value, name), device) for name in inner})
    if isinstance(value, dict):
        return {key: moved(part, device) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(part, device) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(moved(part, device) for part in value)
    return value
