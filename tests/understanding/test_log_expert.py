import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.records import Item, PageView, items_frame, page_views_frame
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.keyword_extraction import holds_phrase
from onesearch.understanding.keyword_lexicon import Keyword, Lexicon
from onesearch.understanding.log_expert import LogExpert
from onesearch.understanding.thought import ThoughtError

COLORS = ("red", "blue", "green", "black")
ITEMS = items_frame(
    [
        *(Item(f"tent{c}", f"{c} Family Tent", ("Sports", "Tents"), attributes={"Color": (c,)}) for c in COLORS),
        *(Item(f"stove{c}", f"{c} Camping Stove", ("Sports", "Stoves"), attributes={"Color": (c,)}) for c in COLORS),
        *(Item(f"dress{c}", f"{c} Summer Dress", ("Clothing", "Dresses"), attributes={"Color": (c,)}) for c in COLORS),
        Item("phone1", "手机壳 红色", ("数码",)),
        Item("phone2", "手机壳 蓝色", ("数码",)),
    ]
)
LOG = [
    ("what to bring to woodstock", ["tentred", "tentblue", "stovered"]),
    ("what to bring to woodstock", ["tentgreen"]),
    ("woodstock dress", ["dressred", "dressblue"]),
    ("tent", ["tentred", "tentblack"]),
    ("dress", ["dressblack"]),
    ("保护手机", ["phone1", "phone2"]),
    ("lonely", ["stoveblue"]),
]
VIEWS = page_views_frame(
    PageView(str(i), query, "u", "s", datetime(2024, 1, 1, tzinfo=UTC), tuple(clicked), tuple(clicked))
    for i, (query, clicked) in enumerate(LOG)
)
LEXICON = Lexicon([Keyword(text, "Entity", 1.0) for text in ("tent", "dress", "camping stove", "手机壳", "unicorn")])
STATISTICS = ClickStatistics.from_page_views(VIEWS, ITEMS)
WORDS = CatalogueVocabulary.from_items(ITEMS, STATISTICS.clicked)


def expert(statistics=STATISTICS, lexicon=LEXICON, **switches):
    return LogExpert.from_log(ITEMS, statistics, WORDS, lexicon, **switches)


EXPERT = expert()


def think(query, of=EXPERT):
    return of.think_all([query])[0]


def test_own_clicks_give_category_and_keywords():
    thought = think("What to bring to  Woodstock")
    assert thought.query == "what to bring to woodstock" and thought.analysis.query_type == "question"
    assert thought.analysis.category == ("Sports", "Tents")  # 3 of 4 clicks, and those of the other woodstock query
    assert "tent" in thought.keywords or "tents" in thought.keywords
    assert (thought.producer, thought.version) == ("log-expert", "1")


def test_unseen_queries_learn_from_their_rare_words():
    thought = think("dresses for summertime")
    assert thought.analysis.category == ("Clothing", "Dresses")
    assert any("dress" in keyword for keyword in thought.keywords)
    assert "手机壳" in think("送人的手机").keywords


def test_stated_attributes_and_what_is_ruled_out():
    thought = think("tent not red")
    assert [(a.type, a.value, a.negated) for a in thought.analysis.attributes] == [
        ("Color", "red", True),
        ("Entity", "tent", False),
    ]
    assert not any(holds_phrase(keyword, "red") for keyword in thought.keywords)
    other = think("instead of tent for woodstock")
    assert other.keywords and not any(holds_phrase(keyword, "tent") for keyword in other.keywords)


def test_without_evidence_the_querys_own_lexicon_words_are_left():
    assert think("blue camping stove 9000").keywords == ("blue", "camping stove")
    assert think("zzz").keywords == ()
    with pytest.raises(ThoughtError, match="'zzz'"):
        asyncio.run(EXPERT.think("zzz"))
    assert asyncio.run(EXPERT.think("Tent")) == think("tent")


def test_other_intents_stop_at_step_one():
    thought = asyncio.run(EXPERT.think("campo store"))
    assert thought.analysis.intent == "shop" and thought.keywords == () and thought.analysis.category == ()


def test_without_a_lexicon_title_phrases_are_candidates():
    assert "family tent" in think("tent", expert(lexicon=None)).analysis.topics


def test_left_out_clicks_do_not_count():
    left_out = expert(leave_out_own=True)
    assert think("lonely").keywords and think("lonely", left_out).keywords == ()
    without = ClickStatistics.from_page_views(VIEWS.filter(VIEWS["query"] != "woodstock dress"), ITEMS)
    seen, unseen = think("woodstock dress", left_out), think("woodstock dress", expert(without, leave_out_own=True))
    assert seen.analysis.category == unseen.analysis.category
    assert set(seen.analysis.topics) == set(unseen.analysis.topics)


def test_an_empty_log_is_no_error():
    nothing = ClickStatistics.from_page_views(VIEWS.head(0), ITEMS)
    assert think("red tent", expert(nothing)).keywords == ("tent", "red")
    assert think("red tent", expert(nothing, leave_out_own=True)).keywords == ("tent", "red")


SAID = st.sampled_from(
    [*COLORS, "tent", "dress", "stove", "not", "without", "woodstock", "instead of", "for", "手机", "红色", "zzz"]
)


@settings(deadline=None)
@given(st.lists(st.lists(SAID, max_size=6).map(" ".join), min_size=1, max_size=4))
def test_thoughts_are_sound_and_do_not_depend_on_their_neighbours(queries):
    thoughts = EXPERT.think_all(queries)
    assert thoughts == [think(query) for query in queries]
    for thought in thoughts:
        assert len(thought.keywords) <= 8 and set(thought.keywords) <= set(WORDS.phrases)
        for attribute in thought.analysis.attributes:
            assert not (attribute.negated and any(holds_phrase(k, attribute.value) for k in thought.keywords))
