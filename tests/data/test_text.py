import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import quick

from onesearch.data.records import Item, items_frame
from onesearch.data.text import ITEM_FIELDS, is_unspaced, item_texts, normalise_queries, normalise_query, split_words


def test_by_hand():
    assert normalise_query("  Straße\t ２ ") == "strasse 2"
    assert normalise_query("XBOX  360") == "xbox 360"
    assert normalise_query("\N{GREEK UPSILON WITH HOOK SYMBOL}") == "υ"  # a capital letter only once it is folded
    assert normalise_query("情侣　DIY") == "情侣 diy"


@quick
@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise_query(text)
    assert normalise_query(once) == once


@quick
@given(st.lists(st.one_of(st.none(), st.text(alphabet=st.characters(exclude_categories=["Cs"])))))
def test_a_column_is_its_texts_one_by_one(texts):
    column = normalise_queries(pl.Series("query", texts, dtype=pl.String))
    assert column.to_list() == [normalise_query(text or "") for text in texts]


def test_words_by_hand():
    assert split_words("12-Gauge 5.5in Men's café") == ["12", "gauge", "5.5", "in", "mens", "cafe"]
    assert split_words("情侣 DIY3") == ["情", "侣", "diy", "3"]
    assert [is_unspaced(text) for text in ("hose", "café", "a 靴", "ถุง")] == [False, False, True, True]


@pytest.mark.parametrize(
    ("typed", "listed"),
    [
        ("creme brulee", "Crème Brûlée"),
        ("kuhlschrank grosse l weiss", "Kühlschrank Größe L weiß"),
        ("smorrebrod lodz", "Smørrebrød Łódź"),
        ("isik", "ışık"),
        ("елка", "Ёлка"),
        ("μηλο", "Μήλο"),
        ("حذاء", "حِذَاء"),
        ("احذية", "أحذية"),
        ("שלום", "שָׁלוֹם"),
    ],
)
def test_what_people_type_without_accents_is_the_same_word(typed, listed):
    decomposed = unicodedata.normalize("NFD", listed)
    assert split_words(typed) == split_words(listed) == split_words(decomposed)
    assert len(split_words(typed)) == len(typed.split())


@pytest.mark.parametrize(("one", "other"), [("й", "и"), ("が", "か"), ("हि", "ह"), ("ö한", "ö하")])
def test_marks_that_make_another_letter_stay(one, other):
    assert split_words(one) != split_words(other)


def test_item_texts_by_hand():
    items = items_frame(
        [
            Item(
                "a", "Acme Shoe", ("Clothing", "shoe"), "ACME", seller="Shop", attributes={"Color": ("red", "dark red")}
            ),
            Item("b", "Shoelace", ("Clothing", "shoe")),
            Item("c", ""),
        ]
    )
    assert item_texts(items, ITEM_FIELDS) == ["Acme Shoe Clothing red dark red Shop", "Shoelace Clothing shoe", ""]
    assert item_texts(items, ITEM_FIELDS, distinct=False) == [
        "Acme Shoe ACME Clothing shoe red dark red Shop",
        "Shoelace Clothing shoe",
        "",
    ]
    assert item_texts(items, ("brand", "title"))[0] == "ACME Acme Shoe"
    with pytest.raises(ValueError, match="titel"):
        item_texts(items, ("titel",))
