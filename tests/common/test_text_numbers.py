"""Numbers of texts: what a dict says, also of texts whose hashes are alike."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.common import text_numbers
from onesearch.common.text_numbers import TextNumbers

TEXTS = st.lists(st.text(max_size=4), unique=True, max_size=80)  # half of a surrogate pair among them


@given(TEXTS, st.lists(st.text(max_size=3), max_size=20))
def test_numbers_are_those_of_a_dict(texts: list[str], others: list[str]):
    numbers, plain = TextNumbers(iter(texts)), {text: i for i, text in enumerate(texts)}
    assert list(numbers) == texts and len(numbers) == len(texts) and numbers == plain
    for text in [*texts, *others]:
        assert numbers.get(text) == plain.get(text) and (text in numbers) == (text in plain)


def test_many_texts_are_taken_part_by_part():
    texts = [f"item-{i}" for i in range(120_001)]
    numbers = TextNumbers(texts)
    assert [numbers[texts[i]] for i in (0, 49_999, 50_000, 120_000)] == [0, 49_999, 50_000, 120_000]
    assert numbers.get("item-120001") is None and numbers.get("item-120001", -1) == -1 and 7 not in numbers
    with pytest.raises(KeyError, match="item-120001"):
        numbers["item-120001"]


def test_texts_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_numbers, "hash", len, raising=False)
    texts = ["b", "ab", "a", "ba", "", "abc"]
    numbers = TextNumbers(texts)
    assert [numbers[text] for text in texts] == list(range(6)) and numbers.get("c") is None and "bb" not in numbers


def test_a_copy_has_hashes_of_its_own():
    numbers = TextNumbers(["b", "a"])
    made, (texts,) = numbers.__reduce__()
    assert made is TextNumbers and texts == ["b", "a"] and copy.deepcopy(numbers) == numbers


def test_a_text_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="'a' comes twice, as 1 and 2"):
        TextNumbers(["b", "a", "a"])
