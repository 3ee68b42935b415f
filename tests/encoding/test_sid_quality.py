import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.common.ragged import Ragged
from onesearch.encoding import sid_quality
from onesearch.encoding.khqe import KHQE, KHQESettings, fuse_keywords
from onesearch.encoding.sid_quality import (
    first_code_reach,
    measure_query_encoding,
    prefix_agreement,
    prefix_numbers,
    quality_report,
    top_items,
    uniqueness,
    usage,
)
from onesearch.encoding.static_encoder import StaticEncoder, StaticSettings
from onesearch.understanding.keyword_lexicon import Keyword, Lexicon

CODES = np.array([[0, 0], [0, 1], [0, 1], [2, 0]], np.int32)


def test_usage_by_hand():
    figures = usage(CODES, (4, 2))
    assert figures["cur"] == [0.5, 1.0] and figures["dead"] == [2, 0]
    assert figures["cur_prefix"] == [2 / 4, 3 / 4]
    assert figures["entropy"] == pytest.approx([0.25 * 2 + 0.75 * np.log2(4 / 3), 1.0])
    assert figures["perplexity"][1] == pytest.approx(2.0)


def test_uniqueness_by_hand():
    expected = {"icr": 0.5, "colliding_items": 2, "distinct_sids": 3, "largest_collision": 2}
    assert uniqueness(CODES, (4, 2)) == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=30))
def test_prefix_numbers_are_equal_exactly_where_prefixes_are(rows):
    numbers = prefix_numbers(np.array(rows, np.int32), (4, 3, 5))
    for level in range(3):
        for i, row in enumerate(rows):
            same = [other[: level + 1] == row[: level + 1] for other in rows]
            assert (numbers[:, level] == numbers[i, level]).tolist() == same


def test_prefix_agreement_by_hand():
    queries = np.array([[0, 1], [1, 0]], np.int32)
    targets = Ragged.from_lists([[0, 1], [3]])
    # first codes agree for (0, 0) and (0, 1); the second one of (1, 3) agrees, but not its prefix
    assert prefix_agreement(queries, CODES, targets) == pytest.approx([2 / 3, 1 / 3])


def test_top_items_breaks_ties_by_row():
    items = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    assert top_items(np.array([[1, 0]], np.float32), items, 3).tolist() == [[0, 2, 1]]
    # enough ties that a partition leaves them in disorder
    equal = np.ones((200, 1), np.float32) * (np.arange(200) % 2 == 0)[:, None]
    assert top_items(np.array([[1]], np.float32), equal.astype(np.float32), 100).tolist() == [list(range(0, 200, 2))]


def test_top_items_of_several_blocks_are_those_of_all_scores(monkeypatch):
    rng = np.random.default_rng(3)
    # Small whole numbers: many ties, also between blocks, and no rounding.
    queries, items = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (9, 41))
    scores = queries @ items.T
    expected = np.lexsort((np.broadcast_to(np.arange(41), scores.shape), -scores), axis=1)[:, :7]
    monkeypatch.setattr(sid_quality, "_ITEMS_AT_ONCE", 10)
    monkeypatch.setattr(sid_quality, "_QUERIES_AT_ONCE", 4)
    found = top_items(queries, items, 7)
    best = np.take_along_axis(scores, found.astype(np.int64), 1)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, expected, 1))
    assert all(len(set(row)) == 7 for row in found.tolist())
    ascending = (best[:, :-1] > best[:, 1:]) | (found[:, :-1] < found[:, 1:])
    assert ascending.all()  # of two that tie the lower row comes first


def test_fusion_by_hand():
    vectors = np.array([[1, 0], [1, 0]], np.float32)
    keywords = np.array([[0, 1], [-0.6, 0.8]], np.float32)
    fused = fuse_keywords(vectors, Ragged.from_lists([[0, 1], []]), keywords)
    # 1/2 ((1, 0) + ((0, 1) + (-.6, .8)) / 2) = (.35, .45)
    np.testing.assert_allclose(fused[0], np.array([0.35, 0.45]) / np.hypot(0.35, 0.45), rtol=1e-6)
    np.testing.assert_allclose(fused[1], [1, 0])


@pytest.fixture(scope="module")
def fitted():
    items = np.random.default_rng(0).standard_normal((600, 12)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    return KHQE.fit(items, KHQESettings(layers=(16, 8, 4), opq_size=16, iterations=6)), items


def test_reconstruction_of_several_blocks_is_that_of_all_vectors(fitted, monkeypatch):
    khqe, items = fitted
    codes = khqe.encode(items)
    found = []
    for block in (len(items), 77):
        monkeypatch.setattr(sid_quality, "_ITEMS_AT_ONCE", block)
        found.append(sid_quality.reconstruction(khqe, items, codes))
    guess = khqe.decode(codes)
    assert found[0]["relative_error"][-1] == pytest.approx(
        np.square(items - guess).sum() / np.square(items).sum(), 1e-5
    )
    cosines = (items * guess).sum(1) / (np.linalg.norm(items, axis=1) * np.linalg.norm(guess, axis=1))
    assert found[0]["cosine"][-1] == pytest.approx(cosines.mean(), 1e-5)
    for figure in ("relative_error", "cosine"):
        assert found[1][figure] == pytest.approx(found[0][figure], 1e-5)


def test_report_on_queries_that_are_items(fitted):
    khqe, items = fitted
    report = quality_report(khqe, items, items[:50], Ragged.from_lists([[i] for i in range(50)]))
    assert report["raw"]["mrr@10"] == pytest.approx(1.0) and report["prefix_agreement"] == pytest.approx([1.0] * 5)
    assert report["quantized"]["hr@10"] >= report["quantized_rq_only"]["hr@10"]
    assert report["reconstruction"]["relative_error"][-1] < report["reconstruction"]["relative_error"][2] < 1
    assert report["sizes"]["bytes_per_sid"] == pytest.approx((4 + 3 + 2 + 4 + 4) / 8)
    assert set(quality_report(khqe, items)) == {
        "icr",
        "codebook_sizes",
        "items",
        "usage",
        "uniqueness",
        "reconstruction",
        "sizes",
    }


def test_first_code_reach_grows_with_the_number_of_codes(fitted):
    khqe, items = fitted
    codes, targets = khqe.encode(items), Ragged.from_lists([[i + 1] for i in range(100)])
    reach = [first_code_reach(khqe, items[:100], codes, targets, top) for top in (1, 4, 16)]
    assert reach[0] <= reach[1] <= reach[2] == 1.0


def test_query_encoding_is_measured_within_three_milliseconds():
    texts = [f"lamp {word} steel {i}" for i, word in enumerate(["red", "blue", "green"] * 40)]
    encoder = StaticEncoder.build(texts, StaticSettings(dimension=32, min_word=1, ngram_buckets=100))
    khqe = KHQE.fit(encoder.encode(texts), KHQESettings(layers=(16, 8, 4), opq_size=16, iterations=3))
    figures = measure_query_encoding(encoder, khqe, texts, Lexicon([Keyword("red", "Color", 1.0)]))
    parts = figures["encode_ms"] + figures["keywords_ms"] + figures["quantize_ms"]
    assert 0 < figures["query_p50_ms"] <= figures["query_p95_ms"] and figures["queries"] == 100
    assert parts > 0.5 * figures["query_p50_ms"]
    with pytest.raises(ValueError, match="more than 20"):
        measure_query_encoding(encoder, khqe, texts[:5])
