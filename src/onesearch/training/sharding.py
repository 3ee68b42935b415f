"""A model in training of which every process holds a part: weights, gradients and AdamW's moments (FSDP).

::

    module = copy of the model; each process holds a part of every weight
    forward:   gather the weights of a layer, or of the whole model, compute, let go of what others hold
    backward:  gather them again; of the mean gradient over all processes each one keeps its part
    AdamW:     each process updates its part

The model itself stays whole in every process's main memory: validation, checkpoints and the outcome are made of it,
after :meth:`ShardedModel.gather` brought it up to date. Parts are plain tensors, so that what a step does with
gradients and weights is the same with and without.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from onesearch.common.processes import place
from onesearch.model.backbone_base import Backbone

Sharding = Literal["layers", "whole"]
"""What is gathered at a time: each layer of a decoder-only backbone when it computes, which needs that all processes go
through the layers equally often, and all else for the whole of a step; or the whole model for the whole of a step."""


class ShardedModel:
    """The part of a model that one process holds, as a module that trains.

    Args:
        model: whole, in main memory.
        device: where the parts lie and compute.
        sharding: what is gathered at a time.

    Attributes:
        module: computes as ``model`` does, and has its parameters by the same names.
        parts: by name, what this process holds of each trainable parameter: some of its rows, maybe none; of a number
            the number. Changing a part changes the module.
    """

    def __init__(self, model: nn.Module, device: torch.device, sharding: Sharding) -> None:
        self.model, self.world = model, place()[1]
        module = _copy(model, device)
        mesh = init_device_mesh(device.type, (self.world,))
        # A number cannot be cut: every process has all of them.
        numbers = {p for p in module.parameters() if p.ndim == 0}
        self._names = {module: [name for name, _ in module.named_parameters()]}
        if sharding == "layers":
            for backbone in [one for one in module.modules() if isinstance(one, Backbone)]:
                for layer in backbone.separate_layers():
                    self._names[layer] = [name for name, p in module.named_parameters() if _in(p, layer)]
                    layer.forward = partial(self._in_layer, layer)
                    fully_shard(layer, mesh=mesh, ignored_params=numbers)
                backbone.inside = _call
        self._forward, module.forward = module.forward, self._in_module
        fully_shard(module, mesh=mesh, reshard_after_forward=False, ignored_params=numbers)
        assert isinstance(module, FSDPModule)
        if not hasattr(module, "set_reduce_scatter_unused_params"):
            raise ValueError(f"loop.shard needs a newer torch than {torch.__version__}: say, 2.13")
        # Tasks leave weights unused, and not always the same ones in all processes.
        module.set_reduce_scatter_unused_params(True)
        self.module: nn.Module = module.to(device)
        self._weights = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self.parts = {name: _part(weight) for name, weight in self._weights.items()}
        self._watched: set[int] = set()
        self._used: set[str] = set()  # weights that the losses of this step have a gradient on, in this process

    def _in_module(self, *inputs: Any, **named: Any) -> Any:
        """The model's forward, while all weights but those of layers are gathered."""
        self._watch(self.module)
        return self._forward(*inputs, **named)

    def _in_layer(self, layer: nn.Module, run: Callable[..., Any], *inputs: Any) -> Any:
        """A layer's forward, while its weights are gathered: whatever the backbone does inside of it."""
        self._watch(layer)
        return run(layer, *inputs)

    def _watch(self, module: nn.Module) -> None:
        """Notice which gathered weights get a gradient; they are the same objects in every step."""
        for name, weight in zip(self._names[module], module.parameters(), strict=True):
            if weight.requires_grad and not isinstance(weight, DTensor) and id(weight) not in self._watched:
                weight.register_hook(partial(self._note, name))
                self._watched.add(id(weight))

    def _note(self, name: str, gradient: Tensor) -> None:
        self._used.add(name)

    def scatter(self) -> None:
        """Take the weights of ``model``."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name in self.parts:
                    self.parts[name].copy_(self.part_of(name, weight.detach()))

    def gather(self) -> None:
        """Give ``model`` the weights; all processes must come."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name in self.parts:
                    weight.copy_(self.whole(name, self.parts[name].detach()))

    def take_gradients(self) -> None:
        """Move the gradients of a step to the parts; all processes must come.

        A weight that no process used has none, as with one process, so that AdamW leaves it alone.
        """
        device = next(iter(self.parts.values())).device
        used = torch.tensor([name in self._used for name in self.parts], dtype=torch.float32, device=device)
        distributed.all_reduce(used, distributed.ReduceOp.MAX)
        self._used.clear()
        for (name, part), any_process in zip(self.parts.items(), used.tolist(), strict=True):
            weight = self._weights[name]
            gradient = weight.grad
            if not any_process:
                part.grad = None
            elif isinstance(gradient, DTensor):
                part.grad = gradient.to_local()
            else:  # a number's is that of this process alone so far
                part.grad = torch.zeros_like(part) if gradient is None else gradient
                distributed.all_reduce(part.grad)
                part.grad /= self.world
            if weight is not part:
                weight.grad = None

    def gradient_norm(self) -> Tensor:
        """The norm of the gradient of all weights, a number; all processes must come."""
        squares = torch.zeros((), device=next(iter(self.parts.values())).device)
        for name, part in self.parts.items():
            if part.grad is not None:
                # A number's is the same everywhere, so that each process counts its share of it.
                share = 1 / self.world if self._weights[name].ndim == 0 else 1.0
                squares += share * part.grad.float().square().sum()
        distributed.all_reduce(squares)
        return squares.sqrt()

    def whole(self, name: str, part: Tensor) -> Tensor:
        """What all processes' parts of a weight, or of a moment of it, make together; all processes must come."""
        weight = self._weights[name]
        if not isinstance(weight, DTensor) or part.ndim == 0:
            return part
        placed = DTensor.from_local(
            part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
        )
        return placed.full_tensor()

    def part_of(self, name: str, whole: Tensor) -> Tensor:
        """What this process holds of a weight, or of a moment of it."""
        weight = self._weights[name]
        if not isinstance(weight, DTensor) or whole.ndim == 0:
            return whole
        placed = distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        return placed.to_local()


def _copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy with weights of its own; what is no weight, such as an index of items, is large and shared."""
    shared: dict[int, Any] = {}
    for module in model.modules():
        for value in (*module.buffers(recurse=False), *vars(module).values()):
            if isinstance(value, Tensor) or (hasattr(value, "to") and not isinstance(value, nn.Module)):
                shared[id(value)] = value
    copied = copy.deepcopy(model, shared)
    for module in copied.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return copied


def _part(weight: nn.Parameter) -> nn.Parameter:
    """What this process holds of a weight, in the same memory."""
    return nn.Parameter(weight.to_local().detach()) if isinstance(weight, DTensor) else weight


def _in(weight: nn.Parameter, module: nn.Module) -> bool:
    return any(weight is other for other in module.parameters())


def _call(layer: nn.Module, run: Callable[..., Any], *inputs: Any) -> Any:
    """Go into a sharded layer, which gathers its weights on the way in and lets them go on the way out."""
    return layer(run, *inputs)
