"""What each process holds of a model in training: all of it (DDP), or a part (FSDP).

A part::

    module = copy of the model; each process holds a part of every weight
    forward:   gather the weights of a layer, or of the whole model, compute, let go of what others hold
    backward:  gather them again; of the mean gradient over all processes each one keeps its part
    AdamW:     each process updates its part

The model itself stays whole in every process's main memory: validation, checkpoints and the outcome are made of it,
after ``gather`` brought it up to date. Parts are plain tensors, so that the loop does with gradients and weights the
same in both cases.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from onesearch.common.extras import from_extra
from onesearch.common.processes import is_first, place
from onesearch.model.backbone_base import Backbone

with from_extra("train"):
    from accelerate import Accelerator

Sharding = Literal["layers", "whole"]
"""What is gathered at a time: each layer of a decoder-only backbone when it computes, which needs that all processes go
through the layers equally often, and all else for the whole of a step; or the whole model for the whole of a step."""


class WholeModel:
    """Every process holds all of the model; gradients are exchanged as they come.

    Args:
        model: goes to the device.
        accelerator: of the training.

    Attributes:
        parts: the trainable parameters by name.
        module: what is called, and gives ``parts`` gradients; there after :meth:`begin`.
    """

    module: nn.Module

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        self.model, self._accelerator = model.to(accelerator.device), accelerator
        _equal_weights(model, accelerator.device)
        self.parts = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """The weights are now those to begin with."""
        # accelerate wraps the model for precision and processes; its wrapped optimizer is not used, since the loss
        # functions of this project go backward several times before a step.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            self.module, _ = self._accelerator.prepare(self.model, optimizer)

    def without_exchange(self) -> AbstractContextManager[Any]:
        """Where gradients are not exchanged, since there is more to come in this step."""
        exchange: AbstractContextManager[Any] = self._accelerator.no_sync(self.module)
        return exchange

    def gradient_norm(self) -> Tensor:
        """The gradients of the step are complete: their norm."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.parts.values() if p.grad is not None])

    def gather(self) -> None:
        """Bring ``model`` up to date, which it is."""

    def on_device(self) -> AbstractContextManager[None]:
        """``model`` as it is now, on the device, which it is."""
        return nullcontext()

    def whole(self, name: str, part: Tensor) -> Tensor:
        """What is kept of a weight, or of a moment of it, in a checkpoint."""
        return part

    def part_of(self, name: str, whole: Tensor) -> Tensor:
        """What this process has of a weight, or of a moment of it."""
        return whole


