import numpy as np
import polars as pl
import pytest

from onesearch.data.records import Item, items_frame
from onesearch.training.relevance import FEATURES, ItemPhrases, PairFeatures, Relevance, held_out_queries
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.thought import Analysis, Attribute, Thought
from onesearch.understanding.thought_table import Thoughts

ITEMS = items_frame(
    [
        Item("a", "leather hiking boots", ("Shoes", "Boots"), attributes={"Material": ("leather",)}),
        Item("b", "hiking tent", ("Outdoor", "Tents"), attributes={"Material": ("nylon",)}),
        Item("c", "canvas boots", ("Shoes", "Boots"), attributes={"Material": ("canvas",)}),
    ]
)
QUERIES = ["boots without leather", "hiking", "unheard"]
EYE = np.eye(3, dtype=np.float32)


@pytest.fixture
def features() -> PairFeatures:
    analysis = Analysis(
        intent="merchandise",
        query_type="negation",
        category=("Shoes", "Boots"),
        attributes=(
            Attribute(type="Material", value="canvas"),
            Attribute(type="Material", value="leather", negated=True),
        ),
    )
    thought = Thought(query=QUERIES[0], analysis=analysis, keywords=("boots", "hiking"), producer="x", version="1")
    keywords = np.zeros((3, 3), np.float32)
    keywords[0] = EYE[2]
    words = CatalogueVocabulary.from_items(ITEMS)
    assert "hiking" in words.phrases and "boots" in words.phrases
    return PairFeatures(ITEMS, EYE, QUERIES, EYE, words, Thoughts.from_thoughts([thought]), keywords)


def test_features_by_hand(features):
    found = features.compute(np.array([0, 0, 0, 1, 2]), np.array([0, 1, 2, 1, 0]))
    named = [dict(zip(FEATURES, row, strict=True)) for row in found.tolist()]
    first, second, third, plain, unheard = named
    assert [one["cosine of query and item"] for one in named] == [1, 0, 0, 1, 0]
    assert [one["cosine of keywords and item"] for one in (first, second, third)] == [0, 0, 1]
    assert [one["keywords that the item says"] for one in (first, second, third)] == [2, 1, 1]
    assert [one["keywords that the item says, share"] for one in (first, second, third)] == [1, 0.5, 0.5]
    assert [one["levels of it that the item is in"] for one in (first, second, third)] == [2, 0, 2]
    assert [one["excluded attributes it has"] for one in (first, second, third)] == [1, 0, 0]
    assert [one["stated attributes that the item has, share"] for one in (first, second, third)] == [0, 0, 1]
    assert plain["keywords"] == 0 and np.isnan(plain["keywords that the item says, share"])
    assert plain["query phrases that the item says, share"] == 1
    assert np.isnan(unheard["query phrases that the item says, share"])
    assert np.isnan(unheard["levels of it that the item is in"])


def test_pairs_in_parts_are_the_same(features, monkeypatch):
    queries, items = np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)
    whole = features.compute(queries, items)
    monkeypatch.setattr("onesearch.training.relevance._CHUNK", 2)
    np.testing.assert_array_equal(features.compute(queries, items), whole)
    assert features.compute(queries[:0], items[:0]).shape == (0, len(FEATURES))


def test_what_an_item_says_is_found_once_and_only_when_asked_for(monkeypatch):
    words = CatalogueVocabulary.from_items(ITEMS)
    items = pl.concat([ITEMS] * 20).with_columns(title=pl.Series([f"hiking {n % 7} boots" for n in range(60)]))
    find, asked = words.incidence, []
    whole = find(items).toarray()
    monkeypatch.setattr(words, "incidence", lambda rows: asked.append(len(rows)) or find(rows))
    phrases, rng = ItemPhrases(items, words), np.random.default_rng(0)
    for _ in range(30):
        rows = rng.integers(0, 50, rng.integers(0, 8))
        np.testing.assert_array_equal(phrases.rows(rows).toarray(), whole[rows])
    assert len(asked) > 3 and 40 < sum(asked) <= 50 and all(asked)


def test_levels_are_learnt_and_kept(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((2000, len(FEATURES))).astype(np.float32)
    levels = np.digitize(x[:, 0], [0.25, 0.5, 0.75]).astype(np.int8)
    model = Relevance.fit(x[:1000], levels[:1000], 40)
    found = model.agreement(x[1000:], levels[1000:])
    assert found.pairs == 1000 and found.accuracy > 0.95 > 0.4 > found.majority
    assert found.kappa > 0.95 and found.auc > 0.99
    model.save(tmp_path)
    np.testing.assert_array_equal(Relevance.load(tmp_path).levels(x), model.levels(x))
    noise = rng.integers(0, 4, 1000)
    assert Relevance.fit(x[:1000], noise).agreement(x[1000:], rng.integers(0, 4, 1000)).kappa < 0.15
    with pytest.raises(ValueError, match="R_Rel"):
        Relevance.fit(x[:0], levels[:0])


def test_a_query_is_held_out_as_a_whole():
    queries = [f"q{n % 50}" for n in range(500)] + ["Q1 "]
    held = held_out_queries(queries)
    assert 80 <= held.sum() <= 111
    assert len({query for query, out in zip(queries, held, strict=True) if out and query[0] == "q"}) == 10
    assert held[-1] == held[1]
