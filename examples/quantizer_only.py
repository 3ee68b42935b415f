"""Semantic IDs for vectors of your own, without a catalogue or a model."""

import numpy as np

from onesearch import KHQE
from onesearch.encoding.khqe import KHQESettings


def main(n: int = 2000, dimension: int = 32) -> None:
    """Fit the quantizer on clustered unit vectors, and code and rebuild them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, dimension))
    vectors = (centres[rng.integers(0, 50, n)] + 0.3 * rng.standard_normal((n, dimension))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    khqe = KHQE.fit(vectors, KHQESettings(layers=(64, 32, 16), opq_size=64, iterations=10))
    codes = khqe.encode(vectors)  # int32 [n, 5]: three residual layers, two codes of the product quantizer
    error = np.square(khqe.decode(codes) - vectors).sum(1).mean()
    print(f"codebooks {khqe.codebook_sizes}; the first vector is {codes[0].tolist()}")
    print(f"{len(np.unique(codes, axis=0)):,} of {n:,} vectors have a code of their own; squared error {error:.3f}")


if __name__ == "__main__":
    main()
