import pytest

from onesearch.data.records import Item
from onesearch.search.highlighting import LONGEST_TEXT, highlights, matched_spans
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.results import SearchRequest
from onesearch.search.text_analyzer import Analyzer
from small_engine import small_engine

ANALYZE = Analyzer("english")
TEXTS = ["Men's Red Bull tents, Größe 41.5", "红色帐篷 Zelt", "red_tent redbull", "kettle"]
LEXICAL = LexicalSearcher.from_texts(TEXTS)


def marked(text: str, query: str) -> str:
    """The text with its spans in brackets."""
    spans = matched_spans(text, frozenset(LEXICAL.numbers(ANALYZE(query))), lambda w: LEXICAL.numbers(ANALYZE(w)))
    for start, end in reversed(spans):
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        (TEXTS[0], "mens tent", "[Men's] Red Bull [tents], Größe 41.5"),
        (TEXTS[0], "groesse 41.5", "Men's Red Bull tents, [Größe] [41.5]"),
        (TEXTS[0], "grosse BULL", "Men's Red [Bull] tents, [Größe] 41.5"),
        (TEXTS[1], "色帐", "红[色帐]篷 Zelt"),
        (TEXTS[1], "红篷", "[红]色帐[篷] Zelt"),
        (TEXTS[2], "red", "[red]_tent redbull"),
        (TEXTS[2], "red bull", "[red]_tent [redbull]"),
        (TEXTS[0], "", TEXTS[0]),
        (TEXTS[3], "unheard of", "kettle"),
        ("", "red", ""),
        ("Ｒｅｄ tents’ 'red'", "red tent", "[Ｒｅｄ] [tents]’ '[red]'"),
    ],
)
def test_words_of_the_query_are_marked_where_they_stand(text: str, query: str, expected: str):
    assert marked(text, query) == expected


def test_fields_without_a_word_of_the_query_are_left_out():
    item = Item("1", "Red kettle", brand="Redbull", description="A kettle.")
    wanted = frozenset(LEXICAL.numbers(ANALYZE("kettle")))
    found = highlights(item, wanted, lambda word: LEXICAL.numbers(ANALYZE(word)))
    assert found == {"title": ((4, 10),), "description": ((2, 8),)}


def test_a_search_says_it_where_it_is_asked():
    engine = small_engine()
    asked = [SearchRequest("Red tents", k=3, highlight=True), SearchRequest("Red tents", k=3)]
    hits, plain = engine.search_batch(asked)
    assert [hit.item_id for hit in hits] == [hit.item_id for hit in plain]
    for hit in hits:
        words = [hit.item.title[start:end] for start, end in hit.highlights.get("title", ())]
        assert words == [word for word in hit.item.title.split() if word in ("red", "tent")]
    assert any(hit.highlights for hit in hits) and not any(hit.highlights for hit in plain)


def test_of_an_endless_text_the_beginning_is_read():
    """What an item says may come from strangers, and is read for every search that finds it."""
    long = Item("1", "x" * 1000, description="x" * 49_000 + " red " + "tent unheard-of " * 3000)
    short = Item("2", "red", description="a " * (LONGEST_TEXT // 2) + "red")
    asked = []

    def numbers(word: str) -> list[int]:
        asked.append(word)
        return LEXICAL.numbers(ANALYZE(word))

    wanted = frozenset(LEXICAL.numbers(ANALYZE("red")))
    assert highlights(long, wanted, numbers) == {}
    assert highlights(short, wanted, numbers) == {"title": ((0, 3),)}, "what stands behind is not read"
    assert sum(map(len, asked)) <= 2 * LONGEST_TEXT + 1010
