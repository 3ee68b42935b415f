import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.data.records import SCHEMAS
from onesearch.understanding.keyword_lexicon import Keyword, Lexicon


def lexicon(*texts):
    return Lexicon([Keyword(text, "Entity", float(len(texts) - i)) for i, text in enumerate(texts)])


def found(pool, text):
    return [pool.texts[number] for number in pool.match([text])[0]]


def test_word_boundaries_in_spaced_scripts():
    pool = lexicon("lamp", "red")
    assert found(pool, "Red lamps for a bored LAMP") == ["red", "lamp"]
    assert found(pool, "lampshade redo") == []


def test_no_boundaries_in_chinese():
    assert found(lexicon("貂皮", "大衣"), "进口貂皮大衣女") == ["貂皮", "大衣"]


def test_longest_match_wins_and_substrings_are_dropped():
    pool = lexicon("steel", "stainless steel", "stainless", "steel sink")
    assert found(pool, "stainless steel") == ["stainless steel"]
    assert found(pool, "stainless steel sink") == ["stainless steel"]
    assert found(lexicon("a b", "b c d"), "a b c d") == ["b c d"]


@pytest.mark.parametrize("order", [("a b", "b c"), ("b c", "a b")])
def test_of_equally_long_matches_the_earlier_wins(order):
    assert found(lexicon(*order), "a b c") == ["a b"] and found(lexicon(*order), "x b c") == ["b c"]


def test_neighbours_are_both_found_and_repeats_once():
    assert found(lexicon("red", "lamp"), "red lamp red") == ["red", "lamp"]


def test_unknown_type_is_an_error():
    with pytest.raises(ValueError, match="unknown type 'Colour'"):
        Lexicon([Keyword("red", "Colour", 1.0)])


def test_one_spelling_one_keyword_under_its_commonest_type():
    pool = Lexicon([Keyword("Apple", "Entity", 1.0), Keyword("apple", "Brand", 9.0)])
    assert [(k.text, k.type) for k in pool.keywords] == [("apple", "Brand")]


@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3), max_size=6),
    st.lists(st.sampled_from("abcde"), max_size=12),
)
def test_matches_are_those_of_a_plain_search(patterns, words):
    pool = lexicon(*[" ".join(p) for p in patterns])
    spans = [
        (start, start + len(k.split()), k)
        for k in pool.texts
        for start in range(len(words))
        if words[start : start + len(k.split())] == k.split()
    ]
    kept = []
    for start, end, text in sorted(spans, key=lambda s: (-(s[1] - s[0]), s[1])):
        if all(end <= a or start >= b for a, b, _ in kept):
            kept.append((start, end, text))
    assert found(pool, " ".join(words)) == list(dict.fromkeys(text for _, _, text in sorted(kept)))


@pytest.fixture
def mined():
    def attributes(**kinds):
        return [{"type": kind, "value": value} for kind, value in kinds.items()]

    items = pl.DataFrame(
        [
            ("1", "Acme red steel lamp 60 watt", ["Home", "Lamp"], "Acme", attributes(Color="Red", Material="Steel")),
            ("2", "blue oak table X200 wobbly", ["Home", "Table"], "Bolt", attributes(Color="blue", Style="Retro")),
        ],
        schema={k: SCHEMAS["items"][k] for k in ("item_id", "title", "category", "brand", "attributes")},
        orient="row",
    )
    views = pl.DataFrame(
        [("red lamp", ["1"]), ("RED  lamp", ["1"]), ("red table", ["2"]), ("wobbly table", ["2"]), ("wobbly", ["2"])],
        schema={"query": pl.String, "clicked": pl.List(pl.String)},
        orient="row",
    ).with_columns(ordered=pl.lit([], pl.List(pl.String)))
    return Lexicon.from_log(items, views), items, views


def test_attribute_values_count_only_where_the_clicked_item_has_them(mined):
    pool = {k.text: k for k in mined[0].keywords}
    assert pool["red"].type == "Color" and pool["red"].page_views == 2  # "red table" led to a blue one
    assert pool["lamp"].type == "Entity" and pool["lamp"].page_views == 2
    assert "retro" not in pool and "steel" not in pool  # nobody asked for them


