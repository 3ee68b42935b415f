"""Counts of terms, and BM25 made from them."""

import bm25s
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.search.lexical_index import LexicalSettings
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.term_counts import TermCounts
from onesearch.search.text_analyzer import Analyzer

texts = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6).map(" ".join), min_size=1, max_size=9)


def test_counts_and_weights_by_hand():
    counts = TermCounts.of(["red shoe red", "", "shoe"], str.split)
    assert dict(counts.vocabulary) == {"red": 0, "shoe": 1}
    assert counts.matrix.toarray().tolist() == [[2, 1], [0, 0], [0, 1]]
    assert counts.lengths.tolist() == [3, 0, 1] and counts.average_length == 4 / 3
    # One of three texts has "red", two have "shoe".
    np.testing.assert_allclose(counts.idf(), [np.log1p(2.5 / 1.5), np.log1p(1.5 / 2.5)], rtol=1e-6)
    found = counts.weighted(np.array([1, 10], np.float32), 2.0, k1=1.0, b=0.5).toarray()
    np.testing.assert_allclose(found, [[2 / (2 + 1.25), 10 / (1 + 1.25)], [0, 0], [0, 10 / (1 + 0.75)]], rtol=1e-6)
    assert found.dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(texts.filter(any), st.sampled_from([0.6, 1.2, 2.0]), st.sampled_from([0.0, 0.4, 0.75, 1.0]))
def test_weights_are_those_of_bm25s(texts, k1, b):
    """The peer counts and weighs by itself, text by text."""
    documents = [text.split() for text in texts]
    counts = TermCounts.of(texts, str.split)
    numbers = [[counts.vocabulary[term] for term in document] for document in documents]
    peer = bm25s.BM25(method="lucene", k1=k1, b=b)
    built = peer.build_index_from_ids(list(range(len(counts.vocabulary))), numbers, show_progress=False)
    expected = np.zeros((len(counts.vocabulary), len(texts)))
    for term in range(len(expected)):
        part = slice(built["indptr"][term], built["indptr"][term + 1])
        expected[term, built["indices"][part]] = built["data"][part]
    found = counts.weighted(counts.idf(), counts.average_length, k1, b)
    np.testing.assert_allclose(found.toarray(), expected.T, atol=1e-5)


def test_counts_of_one_field_set_serve_every_weighting():
    lines, config = ["red shoe", "red lamp red", "blue lamp"], LexicalSettings(k1=0.6, b=0.4)
    counts = TermCounts.of(lines, Analyzer(config.stemmer))
    twice = [LexicalSearcher.from_counts(counts, one) for one in (LexicalSettings(), config)]
    plain = [LexicalSearcher.from_texts(lines, one) for one in (LexicalSettings(), config)]
    items = np.arange(3, dtype=np.int32)[None]
    for one, other in zip(twice, plain, strict=True):
        np.testing.assert_array_equal(one.scores(["red lamp"], items), other.scores(["red lamp"], items))
    assert not np.allclose(twice[0].scores(["red lamp"], items), twice[1].scores(["red lamp"], items))
