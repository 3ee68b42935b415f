"""The quantizers against plain loops: one vector, one layer, one part at a time."""

import numpy as np
import pytest

from onesearch.encoding.khqe import KHQE, KHQESettings
from onesearch.encoding.kmeans import assign_balanced, fit_kmeans, fit_per_parent, nearest, nearest_of_parent
from onesearch.encoding.opq import OPQ


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def points(n, d, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def closest(vector, centroids) -> int:
    return min(range(len(centroids)), key=lambda k: (float(np.square(vector - centroids[k]).sum()), k))


def plain_code(khqe: KHQE, vector) -> list[int]:
    """One vector's SID, a sentence per step."""
    residual, code = vector.astype(np.float32), []
    for layer in khqe.layers:
        book = layer[code[-1]] if layer.ndim == 3 else layer
        code.append(closest(residual, book))
        residual = residual - book[code[-1]]
    if khqe.opq is not None:
        rotated = khqe.opq.rotation @ residual
        width = len(rotated) // len(khqe.opq.codebooks)
        for part, book in enumerate(khqe.opq.codebooks):
            code.append(closest(rotated[part * width : (part + 1) * width], book))
    return code


@pytest.fixture(scope="module", params=["none", "last", "per_parent"])
def khqe(request) -> KHQE:
    settings = KHQESettings(layers=(8, 6, 4), opq_size=8, iterations=5, balance=request.param)
    return KHQE.fit(points(400, 7), settings)


def test_encoding_is_the_plain_walk_from_residual_to_residual(khqe):
    fresh = points(60, 7, seed=1)
    assert khqe.encode(fresh).tolist() == [plain_code(khqe, vector) for vector in fresh]


def test_decoding_is_the_plain_sum_of_the_chosen_centroids(khqe):
    codes = khqe.encode(points(30, 7, seed=2))
    for code, guess in zip(codes, khqe.decode(codes), strict=True):
        first, second, third = khqe.layers
        expected = first[code[0]] + second[code[1]] + (third[code[1], code[2]] if khqe.per_parent else third[code[2]])
        parts = np.concatenate([khqe.opq.codebooks[0][code[3]], khqe.opq.codebooks[1][code[4]]])
        np.testing.assert_allclose(guess, expected + khqe.opq.rotation.T @ parts, atol=1e-5)


@pytest.mark.parametrize("balance", ["none", "last", "per_parent"])
def test_every_codebook_is_fitted_on_what_the_layers_before_it_left_over(balance):
    vectors, weights = points(300, 5), np.linspace(1, 4, 300).astype(np.float32)
    settings = KHQESettings(layers=(8, 6, 4), opq_size=8, iterations=5, seed=3, balance=balance)
    fitted = KHQE.fit(vectors, settings, weights)
    residual, codes = vectors.copy(), None
    for level, size in enumerate(settings.layers):
        seed, last = 3 + 1000 * level, level == 2
        if last and balance == "per_parent":
            book = fit_per_parent(residual, codes, 6, size, 5, seed)
            residual = residual - book[codes, nearest_of_parent(residual, codes, book)]
        else:
            book = fit_kmeans(residual, size, 5, seed, weights, balanced=last and balance == "last")
            codes = nearest(residual, book)
            residual = residual - book[codes]
        np.testing.assert_array_equal(fitted.layers[level], book)
    np.testing.assert_array_equal(fitted.opq.codebooks, OPQ.fit(residual, 2, 8, 5, 3 + 7777).codebooks)


def two_kinds() -> tuple[np.ndarray, np.ndarray]:
    """900 items around one direction, then 100 queries around two others: as the pipeline stacks them."""
    rng = np.random.default_rng(0)
    items = unit(np.array([1, 0, 0, 0]) + 0.02 * rng.standard_normal((900, 4)))
    queries = unit(np.repeat([[0, 1, 0, 0], [0, 0, 1, 0]], 50, 0) + 0.02 * rng.standard_normal((100, 4)))
    return items, queries


@pytest.mark.parametrize("sample", [1000, 300])
def test_queries_and_items_are_quantized_together_also_where_a_sample_is_drawn(sample):
    items, queries = two_kinds()
    settings = KHQESettings(layers=(16, 8), opq_parts=0, sample=sample)
    khqe = KHQE.fit(np.concatenate([items, queries]), settings)
    for vectors in (items, queries):
        assert np.square(vectors - khqe.decode(khqe.encode(vectors))).sum(1).max() < 0.1
    alone = KHQE.fit(items, settings)
    assert np.square(queries - alone.decode(alone.encode(queries))).sum(1).min() > 1.0


def test_weights_pull_the_codebook_to_the_queries():
    items, queries = two_kinds()
    both, heavy = np.concatenate([items, queries]), np.r_[np.ones(900), np.full(100, 1000.0)].astype(np.float32)
    settings = KHQESettings(layers=(2,), opq_parts=0, balance="none", sample=800)
    errors = []
    for weights in (np.ones(1000, np.float32), heavy):
        khqe = KHQE.fit(both, settings, weights)
        errors.append(np.square(queries - khqe.decode(khqe.encode(queries))).sum())
    assert errors[1] < 0.2 * errors[0]


# -- balance ---------------------------------------------------------------------------------------------------------


def plain_balanced(vectors, centroids) -> list[int]:
    """The assignment, one round of questions after another."""
    distances = [sorted((float(np.square(v - c).sum()), k) for k, c in enumerate(centroids)) for v in vectors]
    queue = sorted(range(len(vectors)), key=lambda i: -(distances[i][1][0] - distances[i][0][0]))
    room = [-(-len(vectors) // len(centroids))] * len(centroids)
    assigned = [-1] * len(vectors)
    for choice in range(min(16, len(centroids))):
        refused = []
        for i in queue:
            cluster = distances[i][choice][1]
            if room[cluster]:
                assigned[i], room[cluster] = cluster, room[cluster] - 1
            else:
                refused.append(i)
        queue = refused
    for i in queue:
        cluster = next(k for k, left in enumerate(room) if left)
        assigned[i], room[cluster] = cluster, room[cluster] - 1
    return assigned


@pytest.mark.parametrize(("n", "clusters"), [(41, 5), (60, 20), (7, 7)])
def test_balanced_assignment_is_the_plain_queue(n, clusters):
    vectors, centroids = points(n, 3, seed=n), points(clusters, 3, seed=9)
    vectors[: n // 2] = unit(vectors[: n // 2] + 3 * centroids[0])  # a crowd around one centroid
    found = assign_balanced(vectors, centroids)
    assert found.tolist() == plain_balanced(vectors, centroids)
    assert np.bincount(found, minlength=clusters).max() <= -(-n // clusters)


def test_who_would_lose_most_is_served_first():
    centroids = np.array([[0.0], [4.0], [100.0]], np.float32)
    # the nearest centroid of all four is the first, which has room for two: those farthest from the second stay
    vectors = np.array([[1.9], [1.0], [0.0], [1.8]], np.float32)
    assert assign_balanced(vectors, centroids).tolist() == [1, 0, 0, 1]


def test_balanced_centroids_are_the_means_of_their_members():
    vectors = points(90, 3)
    start = fit_kmeans(vectors, 6, 4, 0)
    expected = start
    for _ in range(2):
        assigned = assign_balanced(vectors, expected)
        expected = np.stack([vectors[assigned == k].astype(np.float64).mean(0) for k in range(6)]).astype(np.float32)
    np.testing.assert_allclose(fit_kmeans(vectors, 6, 4, 0, balanced=True), expected, atol=1e-6)


# -- OPQ ---------------------------------------------------------------------------------------------------------------


def test_opq_codes_and_centroids_by_hand():
    # the rotation swaps the halves: part 0 is the last two entries of a vector, part 1 the first two
    rotation = np.array([[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    books = np.array([[[0, 0], [5, 5]], [[9, 9], [0, 0]]], np.float32)
    opq = OPQ(rotation, books)
    assert opq.encode(np.array([[7, 7, 0, 0], [0, 0, 5, 5]], np.float32)).tolist() == [[0, 0], [1, 1]]
    assert opq.part_centroids(0)[1].tolist() == [0, 0, 5, 5] and opq.part_centroids(1)[0].tolist() == [9, 9, 0, 0]


def test_opq_learns_a_rotation_where_it_pays():
    # two strong axes in the first half and nothing in the second: a product quantizer wants one in each
    vectors = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32) * np.array([3, 3, 0.01, 0.01])
    vectors = vectors.astype(np.float32)
    opq = OPQ.fit(vectors, 2, 8, 10, 0)
    guess = sum(opq.part_centroids(part)[opq.encode(vectors)[:, part]] for part in range(2))
    unrotated = OPQ(
        np.eye(4, dtype=np.float32), np.stack([fit_kmeans(vectors[:, i : i + 2], 8, 10, 0) for i in (0, 2)])
    )
    plain = sum(unrotated.part_centroids(part)[unrotated.encode(vectors)[:, part]] for part in range(2))
    assert np.square(vectors - guess).sum() < 0.5 * np.square(vectors - plain).sum()
