"""K-means as the quantizers need it: seeded, optionally balanced while fitting, nearest centroid for codes.

Differences from the paper, which balances the last layer without saying how (method, section 2):

1. Balance means capacities while *fitting*: the last Lloyd iterations fill clusters up to ⌈n / K⌉. Codes are always
   the nearest centroid, also of the vectors that were fitted on; so real clusters may exceed the capacity.
2. The released code calls "balanced" a codebook per parent code; that is :func:`fit_per_parent`, an option.
"""

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_ROWS_AT_ONCE = 8192
_BALANCED_NEIGHBOURS = 16


def nearest(vectors: Vectors, centroids: Vectors) -> NDArray[np.int32]:
    """Number of the nearest centroid (L2) of each vector, int32 [n]; ties go to the smaller number.

    ``argmin ‖x - c‖² = argmax (x·c - ½‖c‖²)``, since ‖x‖² is the same for all centroids: one matrix product.

    Args:
        vectors: [n, d].
        centroids: [K, d].
    """
    out = np.empty(len(vectors), np.int32)
    half_norms = 0.5 * np.einsum("kd,kd->k", centroids, centroids)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = vectors[start : start + _ROWS_AT_ONCE]
        scores = block @ centroids.T  # [rows, K]
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
    if size == len(vectors):  # every point is its own cluster
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
    return _balance(vectors, centroids, max(2, iterations // 3)) if balanced else centroids


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
    order = np.argsort(parents, kind="stable")  # vectors of one parent together
    codes, starts = np.unique(parents[order], return_index=True)
    for code, rows in zip(codes.tolist(), np.split(order, starts[1:]), strict=True):
        for start in range(0, len(rows), rows_at_once):
            block = rows[start : start + rows_at_once]
            out[block] = nearest(vectors[block], codebooks[code])
    return out


def _balance(vectors: Vectors, centroids: Vectors, iterations: int) -> Vectors:
    """Lloyd iterations whose assignment respects a capacity of ⌈n / K⌉ (:func:`assign_balanced`)."""
    for _ in range(iterations):
        assigned = assign_balanced(vectors, centroids)
        # means of the members, in float64; a cluster without members stays where it is
        order = np.argsort(assigned, kind="stable")
        members, starts, counts = np.unique(assigned[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
        centroids = centroids.copy()
        centroids[members] = (sums / counts[:, None]).astype(np.float32)
    return centroids


def assign_balanced(vectors: Vectors, centroids: Vectors) -> NDArray[np.int64]:
    """A cluster for each vector, none with more than ⌈n / K⌉ members: int64 [n].

    ::

        queue = vectors by falling regret: distance to the second-nearest centroid - distance to the nearest
        for choice in 1..16:                              # the vector's nearest, second-nearest, ... centroid
            every vector of the queue asks for its choice; each cluster takes the first it has room for
            queue = those refused, in their order
        the rest fills the clusters with room, in order

    So the vectors that would lose most by waiting are served first. All vectors ask at once, without a loop over them.
    """
    size = len(centroids)
    k = min(_BALANCED_NEIGHBOURS, size)
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    distances, neighbours = index.search(vectors, k)  # squared distances and numbers, [n, k], nearest first
    regret = distances[:, 1] - distances[:, 0] if k > 1 else distances[:, 0]
    queue = np.argsort(-regret, kind="stable")
    assigned = np.full(len(vectors), -1, np.int64)
    room = np.full(size, -(-len(vectors) // size), np.int64)
    for choice in range(k):
        wanted = neighbours[queue, choice]
        # the rank of each vector among those that want the same cluster, in the order of the queue
        by_cluster = np.argsort(wanted, kind="stable")
        clusters, first, counts = np.unique(wanted[by_cluster], return_index=True, return_counts=True)
        rank = np.empty(len(queue), np.int64)
        rank[by_cluster] = np.arange(len(queue)) - np.repeat(first, counts)
        served = rank < room[wanted]
        assigned[queue[served]] = wanted[served]
        room[clusters] -= np.minimum(counts, room[clusters])
        queue = queue[~served]
        if not len(queue):
            break
    assigned[queue] = np.repeat(np.arange(size), room)[: len(queue)]
    return assigned
