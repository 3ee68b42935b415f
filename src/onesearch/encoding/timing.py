"""How long one uncached query takes from text to SID."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onesearch.encoding.fusion import fuse
from onesearch.encoding.khqe import KHQE
from onesearch.encoding.text import TextEncoder
from onesearch.understanding.lexicon import Lexicon


def measure_query_encoding(
    encoder: TextEncoder,
    khqe: KHQE,
    queries: Sequence[str],
    lexicon: Lexicon | None = None,
    keyword_vectors: NDArray[np.float32] | None = None,
    warm_up: int = 20,
) -> dict[str, float]:
    """Time text -> vector -> keyword fusion -> SID, one query at a time and nothing cached.

    Args:
        encoder: text encoder.
        khqe: quantizer.
        queries: distinct query texts; the first ``warm_up`` are run before the clock starts.
        lexicon: keywords for fusion; None leaves the fusion out.
        keyword_vectors: vectors of the lexicon's keywords, computed here when missing.
        warm_up: queries that are not measured.

    Returns:
        ``query_p50_ms``, ``query_p95_ms``, ``query_p99_ms`` and the mean of each step in milliseconds.

    Raises:
        ValueError: there are no queries left to measure.
    """
    if len(queries) <= warm_up:
        raise ValueError(f"measuring needs more than {warm_up} queries, got {len(queries)}")
    if lexicon is not None and keyword_vectors is None:
        keyword_vectors = encoder.encode(lexicon.texts)
    marks = np.zeros((len(queries), 4))
    for row, query in enumerate(queries):
        marks[row, 0] = time.perf_counter()
        vector = encoder.encode([query])
        marks[row, 1] = time.perf_counter()
        if lexicon is not None and keyword_vectors is not None:
            vector = fuse(vector, lexicon.match([query]), keyword_vectors)
        marks[row, 2] = time.perf_counter()
        khqe.encode(vector)
        marks[row, 3] = time.perf_counter()
    steps = 1000.0 * np.diff(marks[warm_up:], axis=1)
    p50, p95, p99 = np.percentile(steps.sum(1), [50, 95, 99])
    encode, keywords, quantize = steps.mean(0)
    return {
        "query_p50_ms": float(p50),
        "query_p95_ms": float(p95),
        "query_p99_ms": float(p99),
        "encode_ms": float(encode),
        "keywords_ms": float(keywords),
        "quantize_ms": float(quantize),
        "queries": float(len(steps)),
    }
