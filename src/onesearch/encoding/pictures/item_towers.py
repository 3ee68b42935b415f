"""Towers that join an item's text with its picture; a query is its text alone (docs/pictures.md).

``unified``: ``e(item) = unit(e(text) + u W)``, with W learnt beside the text encoder on the same five terms. It begins
at zero, so that training starts from the text alone and an item without a picture stays there.

``concat``: ``e(item) = [√(1-w) e(text), √w u, 0]``, and ``[√(1-w) e(text), 0, √w]`` for an item without a picture;
``e(query) = [e(text), 0, 0]``. The last coordinate keeps items comparable: with every one of them a query's cosine is
√(1-w) times that of the texts, while a unit vector of the text alone would put items without a picture first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch.nn.functional import normalize

from onesearch.common.artefact import read_json, write_json
from onesearch.encoding.pictures.picture_encoder import unit_rows
from onesearch.encoding.pictures.picture_space import PictureSpace
from onesearch.encoding.text_encoder import DESCRIPTION, EncoderTrainer, TextEncoder

Floats = NDArray[np.float32]
TEXT_FOLDER: Final = "text"
_TENSORS: Final = "pictures.safetensors"


@runtime_checkable
class ItemTower(TextEncoder, Protocol):
    """An encoder of texts that also knows items with pictures, in one space."""

    def encode_items(self, texts: Sequence[str], pictures: Floats, there: NDArray[np.bool_]) -> Floats:
        """Unit vectors float32 [n, d] of items: their texts, picture vectors [n, p], and who has one, bool [n]."""
        ...


class UnifiedTower:
    """One tower over text and picture.

    Attributes:
        text: encodes queries, keywords and the texts of items.
        space: of pictures.
        weight: W, float32 [k, d].
    """

    def __init__(self, text: TextEncoder, space: PictureSpace, weight: Floats) -> None:
        self.text, self.space, self.weight = text, space, weight

    @property
    def dimension(self) -> int:
        """Length of the vectors: that of the text's."""
        return self.text.dimension

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors float32 [n, d] of texts without a picture."""
        return self.text.encode(texts)

    def encode_items(self, texts: Sequence[str], pictures: Floats, there: NDArray[np.bool_]) -> Floats:
        """As :meth:`ItemTower.encode_items`."""
        added = self.space.reduce(pictures, there) @ self.weight
        return unit_rows(self.text.encode(texts) + added)

    def save(self, folder: Path) -> None:
        """Write the text encoder in a folder of its own, the picture's side beside it."""
        self.text.save(folder / TEXT_FOLDER)
        _save_tensors(folder, self.space, weight=self.weight)
        write_json(folder / DESCRIPTION, {"kind": "unified"})

    @classmethod
    def load(cls, folder: Path, text: TextEncoder) -> "UnifiedTower":
        """What :meth:`save` wrote, around the loaded text encoder."""
        tensors = load_file(folder / _TENSORS)
        return cls(text, PictureSpace(tensors["mean"], tensors["axes"]), tensors["weight"])


class ConcatTower:
    """Text and picture side by side.

    Attributes:
        text: encodes queries, keywords and the texts of items, in t dimensions.
        space: of pictures, in k.
        share: w, of the picture in an item's vector.
    """

    def __init__(self, text: TextEncoder, space: PictureSpace, share: float) -> None:
        self.text, self.space, self.share = text, space, share

    @property
    def dimension(self) -> int:
        """Length of the vectors: t + k + 1."""
        return self.text.dimension + self.space.dimension + 1

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors float32 [n, d] of queries and keywords: zeros beside the text."""
        return self.pad(self.text.encode(texts))

    def pad(self, vectors: Floats) -> Floats:
        """Text vectors [n, t] as those of queries, [n, d]."""
        return np.pad(vectors, ((0, 0), (0, self.dimension - vectors.shape[1])))

    def encode_items(self, texts: Sequence[str], pictures: Floats, there: NDArray[np.bool_]) -> Floats:
        """As :meth:`ItemTower.encode_items`."""
        seen = np.concatenate([self.space.reduce(pictures, there), ~there[:, None]], 1)
        parts = [np.sqrt(1 - self.share) * self.text.encode(texts), np.sqrt(self.share) * seen]
        return unit_rows(np.concatenate(parts, 1))

    def save(self, folder: Path) -> None:
        """Write the text encoder in a folder of its own, the picture's side beside it."""
        self.text.save(folder / TEXT_FOLDER)
        _save_tensors(folder, self.space)
        write_json(folder / DESCRIPTION, {"kind": "concat", "share": self.share})

    @classmethod
    def load(cls, folder: Path, text: TextEncoder) -> "ConcatTower":
        """What :meth:`save` wrote, around the loaded text encoder."""
        tensors = load_file(folder / _TENSORS)
        share = float(read_json(folder / DESCRIPTION)["share"])
        return cls(text, PictureSpace(tensors["mean"], tensors["axes"]), share)


def _save_tensors(folder: Path, space: PictureSpace, **more: Floats) -> None:
    save_file({"mean": space.mean, "axes": space.axes, **more}, folder / _TENSORS)


class PictureProjection:
    """W of a :class:`UnifiedTower` in training: Adam beside whatever trains the text encoder.

    Args:
        pictures: reduced picture vectors of the alignment's items, float32 [N, k], zeros where there is none.
        dimension: d, of the text's vectors.
        learning_rate: at the start; it falls with the text encoder's.
    """

    def __init__(self, pictures: Floats, dimension: int, learning_rate: float) -> None:
        self._pictures = torch.from_numpy(np.ascontiguousarray(pictures))
        self._there = self._pictures.any(1)
        self._weight = torch.zeros(pictures.shape[1], dimension, requires_grad=True)
        self._rate = learning_rate
        self._optimizer = torch.optim.Adam([self._weight], lr=learning_rate)

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def weight(self) -> Floats:
        """W as it is now, float32 [k, d]."""
        return self._weight.detach().numpy().copy()

    def around(self, text: EncoderTrainer, first: int) -> EncoderTrainer:
        """Training of both; the texts from number ``first`` on, N of them, are those of the items."""
        return _PictureTrainer(self, text, first)

    def added(self, vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Vectors [n, d] of texts with their pictures' share; ``rows`` [n] of the items, -1 where a text is none's."""
        rows = rows.to(vectors.device)
        seen = (rows >= 0) & self._there.to(vectors.device)[rows.clamp(min=0)]
        pictures = self._pictures.to(vectors.device)[rows.clamp(min=0)]
        joined = normalize(vectors, dim=1) + pictures @ self._weight.to(vectors.device)
        return torch.where(seen[:, None], joined, vectors)

    def update(self, rate: float) -> None:
        """One Adam step at ``rate`` times the learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


class _PictureTrainer:
    def __init__(self, projection: PictureProjection, text: EncoderTrainer, first: int) -> None:
        self._projection, self._text, self._first = projection, text, first

    def embed(self, rows: NDArray[np.integer]) -> torch.Tensor:
        items = torch.from_numpy(np.asarray(rows, np.int64) - self._first)
        items[items >= len(self._projection)] = -1  # pseudo-queries come after the items
        return self._projection.added(self._text.embed(rows), items.clamp(min=-1))

    def update(self, rate: float) -> None:
        self._text.update(rate)
        self._projection.update(rate)
