"""Texts as the model needs them: subwords, dense vector, semantic ID and row; computed once per distinct text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.text import item_texts
from onesearch.encoding.khqe import KHQE, fuse_keywords
from onesearch.encoding.text_encoder import TextEncoder
from onesearch.model.item_numbers import ItemNumbers
from onesearch.model.row_space import RowSpace
from onesearch.model.token_vocabulary import TokenVocabulary
from onesearch.understanding.keyword_lexicon import Lexicon

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TextTable:
    """Features of T distinct texts.

    Shapes: ``tokens`` T rows of subword ids, ``vectors`` float32 [T, d_e] (fused, L2-normalised), ``sids`` int32
    [T, L], ``rows`` float32 [T, R].
    """

    texts: list[str]
    tokens: Ragged
    vectors: Floats
    sids: NDArray[np.int32]
    rows: Floats

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Featurizer:
    """Encoder, keyword fusion, quantizer, row space and vocabulary of one run, applied in that order."""

    encoder: TextEncoder
    lexicon: Lexicon | None
    khqe: KHQE
    row_space: RowSpace
    vocabulary: TokenVocabulary
    token_limit: int = 24
    keyword_vectors: Floats | None = None
    fields: tuple[str, ...] = ("title", "brand")
    item_features: ItemNumbers | None = None

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Fused, normalised text vectors, float32 [n, d_e]."""
        plain = self.encoder.encode(texts)
        if self.lexicon is None or self.keyword_vectors is None:
            return plain
        return fuse_keywords(plain, self.lexicon.match(texts), self.keyword_vectors)

    def items(self, items: pl.DataFrame) -> tuple[NDArray[np.int32], Floats]:
        """SIDs int32 [n, L] and rows float32 [n, R] of items that are new to the catalogue (no clicks yet)."""
        vectors = self.vectors(item_texts(items, self.fields))
        extra = np.zeros((len(items), self.row_space.features), np.float32)
        if self.item_features is not None:
            extra = self.item_features.of_new(items)
        return self.khqe.encode(vectors).astype(np.int32), self.row_space.of_items(vectors, extra)

    def table(self, texts: Sequence[str], vectors: Floats | None = None) -> TextTable:
        """All features of the given texts; ``vectors`` replaces the encoder's (held-out ones of training queries)."""
        known = self.vectors(texts) if vectors is None else vectors
        return TextTable(
            list(texts),
            self.vocabulary.tokens(texts, self.token_limit),
            known,
            self.khqe.encode(known).astype(np.int32),
            self.row_space.of_queries(known),
        )
