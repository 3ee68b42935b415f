"""Features of candidates from the model's vectors, BM25 and popularity; the click log's have a file of their own.

All are [n, C]: one number for each of C candidates of each of n requests. They are weighted linearly
(:mod:`onesearch.search.ranking_weights`).
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from onesearch.data.item_pairs import ItemNeighbours
from onesearch.model.numeric_item_features import FEATURE_NAMES

Floats = NDArray[np.float32]


def likeness_features(query_rows: Tensor, candidates: Tensor, history: Tensor, numbers: int) -> dict[str, Tensor]:
    """Likeness to the query and to the shopper's last clicks, and the item's own numbers.

    Args:
        query_rows: of the requests, float [n, R]; the first R - ``numbers`` entries are text.
        candidates: rows of the candidates, float [n, C, R].
        history: mean row of the shopper's last clicks, float [n, R], zero without any.
        numbers: how many entries at the end of a row are numbers, such as price and click rate.
    """
    width = candidates.shape[-1] - numbers
    text = candidates[..., :width]
    return {
        "text": torch.einsum("nr,ncr->nc", query_rows[:, :width].float(), text),
        "taste": torch.einsum("nr,ncr->nc", history[:, :width].float(), text),
        **{f"item_{name}": candidates[..., width + i] for i, name in enumerate(FEATURE_NAMES[:numbers])},
    }


def probability_features(log_probs: Floats) -> dict[str, Floats]:
    """Powers of the SID's probability, for candidates of log π [n, C].

    A linear score in log π alone says that a hundredth and a tenth of a chance differ as a hundred-thousandth and a
    ten-thousandth do; with these it may tell likely items apart and leave the unlikely ones to other features.
    """
    return {
        "prob": np.exp(log_probs),
        "prob_half": np.exp(log_probs / 2),
        "prob_eighth": np.exp(log_probs / 8),
    }


def lexical_features(scores: Floats, best: Floats) -> dict[str, Floats]:
    """BM25 of candidates [n, C], and relative to the ``best`` item of the whole catalogue [n]."""
    share = scores / np.where(best > 0, best, 1)[:, None]
    return {
        "lexical": scores,
        "lexical_share": share.astype(np.float32),
        "lexical_share_square": (share**2).astype(np.float32),
    }


def pair_features(beside: ItemNeighbours, history: NDArray[np.int32], items: NDArray[np.int64]) -> dict[str, Floats]:
    """What others took with the items of the ``history`` [n, H], for candidates [n, C]; and which are in it."""
    n, c = items.shape
    logged = (items >= 0) & (items < beside.together.shape[1])
    row, item = np.repeat(np.arange(n), c), np.where(logged, items, 0).ravel()

    def looked_up(scores: sparse.csr_matrix) -> Floats:
        return np.where(logged, np.asarray(scores[row, item]).reshape(n, c), 0).astype(np.float32)

    together = looked_up(beside.together)
    return {
        "together": together,
        "together_root": np.sqrt(together),
        "following": looked_up(beside.following),
        "in_history": (items[:, :, None] == history[:, None, :]).any(2).astype(np.float32),
    }


def popularity_features(features: Mapping[str, Floats], popularity: Floats) -> dict[str, Floats]:
    """Log popularity [n, C] and its products with what tells a match: a popular item that does not match is no find."""
    matches = [name for name in ("text", "word_item", "lexical_share") if name in features]
    return {"popularity": popularity, **{f"{name}_popularity": features[name] * popularity for name in matches}}
