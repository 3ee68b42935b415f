"""AdamW with parameter groups, the learning-rate schedule as a function of the step, and averaged weights."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

Schedule = Literal["linear", "cosine", "constant"]


def rate(step: int, steps: int, warmup: int, schedule: Schedule, floor: float = 0.0) -> float:
    """Share of the peak learning rate at ``step`` of 0..steps-1: up over ``warmup`` steps, then down to ``floor``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    fall = 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return floor + (1.0 - floor) * fall


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, multipliers: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Groups for AdamW: learning rates by longest matching name prefix; no decay of vectors, norms and embeddings.

    Raises:
        ValueError: a prefix that no parameter has, or nothing to train.
    """
    # Embeddings by identity, since a table may be known by several names.
    embedded = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for parameter in module.parameters(recurse=False)
    }
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise ValueError("the model has no parameter that requires a gradient")
    for prefix in multipliers:
        if not any(name.startswith(prefix) for name, _ in named):
            heads = sorted({name.split(".")[0] for name, _ in named})
            raise ValueError(f"no trainable parameter begins with '{prefix}'; the first parts are {heads}")
    # One group per pair of peak learning rate and decay.
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named:
        prefix = max((p for p in multipliers if name.startswith(p)), key=len, default="")
        peak = learning_rate * multipliers.get(prefix, 1.0)
        decay = 0.0 if parameter.ndim < 2 or id(parameter) in embedded else weight_decay
        group = groups.setdefault((peak, decay), {"params": [], "names": [], "weight_decay": decay, "peak": peak})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def adamw(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW with the fused kernel where the parameters allow it."""
    parameters = [p for group in groups for p in group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=fused)


class AveragedWeights:
    """Exponential moving average of the trainable weights: ``a ← decay·a + (1 - decay)·w`` after each step."""

    def __init__(self, live: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._live = live
        self.values = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current weights."""
        torch._foreach_lerp_(list(self.values.values()), list(self._live.values()), 1.0 - self.decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the live weights; calling it twice changes nothing."""
        for name, parameter in self._live.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take the average of a checkpoint."""
        for name, value in self.values.items():
            value.copy_(values[name])