def test_phrases_of_clicked_queries_are_mined(mined):
    pool = {k.text: k for k in mined[0].keywords}
    assert pool["wobbly"].page_views == 2
    assert "wobbly table" not in pool  # holds a known keyword: longest match would hide it


def test_ordered_by_page_views_and_capped_per_type(mined):
    views = [keyword.page_views for keyword in mined[0].keywords]
    assert views == sorted(views, reverse=True)
    capped = Lexicon.from_log(mined[1], mined[2], per_type=1)
    assert len(capped.texts_of_type("Entity")) == 1 and capped.texts_of_type("Color") == ["red"]


def test_without_page_views_all_attributes_are_kept(mined):
    pool = Lexicon.from_log(mined[1], mined[2].clear())
    assert {"red", "blue", "retro", "acme"} <= set(pool.texts)


def test_save_and_load(mined, tmp_path):
    mined[0].save(tmp_path)
    loaded = Lexicon.load(tmp_path)
    assert loaded.keywords == mined[0].keywords
    assert found(loaded, "a red lamp") == ["red", "lamp"]
    with pytest.raises(FileNotFoundError, match="lexicon"):
        Lexicon.load(tmp_path / "nowhere")


def test_matching_does_not_look_at_all_keywords():
    def seconds(size: int) -> float:
        letters = (f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(size))
        pool = lexicon(*(f"word{one} thing" for one in letters), "lamp", "red")
        pool.match(["warm up"])
        start = time.process_time()
        pool.match(["red lamp for the bedroom"] * 1000)
        return time.process_time() - start

    assert min(seconds(10_000) for _ in range(2)) < 10 * min(seconds(200) for _ in range(2)), "of 50 times as many"


def log_of(items, **searches):
    """Items by title and attributes, and page views: ``searches`` gives the numbers of clicked items by query."""
    columns = ("item_id", "title", "category", "brand", "attributes")
    rows = [
        (str(number), title, [], None, [{"type": kind, "value": value} for kind, value in attributes])
        for number, (title, *attributes) in enumerate(items)
    ]
    table = pl.DataFrame(rows, schema={name: SCHEMAS["items"][name] for name in columns}, orient="row")
    views = [(query.replace("_", " "), [str(number)]) for query, clicked in searches.items() for number in clicked]
    schema = {"query": pl.String, "clicked": pl.List(pl.String)}
    return table, pl.DataFrame(views, schema=schema, orient="row").with_columns(ordered=pl.lit([], pl.List(pl.String)))


@pytest.mark.parametrize(("clicked", "is_keyword"), [((0, 0, 1, 1, 1), False), ((0, 0, 1, 1), True)])
def test_a_mined_phrase_stands_in_half_of_the_clicked_titles(clicked, is_keyword):
    pool = Lexicon.from_log(*log_of([("gizmo box",), ("plain box",)], gizmo=clicked))
    assert pool.texts == (["gizmo"] if is_keyword else [])


@pytest.mark.parametrize(("together", "is_keyword"), [(2, False), (4, True)])
def test_the_words_of_a_mined_phrase_belong_together(together, is_keyword):
    searches = {"alpha": [0] * 8, "beta": [0] * 8, "alpha_beta": [0] * together}
    pool = Lexicon.from_log(*log_of([("alpha beta box",)], **searches))
    assert ("alpha beta" in pool.texts) == is_keyword and {"alpha", "beta"} <= set(pool.texts)
    found = {keyword.text: keyword.page_views for keyword in pool.keywords}
    assert found["alpha"] == 8 + together and found.get("alpha beta", together) == together


def test_a_value_has_the_type_that_most_items_give_it():
    oak = [("a", ("Style", "Oak")), ("b", ("Material", "oak")), ("c", ("Material", "Oak"))]
    pool = Lexicon.from_log(*log_of(oak))
    assert [(keyword.text, keyword.type) for keyword in pool.keywords] == [("oak", "Material")]
