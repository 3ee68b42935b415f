import asyncio
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.records import Item, PageView, items_frame, page_views_frame
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.keyword_extraction import holds_phrase
from onesearch.understanding.keyword_lexicon import Keyword, Lexicon
from onesearch.understanding.log_expert import LogExpert, _informative_words, _whole
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


# "camping" is said so often that its clicks are cut to twenty, and "dress" has clicks of its own and of others.
FREQUENT = page_views_frame(
    PageView(str(i), query, "u", "s", datetime(2024, 1, 1, tzinfo=UTC), tuple(clicked), tuple(clicked))
    for i, (query, clicked) in enumerate(
        [
            *LOG,
            *[("camping tent", ["tentred"])] * 25,
            ("camping stove", ["stovered"]),
            ("red dress", ["dressred"]),
            # Three clicks on phones, which are rare, five on tents: the lift is for phones, the score for tents.
            ("mixed", ["phone1", "phone2", "tentred", "tentblue", "tentgreen"]),
            ("mixed", ["phone1", "tentblack", "tentred"]),
        ]
    )
)
QUERIES = [
    "mixed",
    "camping",
    "camping dress",
    "dress",
    "tent",
    "red dress",
    "what to bring to woodstock",
    "保护手机",
    "zzz",
]


def plain_mass(expert, query, leave_out_own):
    """Equation 4.3 by loops: clicks of a query by phrase, category node, and in total."""
    queries, clicks = expert._statistics.queries, expert._clicks.toarray()
    own = clicks[queries.index(query)] if query in queries else 0 * clicks[0]
    words = []
    for word in _informative_words(query):
        says = [q for q in queries if word in _informative_words(q) and not (leave_out_own and q == query)]
        total = sum((clicks[queries.index(q)] for q in says), 0 * clicks[0])
        if total[-1] > 0:
            words.append((math.log(1 + len(queries) / len(says)), total))
    mass = 0 * own if leave_out_own else own.copy()
    for rarity, total in words:
        weight = rarity / sum(one for one, _ in words) * min(total[-1], 20) / total[-1]
        mass += weight * total * (1 if leave_out_own else 5 / (5 + own[-1]))
    return mass


@pytest.mark.parametrize("leave_out_own", [False, True])
def test_click_mass_topics_and_category_are_those_of_a_plain_twin(leave_out_own):
    expert = LogExpert.from_log(
        ITEMS, ClickStatistics.from_page_views(FREQUENT, ITEMS), WORDS, None, leave_out_own=leave_out_own
    )
    mass = expert._click_mass(QUERIES)
    topics, categories = expert._topics(mass), expert._categories(mass)
    for row, query in enumerate(QUERIES):
        plain = plain_mass(expert, query, leave_out_own)
        assert np.allclose([*mass.parts[row].toarray().ravel(), mass.total[row]], plain, atol=1e-9), query
        scores = []
        for phrase, share in enumerate(expert._share):
            lift = math.log((plain[phrase] + 2 * share) / (plain[-1] + 2) / share)
            if plain[phrase] > 1e-9 and lift > 0.2 and plain[phrase] >= 0.1 * plain[-1]:
                scores.append((-round(lift * math.sqrt(plain[phrase]), 9), phrase))
        best = [phrase for _, phrase in sorted(scores)][:24]
        assert topics[row] == _whole([expert._phrases[p] for p in best], [plain[p] for p in best])[:12], query
        nodes = [
            n for n in range(len(WORDS.paths)) if plain[-1] > 0 and plain[len(expert._share) + n] >= 0.6 * plain[-1]
        ]
        assert categories[row] == max((WORDS.paths[n] for n in nodes), key=len, default=()), query
