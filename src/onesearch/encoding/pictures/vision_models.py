"""Vision models of sentence-transformers (CLIP) and of transformers, by name or path; none of their own code is run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.artefact import read_json, write_json
from onesearch.common.device import best_device
from onesearch.common.extras import from_extra
from onesearch.encoding.pictures.picture_encoder import PICTURE_ENCODER, unit_rows

if TYPE_CHECKING:
    from PIL.Image import Image

_AT_ONCE: Final = 32


class ClipPictures:
    """A multimodal model of sentence-transformers, such as ``clip-ViT-B-32``; frozen.

    Attributes:
        model: the ``SentenceTransformer``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._dimension: int | None = None

    @classmethod
    def open(cls, name_or_path: str) -> "ClipPictures":
        """Open a model by hub name or local path; weights must be safetensors.

        Raises:
            ValueError: a local one has a module that is not sentence-transformers' own.
        """
        _refuse_foreign_modules(Path(name_or_path))
        with from_extra("encoders"):
            from sentence_transformers import SentenceTransformer

        device, weights = str(best_device()), {"use_safetensors": True}
        return cls(SentenceTransformer(name_or_path, device=device, model_kwargs=weights))

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        if self._dimension is None:  # of pictures, which not every model of the library tells
            with from_extra("pictures"):
                from PIL import Image

            self._dimension = self.encode([Image.new("RGB", (32, 32), "white")]).shape[1]
        return self._dimension

    def encode(self, pictures: "Sequence[Image]") -> NDArray[np.float32]:
        """Unit vectors float32 [n, d]."""
        if not len(pictures):
            return np.zeros((0, self.dimension), np.float32)
        self.model.eval()
        found = self.model.encode(list(pictures), batch_size=_AT_ONCE, convert_to_numpy=True, show_progress_bar=False)
        return unit_rows(np.asarray(found, np.float32))

    def save(self, folder: Path) -> None:
        """Write the model in sentence-transformers' own layout (safetensors) and ``picture_encoder.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save(str(folder / "model"), create_model_card=False, safe_serialization=True)
        write_json(folder / PICTURE_ENCODER, {"kind": "sentence-transformers"})

    @classmethod
    def load(cls, folder: Path) -> "ClipPictures":
        """Load what :meth:`save` wrote; needs no network, and runs no code of the folder's.

        Raises:
            ValueError: it has a module that is not sentence-transformers' own.
        """
        _refuse_foreign_modules(folder / "model")
        with from_extra("encoders"):
            from sentence_transformers import SentenceTransformer

        device, weights = str(best_device()), {"use_safetensors": True}
        path = str(folder / "model")
        return cls(SentenceTransformer(path, device=device, local_files_only=True, model_kwargs=weights))


class TransformersPictures:
    """A vision model of transformers, such as a ViT, DINOv2 or ConvNeXt, or the vision half of a CLIP; frozen.

    Its vector is the model's projected or pooled output, or the mean of its last hidden states where it has none.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model.eval().to(best_device()), processor
        self._dimension: int | None = None

    @classmethod
    def open(cls, name_or_path: str, local: bool = False) -> "TransformersPictures":
        """Open a model by hub name or local path (``local``: by path alone); weights must be safetensors."""
        with from_extra("pictures"):
            from transformers import AutoImageProcessor, AutoModel

        processor = AutoImageProcessor.from_pretrained(name_or_path, local_files_only=local, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            name_or_path, use_safetensors=True, local_files_only=local, trust_remote_code=False
        )
        return cls(model, processor)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        if self._dimension is None:
            with from_extra("pictures"):
                from PIL import Image

            self._dimension = self.encode([Image.new("RGB", (32, 32), "white")]).shape[1]
        return self._dimension

    def encode(self, pictures: "Sequence[Image]") -> NDArray[np.float32]:
        """Unit vectors float32 [n, d]."""
        parts = [self._vectors(list(pictures[start : start + _AT_ONCE])) for start in range(0, len(pictures), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)

    def _vectors(self, pictures: "list[Image]") -> NDArray[np.float32]:
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"].to(self._model.device)
        with torch.inference_mode():
            # A model of texts and pictures is asked for its pictures' side.
            both = hasattr(self._model, "get_image_features")
            found = self._model.get_image_features(pixels) if both else self._model(pixel_values=pixels)
        if not isinstance(found, torch.Tensor):
            pooled = getattr(found, "pooler_output", None)
            found = pooled if pooled is not None else _mean_over_places(found.last_hidden_state)
        return unit_rows(found.flatten(1).float().cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write the model in transformers' own layout (safetensors) and ``picture_encoder.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._model.save_pretrained(folder / "model", safe_serialization=True)
        self._processor.save_pretrained(folder / "model")
        write_json(folder / PICTURE_ENCODER, {"kind": "transformers"})

    @classmethod
    def load(cls, folder: Path) -> "TransformersPictures":
        """Load what :meth:`save` wrote; needs no network, and runs no code of the folder's."""
        return cls.open(str(folder / "model"), local=True)


def _mean_over_places(states: torch.Tensor) -> torch.Tensor:
    """[n, places, d] or [n, d, high, wide] → [n, d]."""
    return states.mean(1) if states.ndim == 3 else states.mean((2, 3))


def _refuse_foreign_modules(folder: Path) -> None:
    """Look at the modules that a local model is made of.

    Raises:
        ValueError: one is not sentence-transformers' own.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return
    for module in read_json(path):
        if not str(module["type"]).startswith("sentence_transformers."):
            raise ValueError(f"{path}: {module['type']!r} is foreign code, and none is run; use another encoder")
