"""What every vision model offers, as text encoders do, and how one is opened, saved and found again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_ENCODER: Final = "picture_encoder.json"


class PictureEncoder(Protocol):
    """Pictures to unit vectors."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        ...

    def encode(self, pictures: "Sequence[Image]") -> NDArray[np.float32]:
        """L2-normalised vectors float32 [n, d] of RGB pictures of any size."""
        ...

    def save(self, folder: Path) -> None:
        """Write safetensors and JSON files, from which it is loaded without a hub."""
        ...


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows at length one, float32 [n, d]; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
