"""Rules: what they say, when they hold, and what they do to searches of a small engine."""

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from onesearch.data.records import Item
from onesearch.search.confidence import Confidence
from onesearch.search.engine import SearchEngine
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.results import SearchRequest
from onesearch.search.rule_effects import RuleBoost
from onesearch.search.rule_names import additions, unknown_names
from onesearch.search.rules import Asked, BoostRule, Rules, When, read_rules, write_rules
from onesearch.search.shopper_history import ShopperHistory
from onesearch.search.spelling import Spelling
from small_engine import ITEMS, WEIGHTS, small_engine

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EXAMPLE = """\
boosts:
- name: festival
  column: brand
  values: [b0]
  times: 4.0
  when: {start: '2026-11-27T00:00:00Z', end: '2026-11-28T00:00:00+02:00'}
- {name: last, column: category, values: [lamp], times: 0.25, when: {query: red, match: contains}}
pins:
- {name: best tents, items: [blue-tent-1, red-lamp-0], when: {query: [tent, tents]}}
hides:
- {name: recalled, column: item_id, values: red-tent-0}
replacements:
- {name: spelling, by: lamp, when: {query: lmap}}
synonyms:
- {name: boots, words: [boots, wellies]}
- {name: seats, words: [seat], also: [chair]}
"""


@pytest.fixture(scope="module")
def made() -> SearchEngine:
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    return engine


@pytest.fixture
def engine(made: SearchEngine) -> SearchEngine:
    """One whose catalogue and rules may be changed: a change makes a new snapshot."""
    return made.with_settings(made.config, RankingWeights({**WEIGHTS.values, "boost": 1.0}))


def rules(text: str) -> Rules:
    return read_rules(text)


def ids(hits) -> list[str]:
    return [hit.item_id for hit in hits]


def ask(engine: SearchEngine, query: str, k: int = 10, **asked):
    return engine.search_batch([SearchRequest(query, k=k, **asked)])[0]


def asked(query: str = "", filters=None, groups=(), time=NOW) -> Asked:
    return Asked.from_search(query, filters, groups, time)


# -- what a rule is ----------------------------------------------------------------------------------------------------


