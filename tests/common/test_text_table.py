"""Texts in flat arrays: what goes in comes out, and sorted ones are found as in a list."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.common.text_table import TextTable

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=12)


@given(TEXTS)
def test_texts_come_out_as_they_went_in(texts: list[str]):
    table = TextTable.from_texts(texts)
    assert list(table) == texts and len(table) == len(texts)
    assert [table[i] for i in range(len(texts))] == texts
    assert [table[i - len(texts)] for i in range(len(texts))] == texts and table[1:4] == texts[1:4]


@given(TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
def test_a_sorted_table_finds_what_it_has(texts: list[str], other: str):
    known = sorted(set(texts))
    table = TextTable.from_texts(known)
    assert [table.find(text) for text in known] == list(range(len(known)))
    assert table.find(other) == (known.index(other) if other in known else None)


def test_outside_of_the_table_there_is_nothing():
    table = TextTable.from_texts(["a", "b"])
    for index in (2, -3):
        with pytest.raises(IndexError):
            table[index]


def test_letters_that_are_no_text_give_another_text():
    assert TextTable(np.array([0xFF, 0x61], np.uint8), np.array([0, 2])).find("a") is None
    assert TextTable(np.array([0xFF, 0x61], np.uint8), np.array([0, 2]))[0] == "\N{REPLACEMENT CHARACTER}a"
    assert TextTable(np.array([0x61], np.uint8), np.array([0, 900]))[0] == "a"  # no memory that is not its own
