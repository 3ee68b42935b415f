"""The shopper as the model reads it: uid codes, and long behaviour through a Q-Former (docs/method.md, section 3).

Differences from the paper:

1. The sum of a stream of n items is multiplied by 1/√n: plain sums grow with the history, which a small model from
   scratch does not bear well.
2. Rounding up allows for 1e-9, so that a lone item keeps its own code.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def recency_weights(valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``λ_i = exp(√i) / Σ exp(√i)`` over the valid entries of each row, i = 1 for the oldest (3.2).

    Shapes: ``valid`` bool [n, m], newest last; result float64 [n, m], zero where invalid, rows sum to 1 or 0.
    """
    # missing items do not count: the oldest real one has rank 1
    rank = np.cumsum(valid, axis=1)
    weight = np.where(valid, np.exp(np.sqrt(rank)), 0.0)
    total = weight.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(weight, total, out=np.zeros_like(weight), where=total > 0))


def uid_codes(sids: NDArray[np.integer]) -> NDArray[np.int32]:
    """``ceil(Σ λ_i · SID_i)`` code by code (3.3).

    Shapes: ``sids`` [n, m, L], newest last, -1 for missing items; result int32 [n, L], -1 for rows without any item.
    """
    valid = sids[:, :, 0] >= 0
    mean = np.einsum("nm,nml->nl", recency_weights(valid), np.maximum(sids, 0))
    # Sums of the weights are 1 only up to rounding; without the slack a lone item's code could be lifted by one.
    codes = np.ceil(mean - 1e-9).astype(np.int32)
    return np.where(valid.any(axis=1, keepdims=True), codes, -1).astype(np.int32)


class LongBehaviour(nn.Module):
    """Sums of RQ centroid vectors per stream and layer (3.4), compressed to ``N_M`` token embeddings by a Q-Former.

    Streams are clicks, orders and the past clicks relevant to the query (RSU); with three RQ layers that makes 3 × 3
    vectors. The centroids are constants.
    """

    STREAMS = 3

    def __init__(self, centroids: Sequence[Tensor], d_model: int, n_vectors: int, heads: int = 4) -> None:
        super().__init__()
        self.layers = len(centroids)
        for layer, table in enumerate(centroids):
            self.register_buffer(f"centroids_{layer}", table.float())
        width = centroids[0].shape[1]
        self.project = nn.Linear(width, d_model)
        self.kind = nn.Parameter(torch.randn(self.STREAMS * self.layers, d_model) * 0.02)
        self.queries = nn.Parameter(torch.randn(n_vectors, d_model) * 0.02)
        self.attention = nn.MultiheadAttention(d_model, heads, batch_first=True)
        self.norm_in = nn.LayerNorm(d_model)
        self.norm_mid = nn.LayerNorm(d_model)
        self.feed = nn.Sequential(nn.Linear(d_model, 2 * d_model), nn.GELU(), nn.Linear(2 * d_model, d_model))

    def sums(self, codes: Tensor) -> Tensor:
        """Sum of centroid vectors per stream and layer.

        Shapes: ``codes`` int64 [B, S, C, layers], -1 for missing; result [B, S * layers, width]. Sums grow with the
        length of the history; they are scaled by 1/√(number of items) so that long histories keep a bounded size.
        """
        # a missing item weighs nothing in its stream's sum
        b, s, c, _ = codes.shape
        missing = codes[..., 0] < 0
        scale = (~missing).sum(-1).clamp(min=1).rsqrt()  # [B, S]
        parts = []
        for layer in range(self.layers):
            table: Tensor = getattr(self, f"centroids_{layer}")
            weight = (~missing).to(table.dtype).reshape(b * s, c)
            flat = codes[..., layer].clamp(min=0).reshape(b * s, c)
            total = nn.functional.embedding_bag(flat, table, per_sample_weights=weight, mode="sum")
            parts.append(total.reshape(b, s, -1) * scale.unsqueeze(-1).to(table.dtype))
        return torch.stack(parts, 2).reshape(b, s * self.layers, -1)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, 3, C, layers] to token embeddings [B, N_M, d_model] of learned queries that read the sums."""
        # no history at all: the Q-Former reads what kind of streams there could be
        if codes.shape[2] == 0:
            memory = self.kind.expand(codes.shape[0], -1, -1)
        else:
            memory = self.project(self.sums(codes).to(self.project.weight.dtype)) + self.kind
        memory = self.norm_in(memory)
        queries = self.queries.expand(codes.shape[0], -1, -1)
        mixed = queries + self.attention(queries, memory, memory, need_weights=False)[0]
        out: Tensor = mixed + self.feed(self.norm_mid(mixed))
        return out