class ShardedModel:
    """Every process holds a part of the model; as :class:`WholeModel`, but all processes must come to each method.

    Args:
        model: whole, in main memory.
        device: where the parts lie and compute.
        sharding: what is gathered at a time.

    Attributes:
        parts: by name, what this process holds of each trainable parameter: some of its rows, maybe none; of a number
            the number. Changing a part changes the module.
        module: what is called; computes as ``model`` does, and has its parameters by the same names.
    """

    def __init__(self, model: nn.Module, device: torch.device, sharding: Sharding) -> None:
        if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
            raise ValueError(f"loop.shard needs torch 2.13 or newer, and this is {torch.__version__}")
        self.model, self.device, self.world = model, device, place()[1]
        _equal_weights(model, device)
        # A copy, cut into parts from the inside out: layers first, then what is left.
        module = _copy(model, device)
        mesh = init_device_mesh(device.type, (self.world,))
        # Caches of torch keep the mesh for good. They find its group by name; the mesh's own list of groups, which only
        # torch.compile reads, would keep the group with its threads beyond the job, as told in `joined`.
        getattr(mesh, "_pg_registry", {}).clear()
        # A number cannot be cut: every process has all of them.
        numbers = {p for p in module.parameters() if p.ndim == 0}
        self._names = {module: [name for name, _ in module.named_parameters()]}
        if sharding == "layers":
            for backbone in [one for one in module.modules() if isinstance(one, Backbone)]:
                layers = backbone.separate_layers()
                for layer in layers:
                    own = {id(p) for p in layer.parameters()}
                    self._names[layer] = [name for name, p in module.named_parameters() if id(p) in own]
                    layer.forward = partial(self._in_layer, layer)
                    fully_shard(layer, mesh=mesh, ignored_params=numbers)
                if layers:
                    backbone.inside = _call
        self._forward, module.forward = module.forward, self._in_module
        fully_shard(module, mesh=mesh, reshard_after_forward=False, ignored_params=numbers)
        assert isinstance(module, FSDPModule)
        # Layers give views, in which nobody works in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        # Tasks leave weights unused, and not always the same ones in all processes.
        module.set_reduce_scatter_unused_params(True)
        # What this process holds of it, and what it must know to give a step's gradients to these parts.
        self.module: nn.Module = module.to(device)
        _share_all_but_weights(self.module, model)
        self._weights = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self.parts = {name: _part(weight) for name, weight in self._weights.items()}
        self._watched: set[int] = set()
        self._used: set[str] = set()  # weights that the losses of this step have a gradient on, in this process

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the weights of ``model``; alone among the methods, it is no matter of the others."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name in self.parts:
                    self.parts[name].copy_(self.part_of(name, weight.detach()))

    def without_exchange(self) -> AbstractContextManager[Any]:
        """Gradients are exchanged at once, since nobody has room for all of them."""
        return nullcontext()

    def gradient_norm(self) -> Tensor:
        """The gradients of the step are complete: they go to the parts; the norm of all, a number."""
        self._take_gradients()
        squares = torch.zeros((), device=self.device)
        for name, part in self.parts.items():
            if part.grad is not None:
                # A number's is the same everywhere, so that each process counts its share of it.
                share = 1 / self.world if self._weights[name].ndim == 0 else 1.0
                squares += share * part.grad.float().square().sum()
        distributed.all_reduce(squares)
        return squares.sqrt()

    def gather(self) -> None:
        """Bring ``model`` up to date."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name in self.parts:
                    weight.copy_(self._together(name, self.parts[name].detach()))

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """``model`` as it is now, on the device."""
        self.gather()
        kept = [(weight, weight.data) for weight in self.model.parameters()]
        for weight, value in kept:
            weight.data = value.to(self.device)
        try:
            yield
        finally:
            for weight, value in kept:
                weight.data = value
            for module in self.model.modules():
                if isinstance(module, Backbone):
                    module.forget()

    def whole(self, name: str, part: Tensor) -> Tensor:
        """What is kept of a weight, or of a moment of it, in a checkpoint: in main memory, and in the first process."""
        together = self._together(name, part)
        return together.cpu() if is_first() else together.new_empty(0)

    def part_of(self, name: str, whole: Tensor) -> Tensor:
        """What this process has of a weight, or of a moment of it."""
        weight = self._weights[name]
        if not isinstance(weight, DTensor) or whole.ndim == 0:
            return whole
        placed = distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        return placed.to_local()

    def _together(self, name: str, part: Tensor) -> Tensor:
        weight = self._weights[name]
        if not isinstance(weight, DTensor) or part.ndim == 0:
            return part
        placed = DTensor.from_local(
            part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
        )
        return placed.full_tensor()

    def _take_gradients(self) -> None:
        """Move the gradients to the parts.

        A weight that no process used has none, as with one process, so that AdamW leaves it alone.
        """
        used = torch.tensor([name in self._used for name in self.parts], dtype=torch.float32, device=self.device)
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

    def _in_module(self, *inputs: Any, **named: Any) -> Any:
        """The model's forward, while all weights but those of layers are gathered."""
        self._watch(self.module)
        return self._forward(*inputs, **named)

    def _in_layer(self, layer: nn.Module, run: Callable[..., Any], *inputs: Any) -> Any:
        """A layer's forward, while its weights are gathered: whatever the backbone does inside of it."""
        self._watch(layer)
        # Autocast would keep its copies of the weights until the end of the pass, for when they are read again.
        kind = self.device.type
        with torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False):
            return run(layer, *inputs)

    def _watch(self, module: nn.Module) -> None:
        """Notice which gathered weights get a gradient; they are the same objects in every step."""
        for name, weight in zip(self._names[module], module.parameters(), strict=True):
            if weight.requires_grad and not isinstance(weight, DTensor) and id(weight) not in self._watched:
                weight.register_hook(partial(self._note, name))
                self._watched.add(id(weight))

    def _note(self, name: str, gradient: Tensor) -> None:
        self._used.add(name)


def _equal_weights(model: nn.Module, device: torch.device) -> None:
    """Those of the first process, in all: what each of them made may differ in its last digits, or by more."""
    if place()[1] == 1:
        return
    for weight in model.parameters():
        first = weight.data.to(device)
        distributed.broadcast(first, 0)
        weight.data.copy_(first)


def _copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy with weights of its own; what is no weight, such as an index of items, is large and shared."""
    shared: dict[int, Any] = {}
    for module in model.modules():
        shared |= {id(value): value for value in (*module.buffers(recurse=False), *_data_of(module).values())}
    copied = copy.deepcopy(model, shared)
    for module in copied.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return copied


def _share_all_but_weights(module: nn.Module, model: nn.Module) -> None:
    """Give ``model`` what is no weight of ``module``, its copy on the device, so that it lies there once."""
    for one, other in zip(module.modules(), model.modules(), strict=True):
        for name, buffer in one.named_buffers(recurse=False):
            setattr(other, name, buffer)
        vars(other).update(_data_of(one))


def _data_of(module: nn.Module) -> dict[str, Any]:
    """A module's attributes that lie on a device, but are neither modules, weights nor buffers: say, an index."""
    return {
        name: value for name, value in vars(module).items() if hasattr(value, "to") and not isinstance(value, nn.Module)
    }


def _part(weight: nn.Parameter) -> nn.Parameter:
    """What this process holds of a weight, in the same memory."""
    return nn.Parameter(weight.to_local().detach()) if isinstance(weight, DTensor) else weight


def _call(layer: nn.Module, run: Callable[..., Any], *inputs: Any) -> Any:
    """Go into a sharded layer, which gathers its weights on the way in and lets them go on the way out."""
    return layer(run, *inputs)
