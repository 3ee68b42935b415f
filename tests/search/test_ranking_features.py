"""Features of clicks and words, and of BM25, against counts done by hand."""

import numpy as np
import polars as pl
import pytest

from onesearch.common.layered_table import ChangedRows
from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.records import Item, items_frame
from onesearch.search.click_features import ClickFeatures
from onesearch.search.lexical_index import LexicalSettings
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.ranking_features import lexical_features, probability_features

ITEMS = items_frame(
    [
        Item("a", "red tent", ("Outdoor", "Tents")),
        Item("b", "blue tent", ("Outdoor", "Tents")),
        Item("c", "red lamp", ("Home",)),
        Item("d", "lamp oil"),
    ]
)


@pytest.fixture
def log_features() -> ClickFeatures:
    log = pl.DataFrame(
        {
            "query": ["tent", "tent", "red tent", "lamps"],
            "shown": [["a", "b"], ["a", "b"], ["a", "c"], ["c", "d"]],
            "clicked": [["a"], ["a", "b"], ["a"], ["c"]],
            "ordered": [[], [], [], []],
        },
        schema_overrides={"ordered": pl.List(pl.String)},
    )
    return ClickFeatures.from_log(ClickStatistics.from_page_views(log, ITEMS), ITEMS)


def test_clicks_and_their_share(log_features: ClickFeatures):
    queries = log_features.query_facts(["tent", "new words"])
    found = log_features.features(queries, np.array([[0, 1, -1], [0, 1, 2]]), log_features.item_traits(ITEMS))
    np.testing.assert_allclose(np.expm1(found["clicks"]), [[2, 1, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["click_share"], [[2 / 3, 1 / 3, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["click_share_root"] ** 2, found["click_share"], rtol=1e-6)


def test_words_carry_clicks_over_to_a_new_query(log_features: ClickFeatures):
    # "tent" was clicked for: 3 times item a (one of them as "red tent"), once item b. All word clicks: a 4, b 1, c 1.
    queries = log_features.query_facts(["big tents"])
    found = log_features.features(queries, np.array([[0, 1, 2, 3]]), log_features.item_traits(ITEMS))
    things, pairs = np.array([4.0, 1, 1, 0]), np.array([3.0, 1, 0, 0])
    share = (things + 1) / (things.sum() + 4)
    lift = np.log((pairs + 5 * share) / ((4 + 5) * share))
    np.testing.assert_allclose(found["word_item"][0], lift, rtol=1e-5)
    assert found["word_category"][0, 0] == found["word_category"][0, 1] > 0 > found["word_category"][0, 2]
    assert found["word_category"][0, 3] == 0  # no category


def test_items_newer_than_the_log_have_a_category_but_no_clicks(log_features: ClickFeatures):
    new = items_frame([Item("e", "Green tent", ("Outdoor", "Tents"))])
    traits = log_features.item_traits(ITEMS)
    traits = traits.with_rows(ChangedRows.none().with_rows(np.array([4]), 0), *log_features.traits_of(new))
    found = log_features.features(log_features.query_facts(["tent"]), np.array([[0, 4]]), traits)
    assert found["word_item"][0, 1] == found["clicks"][0, 1] == 0
    assert found["word_category"][0, 1] == found["word_category"][0, 0]


def test_contexts_tell_known_queries_from_new_ones(log_features: ClickFeatures):
    found = log_features.contexts(log_features.query_facts(["Tent", "never seen before", ""]))
    assert found["known"].tolist() == [1, 0, 0]
    np.testing.assert_allclose(found["frequency"], np.log1p([3, 0, 0]) / 3, rtol=1e-6)
    np.testing.assert_allclose(found["words"], [1 / 3, 1, 0], rtol=1e-6)


def test_powers_of_the_probability():
    found = probability_features(np.log(np.array([[1.0, 1 / 256, 1e-30]], np.float32)))
    np.testing.assert_allclose(found["prob"], [[1, 1 / 256, 1e-30]], rtol=1e-4)
    np.testing.assert_allclose(found["prob_half"], [[1, 1 / 16, 1e-15]], rtol=1e-4)
    np.testing.assert_allclose(found["prob_eighth"], [[1, 0.5, 10**-3.75]], rtol=1e-4)
    outside = probability_features(np.array([[-1e9]], np.float32))  # an item outside the index
    assert all(value == 0 for value in outside.values())


def test_lexical_share_is_relative_to_the_best_of_the_whole_catalogue():
    searcher = LexicalSearcher.build(ITEMS, LexicalSettings(fields=("title",)))
    queries, items = ["red tent", "nothing known"], np.array([[1, 2], [0, -1]])
    terms = [query.split() for query in queries]
    found = lexical_features(searcher.pair_scores(terms, items), searcher.match(queries, terms, 2).best)
    whole = searcher.scores(["red tent"], np.array([[0, 1, 2, 3]], np.int32))[0]
    share = whole[1:3] / whole.max()
    np.testing.assert_allclose(found["lexical_share"][0], share, rtol=1e-6)
    np.testing.assert_allclose(found["lexical_share_square"][0], share**2, rtol=1e-6)
    assert not found["lexical_share"][1].any()


def test_a_page_views_own_clicks_are_left_out_of_the_lifts(log_features: ClickFeatures):
    """The log's second page view, by hand: "tent", of whose four clicks its own are one on each of two tents."""
    words = log_features.query_facts(["tent", "tent"]).words
    categories, items = log_features.item_traits(ITEMS).categories, np.array([[0, 3, -1], [0, 3, -1]])
    of_item, of_category = log_features.words.lifts(words, items, categories, Ragged.from_lists([[0, 1], []]))
    # Item 0: 2 of 2 other clicks of the word; 3 + 1 of the other 4 clicks of words in all + 4 items.
    assert of_item[0, 0] == pytest.approx(np.log((2 + 5 * 0.5) / ((2 + 5) * 0.5)))
    # Its category: 2 of 2; 3 + 1 of 4 + 2. Item 3 has none.
    assert of_category[0].tolist() == pytest.approx([np.log((2 + 5 * 4 / 6) / ((2 + 5) * 4 / 6)), 0, 0])
    # Without own clicks they are the engine's features.
    plain = log_features.words.features(words, items, log_features.item_traits(ITEMS))
    np.testing.assert_array_equal(of_item[1], plain["word_item"][1])
    np.testing.assert_array_equal(of_category[1], plain["word_category"][1])
    assert of_item[0, 2] == 0 and of_item[1, 0] != of_item[0, 0]


def test_the_lifts_of_several_words_without_own_clicks_are_those_of_a_log_without_the_page_view():
    """An own click is one of its item for each word of the query."""
    log = pl.DataFrame(
        {"query": ["red big tent", "big red tent", "red lamp"], "clicked": [["a"], ["a", "b"], ["c"]]}
    ).with_columns(shown=pl.col("clicked"), ordered=pl.Series([[], [], []], dtype=pl.List(pl.String)))
    items = items_frame([Item(name, name, ("Shop", kind)) for name, kind in zip("abc", "ttl", strict=True)])
    rows = np.array([[0, 1, 2]])

    def lifts(part: pl.DataFrame, own: Ragged | None) -> np.ndarray:
        found = ClickFeatures.from_log(ClickStatistics.from_page_views(part, items), items)
        words, categories = found.query_facts(["red big tent"]).words, found.item_traits(items).categories
        return np.stack(found.words.lifts(words, rows, categories, own))

    without = lifts(log[[1, 2]], None)
    np.testing.assert_allclose(lifts(log, Ragged.from_lists([[0]])), without, rtol=1e-5)
    assert not np.allclose(lifts(log, None), without, atol=1e-2)
