from functools import cache
from pathlib import Path

import numpy as np
import pytest

from onesearch.data.records import ATTRIBUTE_TYPES
from onesearch.data.text import normalise_query
from onesearch.market.market import Market
from onesearch.market.market_traffic import QUERY_TYPES
from onesearch.market.market_vocabulary import MarketVocabulary, build_vocabulary
from onesearch.market.stand_in_thinker import MOST_KEYWORDS, MOST_TOPICS, Thinker


@pytest.fixture(scope="module")
def thinker(folder: Path) -> Thinker:
    return Thinker.load(folder, error=0.0)


@pytest.fixture(scope="module")
def complex_rows(market: Market) -> list[int]:
    return np.flatnonzero(market.truth.queries.kind > 0).tolist()


@cache
def _vocabulary(market: Market) -> MarketVocabulary:
    return build_vocabulary(market.truth.seed)


def _nouns(market: Market, types: np.ndarray) -> set[str]:
    return {_vocabulary(market).type_nouns[number][0] for number in np.flatnonzero(types).tolist()}


def test_without_errors_every_complex_query_is_understood_as_it_is_meant(thinker, market, complex_rows):
    """Nouns are those of the true types, values satisfy a trait of the query, the ban is kept, without exception."""
    queries = market.truth.queries
    names = [normalise_query(name) for name in market.truth.catalogue.value_names]
    every_noun = {nouns[0] for nouns in _vocabulary(market).type_nouns}
    named = valued = 0
    for row in complex_rows:
        thought = thinker.think(queries.texts[row])
        true_nouns = _nouns(market, market.truth.type_sets[queries.type_set[row]])
        traits = queries.predicates[row][queries.predicates[row] >= 0] - len(names)
        serving = market.needs.trait_values[traits].any(0) if len(traits) else np.zeros(len(names), bool)
        true_values = {names[number] for number in np.flatnonzero(serving).tolist()}
        words = thought["keywords"]
        assert thought["query_type"] == QUERY_TYPES[queries.kind[row]]
        assert set(words) <= true_nouns | true_values, queries.texts[row]
        assert set(thought["topics"]) <= true_nouns
        assert bool(thought["topics"]) == bool(true_nouns)
        assert not set(words) & every_noun - true_nouns - true_values
        assert len(words) <= MOST_KEYWORDS and len(thought["topics"]) <= MOST_TOPICS
        negated = {attribute["value"] for attribute in thought["attributes"] if attribute["negated"]}
        assert negated == ({names[queries.ban[row]]} if queries.ban[row] >= 0 else set())
        assert not negated & set(words)
        named += bool(set(words) & true_nouns)
        valued += bool(set(words) & true_values)
    assert len(complex_rows) > 1_000
    assert named > 0.99 * len(complex_rows)
    assert valued > 0.8 * len(complex_rows)


def test_values_are_ones_that_a_meant_type_can_have(thinker, market, complex_rows):
    allowed, number = thinker.knowledge.allowed(), {v: n for n, v in enumerate(thinker.knowledge.values)}
    queries = market.truth.queries
    every_noun = {nouns[0] for nouns in _vocabulary(market).type_nouns}
    for row in complex_rows[:500]:
        types = np.flatnonzero(market.truth.type_sets[queries.type_set[row]]).tolist()
        for word in set(thinker.think(queries.texts[row])["keywords"]) - every_noun:
            assert any(number[word] in allowed[one] for one in types)


def test_category_is_the_common_path_of_the_meant_types(thinker, market, complex_rows):
    queries = market.truth.queries
    for row in complex_rows[:300]:
        types = np.flatnonzero(market.truth.type_sets[queries.type_set[row]])
        paths = [_vocabulary(market).leaf_names[leaf] for leaf in market.truth.type_leaf[types].tolist()]
        common = []
        for level in zip(*paths, strict=False):
            if len(set(level)) > 1:
                break
            common.append(level[0])
        assert thinker.think(queries.texts[row])["category"] == common


