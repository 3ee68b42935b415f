"""KHQE at scale: fit on a sample and encode one million vectors; prints one JSON object.

The vectors are made up but not uniform: clustered on a few thousand directions with a decaying spectrum, as text
embeddings are. Run: ``python -m benchmarks.quantizer_scale --threads 2``.
"""

import argparse
import json
import resource
import time

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.encoding.khqe import KHQE, KHQESettings
from onesearch.encoding.sid_quality import uniqueness, usage

BLOCK = 50_000


def made_up_vectors(n: int, dimension: int, seed: int, clusters: int = 5000) -> NDArray[np.float32]:
    """Unit vectors float32 [n, d] around Zipf-sized clusters, filled block by block."""
    rng = np.random.default_rng(seed)
    spectrum = (1.0 + np.arange(dimension)) ** -0.5
    centres = rng.standard_normal((clusters, dimension)) * spectrum
    share = 1.0 / (1.0 + np.arange(clusters)) ** 0.7
    out = np.empty((n, dimension), np.float32)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        drawn = rng.choice(clusters, size, p=share / share.sum())
        block = centres[drawn] + 0.7 * rng.standard_normal((size, dimension), np.float32) * spectrum
        out[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return out


def peak_gib() -> float:
    """Largest resident set of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--sample", type=int, default=256_000)
    parser.add_argument("--layers", type=int, nargs="+", default=[4096, 1024, 512])
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faiss.omp_set_num_threads(given.threads)
    torch.set_num_threads(given.threads)
    vectors = made_up_vectors(given.vectors, given.dimension, given.seed)
    config = KHQESettings(layers=tuple(given.layers), sample=given.sample, iterations=given.iterations, seed=given.seed)
    start = time.perf_counter()
    khqe = KHQE.fit(vectors, config)
    fitted = time.perf_counter()
    codes = khqe.encode(vectors)
    encoded = time.perf_counter()
    use = usage(codes, khqe.codebook_sizes)
    print(
        json.dumps(
            {
                "vectors": given.vectors,
                "dimension": given.dimension,
                "sample": min(given.sample, given.vectors),
                "codebook_sizes": list(khqe.codebook_sizes),
                "iterations": given.iterations,
                "threads": given.threads,
                "fit_seconds": round(fitted - start, 1),
                "encode_seconds": round(encoded - fitted, 1),
                "seconds": round(encoded - start, 1),
                "encode_per_second": round(given.vectors / (encoded - fitted)),
                "peak_gib": round(peak_gib(), 2),
                "cur": [round(x, 4) for x in use["cur"]],
                "icr": round(uniqueness(codes, khqe.codebook_sizes)["icr"], 4),
                "limit_seconds": 600,
                "limit_gib": 8,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
