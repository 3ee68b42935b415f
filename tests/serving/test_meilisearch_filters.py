"""What filter expressions of Meilisearch mean here."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.index.filter_values import normalised
from onesearch.serving.http_bodies import Filters
from onesearch.serving.meilisearch_filters import our_filters

above_ten = math.nextafter(10, math.inf)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (None, {}),
        ("", {}),
        ([], {}),
        ('brand = "Acme"', {"brand": "Acme"}),
        (['"brand"="Acme"'], {"brand": "Acme"}),
        ("brand = Acme", {"brand": "Acme"}),
        ("brand = 'O\\'Neill \"x\"'", {"brand": 'O\'Neill "x"'}),
        ([['"brand"="Acme"', '"brand"="Bolt"']], {"brand": ["Acme", "Bolt"]}),
        ("brand = Acme OR brand = Bolt OR brand = Cut", {"brand": ["Acme", "Bolt", "Cut"]}),
        ("(brand = Acme OR brand = Bolt) AND price <= 20", {"brand": ["Acme", "Bolt"], "price": [None, 20.0]}),
        ("brand IN [Acme, 'Bolt']", {"brand": ["Acme", "Bolt"]}),
        ("brand NOT IN [Acme, Bolt] AND in_stock = true", {"in_stock": True, "not": {"brand": ["Acme", "Bolt"]}}),
        ("NOT brand = Acme AND brand != Bolt", {"not": {"brand": ["Acme", "Bolt"]}}),
        ("NOT NOT brand = Acme", {"brand": "Acme"}),
        ("kind = video OR kind = live", {"kind": ["video", "live"]}),
        ("kind != live", {"not": {"kind": "live"}}),
        (["price>=10", "price<=20"], {"price": [10.0, 20.0]}),
        ("price 10 TO 20 AND price > 10", {"price": [above_ten, 20.0]}),
        ("price = 10", {"price": [10.0, 10.0]}),
        ("price < 10", {"price": [None, math.nextafter(10, 0)]}),
        ('"category.lvl1"="Shop > Tents"', {"category": {"path": ["Shop", "Tents"]}}),
        ('"category.lvl0"="Shop"', {"category": {"path": ["Shop"]}}),
        ("category = Shop", {"category": "Shop"}),
        ("category != Shop AND category.lvl0 != Hall", {"not": {"category": ["Shop", {"path": ["Hall"]}]}}),
        (
            ['"category.lvl0"="Shop"', '"category.lvl1"="Shop > Tents"'],
            {"category": {"path": ["Shop"]}, "all": [{"category": {"path": ["Shop", "Tents"]}}]},
        ),
        ('"attributes.Color"="red" AND attributes.Size >= 40', {"attributes": {"Color": "red", "Size": {"min": 40.0}}}),
        ("attributes.Size >= 40 AND attributes.Size <= 42", {"attributes": {"Size": {"min": 40.0, "max": 42.0}}}),
        ("attributes.Size > 42 AND attributes.Size > 40", {"attributes": {"Size": {"min": math.nextafter(42, 99)}}}),
        (
            "attributes.Size = L AND attributes.Size <= 40 AND brand = A AND attributes.Size <= 42",
            {"attributes": {"Size": "L"}, "brand": "A", "all": [{"attributes": {"Size": {"max": 40.0}}}]},
        ),
        (
            "attributes.Size 38 TO 42 AND attributes.Size 40 TO 44",
            {
                "attributes": {"Size": {"min": 38.0, "max": 42.0}},
                "all": [{"attributes": {"Size": {"min": 40.0, "max": 44.0}}}],
            },
        ),
        (
            "attributes.Size <= 40 AND attributes.Size >= 42",
            {"attributes": {"Size": {"max": 40.0}}, "all": [{"attributes": {"Size": {"min": 42.0}}}]},
        ),
        (
            "attributes.Size IN ['38 wide', 43] AND attributes.Size > 38",
            {
                "attributes": {"Size": ["38 wide", "43"]},
                "all": [{"attributes": {"Size": {"min": math.nextafter(38, 99)}}}],
            },
        ),
        # A value that both lists have is one of many ways to meet both.
        (
            "attributes.Use IN [cooling, light] AND attributes.Use IN [dry, light] AND attributes.Use = warm",
            {
                "attributes": {"Use": ["cooling", "light"]},
                "all": [{"attributes": {"Use": ["dry", "light"]}}, {"attributes": {"Use": "warm"}}],
            },
        ),
        ("attributes.Use = a AND attributes.Use = a", {"attributes": {"Use": "a"}}),
        (
            "category IN [Camping, Photo] AND category IN ['Sports & Outdoors', Photo]",
            {"category": ["Camping", "Photo"], "all": [{"category": ["Sports & Outdoors", "Photo"]}]},
        ),
        # Conditions that no item meets find none.
        ("brand = A AND brand = B", {"brand": "A", "all": [{"brand": "B"}]}),
        ("price > 10 AND price < 5", {"price": [0.0, 0.0], "all": [{"price": [1.0, 1.0]}]}),
        ("in_stock = true AND in_stock = false", {"in_stock": True, "all": [{"in_stock": False}]}),
        ([["in_stock = true", "in_stock = false"]], {}),
        ("in_stock != true AND brand = A", {"in_stock": False, "brand": "A"}),
        ("NOT in_stock IN [true, false]", {"in_stock": True, "all": [{"in_stock": False}]}),
        ("price IN [5, 15] AND price >= 10", {"price": [15.0, 15.0]}),
        ("brand = AND1 and brand = AND1", {"brand": "AND1"}),
        ("brand = 'AND'", {"brand": "AND"}),
    ],
)
def test_expressions_become_filters(expression, expected):
    assert our_filters(expression) == expected
    body = Filters.model_validate(expected)
    assert list(normalised(body.given() or {})) is not None


def test_a_level_is_a_path_from_the_root():
    filters = {
        "category": ["Shop", {"path": ["Hall"]}],
        "not": {"category": {"path": ["A", "B"]}},
        "all": [{}, {"category": "C"}],
    }
    assert Filters.model_validate(filters).given() == {
        "category": ["Shop", ("Hall",)],
        "not": {"category": ("A", "B")},
        "all": [{"category": "C"}],
    }
    for wrong in ([], [""], ["A"] * 21):
        with pytest.raises(ValueError):
            Filters.model_validate({"category": {"path": wrong}})


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("brand = Acme OR price < 5", "it cannot join conditions on brand, price"),
        ("brand = A OR (brand = B AND price < 5)", "no single condition"),
        ("NOT (brand = A AND price < 5)", "negates several"),
        ("brand != A OR brand != B", "cannot join conditions on brand"),
        ([["brand = A", "price < 5"]], "cannot join"),
        ([[]], "empty list of alternatives"),
        ([[["brand = A"]]], "no deeper"),
        ([["brand = A AND brand = B"]], "a single condition"),
        (7, "a text or a list"),
        ("brand", "says nothing of 'brand'|ends too early"),
        ("brand =", "ends too early"),
        ("brand = AND", "'AND' where a name or a value"),
        ("brand = A brand = B", "goes on with 'brand'"),
        ("(brand = A", "lacks a closing parenthesis"),
        ("brand IN []", "empty list"),
        ("brand IN [A B]", "lacks a comma"),
        ("brand IN A", "without a list"),
        ("price > cheap", "'cheap', which is no number"),
        ("price > nan", "no number"),
        ("price = cheap", "no number"),
        ("brand > 5", "have no order"),
        ("in_stock = maybe", "true or false"),
        ("brand EXISTS", "do not know"),
        ("price = 1 OR price = 2", "one range"),
        (
            [[f"price {one}.{n} TO {one}0.{n}" for n in range(10, 61)] for one in (1, 2)],
            "combine too many ranges",
        ),
        ("brand = 'A", "is no filter"),
        ("(" * 60 + "brand = A" + ")" * 60, "nested deeper"),
        ("NOT " * 60 + "brand = A", "nested deeper"),
        ("brand = A AND " * 400 + "brand = A", "more than 1000"),
        (["brand = A"] * 1001, "at most 1000 texts"),
        ([["brand = A"] * 500, ["brand = A"] * 501], "at most 1000 texts"),
        ("brand = A" + " " * 100_000, "100000 characters"),
        ([[f"category = {i}" for i in range(251)], [f"category = {i}" for i in range(250)]], "at most 500 values"),
    ],
)
def test_what_our_filters_cannot_say_is_refused_by_name(expression, words):
    with pytest.raises(ValueError, match=words):
        our_filters(expression)


pieces = st.sampled_from(
    ["brand", "price", "=", "!=", "<", ">=", "AND", "OR", "NOT", "IN", "[", "]", "(", ")", ",", "'a b'", '"', "5", "TO"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, max_size=12).map(" ".join) | st.text(max_size=40) | st.lists(st.text(max_size=9), max_size=3))
def test_any_text_is_filters_or_a_sentence(expression):
    try:
        found = our_filters(expression)
    except ValueError as error:
        assert str(error) and "\n" not in str(error).replace(str(expression), "")
    else:
        assert isinstance(found, dict)
