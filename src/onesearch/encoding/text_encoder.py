"""What every text encoder offers, and how a saved one is found again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

DESCRIPTION = "encoder.json"


class TextEncoder(Protocol):
    """Text to unit vectors."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised vectors float32 [n, d]; a text without a single known feature gives zeros."""
        ...

    def save(self, folder: Path) -> None:
        """Write safetensors and JSON files."""
        ...


class EncoderTrainer(Protocol):
    """An encoder in training over a fixed table of texts, which are prepared (tokenised) once."""

    def embed(self, rows: NDArray[np.integer]) -> torch.Tensor:
        """Differentiable vectors [n, d] of the given rows of the text table, not normalised."""
        ...

    def update(self, rate: float) -> None:
        """Apply the gradients of every :meth:`embed` since the last update; ``rate`` scales the learning rate."""
        ...


class TrainableEncoder(TextEncoder, Protocol):
    """A text encoder that alignment can train."""

    def trainer(self, texts: Sequence[str], learning_rate: float | None = None) -> EncoderTrainer:
        """Training view of this encoder on a table of texts; updates change this encoder in place."""
        ...
