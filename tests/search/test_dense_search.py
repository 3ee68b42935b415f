import numpy as np
import pytest

from onesearch.data.requests import Requests
from onesearch.search.dense_search import DenseSearcher, DenseSettings


def unit(generator, *shape):
    vectors = generator.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def world():
    generator = np.random.default_rng(0)
    queries = {f"q{i}": vector for i, vector in enumerate(unit(generator, 6, 16))} | {"": np.zeros(16, np.float32)}
    return unit(generator, 60, 16), lambda texts: np.stack([queries[text] for text in texts]), queries


def test_flat_search_is_exact_and_scores_agree(world):
    vectors, encode, queries = world
    searcher = DenseSearcher(vectors, encode)
    texts = ["q3", "q0", "q3"]
    hits = searcher.rank(Requests.anonymous(texts), 7)
    exact = np.argsort(-(np.stack([queries[t] for t in texts]) @ vectors.T), axis=1)[:, :7]
    assert (hits.items == exact).all()
    np.testing.assert_allclose(searcher.scores(texts, hits.items), hits.scores, atol=1e-6)
    assert searcher.scores(["q1"], np.array([[-1, 99]], np.int32)).tolist() == [[0, 0]]


def test_a_text_without_features_finds_nothing_and_k_may_exceed_the_items(world):
    vectors, encode, _ = world
    hits = DenseSearcher(vectors, encode).rank(Requests.anonymous(["", "q1"]), 70)
    assert (hits.items[0] == -1).all() and np.isneginf(hits.scores[0]).all()
    assert sorted(hits.items[1, :60].tolist()) == list(range(60)) and (hits.items[1, 60:] == -1).all()


def test_hnsw_finds_nearly_the_same(world):
    vectors, encode, _ = world
    texts = [f"q{i}" for i in range(6)]
    flat = DenseSearcher(vectors, encode).rank(Requests.anonymous(texts), 5).items
    graph = DenseSearcher(vectors, encode, config=DenseSettings(kind="hnsw")).rank(Requests.anonymous(texts), 5).items
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(flat, graph, strict=True)]) > 0.9


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_add_remove_save_load(world, tmp_path, kind):
    vectors, encode, queries = world
    old = DenseSearcher(vectors, encode, config=DenseSettings(kind=kind))
    new = old.add(np.array([60, 4]), np.stack([queries["q2"], -vectors[4]]))
    assert new.rank(Requests.anonymous(["q2"]), 1).items.tolist() == [[60]]
    assert len(new) == 61 and len(old) == 60 and len(new.remove(np.array([60]))) == 60
    new.save(tmp_path)
    again = DenseSearcher.load(tmp_path, encode)
    assert (again.rank(Requests.anonymous(["q2"]), 5).items == new.rank(Requests.anonymous(["q2"]), 5).items).all()
    with pytest.raises(ValueError, match="one row per vector"):
        DenseSearcher(vectors, encode, rows=np.arange(3))
