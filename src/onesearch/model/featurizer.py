"""Texts as the model needs them: subwords, dense vector, semantic ID and head row; once per distinct text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.dataset import ragged_rows
from onesearch.data.text import item_texts
from onesearch.encoding.khqe import KHQE, fuse_keywords
from onesearch.encoding.linked_items import drawn_to_linked
from onesearch.encoding.pictures.item_pictures import ItemPictures
from onesearch.encoding.pictures.item_towers import ItemTower
from onesearch.encoding.text_encoder import TextEncoder
from onesearch.model.head_row_projection import HeadRowProjection
from onesearch.model.numeric_item_features import PRICED, NumericItemFeatures
from onesearch.model.token_vocabulary import TokenVocabulary
from onesearch.understanding.keyword_lexicon import Lexicon

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TextFeatures:
    """Features of T distinct texts.

    Attributes:
        texts: the texts themselves.
        tokens: subword ids, T lists.
        vectors: dense text vectors, fused with keywords and L2-normalised, float32 [T, d_e].
        sids: semantic IDs, int32 [T, L].
        head_rows: what the item head starts from when the text is the query, float32 [T, R].
    """

    texts: list[str]
    tokens: Ragged
    vectors: Floats
    sids: NDArray[np.int32]
    head_rows: Floats

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Featurizer:
    """Encoder, keyword fusion, quantizer, head rows and tokenizer of one run: the processor of texts and items.

    ``pictures`` reads those of items that come in; None where vectors know of none. ``linked`` is the weight of linked
    items in an item's vector.
    """

    encoder: TextEncoder
    lexicon: Lexicon | None
    khqe: KHQE
    head_row_projection: HeadRowProjection
    vocabulary: TokenVocabulary
    token_limit: int = 24
    keyword_vectors: Floats | None = None
    fields: tuple[str, ...] = ("title", "brand")
    item_features: NumericItemFeatures | None = None
    pictures: ItemPictures | None = None
    linked: float = 0.0

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Fused, normalised text vectors, float32 [n, d_e]."""
        return self._fused(self.encoder.encode(texts), texts)

    def item_vectors(self, items: pl.DataFrame, linked: pl.DataFrame | None = None) -> Floats:
        """Fused, normalised vectors of items, of their pictures, too, where the run's encoder knows these, [n, d_e].

        Those with links are drawn towards the items that these lead to; ``linked`` is the table of these.
        """
        own = self._own_vectors(items)
        if linked is None or not len(linked) or not self.linked:
            return own
        links = ragged_rows(items["linked"], linked["item_id"])
        return drawn_to_linked(own, links, self._own_vectors(linked), self.linked)

    def _own_vectors(self, items: pl.DataFrame) -> Floats:
        texts = item_texts(items, self.fields)
        if self.pictures is None or not isinstance(self.encoder, ItemTower):
            return self.vectors(texts)
        seen = self.pictures.remembered(items["images"].to_list())
        return self._fused(self.encoder.encode_items(texts, *seen), texts)

    def _fused(self, plain: Floats, texts: Sequence[str]) -> Floats:
        if self.lexicon is None or self.keyword_vectors is None:
            return plain
        return fuse_keywords(plain, self.lexicon.match(texts), self.keyword_vectors)

    def items(self, items: pl.DataFrame, linked: pl.DataFrame | None = None) -> tuple[NDArray[np.int32], Floats]:
        """SIDs int32 [n, L] and rows float32 [n, R] of items that are new to the catalogue (no clicks yet)."""
        vectors = self.item_vectors(items, linked)
        # numbers that are usual for such items; zeros where a run has none
        extra = np.zeros((len(items), self.head_row_projection.features), np.float32)
        if self.item_features is not None:
            extra = self.item_features.for_new_items(items)
        return self.khqe.encode(vectors).astype(np.int32), self.head_row_projection.project_items(vectors, extra)

    def set_price(self, head_rows: Floats, rows: NDArray[np.integer], items: pl.DataFrame) -> None:
        """Write what the price of ``items`` says into ``rows`` of ``head_rows`` [n, R], in place."""
        if self.item_features is None or not len(items):
            return
        numbers = self.item_features.for_new_items(items)
        text = head_rows.shape[1] - numbers.shape[1]
        for column in PRICED:
            head_rows[rows, text + column] = numbers[:, column]

    def text_features(self, texts: Sequence[str], vectors: Floats | None = None) -> TextFeatures:
        """All features of the given texts; ``vectors`` replaces the encoder's (held-out ones of training queries)."""
        known = self.vectors(texts) if vectors is None else vectors
        return TextFeatures(
            list(texts),
            self.vocabulary.tokens(texts, self.token_limit),
            known,
            self.khqe.encode(known).astype(np.int32),
            self.head_row_projection.project_queries(known),
        )
