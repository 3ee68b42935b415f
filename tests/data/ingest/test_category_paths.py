import polars as pl
import pytest

from onesearch.data.ingest.category_paths import DOUBTFUL, SEVERAL, category_paths


def paths(*cells, ignore=(), dtype=None, separator=None):
    found, counts = category_paths(pl.DataFrame({"c": pl.Series(cells, dtype=dtype)}), "c", ignore, separator)
    return found.to_list(), counts


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("Toys > Dolls, Toys > Games", ["Toys", "Dolls"]),
        ("Toys, Toys > Games, Toys > Games > Chess", ["Toys", "Games", "Chess"]),
        ("toys > Dolls | Toys > Games", ["toys", "Dolls"]),
        ("Toys>Dolls;Toys>Games>Chess", ["Toys", "Games", "Chess"]),
        ("['Toys > Dolls', 'Sale > New > Dolls']", ["Sale", "New", "Dolls"]),
        (["Toys > Dolls", "Toys > Games"], ["Toys", "Dolls"]),
        (["Toys", "Toys > Games"], ["Toys", "Games"]),
    ],
)
def test_of_several_paths_the_first_of_the_longest_is_kept_and_counted(cell, path):
    assert paths(cell, None, cell) == ([path, [], path], {f"category: {SEVERAL}": 2})


def test_names_with_commas_stay_and_are_counted_where_they_could_part_paths():
    found, counts = paths("Food, Drinks > Food & Tea", "Home > Bed, Bath > Towels", "Home > Bed, Bath", "Bed, Bath")
    assert found == [
        ["Food, Drinks", "Food & Tea"],
        ["Home", "Bed, Bath", "Towels"],
        ["Home", "Bed, Bath"],
        ["Bed, Bath"],
    ]
    assert counts == {f"category: {DOUBTFUL}": 1}


@pytest.mark.parametrize("arrow", ["->", " -> ", "=>", "-->", "\u2192", ">>", " \u00bb ", ">"])
def test_arrows_of_all_forms_part_levels(arrow):
    assert paths(f"Garden{arrow}Tools{arrow}Pre-cut")[0] == [["Garden", "Tools", "Pre-cut"]]


def test_texts_are_cut_at_arrows_where_no_separator_is_given():
    cells = "Home > Mugs", "Home>Mugs › Red", "Home", None, "['A > B', 'C']", " > "
    assert paths(*cells)[0] == [["Home", "Mugs"], ["Home", "Mugs", "Red"], ["Home"], [], ["A", "B", "C"], []]
    assert paths("A > B|C", separator="|")[0] == [["A > B", "C"]]


def test_levels_in_lists_are_one_path():
    cells = ["Auto", "Care > n/a > Seats"], ["Auto", None, "Seats"], []
    assert paths(*cells, ignore=("n/a",)) == ([["Auto", "Care", "Seats"], ["Auto", "Seats"], []], {})


def test_texts_in_lists_are_cut_at_the_separator_of_the_mapping():
    one = ["A / B"], ["A", "B / n/a"], ["A > B"]
    assert paths(*one, ignore=("n/a",), separator=" / ") == ([["A", "B"], ["A", "B"], ["A > B"]], {})
    assert paths("A|B", "['A|B', 'C']", None, separator="|") == ([["A", "B"], ["A", "B", "C"], []], {})
    several = ["A|B", "A|C|D"], ["A", "a|B"], ["X|Y", "A|C|D"]
    assert paths(*several, separator="|") == (
        [["A", "C", "D"], ["a", "B"], ["A", "C", "D"]],
        {f"category: {SEVERAL}": 3},
    )