def test_plain_queries_give_what_they_state(thinker, market):
    queries = market.truth.queries
    names = [normalise_query(name) for name in market.truth.catalogue.value_names]
    rows = np.flatnonzero(queries.kind == 0).tolist()
    right = stated = 0
    for row in rows:
        thought = thinker.think(queries.texts[row])
        assert thought["query_type"] == "plain"
        assert all(attribute["type"] in ATTRIBUTE_TYPES for attribute in thought["attributes"])
        said = [number for number in queries.predicates[row].tolist() if number >= 0]
        values = {attribute["value"] for attribute in thought["attributes"]}
        right += sum(names[number] in values for number in said)
        stated += len(said)
    assert right > 0.97 * stated  # "denim" + "pants" is also "denim pants"


def test_a_share_of_need_words_is_misread_once_per_text(folder, market, complex_rows):
    wrong, again = Thinker.load(folder, error=0.3), Thinker.load(folder, error=0.3)
    texts = [market.truth.queries.texts[row] for row in complex_rows]
    read = {text: wrong.need_words(text) for text in texts}
    words = [pair for pairs in read.values() for pair in pairs]
    share, sd = np.mean([said != meant for said, meant in words]), (0.3 * 0.7 / len(words)) ** 0.5
    assert abs(share - 0.3) < 4 * sd
    assert {text: again.need_words(text.upper()) for text in reversed(texts)} == read
    assert [again.think(text) for text in reversed(texts)] == [wrong.think(text) for text in reversed(texts)]
    other = Thinker.load(folder, error=0.3, seed=1)
    assert {text: other.need_words(text) for text in texts} != read


def test_misreadings_stay_within_the_kind_and_grow_with_the_error(folder, market, complex_rows):
    less, more = Thinker.load(folder, error=0.1), Thinker.load(folder, error=0.4)
    topics, traits = set(market.needs.topics), set(market.needs.traits)
    for row in complex_rows[:500]:
        text = market.truth.queries.texts[row]
        for (said, meant), (_, meant_more) in zip(less.need_words(text), more.need_words(text), strict=True):
            assert (said in topics) == (meant in topics) and (said in traits) == (meant in traits)
            assert meant == said or meant_more == meant


def test_a_text_nobody_searched_for_is_understood(thinker, market):
    topic, trait = market.needs.topics[0], market.needs.traits[0]
    text = f"Dear shop, I am new to {topic}; any idea given my {trait} without red please"
    assert text.lower() not in set(market.truth.queries.texts)
    thought = thinker.think(text.replace(";", " "))
    assert thought["query_type"] == "negation"
    assert set(thought["topics"]) <= _nouns(market, market.needs.topic_types[0])
    assert thought["attributes"] == [{"type": "Color", "value": "red", "negated": True}]
    assert "red" not in thought["keywords"]


def test_alternatives_name_siblings_and_never_the_product_itself(thinker, market):
    trait = market.needs.traits[1]
    thought = thinker.think(f"what can replace tent with {trait}")
    assert thought["query_type"] == "alternatives"
    assert thought["topics"] and not {"tent"} & {*thought["topics"], *thought["keywords"]}


def test_misspelt_words_and_model_numbers(thinker):
    thought = thinker.think("waterprof  backpakc vk482")
    assert {"type": "Function", "value": "waterproof", "negated": False} in thought["attributes"]
    assert {"type": "Model", "value": "vk482", "negated": False} in thought["attributes"]
    assert thought["keywords"][0] == "backpack"


@pytest.mark.parametrize("text", ["", "   ", "zzz qqq", "what for without", "alternative to", "ｔｅｎｔ"])
def test_texts_without_meaning_are_answered_too(thinker, text):
    thought = thinker.think(text)
    assert thought["intent"] == "merchandise" and len(thought["keywords"]) <= MOST_KEYWORDS


def test_calibration_puts_words_of_the_history_first_and_keeps_the_ban(thinker):
    keywords = ["tent", "wool", "camera", "waterproof", "red", "camera"]
    out = thinker.calibrate("something for safari without red", keywords, ["Waterproof camera"], ["camera tripod"])
    assert out == ["camera", "waterproof", "tent", "wool"]
    assert thinker.calibrate("tent", ["tent", "mug"], [], [], "likes a mug") == ["mug", "tent"]


def test_impossible_errors_are_refused(thinker):
    with pytest.raises(ValueError, match="probability"):
        Thinker(thinker.knowledge, error=1.5)
