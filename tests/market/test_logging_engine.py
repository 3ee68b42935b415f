"""Ranking by words and popularity, beside a plain twin that sorts everything."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onesearch.data.dataset import Dataset
from onesearch.market.logging_engine import _SCORE_STEPS, _SCORE_TOP, LoggingEngine, not_below_kth
from onesearch.market.market_settings import EngineParameters


@given(
    st.lists(st.lists(st.integers(0, 65_535) | st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=5),
    st.integers(1, 6),
)
@example([[5, 1, 4, 2], [9], [7, 7, 3, 8, 0, 6, 2]], 2)
@example([[9, 1, 5]], 2)
@example([[1, 9]], 2)
def test_a_bound_leaves_the_least_values_of_each_row(rows, k):
    lengths = np.array([len(row) for row in rows], np.int64)
    bounds = not_below_kth(np.concatenate(rows).astype(np.uint16), np.cumsum(lengths) - lengths, lengths, k)
    for row, bound in zip(rows, bounds.tolist(), strict=True):
        assert bound >= (sorted(row)[k - 1] if len(row) >= k else max(row))
    assert bounds.dtype == np.uint16


def test_a_bound_leaves_little_more():
    values = np.random.default_rng(0).permutation(4_000).astype(np.uint16)
    (bound,) = not_below_kth(values, np.zeros(1, np.int64), np.array([4_000]), 100)
    assert 100 <= (values <= bound).sum() < 200


@pytest.fixture(scope="module")
def engine(folder, market):
    return LoggingEngine(Dataset.load(folder).items["title"].to_list(), market.truth, EngineParameters(), 3)


@pytest.mark.parametrize("k", [1, 5, 40, 2_000])
def test_the_best_items_of_a_query_are_those_of_a_full_sort(engine, market, k):
    cores = [*[*dict.fromkeys(market.truth.queries.core)][:60], "nothing knows this", "", "black black"]
    items, scores = engine._search(cores, k)
    dense = engine._weights.toarray()
    for core, found, value in zip(cores, items, scores, strict=True):
        tokens = [
            engine._bm25.vocab_dict[token] for token in engine._tokens([core])[0] if token in engine._bm25.vocab_dict
        ]
        words = sum((dense[token] for token in tokens), np.zeros(dense.shape[1], np.float32))
        rows = np.flatnonzero(words > 0)
        total = (np.float32(4) * words[rows]) / words.max(initial=0) + engine._popularity[rows]
        falling = np.clip((_SCORE_TOP - total) * _SCORE_STEPS, 0, 0xFFFF).astype(np.uint16)
        best = np.lexsort((rows, falling))[:k]
        np.testing.assert_array_equal(found, [*rows[best], *[-1] * (k - len(best))])
        np.testing.assert_array_equal(value[: len(best)], _SCORE_TOP - falling[best].astype(np.float32) / _SCORE_STEPS)
        assert (value[len(best) :] == -np.inf).all()
