from itertools import pairwise

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.encoding.khqe import KHQE, KHQESettings
from onesearch.encoding.kmeans import fit_kmeans, fit_per_parent, nearest, nearest_of_parent
from onesearch.encoding.opq import OPQ
from onesearch.encoding.sid_text import parse_sid, sid_text, sid_texts, token_names


def points(n=1500, d=17, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


SMALL = KHQESettings(layers=(16, 8, 4), opq_size=16, iterations=8)


@pytest.fixture(scope="module")
def khqe():
    return KHQE.fit(points(), SMALL)


def test_nearest_is_the_smallest_distance():
    vectors, centroids = points(200, 5), points(9, 5, seed=1) * np.linspace(0.3, 2, 9, dtype=np.float32)[:, None]
    brute = np.square(vectors[:, None] - centroids[None]).sum(-1).argmin(1)
    assert (nearest(vectors, centroids) == brute).all()


def test_ties_go_to_the_smaller_number():
    assert nearest(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)).tolist() == [0]


def test_balanced_fitting_evens_out_skewed_clusters():
    rng = np.random.default_rng(0)
    heap = rng.normal(0, 0.05, (1800, 2))
    far = rng.normal(0, 1.0, (200, 2)) + 5
    vectors = np.concatenate([heap, far]).astype(np.float32)
    plain, even = (
        np.bincount(nearest(vectors, fit_kmeans(vectors, 8, 12, 0, balanced=balanced)), minlength=8)
        for balanced in (False, True)
    )
    assert even.max() < plain.max()


def test_weights_pull_centroids():
    vectors = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    weights = np.array([1, 3, 1, 1], np.float32)
    centroids = np.sort(fit_kmeans(vectors, 2, 20, 0, weights).ravel())
    np.testing.assert_allclose(centroids, [0.75, 10.5], atol=1e-5)


def test_fewer_points_than_clusters_shrinks_the_codebook():
    assert fit_kmeans(points(5), 9, 5, 0).shape == (5, 17)
    tiny = KHQE.fit(points(6), SMALL)
    assert tiny.codebook_sizes[0] == 6 and tiny.encode(points(6)).shape == (6, 5)


def test_per_parent_codebooks_code_within_the_parent():
    vectors = points(300, 3)
    parents = (np.arange(300) % 3).astype(np.int32)
    books = fit_per_parent(vectors, parents, 4, 5, 5, 0)
    codes = nearest_of_parent(vectors, parents, books)
    brute = np.square(vectors[:, None] - books[parents]).sum(-1).argmin(1)
    assert books.shape == (4, 5, 3) and (codes == brute).all()


def test_opq_rotation_is_orthonormal_and_beats_nothing():
    vectors = points(800, 9)  # an odd dimension is padded
    opq = OPQ.fit(vectors, 2, 32, 10, 0)
    np.testing.assert_allclose(opq.rotation.T @ opq.rotation, np.eye(9), atol=1e-4)
    codes = opq.encode(vectors)
    guess = opq.part_centroids(0)[codes[:, 0]] + opq.part_centroids(1)[codes[:, 1]]
    assert np.square(vectors - guess).sum() < 0.7 * np.square(vectors).sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 120), st.integers(1, 70), st.integers(1, 3))
def test_any_number_of_vectors_of_any_width_can_be_coded(n, d, size, parts):
    """Fewer vectors than dimensions, or than the power of two above the codes, is what small shops have."""
    config = KHQESettings(layers=(4, 2), opq_parts=parts, opq_size=size, iterations=2)
    vectors = points(n, d, seed=n)
    khqe = KHQE.fit(vectors, config)
    codes = khqe.encode(vectors)
    assert codes.shape == (n, 2 + parts) and (codes >= 0).all() and (codes[:, 2:] < size).all()
    np.testing.assert_allclose(khqe.opq.rotation.T @ khqe.opq.rotation, np.eye(d), atol=1e-3)


