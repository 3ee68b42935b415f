import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.keyword_extraction import extract, holds_phrase, stated_in, validated
from onesearch.understanding.thought import Analysis, Attribute, ThoughtError

POOL = {
    "boots": 90.0,
    "leather": 80.0,
    "leather boots": 40.0,
    "winter boots": 30.0,
    "boot winter": 5.0,
    "red": 70.0,
    "sc 141": 1.0,
    "shoes": 60.0,
    "sandals": 50.0,
    "hat": 20.0,
    "scarf": 10.0,
    "gloves": 9.0,
    "socks": 8.0,
    "coat": 7.0,
    "belt": 6.0,
    "大衣": 4.0,
    "貂皮大衣": 3.0,
}
WORDS = CatalogueVocabulary(
    sorted(POOL), {"red": "Color"}, [POOL[p] for p in sorted(POOL)], [("Clothing",), ("Clothing", "Boots")]
)


def analysis(*attributes, **more):
    return Analysis(intent="merchandise", attributes=tuple(attributes), **more)


def negated(value):
    return Attribute(type="Material", value=value, negated=True)


def kept(candidates, of=None):
    return extract(candidates, of or analysis(), WORDS)[0]


def test_keywords_are_canonical_and_ordered_by_popularity():
    keywords, dropped = extract(["Hat", "RED", "unicorn", "!"], analysis(), WORDS)
    assert keywords == ("red", "hat") and dropped == (("unicorn", "off the catalogue"), ("!", "no words"))


def test_fall_back_to_topics_and_then_to_category_and_attributes():
    assert kept([], analysis(topics=("hat",))) == ("hat",)
    stated = (Attribute(type="Color", value="red"), negated("leather"))
    assert kept([], analysis(*stated, category=("Clothing", "Boots"))) == ("boots", "red")


def test_synonyms_are_merged_into_the_more_popular_and_the_more_specific():
    keywords, dropped = extract(["boot winter", "winter boots", "boots", "大衣", "貂皮大衣"], analysis(), WORDS)
    assert keywords == ("winter boots", "貂皮大衣")
    assert dict(dropped)["boot winter"] == "same words as 'winter boots'"
    assert dict(dropped)["boots"] == "less specific than 'winter boots'"
    assert kept(["leather", "leather boots", "boots"]) == ("leather", "leather boots"), "leather is another thing"


def test_marketing_words_are_taken_away():
    keywords, dropped = extract(["hot sale hats", "free shipping", "热卖大衣"], analysis(), WORDS)
    assert keywords == ("hat", "大衣") and dropped == (("free shipping", "marketing words only"),)


def test_model_numbers_survive_the_cut():
    many = ["red", "shoes", "sandals", "hat", "scarf", "gloves", "socks", "coat", "belt", "SC-141"]
    keywords, dropped = extract(many, analysis(), WORDS)
    assert len(keywords) == 8 and keywords[-1] == "sc 141"
    assert [text for text, _ in dropped] == ["coat", "belt"]


def test_what_the_query_rules_out_is_no_keyword():
    assert kept(["leather", "leather boots", "hat"], analysis(negated("Leather"))) == ("hat",)


def test_no_merchandise_no_keywords():
    assert extract(["hat"], Analysis(intent="shop"), WORDS) == ((), ())


def answer(**more):
    return {"intent": "merchandise", "keywords": ["hat"], **more}


def check(given_answer, query="red leather hat"):
    return validated(given_answer, query, "expert", "3", WORDS)


def test_a_good_answer_becomes_a_thought():
    thought, dropped = check(
        answer(
            query_type="negation",
            category=["boots"],
            topics=["winter boots"],
            keywords=["hats", "red"],
            attributes=[{"type": "Color", "value": "red"}, {"type": "Material", "value": "leather", "negated": True}],
        ),
        "  RED hat not leather ",
    )
    assert thought.query == "red hat not leather" and thought.keywords == ("red", "hat")
    assert thought.analysis.category == ("Clothing", "Boots") and thought.analysis.topics == ("winter boots",)
    assert [a.negated for a in thought.analysis.attributes] == [False, True]
    assert (thought.producer, thought.version, dropped) == ("expert", "3", ())


