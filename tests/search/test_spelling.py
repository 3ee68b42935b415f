"""Mistyped words, by hand and against a plain comparison with every known word."""

import itertools
import random

import numpy as np
import pytest
from rapidfuzz.distance import OSA

from onesearch.data.records import Item, items_frame
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.spelling import Correction, Spelling, _KnownTexts, has_unknown

TITLES = [
    "red sneakers",
    "laptop sleeve",
    "bed frame",
    "free gift card",
    "free ribbon",
    "waterproof coat",
    "Größe 42",
    "iPad",
]
CHINESE = ["运动鞋 男", "运动鞋 女", "蓝色帐篷", "红色 灯", "大红 灯", "耳机"]
QUERIES = {"gift ideas": 3.0, "free things": 4.0, "运动鞋": 9.0, "蓝色帐篷": 4.0, "大蓝帐篷": 2.0, "耳机": 2.0}


@pytest.fixture(scope="module")
def lexical() -> LexicalSearcher:
    return LexicalSearcher.from_texts([*TITLES, *CHINESE])


@pytest.fixture(scope="module")
def spelling() -> Spelling:
    items = items_frame([Item(str(i), title) for i, title in enumerate([*TITLES, *CHINESE])])
    return Spelling.from_items(items, list(QUERIES), list(QUERIES.values()))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("snekers", "sneakers"),
        ("laptpo", "laptop"),
        ("red snekers size 4", "red sneakers size 4"),
        ("Crème-Snekers!", "creme-sneakers!"),
        ("watrprof coat", "waterproof coat"),
        ("bed frae", "bed frame"),  # "free" is more common, but in no item with "bed"
        ("frae", "free"),
        ("gift idaes", "gift ideas"),  # a word of the log alone
    ],
)
def test_a_mistyped_word_is_the_likeliest_known_one(spelling, lexical, typed, meant):
    assert has_unknown(typed, lexical) and spelling.corrected(typed, lexical) == Correction(meant, True)


@pytest.mark.parametrize(
    "typed",
    [
        "red sneakers",
        "sneaker",  # a stem of the items
        "gift ideas",  # of the log alone
        "groesse",  # found as Größe
        "ipda",  # 'ipad' would be the word, but ...
        "snkrs",  # two slips, in less than eight letters
        "rde",  # too short
        "sneaker5s",  # letters and digits are words of their own
        "qwertyzxcv",
        "",
        "?!",
    ],
)
def test_known_short_and_strange_words_stay(spelling, lexical, typed):
    if typed == "ipda":  # ... and is
        assert spelling.corrected(typed, lexical) == Correction("ipad", True)
    else:
        assert spelling.corrected(typed, lexical) is None


@pytest.mark.parametrize(
    ("typed", "meant", "sure"),
    [
        ("运东鞋", "运动鞋", True),
        ("red 运东鞋", "red 运动鞋", True),
        ("运鞋", "运动鞋", False),  # two characters may as well be another thing
        ("红色帐篷", None, True),  # a red tent is no blue one: 红色 is known
        ("绿色帐篷", "蓝色帐篷", False),  # of green nothing is known, but it is at the edge
        ("大红帐篷", None, True),  # nor here: 红帐 is strange, but 大红 is known
        ("黄帐篷", None, True),
        ("运动鞋男女", None, True),
    ],
)
def test_unspaced_texts_are_known_texts_with_one_slip_inside(spelling, lexical, typed, meant, sure):
    expected = None if meant is None else Correction(meant, sure)
    assert spelling.corrected(typed, lexical) == expected


def test_of_a_text_of_very_many_words_none_is_corrected(spelling, lexical):
    assert spelling.corrected("snekers " * 100, lexical) is not None
    assert spelling.corrected("snekers " * 101, lexical) is None


def test_near_texts_are_those_of_a_plain_comparison():
    rng = random.Random(0)
    texts = {"".join(rng.choices("abc", k=rng.randrange(1, 8))) for _ in range(300)}
    known = _KnownTexts()
    for text in sorted(texts):
        known.add(text, 1)
    for typed in ("abcab", "a", "cccccccc", "bacab"):
        for slips in (1, 2):
            plain = {(text, OSA.distance(typed, text)) for text in texts if OSA.distance(typed, text) <= slips}
            found = known.near(typed, slips)
            assert set(found) == plain and len(found) == len(plain)


