import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from onesearch.data.text import split_words
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary, canonical
from onesearch.understanding.keyword_extraction import holds_phrase
from onesearch.understanding.preference_calibration import (
    PREFERENCE_TYPES,
    HistoryTexts,
    Injected,
    TitlePreferences,
    calibrate,
    inject,
)
from onesearch.understanding.thought import Analysis, Attribute, Thought

KINDS = {"nike": "Brand", "adidas": "Brand", "retro": "Style", "women": "Audience", "red": "Color", "steel": "Material"}
PLAIN = ("boots", "shoes", "running shoes", "coat", "hat", "scarf", "gloves", "socks", "belt")
POOL = sorted([*KINDS, *PLAIN])
WORDS = CatalogueVocabulary(POOL, KINDS, [1.0] * len(POOL), [])


def thought(*keywords, attributes=()):
    analysis = Analysis(intent="merchandise", attributes=attributes)
    return Thought(query="q", analysis=analysis, keywords=keywords, producer="p", version="1")


def test_supported_keywords_come_first_and_others_keep_their_order():
    history = HistoryTexts(queries=("running shoe",), profile="likes hats")
    assert calibrate(thought("boots", "hat", "coat", "shoes"), history, WORDS) == ("hat", "shoes", "boots", "coat")


def test_preferences_of_two_items_are_added():
    history = HistoryTexts(items=("Nike Red Boots women", "nike red hat steel", "Nike steel coat", "adidas retro"))
    assert calibrate(thought("scarf"), history, WORDS) == ("scarf", "nike", "red")


def test_preferences_against_the_query_are_not_added():
    history = HistoryTexts(items=("nike red boots", "nike red hat"))
    no_nike = thought("scarf", attributes=(Attribute(type="Brand", value="Nike", negated=True),))
    assert calibrate(no_nike, history, WORDS) == ("scarf", "red")
    black = thought("scarf", attributes=(Attribute(type="Color", value="black"),))
    assert calibrate(black, history, WORDS) == ("scarf", "nike")


TYPED = {
    **{"nike": "Brand", "new wave": "Brand", "retro": "Style", "retro wave cut": "Style", "红色": "Color"},
    **{"a b c d e f": "Brand", "gloves": "Audience", "steel": "Material", "red": "Color"},
}
TYPED_WORDS = CatalogueVocabulary(sorted([*TYPED, "reds", "wave"]), TYPED, [1.0] * (len(TYPED) + 2), [])
SAID = [
    *"abcdef",
    "nike",
    "Nikes",
    "new",
    "wave",
    "waves",
    "retro",
    "cut",
    "红色",
    "red",
    "reds",
    "steel",
    "glove",
    "gloves",
]


@given(st.lists(st.sampled_from(SAID), max_size=9).map(" ".join))
@example("nikes red")
@example("a b c d e f")
@example("old new waves")
def test_phrases_of_titles_are_those_of_all_runs_of_words(title):
    split = split_words(title)
    runs = [canonical(split[start:end]) for start in range(len(split)) for end in range(start + 1, start + 7)]
    every = {TYPED_WORDS.keyword(run) for run in runs}
    expected = {phrase for phrase in every if phrase is not None and TYPED.get(phrase) in PREFERENCE_TYPES}
    assert TitlePreferences(TYPED_WORDS).phrases(title) == expected


def test_no_history_changes_nothing_and_no_keywords_stay_none():
    assert calibrate(thought("coat", "hat"), HistoryTexts(), WORDS) == ("coat", "hat")
    assert calibrate(thought(), HistoryTexts(items=("nike", "nike hat")), WORDS) == ()


def test_injected_keywords_survive_and_are_no_thought():
    injected = inject(["boots", "hat", "coat"], ["hat", *"abcdef"])
    assert injected.keywords == ("boots", "hat", *"abcdef") and injected.injected
    with pytest.raises(ValidationError):
        Thought(query="q", analysis=Analysis(intent="merchandise"), keywords=injected, producer="p", version="1")
    with pytest.raises(TypeError):
        Injected(("a",), injected=False)


@given(
    st.lists(st.sampled_from(PLAIN), max_size=8, unique=True),
    st.lists(st.lists(st.sampled_from(POOL), max_size=5).map(" ".join), max_size=5),
    st.lists(st.sampled_from(sorted(KINDS)), max_size=3),
)
def test_calibrated_keywords_are_few_known_and_never_ruled_out(keywords, items, ruled_out):
    attributes = tuple(Attribute(type=KINDS[value], value=value, negated=True) for value in ruled_out)
    found = calibrate(thought(*keywords, attributes=attributes), HistoryTexts(items=tuple(items)), WORDS)
    assert len(found) <= 8 and set(found) <= set(POOL) and set(keywords) <= set(found)
    assert not any(holds_phrase(keyword, value) for keyword in found for value in ruled_out)


@given(st.lists(st.sampled_from("abcdefghijkl"), max_size=12), st.lists(st.sampled_from("abcdefghijkl"), max_size=12))
def test_injection_keeps_the_items_keywords(keywords, item_keywords):
    found = inject(keywords, item_keywords).keywords
    assert len(found) <= 8 and len(set(found)) == len(found)
    assert set(dict.fromkeys(item_keywords[:8])) <= set(found)


def test_support_is_a_mean_over_words_and_preferences_of_more_items_come_first():
    history = HistoryTexts(queries=("boots", "boots hat", "running shoes"))
    assert calibrate(thought("running shoes", "boots"), history, WORDS) == ("boots", "running shoes")
    history = HistoryTexts(items=("adidas red", "adidas red", "red"))
    assert calibrate(thought("scarf"), history, WORDS) == ("scarf", "red", "adidas")