def test_what_is_invented_unknown_or_too_long_is_dropped_with_a_reason():
    thought, dropped = check(
        answer(
            category=["Garden"],
            topics=["x" * 81, " "],
            keywords=["hat", "y" * 81, "unicorn"],
            attributes=[{"type": "Color", "value": "blue"}, {"type": "Color", "value": "z" * 81}],
        )
    )
    assert thought.keywords == ("hat",) and thought.analysis.category == () and thought.analysis.attributes == ()
    reasons = dict(dropped)
    assert reasons["Garden"] == "no such category, or several" and reasons["blue"] == "not stated in the query"
    assert reasons["x" * 81] == reasons["y" * 81] == reasons["z" * 81] == "longer than 80 characters"
    assert reasons["unicorn"] == "off the catalogue"


def test_attributes_are_stated_whether_plural_or_not():
    assert stated_in("boot", "red boots") and stated_in("Winter Boots", "boots for winter")
    assert not stated_in("blue boots", "red boots") and not stated_in("", "red")
    assert stated_in("红色", "红色裙") and not stated_in("色红", "红色裙")
    assert holds_phrase("red winter boot", "winter boots") and not holds_phrase("boots winter", "winter boots")


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"intent": "buy"},
        {"intent": "merchandise", "keywords": "hat"},
        {"intent": "merchandise", "keywords": [1]},
        {"intent": "merchandise", "keywords": None},
        {"intent": "merchandise", "extra": 1},
        {"intent": "merchandise", "keywords": ["\ud800"]},
        {"intent": "merchandise", "attributes": [{"type": "Colour", "value": "red"}]},
        {"intent": "merchandise", "attributes": [{"type": "Color"}]},
        {"intent": "merchandise", "query_type": "poem"},
    ],
)
def test_malformed_answers_are_one_line_errors(bad):
    with pytest.raises(ThoughtError, match="malformed answer") as caught:
        check(bad)
    assert "\n" not in str(caught.value)


def test_answers_off_the_catalogue_are_errors():
    with pytest.raises(ThoughtError, match=r"off the catalogue: 'unicorn' \(off the catalogue\)"):
        check({"intent": "merchandise", "keywords": ["unicorn"]})
    with pytest.raises(ThoughtError, match="off the catalogue"):
        check({"intent": "merchandise", "topics": ["unicorn"]})
    assert check({"intent": "merchandise"})[0].keywords == ()


def test_no_merchandise_stops_at_step_one():
    thought, dropped = check({"intent": "live", "keywords": ["hat"], "category": ["Boots"]})
    assert thought.keywords == () and thought.analysis.category == ()
    assert dropped == (("Boots", "intent is live"), ("hat", "intent is live"))


ANY_TEXT = st.one_of(st.sampled_from([*POOL, "unicorn", "sale", "", "Boots!", "SC-141"]), st.text(max_size=90))


@given(st.lists(ANY_TEXT, max_size=30), st.lists(st.sampled_from(sorted(POOL)), max_size=4))
def test_keywords_are_few_known_and_not_ruled_out(candidates, ruled_out):
    keywords, dropped = extract(candidates, analysis(*map(negated, ruled_out)), WORDS)
    assert len(keywords) <= 8 and set(keywords) <= set(POOL) and len(set(keywords)) == len(keywords)
    assert not any(holds_phrase(keyword, value) for keyword in keywords for value in ruled_out)
    assert list(keywords) == sorted(keywords, key=lambda k: (-POOL[k], k))
    assert all(reason for _, reason in dropped)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), ANY_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
ANSWERS = st.fixed_dictionaries(
    {"intent": st.sampled_from(["merchandise", "shop", "x"])},
    optional={
        "category": st.one_of(JSON, st.lists(ANY_TEXT, max_size=3)),
        "attributes": st.one_of(
            JSON, st.lists(st.fixed_dictionaries({"type": st.just("Color"), "value": ANY_TEXT}), max_size=20)
        ),
        "topics": st.one_of(JSON, st.lists(ANY_TEXT, max_size=20)),
        "keywords": st.one_of(JSON, st.lists(ANY_TEXT, max_size=20)),
    },
)


@given(ANSWERS)
def test_any_answer_is_a_sound_thought_or_an_error(untrusted):
    try:
        thought, _ = check(untrusted)
    except ThoughtError:
        return
    assert len(thought.keywords) <= 8 and set(thought.keywords) <= set(POOL)
    assert all(stated_in(a.value, "red leather hat") for a in thought.analysis.attributes)
    assert thought.analysis.intent == "merchandise" or not thought.analysis.attributes
