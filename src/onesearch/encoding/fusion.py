"""Keyword fusion e° = ½·(e + mean of the keyword vectors), L2-normalised (specification section 2)."""

import numpy as np
from numpy.typing import NDArray

from onesearch.data.ragged import Ragged


def fuse(vectors: NDArray[np.float32], keywords: Ragged, keyword_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fused unit vectors float32 [n, d]; a row without keywords keeps its own vector.

    Args:
        vectors: unit vectors of queries or items, [n, d].
        keywords: keyword numbers matched in each of them, n rows.
        keyword_vectors: unit vectors of all keywords of the lexicon, [W, d].
    """
    out = np.array(vectors, np.float32)
    some = np.flatnonzero(keywords.lengths)
    if len(some):
        sums = np.add.reduceat(keyword_vectors[keywords.values], keywords.offsets[:-1][some], axis=0)
        out[some] = 0.5 * (out[some] + sums / keywords.lengths[some, None])
    lengths = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.maximum(lengths, 1e-12), np.float32)
