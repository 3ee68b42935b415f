"""Click and word evidence against counts done by hand."""

import numpy as np
import polars as pl
import pytest

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.records import Item, items_frame
from onesearch.search.click_features import Evidence, lexical_features
from onesearch.search.lexical_search import LexicalSearcher, LexicalSettings

ITEMS = items_frame(
    [
        Item("a", "red tent", ("Outdoor", "Tents")),
        Item("b", "blue tent", ("Outdoor", "Tents")),
        Item("c", "red lamp", ("Home",)),
        Item("d", "lamp oil"),
    ]
)


@pytest.fixture
def evidence() -> Evidence:
    log = pl.DataFrame(
        {
            "query": ["tent", "tent", "red tent", "lamps"],
            "shown": [["a", "b"], ["a", "b"], ["a", "c"], ["c", "d"]],
            "clicked": [["a"], ["a", "b"], ["a"], ["c"]],
            "ordered": [[], [], [], []],
        },
        schema_overrides={"ordered": pl.List(pl.String)},
    )
    return Evidence(ClickStatistics.from_page_views(log, ITEMS), ITEMS)


def test_clicks_and_their_share(evidence: Evidence):
    found = evidence.clicks(["tent", "new words"], np.array([[0, 1, -1], [0, 1, 2]]), evidence.words.facts(ITEMS))
    np.testing.assert_allclose(np.expm1(found["clicks"]), [[2, 1, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["click_share"], [[2 / 3, 1 / 3, 0], [0, 0, 0]], rtol=1e-6)


def test_words_carry_clicks_over_to_a_new_query(evidence: Evidence):
    # "tent" was clicked for: 3 times item a (one of them as "red tent"), once item b. All word clicks: a 4, b 1, c 1.
    found = evidence.clicks(["big tents"], np.array([[0, 1, 2, 3]]), evidence.words.facts(ITEMS))
    things, pairs = np.array([4.0, 1, 1, 0]), np.array([3.0, 1, 0, 0])
    share = (things + 1) / (things.sum() + 4)
    lift = np.log((pairs + 5 * share) / ((4 + 5) * share))
    np.testing.assert_allclose(found["word_item"][0], lift, rtol=1e-5)
    assert found["word_category"][0, 0] == found["word_category"][0, 1] > 0 > found["word_category"][0, 2]
    assert found["word_category"][0, 3] == 0  # no category


def test_items_newer_than_the_log_have_a_category_but_no_clicks(evidence: Evidence):
    new = items_frame([Item("e", "Green tent", ("Outdoor", "Tents"))])
    facts = evidence.words.facts(ITEMS).extended(evidence.words.facts(new))
    found = evidence.clicks(["tent"], np.array([[0, 4]]), facts)
    assert found["word_item"][0, 1] == found["clicks"][0, 1] == 0
    assert found["word_category"][0, 1] == found["word_category"][0, 0]


def test_contexts_tell_known_queries_from_new_ones(evidence: Evidence):
    found = evidence.contexts(["Tent", "never seen before", ""])
    assert found["known"].tolist() == [1, 0, 0]
    np.testing.assert_allclose(found["frequency"], np.log1p([3, 0, 0]) / 3, rtol=1e-6)
    np.testing.assert_allclose(found["words"], [1 / 3, 1, 0], rtol=1e-6)


def test_lexical_share_is_relative_to_the_best_of_the_whole_catalogue():
    searcher = LexicalSearcher.build(ITEMS, LexicalSettings(fields=("title",)))
    found = lexical_features(searcher, ["red tent", "nothing known"], np.array([[1, 2], [0, -1]]))
    whole = searcher.scores(["red tent"], np.array([[0, 1, 2, 3]], np.int32))[0]
    np.testing.assert_allclose(found["lexical_share"][0], whole[1:3] / whole.max(), rtol=1e-6)
    assert not found["lexical_share"][1].any()
