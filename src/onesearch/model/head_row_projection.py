"""Head rows: the vectors of items, nodes and queries that the item head works with (5.1) to (5.3).

An item's head row is ``[text | features]``: its fused text vector, reduced by PCA where it is wider, and a few
standardised numbers (popularity, click rate, price, ...). A node's head row is the mean over the items below it, so
that a new item needs no training. A query's has the same shape and zero features; their product is then the (reduced)
cosine, which is where the item head starts from.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadRowProjection:
    """The linear map from text vectors to head rows.

    Attributes:
        projection: float32 [d_e, d_t], orthonormal columns.
        features: number F of feature columns; the row dimension is R = d_t + F.
    """

    projection: Floats
    features: int

    @classmethod
    def fit(cls, vectors: Floats, row_dim: int, features: int, leading: bool = False) -> "HeadRowProjection":
        """Reduce item vectors [N, d_e] to ``row_dim - features`` dimensions (identity where they fit).

        By uncentred PCA, because products of reduced vectors shall approximate the products of the full ones; or, for
        an encoder whose leading dimensions were trained to stand alone (``leading``), by keeping those.
        """
        kept = row_dim - features
        if kept < 1:
            raise ValueError(f"row_dim {row_dim} leaves no room for text beside {features} features")
        width = vectors.shape[1]
        if width <= kept or leading:
            return cls(np.eye(width, min(width, kept), dtype=np.float32), features)
        _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
        return cls(np.ascontiguousarray(axes[:, ::-1][:, :kept]).astype(np.float32), features)

    @property
    def dim(self) -> int:
        """R, the row dimension."""
        return int(self.projection.shape[1]) + self.features

    def project_items(self, vectors: Floats, features: Floats) -> Floats:
        """Head rows of items (5.1), float32 [N, R], from text vectors [N, d_e] and features [N, F]."""
        return np.concatenate([self._text(vectors), features], 1).astype(np.float32)

    def project_queries(self, vectors: Floats) -> Floats:
        """Head rows of queries (5.3), float32 [n, R]; the feature part is zero."""
        return np.pad(self._text(vectors), ((0, 0), (0, self.features))).astype(np.float32)

    def _text(self, vectors: Floats) -> Floats:
        """Reduced vectors, again of length one (zero stays zero)."""
        reduced = vectors @ self.projection
        return np.asarray(reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9), np.float32)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_file({"projection": self.projection, "features": np.asarray([self.features])}, str(path))

    @classmethod
    def load(cls, path: Path) -> "HeadRowProjection":
        """Read what :meth:`save` wrote."""
        data = load_file(str(path))
        return cls(data["projection"], int(data["features"][0]))
