"""The static encoder as a sentence-transformers model, for tools that expect one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from onesearch.encoding.static_encoder import StaticEncoder


class StaticModule(nn.Module):
    """A sentence-transformers input module around :class:`StaticEncoder`; its weights are the encoder's table."""

    def __init__(self, encoder: StaticEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.table = nn.Parameter(encoder.table)

    def preprocess(self, inputs: Sequence[str], *_: Any, **__: Any) -> dict[str, Tensor]:
        """Feature numbers ``input_ids`` [total] and the ``offsets`` [n] where each text begins."""
        bags = self.encoder.features.bags(list(inputs))
        return {"input_ids": torch.from_numpy(bags.values).long(), "offsets": torch.from_numpy(bags.offsets[:-1])}

    tokenize = preprocess

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Adds ``sentence_embedding`` float32 [n, d], L2-normalised."""
        sums = embedding_bag(features["input_ids"], self.table, features["offsets"], mode="sum")
        return {**features, "sentence_embedding": normalize(sums, dim=1)}

    def get_embedding_dimension(self) -> int:
        """Length of the vectors."""
        return self.encoder.dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the encoder's own files into the model folder."""
        self.encoder.save(Path(output_path))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **_: Any) -> "StaticModule":
        """Load what :meth:`save` wrote."""
        return cls(StaticEncoder.load(Path(model_name_or_path) / subfolder))


def as_sentence_transformer(encoder: StaticEncoder) -> Any:
    """A ``SentenceTransformer`` that shares the encoder's weights."""
    return SentenceTransformer(modules=[StaticModule(encoder)], device="cpu")
