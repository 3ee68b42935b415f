"""How values of a file's columns are read: texts, ids, lists, attributes, numbers, prices, flags."""

import polars as pl

from onesearch.data.ingest.flag_values import flag
from onesearch.data.ingest.number_values import number, parse_prices
from onesearch.data.ingest.text_values import attributes, identifier, text, texts


def read(expression: pl.Expr, values: object = None, **columns: list) -> list:
    frame = pl.DataFrame({"x": values} if values is not None else columns)
    return frame.select(x=expression)["x"].to_list()


def of_frame(function, values, *arguments, dtype=None):
    frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
    return frame.select(x=function(frame, "x", *arguments))["x"].to_list()


def test_texts_are_trimmed_and_unknown_ones_are_none():
    values = [" a ", "", "  ", None, "n/a", " n/a", "N/A"]
    assert read(text("x"), values) == ["a", None, None, None, "n/a", "n/a", "N/A"]
    assert read(text("x", ("n/a",)), values) == ["a", None, None, None, None, None, "N/A"]
    assert read(text(None), [1]) == [None]
    assert read(text("x"), [7, None]) == ["7", None]


def test_ids_of_float_columns_are_whole_numbers():
    """A column of integers with a gap is a column of floats in pandas."""
    assert of_frame(identifier, [7.0, None, 12.0]) == ["7", None, "12"]
    assert of_frame(identifier, [" a7 ", ""]) == ["a7", None]


def test_lists_are_taken_or_cut():
    assert of_frame(texts, [[" a", "", None], [], None], None) == [["a"], [], []]
    assert of_frame(texts, [[7.0, 8.0], [None]], None) == [["7", "8"], []]
    assert of_frame(texts, ["a| b||c", "", None], "|") == [["a", "b", "c"], [], []]
    assert of_frame(texts, ["a| b", " ", None], None) == [["a| b"], [], []]
    assert of_frame(texts, ["a|n/a|b"], "|", ("n/a",)) == [["a", "b"]]
    assert read(texts(pl.DataFrame(), None, None), [1]) == [[]]


def test_attributes_of_all_columns_are_one_list():
    frame = pl.DataFrame({"c": ["red/n/a", None], "b": ["Acme", "n/a"]})
    found = frame.select(x=attributes(frame, [("Color", "c", "/"), ("Brand", "b", None)], ("n", "a", "n/a")))["x"]
    assert found.to_list() == [[{"type": "Color", "value": "red"}, {"type": "Brand", "value": "Acme"}], []]
    assert frame.select(x=attributes(frame, []))["x"].to_list() == [[]]


def test_numbers_and_prices():
    assert read(number("x"), ["1.50", " 2 ", "two", None]) == [1.5, 2.0, None, None]
    prices = parse_prices(pl.Series(["9.50", "0", "-3", "inf", "nan", "cheap", " ", None]))
    assert prices.price.to_list() == [9.5, 0.0, None, None, None, None, None, None]
    assert [text is not None for text in prices.problem] == [False, False, True, True, True, True, False, False]
    assert parse_prices(pl.Series([1, None])).price.to_list() == [1.0, None]


def test_flags_of_any_case_and_words_that_are_none():
    assert of_frame(flag, ["Yes", " TRUE", "1", "n", "F", "0.0", "maybe", "", None]) == [
        *[True] * 3,
        *[False] * 3,
        *[None] * 3,
    ]
    assert of_frame(flag, [True, None, False]) == [True, None, False]
    assert of_frame(flag, [1, 0, 2, -1]) == [True, False, True, False]
