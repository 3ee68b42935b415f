"""Any sentence-transformers model behind the same protocol, trainable by the same alignment loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.artefact import read_json, write_json
from onesearch.common.device import best_device
from onesearch.common.extras import from_extra
from onesearch.encoding.text_encoder import DESCRIPTION


class TransformerEncoder:
    """A sentence-transformers model: pretrained by name or path, or one that alignment has trained.

    Attributes:
        model: the ``SentenceTransformer``.
    """

    def __init__(self, model: Any, learning_rate: float = 2e-5, batch_size: int = 128) -> None:
        self.model, self.learning_rate, self.batch_size = model, learning_rate, batch_size

    @classmethod
    def open(cls, name_or_path: str, learning_rate: float = 2e-5, batch_size: int = 128) -> "TransformerEncoder":
        """Open a model by hub name or local path; weights must be safetensors."""
        with from_extra("encoders"):
            from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(name_or_path, device=str(best_device()), model_kwargs={"use_safetensors": True})
        return cls(model, learning_rate, batch_size)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        name = "get_embedding_dimension" if hasattr(self.model, "get_embedding_dimension") else None
        return int(getattr(self.model, name or "get_sentence_embedding_dimension")())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors float32 [n, d]."""
        if not len(texts):
            return np.zeros((0, self.dimension), np.float32)
        self.model.eval()
        vectors = self.model.encode(
            list(texts),
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)

    def trainer(self, texts: Sequence[str], learning_rate: float | None = None) -> "TransformerEncoderTrainer":
        """Training view on a table of texts; updates change ``model`` in place."""
        return TransformerEncoderTrainer(self.model, texts, learning_rate or self.learning_rate)

    def save(self, folder: Path) -> None:
        """Write the model in sentence-transformers' own layout (safetensors) and ``encoder.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save(str(folder / "model"), create_model_card=False, safe_serialization=True)
        write_json(
            folder / DESCRIPTION,
            {"kind": "transformer", "learning_rate": self.learning_rate, "batch_size": self.batch_size},
        )

    @classmethod
    def load(cls, folder: Path) -> "TransformerEncoder":
        """Load what :meth:`save` wrote; needs no network, and runs no code of the folder's.

        Raises:
            ValueError: it has a module that is not sentence-transformers' own.
        """
        # sentence-transformers itself refuses that only from 6.0 on.
        path = folder / "model" / "modules.json"
        for module in read_json(path):
            if not str(module["type"]).startswith("sentence_transformers."):
                raise ValueError(f"{path}: {module['type']!r} is foreign code, and none is run; use another encoder")
        with from_extra("encoders"):
            from sentence_transformers import SentenceTransformer

        values = read_json(folder / DESCRIPTION)
        model = SentenceTransformer(str(folder / "model"), device=str(best_device()), local_files_only=True)
        return cls(model, float(values["learning_rate"]), int(values["batch_size"]))


class TransformerEncoderTrainer:
    """AdamW on all weights of a sentence-transformers model."""

    def __init__(self, model: Any, texts: Sequence[str], learning_rate: float) -> None:
        self.model, self.texts = model, texts
        self._rate = learning_rate
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)

    def embed(self, rows: NDArray[np.integer]) -> torch.Tensor:
        """Differentiable vectors [n, d] of the given texts."""
        self.model.train()
        batch = [self.texts[row] for row in rows.tolist()]
        # the tokenising method has another name in newer versions
        prepare = getattr(self.model, "preprocess", None) or self.model.tokenize
        features = {
            key: value.to(self.model.device) if isinstance(value, torch.Tensor) else value
            for key, value in prepare(batch).items()
        }
        vectors = self.model(features)["sentence_embedding"]
        return torch.as_tensor(vectors)

    def update(self, rate: float) -> None:
        """One AdamW step at ``rate`` times the learning rate, gradients clipped to norm 1."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
