"""How values of a file's columns are read: texts, ids, lists, attributes, numbers, prices, flags."""

from decimal import Decimal

import polars as pl
import pytest

from onesearch.data.ingest.flag_values import NO, YES, flag
from onesearch.data.ingest.number_values import number, parse_prices
from onesearch.data.ingest.text_values import attributes, identifier, lost_in_lists, text, texts


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
    endless = parse_prices(pl.Series([float("inf"), float("nan"), 2.0, -1.0]))
    assert endless.price.to_list() == [None, None, 2.0, None] and endless.problem.null_count() == 1
    assert parse_prices(pl.Series(["1e999"])).price.to_list() == [None]


def test_flags_of_any_case_and_words_that_are_none():
    assert of_frame(flag, ["Yes", " TRUE", "1", "n", "F", "0.0", "maybe", "", None]) == [
        *[True] * 3,
        *[False] * 3,
        *[None] * 3,
    ]
    assert of_frame(flag, [True, None, False]) == [True, None, False]
    assert of_frame(flag, [1, 0, 2, -1]) == [True, False, True, False]


def test_fractions_are_not_cut_off_ids():
    assert of_frame(identifier, [7.0, 12.5, 7.5, 1e300]) == ["7", "12.5", "7.5", "1e+300"]


def test_lists_written_out_in_cells():
    written = [
        '["a", "b c"]',
        "['a', \"it's\"]",
        "[7, 8]",
        " [x, y z] ",
        "[]",
        "[New] Shoe",
        '["a", null, ["b"]]',
        "[" * 5000 + "]",
    ]
    assert of_frame(texts, written, None) == [
        ["a", "b c"],
        ["a", "it's"],
        ["7", "8"],
        ["x", "y z"],
        [],
        ["[New] Shoe"],
        ["a"],
        [],
    ]
    assert of_frame(texts, ["['a|b', 'c']", "a|b"], "|") == [["a|b", "c"], ["a", "b"]]


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("2.499,00 €", 2499),
        ("€ 30.80", 30.8),
        ("7,49", 7.49),
        ("19.90", 19.9),
        ("4,250.00 GBP", 4250),
        ("SEK 1 299,50", 1299.5),
        ("CHF 2'150.-", 2150),
        ("15,-", 15),
        ("1.234.567", 1_234_567),
        ("₹ 1,25,000.50", 125_000.5),
        ("0.250", 0.25),
        ("1234.567", 1234.567),
        ("３９９円", 399),
        ("R$ 89,90", 89.9),
        ("2\u202f799,00 kr", 2799),
        ("1e3", 1000),
        ("45¢", None),
        ("¢ 45", None),
        ("45\uffe0", None),
        ("from 12.99", None),
        ("12.99 - 15.99", None),
        ("2 for 10", None),
        ("-5", None),
        ("\u22125 €", None),
        ("1.2.3", None),
        ("9 99", None),
        ("None", None),
    ],
)
def test_prices_as_shops_write_them(written, amount):
    for decimal in (None, ".", ","):
        prices = parse_prices(pl.Series([written]), decimal)
        assert prices.price.to_list() == [amount] and not prices.ambiguous.any()
        assert (prices.problem[0] is None) == (amount is not None)


def test_a_sign_before_three_digits_is_what_the_mapping_says():
    written = pl.Series(["1.050", "2,500", "12.750 €", "999"])
    assert parse_prices(written, ",").price.to_list() == [1050, 2.5, 12750, 999]
    assert parse_prices(written, ".").price.to_list() == [1.05, 2500, 12.75, 999]
    said_nothing = parse_prices(written)
    assert said_nothing.price.to_list() == [1.05, 2500, 12.75, 999]
    assert said_nothing.ambiguous.to_list() == [True, True, True, False]
    assert not parse_prices(pl.Series([1.05, 2.5])).ambiguous.any()


def test_stock_words_of_shops():
    yes = [
        "in stock",
        "In_Stock",
        "https://schema.org/InStock",
        "ja",
        "Auf Lager",
        "disponible",
        "有货",
        "在庫あり",
        "17",
        "2.0",
    ]
    no = [
        "out of stock",
        "OUT-OF-STOCK",
        "sold  out",
        "nein",
        "agotado",
        "Épuisé",
        "售罄",
        "нет в наличии",
        "0",
        "-1",
        "\u22121",
    ]
    assert of_frame(flag, yes) == [True] * len(yes)
    assert of_frame(flag, no) == [False] * len(no)
    unclear = ["preorder", "soon", "nan", "?", ""]
    assert of_frame(flag, unclear) == [None] * len(unclear)
    assert of_frame(flag, unclear, {"Pre-Order": False, "preorder": True}) == [True, *[None] * 4]
    assert not YES & NO


def test_ids_of_decimals_keep_their_digits():
    """As databases export NUMBER: more digits than floats have."""
    ids = [Decimal("30000000000000001.0000"), Decimal("30000000000000002"), Decimal("7.25"), Decimal("100"), None]
    kind = pl.Decimal(38, 4)
    assert of_frame(identifier, ids, dtype=kind) == ["30000000000000001", "30000000000000002", "7.25", "100", None]
    assert of_frame(texts, [ids[:2], ids[2:]], None, dtype=pl.List(kind))[0] == ids_as_texts(ids[:2])


def ids_as_texts(ids):
    return [str(number).partition(".")[0] for number in ids]


def test_nan_and_infinity_are_no_ids():
    nan, inf = float("nan"), float("inf")
    assert of_frame(identifier, [nan, 4.0, -inf, 2.5]) == [None, "4", None, "2.5"]
    assert of_frame(texts, [[nan, 4.0], [inf]], None) == [["4"], []]


def test_a_number_of_the_file_has_a_point_whatever_the_mapping_says():
    written = pl.Series(["45.678", "45.678", "1.299,00", None])
    prices = parse_prices(written, ",", pl.Series([True, False, False, False]))
    assert prices.price.to_list() == [45.678, 45678, 1299, None]
    assert not prices.ambiguous.any() and prices.problem.null_count() == 4


def test_lists_of_objects_and_of_lists_are_counted():
    values = [
        '[{"a": 1}]',
        '[["x", "y"]]',
        "[{'a': 1}]",
        '["x", {"a": 1}]',
        "[[New]]",
        '["a", "{b}"]',
        "x",
        "[{L}, M]",
        None,
    ]
    assert lost_in_lists(pl.Series(values)) == 4
    assert of_frame(texts, values[:4], None) == [[], [], [], ["x"]]
    assert of_frame(texts, ["[{L}, M]"], None) == [["{L}", "M"]]
    assert lost_in_lists(pl.Series([["a"]])) == 0
