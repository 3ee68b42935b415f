"""K-means as the quantizers need it: seeded, optionally balanced while fitting, nearest centroid for codes."""

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_ROWS_AT_ONCE = 8192
_BALANCED_NEIGHBOURS = 16


def nearest(vectors: Vectors, centroids: Vectors) -> NDArray[np.int32]:
    """Number of the nearest centroid (L2) of each vector, int32 [n]; ties go to the smaller number.

    Args:
        vectors: [n, d].
        centroids: [K, d].
    """
    out = np.empty(len(vectors), np.int32)
    half_norms = 0.5 * np.einsum("kd,kd->k", centroids, centroids)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = vectors[start : start + _ROWS_AT_ONCE]
        scores = block @ centroids.T
        scores -= half_norms
        out[start : start + len(block)] = scores.argmax(1)
    return out


def fit_kmeans(
    vectors: Vectors, size: int, iterations: int, seed: int, weights: Vectors | None = None, balanced: bool = False
) -> Vectors:
    """Centroids float32 [K, d] of ``vectors`` [n, d], K = min(size, number of vectors).

    Args:
        vectors: points.
        size: number of clusters wanted.
        iterations: Lloyd iterations.
        seed: the same seed and thread count give the same centroids.
        weights: importance of each point, [n]; equal by default.
        balanced: keep cluster sizes near n / K *while fitting* (codes are always the nearest centroid).
    """
    size = min(size, len(vectors))
    vectors = np.ascontiguousarray(vectors, np.float32)
    weights = None if weights is None else np.ascontiguousarray(weights, np.float32)
    if size == len(vectors):
        return vectors.copy()
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        size,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors) // size + 1,
    )
    kmeans.train(vectors, weights=weights)
    centroids = np.asarray(kmeans.centroids, np.float32).reshape(size, -1).copy()
    return _balance(vectors, centroids, max(2, iterations // 3), seed) if balanced else centroids


def fit_per_parent(
    vectors: Vectors, parents: NDArray[np.int32], n_parents: int, size: int, iterations: int, seed: int
) -> Vectors:
    """A codebook of its own for every parent code, float32 [P, size, d] (the release's "balanced" variant).

    A parent with fewer than ``size`` vectors repeats its last centroid, which nothing is then coded as, because ties
    go to the smaller number.
    """
    out = np.zeros((n_parents, size, vectors.shape[1]), np.float32)
    order = np.argsort(parents, kind="stable")
    bounds = np.searchsorted(parents[order], np.arange(n_parents + 1))
    for parent in range(n_parents):
        members = vectors[order[bounds[parent] : bounds[parent + 1]]]
        if len(members):
            centroids = fit_kmeans(members, size, iterations, seed)
            out[parent, : len(centroids)] = centroids
            out[parent, len(centroids) :] = centroids[-1]
    return out


def nearest_of_parent(
    vectors: Vectors, parents: NDArray[np.int32], codebooks: Vectors, rows_at_once: int = 4096
) -> NDArray[np.int32]:
    """Nearest centroid of each vector within its parent's codebook, int32 [n].

    Args:
        vectors: [n, d].
        parents: parent code of each vector, [n].
        codebooks: [P, K, d].
        rows_at_once: bounds the memory, rows x K x d floats.
    """
    out = np.empty(len(vectors), np.int32)
    order = np.argsort(parents, kind="stable")
    codes, starts = np.unique(parents[order], return_index=True)
    for code, rows in zip(codes.tolist(), np.split(order, starts[1:]), strict=True):
        for start in range(0, len(rows), rows_at_once):
            block = rows[start : start + rows_at_once]
            out[block] = nearest(vectors[block], codebooks[code])
    return out


def _balance(vectors: Vectors, centroids: Vectors, iterations: int, seed: int) -> Vectors:
    """Lloyd iterations whose assignment respects a capacity of ceil(n / K).

    Every point asks for the nearest of its 16 closest centroids that still has room; points that would lose most by
    waiting (largest gap between their best and second-best distance) are served first. Points that find all 16 full
    fill the clusters with room, in order.
    """
    size = len(centroids)
    capacity = -(-len(vectors) // size)
    k = min(_BALANCED_NEIGHBOURS, size)
    for _ in range(iterations):
        distances, neighbours = _closest(vectors, centroids, k)
        regret = distances[:, 1] - distances[:, 0] if k > 1 else distances[:, 0]
        assigned = np.full(len(vectors), -1, np.int64)
        room = np.full(size, capacity, np.int64)
        waiting = np.argsort(-regret, kind="stable")
        for choice in range(k):
            wanted = neighbours[waiting, choice]
            # Rank of each point among those that want the same cluster, in order of regret.
            by_cluster = np.argsort(wanted, kind="stable")
            clusters, first, counts = np.unique(wanted[by_cluster], return_index=True, return_counts=True)
            rank = np.empty(len(waiting), np.int64)
            rank[by_cluster] = np.arange(len(waiting)) - np.repeat(first, counts)
            served = rank < room[wanted]
            assigned[waiting[served]] = wanted[served]
            room[clusters] -= np.minimum(counts, room[clusters])
            waiting = waiting[~served]
            if not len(waiting):
                break
        assigned[waiting] = np.repeat(np.arange(size), room)[: len(waiting)]
        sums = np.zeros_like(centroids, np.float64)
        order = np.argsort(assigned, kind="stable")
        members, starts, counts = np.unique(assigned[order], return_index=True, return_counts=True)
        sums[members] = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
        centroids = centroids.copy()
        centroids[members] = (sums[members] / counts[:, None]).astype(np.float32)
    return centroids


def _closest(vectors: Vectors, centroids: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """Squared distances and numbers of the k nearest centroids, each [n, k], nearest first."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    distances, neighbours = index.search(vectors, k)
    return distances, neighbours