def test_candidates_are_counted_in_one_order_however_the_words_came():
    asked: list[list[str]] = []

    class Counted:
        def status(self, words):
            return ["known" if word == "lamp" else "unknown" for word in words]

        def together(self, one: str, other: str) -> int:
            asked[-1].append(one)
            return {"sill": 1, "silk": 3, "silt": 0}[one]

    for words in itertools.permutations(("sill", "silk", "silt")):
        asked.append([])
        assert Spelling(dict.fromkeys(words, 1.0), {}).corrected("silx lamp", Counted()) == Correction(
            "silk lamp", True
        )
    assert asked == [["silk", "sill", "silt"]] * 6, "shards that count together would add up different words"


def test_new_items_bring_words_and_known_ones_grow_no_more_common(lexical):
    spelling = Spelling({"tent": 1, "tint": 2}, {})
    nothing = LexicalSearcher.from_texts(["else"])
    assert spelling.corrected("tpnt", nothing) == Correction("tint", True)
    assert spelling.corrected("tarpualin", nothing) is None
    assert Spelling({"ideas": 1, "ideal": 1e6}, {}).corrected("ideas", nothing) is None, "however rare it is"
    new = [Item(str(i), "tent tarpaulin", ("户外帐篷",), attributes={"Color": ("mauve",)}) for i in range(9)]
    spelling.add_items(items_frame(new))
    assert spelling.corrected("tarpualin", nothing) == Correction("tarpaulin", True)
    assert spelling.corrected("muave", nothing) == Correction("mauve", True)
    assert spelling.corrected("户内帐篷", nothing) == Correction("户外帐篷", True)
    assert spelling.corrected("tpnt", nothing) == Correction("tint", True)


def test_texts_with_two_words_are_counted(lexical):
    assert lexical.together("free", "gift") == 1 and lexical.together("free", "bed") == 0
    assert lexical.together("free", "unheard") == 0
    more = lexical.add([20, 21], ["free gift", "free brandnew thing"])
    assert more.together("gifts", "free") == 2 and more.together("brandnew", "free") == 1
    assert more.remove([3, 21]).together("gift", "free") == 1
    assert lexical.knows("gifts") and not lexical.knows("brandnew") and more.knows("brandnew")
    assert lexical.knows("运动") and not lexical.knows("动男")


def test_words_whose_last_text_is_gone_correct_nothing():
    texts = ["zorblax lamp", "velvet tent", "红色帐篷 灯", "crimson"]
    items = [Item(str(i), text, attributes={"Color": ("Magnolia",)}) for i, text in enumerate(texts)]
    items[2] = Item("2", "灯", brand="红色帐篷")
    lexical = LexicalSearcher.from_texts([*texts[:2], "灯 红色帐篷", texts[3]])
    spelling = Spelling.from_items(items_frame(items), ["velvet things"], [1.0])
    for typed, meant in (
        ("zorblex", "zorblax"),
        ("velvat", "velvet"),
        ("magnolja", "magnolia"),
        ("红角帐篷", "红色帐篷"),
    ):
        found = spelling.corrected(typed, lexical)
        assert found is not None and found.text == meant
    gone = lexical.remove(np.array([0, 1, 2]))
    assert [gone.knows(word) for word in ("zorblax", "lamp", "红色", "crimson", "magnolia")] == [False] * 3 + [
        True,
        False,
    ]
    assert spelling.corrected("zorblex", gone) is None and spelling.corrected("红角帐篷", gone) is None
    # A word of the log stays, and so does one that search finds in no text.
    assert spelling.corrected("velvat", gone) == Correction("velvet", True)
    assert spelling.corrected("magnolja", gone) == Correction("magnolia", True)
    # What nothing has any more is itself mistyped; what comes back is known again, also in another text.
    spelling.add_items(items_frame([Item("9", "zorblix")]))
    later = gone.add(np.array([9]), ["zorblix"])
    assert has_unknown("zorblax", later) and spelling.corrected("zorblax", later) == Correction("zorblix", True)
    for back in (later.add(np.array([0]), ["a zorblax"]), later.add(np.array([8]), ["zorblax"]).merged()):
        assert back.knows("zorblax") and spelling.corrected("zorblex", back).text in ("zorblax", "zorblix")
        assert spelling.corrected("zorblax", back) is None
