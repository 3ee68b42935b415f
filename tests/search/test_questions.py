"""What to ask next: gains by hand, and what they must be whatever the counts are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.search.questions import information_gain, questions


def test_gains_by_hand():
    # Half, a quarter, a quarter: the entropy of the answer.
    assert information_gain([4, 2, 2], 8) == pytest.approx(1.5)
    # Only half of the items have a value: the answer halves them with chance one half each, else nothing is known.
    assert information_gain([2, 2], 8) == pytest.approx(2 * (2 / 8) * math.log2(4))
    # Items with several values: each value is as likely to be the answer as it is common among the values.
    assert information_gain([8, 4], 8) == pytest.approx((4 / 12) * 1)
    assert information_gain([], 8) == information_gain([3], 0) == 0


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 50))
def test_a_gain_is_an_entropy_and_unknown_items_lower_it(counts, unknown):
    whole = sum(counts)
    entropy = -sum(count / whole * math.log2(count / whole) for count in counts)
    assert information_gain(counts, whole) == pytest.approx(entropy, abs=1e-9)
    # Never more than the bits that tell all items apart.
    assert 0 <= information_gain(counts, whole + unknown) <= math.log2(whole + unknown) + 1e-9


def test_the_filter_that_splits_best_is_asked_for_first():
    facets = {
        "brand": [("Acme", 6), ("Swift", 2)],
        "in_stock": [(True, 8)],
        "attributes.Color": [("blue", 2), ("red", 4), ("green", 2)],
    }
    found = questions(facets, 8)
    assert [one.facet for one in found] == ["attributes.Color", "brand"], "what all items have is no question"
    assert found[0].values == (("red", 4), ("blue", 2), ("green", 2)) and found[0].others == 0
    assert found[0].bits == pytest.approx(1.5)
    assert [one.facet for one in questions(facets, 8, answered=("attributes.Color",))] == ["brand"]
    assert len(questions(facets, 8, most=1)) == 1


def test_a_value_that_all_items_have_is_no_answer():
    (found,) = questions({"attributes.Use": [("home", 8), ("garden", 4)]}, 8)
    assert found.values == (("garden", 4),)


def test_categories_are_asked_for_at_the_depth_that_splits_best():
    paths = [("Shop", 8), ("Shop > Shoes", 4), ("Shop > Lamps", 4), ("Shop > Lamps > Desk", 1)]
    (found,) = questions({"category": paths}, 8, answered=("category",))
    assert found.values == (("Shop > Shoes", 4), ("Shop > Lamps", 4)) and found.bits == 1


def test_many_answers_are_cut_and_counted():
    (found,) = questions({"brand": [(f"b{i}", 1) for i in range(25)]}, 25)
    assert len(found.values) == 10 and found.others == 15 and found.bits == pytest.approx(math.log2(25))
