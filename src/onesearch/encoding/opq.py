"""Optimised product quantization of what residual k-means leaves over: a rotation, then one codebook per part (2.9)."""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from onesearch.encoding.kmeans import Vectors, fit_kmeans, nearest


@dataclass(frozen=True)
class OPQ:
    """A rotation and ``M`` codebooks over equal parts of the rotated vector.

    ::

        fit:     A = I;  repeat: codebooks of the parts of A x;  A = rotation of x nearest to its reconstruction
                 then a last k-means for each part
        encode:  y = A x, cut into M parts;   code of part m = nearest(y_m, D_m)
        decode:  Aᵀ (D_1[c_1], ..., D_M[c_M])

    The rotation spreads the variance over the parts, which a product quantizer needs and residuals do not offer.

    Attributes:
        rotation: orthonormal, float32 [d', d] with d' = d rounded up to a multiple of M.
        codebooks: float32 [M, K, d' / M].
    """

    rotation: Vectors
    codebooks: Vectors

    @classmethod
    def fit(cls, vectors: Vectors, parts: int, size: int, iterations: int, seed: int) -> "OPQ":
        """Fit on residuals [n, d]; ``iterations`` k-means steps, and as many rotation updates at most 20."""
        # a width that the parts divide: zeros on the right, [n, d']
        n, dimension = vectors.shape
        padded = -(-dimension // parts) * parts
        filled = np.zeros((n, padded), np.float32)
        filled[:, :dimension] = vectors
        rotation = np.eye(padded, dtype=np.float32)
        if n > size:  # with fewer vectors than codes each is its own centroid, and no rotation helps
            matrix = faiss.OPQMatrix(padded, parts)
            quantizer = faiss.ProductQuantizer(padded, parts, int(np.ceil(np.log2(max(size, 2)))))
            quantizer.cp.seed = seed
            quantizer.cp.min_points_per_centroid = 1  # below that faiss prints a warning at every rotation
            matrix.pq = quantizer
            matrix.niter = min(20, iterations)
            # faiss needs a vector per dimension (with fewer it writes out of bounds) and one per code, a power of two:
            # a few are repeated, whole rounds of them, which leaves their statistics as they are
            least = max(padded, quantizer.ksub)
            matrix.train(np.tile(filled, (-(-least // n), 1)) if n < least else filled)
            rotation = faiss.vector_to_array(matrix.A).reshape(padded, padded).astype(np.float32)
        # codebooks of the parts, [M, K, d' / M]; unused codes repeat the last one, which ties never choose
        rotated = filled @ rotation.T
        width = padded // parts
        books = np.zeros((parts, size, width), np.float32)
        for part in range(parts):
            centroids = fit_kmeans(rotated[:, part * width : (part + 1) * width], size, iterations, seed + part)
            books[part, : len(centroids)] = centroids
            books[part, len(centroids) :] = centroids[-1]
        return cls(np.ascontiguousarray(rotation[:, :dimension]), books)

    def encode(self, vectors: Vectors) -> NDArray[np.int32]:
        """Nearest centroid of each part, int32 [n, M]."""
        rotated = vectors @ self.rotation.T
        width = self.codebooks.shape[2]
        parts = [
            nearest(np.ascontiguousarray(rotated[:, part * width : (part + 1) * width]), book)
            for part, book in enumerate(self.codebooks)
        ]
        return np.stack(parts, 1)

    def part_centroids(self, part: int) -> Vectors:
        """Centroids of one part in the original space, float32 [K, d]."""
        width = self.codebooks.shape[2]
        return np.asarray(self.codebooks[part] @ self.rotation[part * width : (part + 1) * width], np.float32)
