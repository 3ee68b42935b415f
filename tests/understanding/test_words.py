from hypothesis import given
from hypothesis import strategies as st

from onesearch.data.text import fold, is_unspaced, split_words


def test_numbers_are_split_from_units_and_apostrophes_join():
    assert split_words("12-Gauge 5.5in Men's sc141") == ["12", "gauge", "5.5", "in", "mens", "sc", "141"]


def test_every_character_of_an_unspaced_script_is_a_word():
    assert split_words("红色iPhone手机壳") == ["红", "色", "iphone", "手", "机", "壳"]
    assert is_unspaced("iPhone手机") and not is_unspaced("iPhone café")


def test_accents_are_composed_and_width_is_folded():
    assert split_words("cafe\u0301 ＡＢＣ") == ["cafe", "abc"]
    assert fold("Straße") == "strasse"


def test_combining_marks_do_not_break_words():
    assert split_words("हिन्दी") == ["हिन्दी"]


@given(st.text())
def test_words_hold_no_space_and_splitting_again_changes_nothing(text):
    words = split_words(text)
    assert all(word and not any(character.isspace() for character in word) for word in words)
    again = [part for word in words for part in split_words(word)]
    assert split_words(" ".join(again)) == again
