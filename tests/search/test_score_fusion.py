import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onesearch.data.requests import Requests
from onesearch.search.hits import Hits
from onesearch.search.ranked_lists import chained, first_occurrence, normalised, top_k, union
from onesearch.search.score_fusion import FusedSearcher, fuse_scores


class Table:
    """Scores every item by a fixed table."""

    def __init__(self, scores):
        self.table = np.asarray(scores, np.float32)

    def rank(self, requests, k):
        columns, best = top_k(np.tile(self.table, (len(requests), 1)), k)
        return Hits(columns.astype(np.int32), best)

    def scores(self, queries, items):
        return np.where(items < 0, 0, self.table[items]).astype(np.float32)


def test_minmax_fusion_is_the_arithmetic_done_by_hand():
    items = np.array([[3, 5, 8]], np.int32)
    scores = np.array([[[10, 20, 15]], [[1.0, 0.0, 0.75]]], np.float32)
    hits = fuse_scores(items, scores, [1.0, 2.0], "minmax", 3)  # 3: 0 + 2; 5: 1 + 0; 8: .5 + 1.5
    assert hits.items.tolist() == [[3, 8, 5]]
    np.testing.assert_allclose(hits.scores, [[2, 2, 1]])


def test_z_normalisation_has_mean_zero_and_deviation_one_and_ignores_padding():
    scores = np.array([[1, 2, 3, 99], [4, 4, 4, 4]], np.float32)
    out = normalised(scores, np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool), "z")
    np.testing.assert_allclose(out[0], [-1.2247449, 0, 1.2247449, 0], rtol=1e-5)
    assert (out[1] == 0).all()
    with pytest.raises(ValueError, match="minmax"):
        normalised(scores, scores > 0, "rank")


def test_a_fused_searcher_ranks_the_union_of_shallow_lists():
    first, second = Table([9, 8, 0, 0, 5]), Table([0, 0, 9, 8, 7])
    fused = FusedSearcher({"a": first, "b": second}, {"a": 1.0, "b": 1.0}, depth=3)
    hits = fused.rank(Requests.anonymous(["x", "y"]), 6)
    assert hits.items[0, 0] == 4 and hits.items.shape == (2, 6) and hits.items[1, 5] == -1
    only = FusedSearcher({"a": first, "b": second}, {"a": 1.0, "b": 0.0}, depth=3).rank(Requests.anonymous(["x"]), 2)
    assert only.items.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="same names"):
        FusedSearcher({"a": first}, {"b": 1.0})


items = hnp.arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.integers(-1, 6))


@settings(deadline=None)
@given(items)
def test_first_occurrence_chained_and_union_equal_plain_python(rows):
    for row, keep, chain in zip(rows.tolist(), first_occurrence(rows), chained([rows, rows], 20), strict=True):
        plain = list(dict.fromkeys(item for item in row if item >= 0))
        assert [item for item, kept in zip(row, keep.tolist(), strict=True) if kept] == plain
        assert [item for item in chain.tolist() if item >= 0] == plain
    assert union([rows]).shape[1] == max(1, *(len({i for i in row if i >= 0}) for row in rows.tolist()))


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 3])),
    st.integers(1, 12),
)
def test_top_k_values_are_those_of_a_sort(scores, k):
    columns, best = top_k(scores, k)
    np.testing.assert_array_equal(best, -np.sort(-scores, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(scores, columns, 1), best)
    tied = best[:, 1:] == best[:, :-1]
    assert (np.diff(columns, axis=1)[tied] > 0).all()


def test_of_equal_scores_at_the_last_place_those_of_the_first_columns_are_kept():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 40)).astype(np.float32)
    for k in (1, 3, 10, 40):
        columns, best = top_k(scores, k)
        plain = np.stack([sorted(range(40), key=lambda c, row=row: (-row[c], c))[:k] for row in scores])
        np.testing.assert_array_equal(best, np.take_along_axis(scores, plain, 1))
        kept = best > 0  # which of those without a score are kept says nothing
        np.testing.assert_array_equal(columns[kept], plain[kept])
