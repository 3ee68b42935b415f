import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.data.records import Item, items_frame
from onesearch.data.text import split_words
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary, canonical, model_numbers, singular

ITEMS = items_frame(
    [
        Item("a", "Nike Red Running Shoes", ("Clothing", "Shoes"), "Nike", attributes={"Color": ("Red",)}),
        Item("b", "Adidas Running Shoes SC-141", ("Clothing", "Shoes"), "Adidas", attributes={"Color": ("blue",)}),
        Item("c", "Steel Sink, 12-Gauge", ("Home", "Kitchen", "Sinks"), None, attributes={"Material": ("Steel",)}),
        Item("d", "Doll Shoes", ("Toys", "Shoes")),
        Item("e", "红色连衣裙 女", ("服装",), attributes={"Style": ("复古",)}),
        Item("f", "蓝色连衣裙", ("服装",)),
    ]
)


@pytest.fixture(scope="module")
def words():
    return CatalogueVocabulary.from_items(ITEMS, np.array([5.0, 1, 0, 0, 2, 0]))


def test_category_is_the_whole_path_or_its_only_end(words):
    assert words.category(["clothing", "SHOES"]) == ("Clothing", "Shoes")
    assert words.category(["Kitchen"]) == ("Home", "Kitchen")
    assert words.category(["kitchen", "sinks"]) == ("Home", "Kitchen", "Sinks")
    assert words.category(["Hardware", "Sinks"]) == ("Home", "Kitchen", "Sinks")
    assert words.category(["Shoes"]) is None  # two of them
    assert words.category(["Garden"]) is None and words.category([]) is None and words.category(["!"]) is None
    assert ("Home", "Kitchen") in words.paths


def test_pool_holds_values_brands_categories_shared_title_phrases_and_models(words):
    assert words.keyword("Running  SHOES") == "running shoes"
    assert words.keyword("sc141") == words.keyword("SC-141") == "sc 141"
    assert words.keyword("nikes") == "nike"
    assert words.keyword("doll") is None  # only one title says it
    assert words.keyword("12 gauge") is None and words.keyword("") is None and words.keyword("-") is None
    assert words.keyword("连衣裙") == "连衣裙" and words.keyword("复古") == "复古" and words.keyword("裙") is None


def test_kinds_are_the_types_of_values_brands_and_categories(words):
    assert words.kinds["red"] == "Color" and words.kinds["nike"] == "Brand" and words.kinds["sinks"] == "Entity"
    assert "running shoes" not in words.kinds and set(words.kinds) <= set(words.phrases)


def test_popularity_sums_over_the_items_that_say_the_phrase_anywhere(words):
    assert words.popularity("running shoes") == 6 + 2
    assert words.popularity("shoes") == 6 + 2 + 1
    assert words.popularity("nike") == 6  # brand and title of one item count once
    assert words.popularity("色连衣裙") == 3 + 1
    assert words.popularity("garden") == 0


def test_saving_and_loading_changes_nothing(words, tmp_path):
    words.save(tmp_path)
    again = CatalogueVocabulary.load(tmp_path)
    assert again.phrases == words.phrases and again.kinds == words.kinds and again.paths == words.paths
    assert [again.popularity(p) for p in again.phrases] == [words.popularity(p) for p in words.phrases]
    with pytest.raises(FileNotFoundError, match=r"phrases\.parquet"):
        CatalogueVocabulary.load(tmp_path / "none")


def test_an_empty_catalogue_has_no_words():
    words = CatalogueVocabulary.from_items(items_frame([]))
    assert len(words) == 0 and words.keyword("x") is None and words.matches(["a b"]).shape == (1, 0)


def test_model_numbers_are_not_sizes():
    assert model_numbers("BEHR #SC-141 (sw7937) 12-Gauge 5.5in 1-gal") == ["sc-141", "sw7937"]


def test_singular():
    plural = ["boots", "dresses", "boxes", "benches", "brushes", "shoes", "glass", "gas"]
    assert [singular(word) for word in plural] == ["boot", "dress", "box", "bench", "brush", "shoe", "glass", "gas"]


@given(st.lists(st.sampled_from(["red", "12", "手", "机", "iphone"]), max_size=6))
def test_canonical_phrases_split_into_their_words(words):
    assert split_words(canonical(words)) == words


@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), max_size=5),
    st.lists(st.lists(st.sampled_from("abcde"), max_size=8), max_size=4),
)
def test_matches_are_those_of_a_plain_search(patterns, texts):
    phrases = sorted({" ".join(p) for p in patterns})
    found = CatalogueVocabulary(phrases, {}, np.zeros(len(phrases)), []).matches([" ".join(t) for t in texts]).toarray()
    want = [[f" {p} " in f" {' '.join(t)} " for p in phrases] for t in texts]
    assert found.astype(bool).tolist() == want


@given(st.lists(st.lists(st.sampled_from(["red", "big", "shoe", "hat"]), max_size=5), max_size=6))
def test_title_phrases_are_the_runs_of_two_titles(titles):
    items = pl.concat([items_frame([]), items_frame([Item(str(i), " ".join(t)) for i, t in enumerate(titles)])])
    runs = [{tuple(t[a : a + n]) for n in (1, 2, 3) for a in range(len(t) - n + 1)} for t in titles]
    want = {" ".join(run) for run in set().union(*runs) if sum(run in r for r in runs) >= 2}
    assert set(CatalogueVocabulary.from_items(items).phrases) == want
