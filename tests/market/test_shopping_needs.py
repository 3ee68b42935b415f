"""What agents are told of needs, against the truth; and that an item offered meets the fate that it has on a page."""

import numpy as np
import pytest

from onesearch.market.click_truth import Reactions
from onesearch.market.shopping_needs import shopping_needs


@pytest.fixture(scope="module")
def paths(dataset, market):
    """The path of each leaf, from the items that lie in it."""
    leaves, items = market.truth.catalogue.leaves, dataset.items["category"].to_list()
    return {int(leaf): " > ".join(path) for leaf, path in zip(leaves, items, strict=True)}


@pytest.fixture(scope="module")
def needs(market, paths):
    named = [paths.get(leaf, f"leaf {leaf}") for leaf in range(int(market.truth.type_leaf.max()) + 1)]
    return shopping_needs(market.truth, named, np.arange(len(market.truth.queries)))


def test_a_plain_need_begins_without_what_it_states(market, needs):
    queries = market.truth.queries
    short = [row for row, need in enumerate(needs) if need.start != need.text]
    assert len(short) > 100 and all(queries.kind[row] == 0 for row in short)
    for row in short:
        need = needs[row]
        assert need.start and sorted(f"{need.start} {' '.join(need.more)}".split()) == sorted(need.text.split())
        named = {value for wish in need.wishes for values in wish.values() for value in values}
        assert set(need.more) <= {" ".join(value.split()) for value in named}
    assert all(need.more == () for need in needs if need.start == need.text)


def test_wishes_and_categories_are_what_makes_items_relevant(market, needs, paths):
    truth, items = market.truth, np.arange(len(market.truth.catalogue))
    catalogue, rng = truth.catalogue, np.random.default_rng(0)
    for row in rng.choice(len(needs), 60, replace=False).tolist():
        need = needs[row]
        level = truth.levels(np.full(len(items), row), items)
        relevant = items[level == 3]
        assert {paths[leaf] for leaf in catalogue.leaves[relevant].tolist()} <= need.categories
        for item in relevant[:5].tolist():
            has = {catalogue.value_names[value] for value in catalogue.values[item].tolist() if value >= 0}
            for wish in need.wishes:
                assert has & {value for values in wish.values() for value in values}, (need, has)
            assert need.banned is None or need.banned[1] not in has
    wishes = [wish for need in needs for wish in need.wishes]
    assert any(len(wish) > 1 for wish in wishes), "a trait is served by values of several types"
    assert any(need.banned for need in needs)


def test_an_offered_item_meets_the_fate_that_it_has_where_it_is_examined(market):
    truth, rng = market.truth, np.random.default_rng(1)
    visits = market.visits.select(np.arange(400))
    pages = rng.integers(0, len(truth.catalogue), (400, 12)).astype(np.int32)
    pages[:, -1] = -1
    clicked, ordered = truth.fates(visits, pages)
    seen = truth.react(visits, pages)
    assert isinstance(seen, Reactions) and clicked.sum() > seen.clicked.sum() > 0
    assert np.array_equal(seen.clicked, clicked & seen.examined)
    assert np.array_equal(seen.ordered, ordered & seen.examined)
    assert not (ordered & ~clicked).any() and ordered.any() and not clicked[:, -1].any()
