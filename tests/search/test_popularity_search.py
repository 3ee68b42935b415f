import numpy as np

from onesearch.data.requests import Requests
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.popularity_search import MostClickedSearcher, PopularitySearcher

TITLES = ["steel hammer", "steel hammer pro", "garden hose", "steel nail"]
CLICKS = np.array([0, 50, 3, 0], np.float32)


class Log:
    def query_numbers(self, queries):
        return np.array([0 if query == "steel hammer" else -1 for query in queries], np.int64)

    def most_clicked(self, rows, k, leave_out=None):
        lists = [([2, 0] if row == 0 else []) + [-1] * k for row in rows]
        return np.array([one[:k] for one in lists], np.int32).reshape(len(rows), k)


def test_popularity_multiplies_bm25():
    lexical = LexicalSearcher.from_texts(TITLES)
    searcher = PopularitySearcher(lexical, CLICKS, smoothing=1.0)
    hits = searcher.rank(Requests.anonymous(["steel hammer"]), 4)
    items = np.arange(4, dtype=np.int32)[None]
    expected = lexical.scores(["steel hammer"], items)[0] * np.log(2 + CLICKS)
    assert hits.items[0].tolist() == [*np.argsort(-expected)[:3].tolist(), 2]  # the hose shares no word: it fills up
    assert hits.scores[0, 3] < 0
    np.testing.assert_allclose(hits.scores[0, :3], np.sort(expected)[::-1][:3], rtol=1e-5)
    np.testing.assert_allclose(searcher.scores(["steel hammer"], items)[0], expected, rtol=1e-5)


def test_an_empty_query_and_missing_matches_give_the_most_clicked_items():
    hits = PopularitySearcher(LexicalSearcher.from_texts(TITLES), CLICKS).rank(Requests.anonymous(["", "hose"]), 2)
    assert hits.items.tolist() == [[1, 2], [2, 1]]


def test_most_clicked_comes_first_and_the_backoff_fills_without_repeating():
    backoff = PopularitySearcher(LexicalSearcher.from_texts(TITLES), CLICKS)
    hits = MostClickedSearcher(Log(), backoff).rank(Requests.anonymous(["steel hammer", "nail"]), 4)
    assert hits.items[0].tolist() == [2, 0, 1, 3]
    assert hits.items[1].tolist() == [3, 1, 2, -1]  # the nail, then what was ever clicked
    assert (np.diff(hits.scores[0]) < 0).all() and np.isneginf(hits.scores[1, 3])