def test_rules_survive_their_text():
    found = rules(EXAMPLE)
    assert read_rules(write_rules(found)) == found and len(list(found.each())) == 7
    assert Rules.model_validate_json(found.model_dump_json(exclude_defaults=True)) == found
    assert found.boosts[0].when.end == datetime(2026, 11, 27, 22, tzinfo=UTC) and found.hides[0].values == (
        "red-tent-0",
    )
    assert rules("") == Rules() and rules('{"pins": [{"name": "a", "items": ["b"]}]}').pins[0].items == ("b",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pin: []", "unknown key 'pin' in Rules; the nearest valid key is 'pins'"),
        ("pins: [{name: a, items: []}]", "pins.0.items"),
        ("pins: [{name: '', items: [b]}]", "pins.0.name"),
        ("pins: [{name: a, items: [b]}, {name: a, items: [c]}]", "two rules are called 'a'"),
        ("pins: [{name: a, items: [b], when: {start: 2026-11-27T00:00:00}}]", "timezone"),
        ("pins: [{name: a, items: [b], when: {start: 1795737600}}]", "must be a time with its zone"),
        (
            "pins: [{name: a, items: [b], when: {start: '2026-11-27T00:00:00Z', end: '2026-11-27T00:00:00Z'}}]",
            "is not before end",
        ),
        ("pins: [{name: a, items: [b], when: {query: '-', match: contains}}]", "holds no word"),
        ("pins: [{name: a, items: [b], when: {query: [tent, ''], match: contains}}]", "holds no word"),
        ("boosts: [{name: a, column: brand, values: [b], times: 0}]", "boosts.0.times"),
        ("boosts: [{name: a, column: colour, values: [b], times: 2}]", "boosts.0.column"),
        ("replacements: [{name: a, by: b, when: {group: vip}}]", "give the query that is replaced"),
        ("synonyms: [{name: a, words: [b]}]", "one word has no synonym"),
        ("synonyms: [{name: a, words: [b, '!']}]", "holds no word"),
        ("pins: &a []\nhides: *a", "aliases"),
        ("pins: []\npins: []", "given twice"),
        ("pins: [" * 3000, "not valid YAML"),
        ("? " * 50_000, "nested deeper than 20"),
        ("pins: [" + "1, " * 50_001 + "]", "more than 50000 keys"),
        ("pins: [" + "1, " * 1001 + "]", "1001 entries; at most 1000"),
        ("pins: [{name: a, items: [" + "1, " * 1001 + "]}]", "1001 entries; at most 1000"),
        ("pins: 0x" + "f" * 5000, "at most 1000 are allowed"),
        ("pins: " + "1:" * 300 + "1.5", "not valid YAML"),
        ('"\\ud800": 1', "not valid YAML"),
        ("? [a]\n: b", "not valid YAML"),
        ("- a", "rules: (top level)"),
        ("pins: [{name: a, items: ['" + "x" * 201 + "']}]", "at most 200 characters"),
        ("#" * 500_001, "at most 500000"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(ValueError) as error:
        read_rules(text)
    assert words in str(error.value) and len(str(error.value)) < 3000


@pytest.mark.parametrize(
    ("when", "yes", "no"),
    [
        ({}, [asked("tent"), asked()], []),
        ({"query": "Réd  Tent"}, [asked("red tent!"), asked("RED-tent")], [asked("red tents"), asked("a red tent")]),
        ({"query": ""}, [asked(""), asked(" ")], [asked("tent"), asked("%"), asked("👟"), asked("'")]),
        ({"query": ["👟", "%"]}, [asked("👟"), asked(" % ")], [asked(""), asked(" "), asked("👞"), asked("👟 tent")]),
        (
            {"query": "red tent", "match": "contains"},
            [asked("a red tent")],
            [asked("red big tent"), asked("red tents")],
        ),
        ({"query": ["帐篷"], "match": "contains"}, [asked("红帐篷")], [asked("篷帐")]),
        (
            {"category": ["shop > Tent", "toys"]},
            [
                asked(filters={"category": one})
                for one in ("Shop > tent", ("Shop", "tent", "low"), ["a", "Hall > Toys"], ["a", ("toys",)])
            ]
            + [asked(filters={"brand": "b", "all": [{"brand": "c"}, {"category": "Hall > Toys"}]})],
            [asked(), asked(filters={"category": "tent"}), asked(filters={"not": {"category": "toys"}})],
        ),
        (
            {"category": "tent"},
            [asked(filters={"category": "Shop > tent > low"})],
            [asked(filters={"category": "Shop"})],
        ),
        (
            {"group": ["VIP", "F"]},
            [asked(groups=["vip"]), asked(groups=["F", "24-30"])],
            [asked(), asked(groups=["x"])],
        ),
        ({"start": NOW}, [asked(), asked(time=NOW + HOUR)], [asked(time=NOW - HOUR)]),
        ({"end": NOW}, [asked(time=NOW - HOUR)], [asked(), asked(time=NOW + HOUR)]),
        (
            {"query": "tent", "group": "vip"},
            [asked("tent", groups=["vip"])],
            [asked("tent"), asked("x", groups=["vip"])],
        ),
    ],
)
def test_when_a_rule_holds(when, yes, no):
    found = When.model_validate(when)
    assert all(found.holds(one) for one in yes) and not any(found.holds(one) for one in no)


def test_first_the_query_is_replaced_then_all_others_see_the_new_one():
    found = rules(
        "replacements: [{name: a, by: red boots, when: {query: wellis}}, {name: b, by: x, when: {query: red boots}}]\n"
        "synonyms: [{name: s, words: [boots, wellies, rain boots]}, {name: c, words: [wellies, gumboots]}]\n"
        "pins: [{name: p, items: [i], when: {query: red boots}}, {name: q, items: [i], when: {query: wellis}}]"
    ).touching("wellis", asked("wellis"))
    assert found.query == "red boots wellies rain boots" and found.in_log == "red boots", "no chain of either"
    assert found.rewriting == ("a", "s") and [pin.name for pin in found.pins] == ["p"]


def test_synonyms_go_one_way_or_both_and_are_bounded():
    found = rules("synonyms: [{name: s, words: [sofa, couch], also: [settee]}]")
    touched = {query: found.touching(query, asked(query)).query for query in ("red Couch", "sofa", "settee", "couches")}
    assert touched == {
        "red Couch": "red Couch sofa settee",
        "sofa": "sofa couch settee",
        "settee": "settee",
        "couches": "couches",
    }
    long = Rules.model_validate(
        {"synonyms": [{"name": str(n), "words": ["tent", f"{n}" + "x" * 150]} for n in range(9)]}
    ).touching("tent", asked("tent"))
    assert len(long.query) <= 400 and long.rewriting == ("0", "1")


def test_the_rewards_take_boosts_of_all_searches_that_are_in_time():
    found = rules(EXAMPLE)
    (boost,) = found.of_rewards(NOW)
    assert (boost.name, boost.values, boost.times, boost.term) == ("festival", ("b0",), 4.0, "relevance")
    assert type(boost).__name__ == "Boost" and found.of_rewards(NOW + 12 * HOUR) == ()


def test_what_the_catalogue_has_not_is_named():
    assert unknown_names(rules(EXAMPLE), ITEMS) == {}
    wrong = rules(
        "pins: [{name: p, items: [red-tent-0, nobody], when: {category: [Shop > tent, Shop > sofa]}}]\n"
        "hides: [{name: h, column: seller, values: [x]}, {name: i, column: category, values: [Shop > tent]}]\n"
        "boosts: [{name: b, column: brand, values: [B0, b1], times: 2}]\n"
        "synonyms: [{name: s, words: [a, b], when: {category: lamp}}]"
    )
    assert unknown_names(wrong, ITEMS) == {
        "p": "pins, p: no category 'sofa' in the catalogue; no item 'nobody' in the catalogue",
        "h": "hides, h: no seller 'x' in the catalogue",
        "i": "hides, i: no category 'Shop > tent' in the catalogue",
        "b": "boosts, b: no brand 'B0' in the catalogue",
    }


def test_what_rules_say_anew_leaves_out_what_was_said():
    before = rules(
        "pins: [{name: p, items: [gone, i], when: {category: Old > sofa}}]\n"
        "boosts: [{name: b, column: brand, values: [b1], times: 2}]"
    )
    now = rules(
        "pins: [{name: q, items: [gone, typo], when: {category: [Old > sofa, Odl]}}]\n"
        "hides: [{name: h, column: item_id, values: [i, j]}, {name: brand, column: brand, values: [gone]}]\n"
        "boosts: [{name: b, column: brand, values: [b1], times: 2}, {name: c, column: brand, values: [b1], times: 3}]"
    )
    found = additions(now, before)
    assert [(pin.items, pin.when.category) for pin in found.pins] == [(("typo",), ("Odl",))]
    assert [hide.values for hide in found.hides] == [("j",), ("gone",)], "an item's name is no brand's"
    assert [(boost.name, boost.values) for boost in found.boosts] == [("c", ())]
    assert not list(additions(now, now).each())
    changed = additions(rules("pins: [{name: p, items: [gone, typo]}]"), before)
    assert [pin.items for pin in changed.pins] == [("typo",)], "a rule of the same name that says something else"


# -- what it does ------------------------------------------------------------------------------------------------------


def test_rules_of_an_emoji_touch_that_query_and_not_the_front_page(engine: SearchEngine):
    front = ids(ask(engine, ""))
    engine.follow_rules(
        rules(
            "replacements: [{name: x, by: tent, when: {query: '👟'}}]\n"
            "pins: [{name: p, items: [blue-lamp-0], when: {query: '%'}}]"
        )
    )
    assert ids(ask(engine, "")) == front
    assert ids(ask(engine, "👟")) == ids(ask(engine, "tent")) and ids(ask(engine, "%"))[0] == "blue-lamp-0"


def test_without_a_rule_that_holds_a_search_is_what_it_was(engine: SearchEngine):
    before = ask(engine, "red tent", facets=("brand",))
    engine.follow_rules(rules("pins: [{name: p, items: [blue-lamp-0], when: {query: other}}]"))
    after = ask(engine, "red tent", facets=("brand",))
    assert after == before and (after.total, after.facets) == (before.total, before.facets)


@pytest.mark.parametrize("filters", [None, {"category": "tent"}, {"brand": "b1"}])
def test_pages_with_pins_repeat_and_miss_nothing(engine: SearchEngine, filters):
    engine.follow_rules(rules(EXAMPLE))
    whole = ask(engine, "tents", k=60, filters=filters)
    allowed = 39 if filters is None else {"category": 7, "brand": 20}[next(iter(filters))]
    assert len(set(ids(whole))) == len(whole) == allowed and "red-tent-0" not in ids(whole)
    pins = ["blue-tent-1", "red-lamp-0"]
    assert ids(whole)[: 2 if filters is None else 1] == (pins if filters is None else pins[:1])
    assert "red-lamp-0" in ids(whole) or filters is not None
    scores = [hit.score for hit in whole]
    assert scores == sorted(scores, reverse=True)
    pages = [ask(engine, "tents", k=13, offset=offset, filters=filters) for offset in range(0, 53, 13)]
    assert [one for page in pages for one in ids(page)] == ids(whole)


def test_who_types_an_id_finds_that_item_before_what_is_pinned(engine: SearchEngine):
    engine.follow_rules(rules("pins: [{name: p, items: [blue-tent-1]}]"))
    assert ids(ask(engine, "black-stove-1", k=2)) == ["black-stove-1", "blue-tent-1"]


def test_what_is_hidden_is_in_no_page_facet_total_or_list(engine: SearchEngine):
    text = (
        "hides: [{name: a, column: brand, values: [b0]}, {name: b, column: item_id, values: [red-tent-1, new]},"
        " {name: c, column: category, values: [stove], when: {query: red tent}}]\n"
        "pins: [{name: p, items: [red-tent-0, blue-lamp-0, red-chair-1]}]"
    )
    engine.upsert([Item("new", "red tent", ("Shop", "tent")), Item("more", "red tent", ("Shop", "stove"))])
    engine.follow_rules(rules(text))

    def gone(item: Item, query: str) -> bool:
        hidden = item.brand == "b0" or item.item_id in ("red-tent-1", "new")
        return hidden or (query == "red tent" and "stove" in item.category)

    everything = [engine.snapshot.item(row) for row in engine.snapshot.number.values()]
    for query in ("red tent", "", "red-tent-1"):
        left = {item.item_id for item in everything if not gone(item, query)}
        assert set(ids(ask(engine, query, k=60))) == left
        assert ids(ask(engine, query, k=1))[0] == "red-chair-1"
        counted = ask(engine, query, k=60, facets=("category", "brand"), sort="price")
        assert set(ids(counted)) <= left and counted.total == len(counted)
        assert sum(n for name, n in counted.facets["category"] if name == "Shop") == counted.total
        assert "b0" not in dict(counted.facets["brand"])
    assert ask(engine, "", count=True).total == len([one for one in everything if not gone(one, "")])
    titles = {one.item_id for one in engine.suggest("red", 20)} - {None}
    assert titles and not titles & {"red-tent-1", "red-tent-0", "new"}
    for hits in (engine.similar("blue-tent-1", 60), engine.search_lexical("red tent no 0", 60)):
        assert hits and not any(gone(hit.item, "") for hit in hits)


def test_places_of_suggestions_that_rules_hide_go_to_others(engine: SearchEngine):
    before = engine.suggest("red", 8)
    assert len(before) == 8
    hidden = [one.item_id for one in before if one.item_id is not None and "tent" not in one.item_id][:3]
    engine.follow_rules(Rules.model_validate({"hides": [{"name": "h", "column": "item_id", "values": hidden}]}))
    after = engine.suggest("red", 8)
    assert len(after) == 8 and {one.item_id for one in after}.isdisjoint(hidden)
    # A brand and a category of which all is hidden are not offered, nor is a query that led there alone.
    engine.follow_rules(
        rules("hides: [{name: a, column: brand, values: [b0]}, {name: b, column: category, values: [boots]}]")
    )
    choices = engine.filters_available()
    assert dict(choices.brands) == {"b1": 16} and "Shop > boots" not in dict(choices.categories)
    assert "boots" not in {one.text for one in engine.suggest("bo")}
    # What is hidden at times is offered at others.
    engine.follow_rules(rules("hides: [{name: a, column: brand, values: [b0], when: {end: 2000-01-01T00:00:00Z}}]"))
    assert dict(engine.filters_available().brands) == {"b0": 20, "b1": 20}


def test_choices_follow_rules_that_begin_meanwhile(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch):
    engine.follow_rules(rules("hides: [{name: a, column: brand, values: [b0], when: {start: '2030-01-01T00:00:00Z'}}]"))
    assert dict(engine.filters_available().brands) == {"b0": 20, "b1": 20}
    monkeypatch.setattr(
        "onesearch.search.batch_search.datetime", SimpleNamespace(now=lambda zone: datetime(2031, 1, 1, tzinfo=zone))
    )
    assert dict(engine.filters_available().brands) == {"b1": 20}


def test_the_plain_ranking_knows_groups_and_drafts(engine: SearchEngine):
    draft = rules("hides: [{name: h, column: brand, values: [b0], when: {group: new}}]")
    everybody = engine.search_lexical("red tent", 40)
    assert {hit.item.brand for hit in everybody} == {"b0", "b1"}
    assert {hit.item.brand for hit in engine.search_lexical("red tent", 40, groups=("new",), rules=draft)} == {"b1"}
    engine.follow_rules(draft)
    assert {hit.item.brand for hit in engine.search_lexical("red tent", 40, groups=("new",))} == {"b1"}
    assert engine.search_lexical("red tent", 40) == everybody


def test_a_pinned_item_is_counted_where_it_is_shown(engine: SearchEngine):
    plain = ask(engine, "red tent", count=True)
    far = next(i for i in ITEMS["item_id"] if i not in ids(ask(engine, "red tent", k=60, sort="price")))
    engine.follow_rules(Rules.model_validate({"pins": [{"name": "p", "items": [far, "nobody"]}]}))
    assert ask(engine, "red tent", count=True).relevant == plain.relevant + 1
    assert ask(engine, "red tent", count=True, filters={"price": [9999, None]}).total == 0


def test_boosts_of_rules_stand_in_the_place_of_the_engines_own(engine: SearchEngine):
    engine.adopt(engine.generator, "own", rules("boosts: [{name: o, column: brand, values: [b1], times: 9}]").boosts)
    assert [boost.name for boost in engine.rules.boosts] == ["o"] and engine.rules.boosts[0].times == 9
    engine.upsert([Item("new", "red tent no 1", ("Hall", "tent"), brand="b0", seller="x")])
    engine.follow_rules(Rules())
    plain = {hit.item_id: hit.score for hit in ask(engine, "red tent", k=60)}
    engine.follow_rules(
        rules(
            "boosts: [{name: a, column: brand, values: [b0, b0], times: 2}, {name: b, column: category, values: [tent,"
            " Shop], times: 3}, {name: c, column: item_id, values: [red-tent-1, new], times: 0.1}, {name: d, column:"
            " brand, values: [b1], times: 99, when: {query: lamp}}, {name: e, column: seller, values: [x], times: 5}]"
        )
    )
    hits = ask(engine, "red tent", k=15, explain=True)
    parts = {hit.item_id: {part.feature: part for part in hit.why.parts} for hit in hits if hit.why.parts}
    assert len(parts) > 5 and "new" in parts
    for hit in (hit for hit in hits if hit.item_id in parts):
        factor = (2 if hit.item.brand == "b0" else 1) * 3 * (0.1 if hit.item_id in ("red-tent-1", "new") else 1)
        factor *= 5 if hit.item_id == "new" else 1
        assert parts[hit.item_id]["boost"].value == pytest.approx(math.log(factor), abs=1e-5)
        assert hit.why.score == pytest.approx(hit.score, abs=1e-4)
        assert hit.score == pytest.approx(plain[hit.item_id] + math.log(factor), abs=1e-4)
    held = {hit.item_id: hit.why.rules for hit in hits}
    assert held["new"] == ("a", "b", "c", "e") and held["red-tent-0"] == ("a", "b")


def test_boosts_of_one_brand_and_of_one_item_multiply(engine: SearchEngine):
    each = [("brand", "b0", 2), ("brand", "b0", 3), ("item_id", "red-tent-0", 5), ("item_id", "red-tent-0", 7)]
    engine.follow_rules(
        Rules.model_validate(
            {"boosts": [{"name": str(n), "column": c, "values": [v], "times": t} for n, (c, v, t) in enumerate(each)]}
        )
    )
    (part,) = [p for p in ask(engine, "red tent", k=1, explain=True)[0].why.parts if p.feature == "boost"]
    assert part.value == pytest.approx(math.log(2 * 3 * 5 * 7), abs=1e-5)


def test_boosted_items_get_theirs_wherever_they_stand(engine: SearchEngine):
    number = engine.snapshot.number
    boosts = [
        BoostRule(name=i, column="item_id", values=(i,), times=t) for i, t in (("red-tent-1", 2), ("blue-lamp-0", 3))
    ]
    rows = np.arange(len(engine.snapshot.records)).reshape(2, -1)
    expected = np.zeros(rows.shape, np.float32)
    for boost in boosts:
        expected[rows == number.get(boost.name, -1)] = math.log(boost.times)
    np.testing.assert_allclose(RuleBoost(boosts, engine.snapshot).take(rows), expected)


def test_a_query_that_a_rule_knows_is_not_corrected(engine: SearchEngine):
    assert ask(engine, "lmap").corrected_query == "lamp"
    for text in (
        "replacements: [{name: r, by: tent, when: {query: lmap}}]",
        "synonyms: [{name: s, words: [lmap, tent]}]",
        "pins: [{name: p, items: [red-tent-0], when: {query: lmap}}]",
    ):
        engine.follow_rules(rules(text))
        found = ask(engine, "lmap")
        assert found.corrected_query is None and found.did_you_mean is None and "tent" in found[0].item.category
    engine.follow_rules(rules("pins: [{name: p, items: [red-tent-0], when: {query: lamp}}]"))
    found = ask(engine, "lmap")
    assert found.corrected_query == "lamp" and found[0].item_id == "red-tent-0", "else rules see what was meant"
    assert found.searched == "lamp"


def test_an_answer_tells_the_query_that_the_log_was_asked_for(engine: SearchEngine):
    assert ask(engine, "red tent").searched == "red tent" and ask(engine, "").searched == ""
    engine.follow_rules(rules("replacements: [{name: r, by: lamp, when: {query: shiny}}]"))
    assert ask(engine, "shiny").searched == "lamp"
    engine.follow_rules(rules("synonyms: [{name: s, words: [shiny, lamp]}]"))
    assert ask(engine, "shiny").searched == "shiny", "synonyms are words for the search alone"


@pytest.mark.parametrize(
    "text",
    [
        "boosts: [{name: b, column: brand, values: [b0], times: 2, when: {query: red, match: contains}}]",
        "hides: [{name: h, column: brand, values: [b9], when: {query: [red, xyz], match: contains}}]",
        "synonyms: [{name: s, words: [red, crimson]}]",
        "pins: [{name: p, items: [red-tent-0], when: {query: lmap red, match: contains}}]",
    ],
)
def test_words_beside_those_of_a_rule_are_corrected(engine: SearchEngine, text):
    assert ask(engine, "red lmap").corrected_query == "red lamp"
    engine.follow_rules(rules(text))
    assert ask(engine, "red lmap").corrected_query == "red lamp"
    assert ask(engine, "red lmap", correct=False).did_you_mean == "red lamp"


@pytest.mark.parametrize(
    "text",
    [
        "boosts: [{name: b, column: brand, values: [b0], times: 2, when: {query: lmap, match: contains}}]",
        "synonyms: [{name: s, words: [lmap red, crimson]}]",
    ],
)
def test_words_of_a_rule_stay_where_others_are_corrected(engine: SearchEngine, text):
    engine.follow_rules(rules(text))
    found = ask(engine, "tnet lmap red", explain=True)
    assert found.corrected_query == "tent lmap red"
    assert engine.rules.boosts or found[0].why.rules == ("s",), "and the rule holds for what is searched for"
    assert ask(engine, "lmap").corrected_query == (None if engine.rules.boosts else "lamp")


def test_unspaced_words_of_a_rule_stay():
    spelling = Spelling({}, {"登山帐篷": 9.0})
    known = FakeWords()
    assert spelling.corrected("登山帐蓬", known) == ("登山帐篷", False)
    assert spelling.corrected("登山帐蓬", known, frozenset(["蓬"])) is None


class FakeWords:
    """No item says anything."""

    def status(self, words: list[str]) -> list[str]:
        return ["unknown"] * len(words)

    def together(self, one: str, other: str) -> int:
        return 0


def test_explanations_name_what_touched_the_query_and_the_item(engine: SearchEngine):
    engine.follow_rules(rules(EXAMPLE + "- {name: again, words: [lamp, light]}\n"))
    hits = ask(engine, "lmap", k=3, explain=True)
    assert all(hit.why.rules[:2] == ("spelling", "again") and "lamp" in hit.item_id for hit in hits)
    assert "  rule: spelling" in str(hits[0].why).splitlines()
    first, second = ask(engine, "tent", k=2, explain=True)
    assert first.why.rules[0] == second.why.rules[0] == "best tents" and first.why.parts == ()
    assert ask(engine, "seat", k=1, explain=True)[0].item_id.split("-")[1] == "chair"


def test_a_query_with_synonyms_keeps_its_own_clicks(engine: SearchEngine):
    engine.follow_rules(rules("synonyms: [{name: s, words: [red tent, marquee]}]"))
    for query, known in (("red tent", True), ("marquee", False)):
        why = ask(engine, query, k=1, explain=True)[0].why
        assert why.rules == ("s",) and ("clicks" in {part.feature for part in why.parts}) == known


def test_searches_of_a_batch_have_their_own_rules(engine: SearchEngine):
    draft = rules("hides: [{name: h, column: category, values: [tent]}]")
    engine.follow_rules(rules(EXAMPLE))
    past = ShopperHistory(profile="F 24-30")
    batch = [
        SearchRequest("tent", k=5),
        SearchRequest("red tent", k=5),
        SearchRequest("lmap", k=5),
        SearchRequest("tent", k=5, rules=draft),
        SearchRequest("tent", k=5, groups=("vip",), history=past, offset=2),
    ]
    together, alone = engine.search_batch(batch), [engine.search_batch([one])[0] for one in batch]
    assert [ids(one) for one in together] == [ids(one) for one in alone]
    assert not any("tent" in hit.item.category for hit in together[3]) and len(together[3]) == 5


def test_rules_follow_the_catalogue(engine: SearchEngine):
    engine.follow_rules(rules("pins: [{name: p, items: [late]}]\nhides: [{name: h, column: brand, values: [bad]}]"))
    assert "late" not in ids(ask(engine, "tent", k=60))
    engine.upsert([Item("late", "late lamp", ("Shop",)), Item("x", "tent", ("Shop",), brand="bad")])
    found = ids(ask(engine, "tent", k=60))
    assert found[0] == "late" and "x" not in found and len(found) == 41
    engine.delete(["late"])
    assert len(ask(engine, "tent", k=60)) == 40


def test_an_engine_says_which_rules_cannot_work(engine: SearchEngine):
    assert engine.rule_problems(rules(EXAMPLE)) == {}
    engine.delete(["blue-tent-1"])
    assert engine.rule_problems(rules(EXAMPLE)) == {
        "best tents": "pins, best tents: no item 'blue-tent-1' in the catalogue"
    }
    engine.weights = WEIGHTS
    assert engine.rule_problems(rules(EXAMPLE))["festival"] == "boosts, festival: search.boost of this engine is 0"