@pytest.mark.parametrize(("n", "d", "size"), [(60, 96, 8), (33, 8, 32), (40, 8, 33), (300, 8, 16)])
def test_faiss_gets_a_vector_per_dimension_and_code(monkeypatch, n, d, size):
    """With fewer it writes out of bounds, which need not crash at once."""
    seen = []

    class Watched(faiss.OPQMatrix):
        def train(self, vectors):
            assert len(vectors) >= max(d, 1 << (size - 1).bit_length())
            seen.append(vectors.copy())
            super().train(vectors)

    monkeypatch.setattr(faiss, "OPQMatrix", Watched)
    vectors = points(n, d)
    OPQ.fit(vectors, 2, size, 2, 0)
    (trained,) = seen
    assert (trained == np.tile(vectors, (len(trained) // n, 1))).all()
    assert n < 300 or len(trained) == n


@pytest.mark.parametrize("wrong", [{"opq_size": 0}, {"layers": (8, 0)}])
def test_a_codebook_without_codes_is_refused(wrong):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        KHQESettings(**wrong)


def test_shapes_ranges_and_error_falls_with_every_level(khqe):
    codes = khqe.encode(points())
    assert khqe.codebook_sizes == (16, 8, 4, 16, 16) and codes.dtype == np.int32
    assert (codes >= 0).all() and (codes < np.array(khqe.codebook_sizes)).all()
    errors = [np.square(points() - khqe.decode(codes, level)).sum() for level in range(6)]
    assert all(after < before for before, after in pairwise(errors))


def test_decode_is_the_sum_of_the_centroids(khqe):
    codes = khqe.encode(points())
    total = sum(table[codes[:, level]] for level, table in enumerate(khqe.centroids))
    np.testing.assert_allclose(khqe.decode(codes), total, atol=1e-5)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 1499), min_size=1, max_size=20))
def test_a_code_is_a_pure_function_of_the_vector(rows):
    khqe = _shared()
    assert (khqe.encode(points()[rows]) == khqe.encode(points())[rows]).all()


def _shared(cache=[]):  # noqa: B006
    if not cache:
        cache.append(KHQE.fit(points(), SMALL))
    return cache[0]


@pytest.mark.parametrize("balance", ["none", "last", "per_parent"])
def test_same_seed_same_codes_and_save_load(balance, tmp_path):
    config = SMALL.updated(balance=balance)
    one, two = KHQE.fit(points(), config), KHQE.fit(points(), config)
    assert (one.encode(points()) == two.encode(points())).all()
    one.save(tmp_path)
    loaded = KHQE.load(tmp_path)
    assert (loaded.encode(points()) == one.encode(points())).all()
    assert loaded.codebook_sizes == one.codebook_sizes and loaded.per_parent == (balance == "per_parent")
    np.testing.assert_array_equal(loaded.decode(loaded.encode(points())), one.decode(one.encode(points())))


def test_plain_rq_and_sampled_fit():
    plain = KHQE.fit(points(), SMALL.updated(opq_parts=0, sample=300))
    assert plain.codebook_sizes == (16, 8, 4) and plain.opq_parts == 0


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="needs vectors"):
        KHQE.fit(np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="NaN"):
        KHQE.fit(np.full((4, 3), np.nan, np.float32))
    with pytest.raises(FileNotFoundError, match="khqe stage"):
        KHQE.load(tmp_path)


SIZES = (1024, 512, 256, 256, 256)


def test_sid_text_form_of_the_specification():
    assert sid_text((12, 7, 3, 88, 45), SIZES) == "<a_12><b_7><c_3><d_88><d_301>"
    assert parse_sid("<a_12><b_7><c_3><d_88><d_301>", SIZES) == (12, 7, 3, 88, 45)
    names = token_names(SIZES)
    assert [len(level) for level in names] == list(SIZES) and names[4][0] == "<d_256>" and names[4][-1] == "<d_511>"
    assert len({name for level in names for name in level}) == sum(SIZES)


@given(st.lists(st.tuples(*[st.integers(0, size - 1) for size in SIZES]), min_size=1, max_size=5))
def test_sid_text_round_trip(sids):
    texts = sid_texts(np.array(sids), SIZES)
    assert texts == [sid_text(sid, SIZES) for sid in sids]
    assert [parse_sid(text, SIZES) for text in texts] == sids


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<a_1><b_2>",
        "<a_12><b_7><c_3><d_301><d_88>",
        "<a_1024><b_0><c_0><d_0><d_256>",
        "<a_1> <b_2><c_3><d_4><d_300>",
        "<b_1><a_2><c_3><d_4><d_300>",
    ],
)
def test_wrong_sid_texts_are_errors(text):
    with pytest.raises(ValueError, match="SID"):
        parse_sid(text, SIZES)


def test_codes_outside_the_codebook_are_errors():
    with pytest.raises(ValueError, match="level 1"):
        sid_text((0, 512, 0, 0, 0), SIZES)
