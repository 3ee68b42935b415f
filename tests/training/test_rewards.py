import numpy as np
import pytest
import torch
from pydantic import ValidationError

from onesearch.data.records import Item, items_frame
from onesearch.index.sid_index import SidIndex
from onesearch.search.boosts import Boost
from onesearch.training.click_rates import ClickRates
from onesearch.training.rewards import (
    Boosts,
    Rewards,
    RewardSettings,
    behaviour_reward,
    best_of_sids,
    items_of_sids,
)

ITEMS = items_frame(
    [
        Item("a", "boots", ("Shoes", "Boots"), seller="new"),
        Item("b", "tent", ("Outdoor",), seller="old"),
        Item("c", "sandals", ("Shoes", "Sandals")),
    ]
)
RATES = ClickRates(np.ones(1), np.array([0.5, 0.0, 1.0]), np.zeros(0), np.zeros(0))
QUERY, ITEM = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 0])
CLICKED, ORDERED = np.array([True, False, True, False]), np.array([True, False, False, False])


def test_behaviour_by_hand():
    assert behaviour_reward(CLICKED, ORDERED).tolist() == [4, 0, 3, 0]


def test_the_sum_by_hand():
    judged = {(0, 1): 2, (1, 2): 3}
    config = RewardSettings(click_rate=2.0, relevance=0.5, low=0.1, high=0.9)
    found = Rewards(config, ITEMS, RATES, judged=judged).compute(QUERY, ITEM, CLICKED, ORDERED)
    np.testing.assert_allclose(found["behaviour"], [4, 0, 3, 0])
    np.testing.assert_allclose(found["click_rate"], [1.0, 0.2, 1.8, 1.0])
    np.testing.assert_allclose(found["relevance"], [0, 1.0, 1.5, 0])
    np.testing.assert_allclose(found["total"], [5.0, 1.2, 6.3, 1.0], rtol=1e-6)


def test_boosts_raise_one_term_of_one_group():
    boost = Boost(name="emerging", column="seller", values=("new",), term="relevance", times=2.0)
    shoes = Boost(name="shoes", column="category", values=("Shoes",), term="all", times=3.0)
    boosts = Boosts.from_settings([boost, shoes], ITEMS)
    assert boosts.members == {"emerging": 1, "shoes": 2}
    assert boosts.factor["relevance"].tolist() == [6, 1, 3] and boosts.factor["behaviour"].tolist() == [3, 1, 3]
    assert boosts.raised.tolist() == [True, False, True]
    lowered = Boost(name="old", column="seller", values=("old",), times=0.5)
    assert Boosts.from_settings([lowered], ITEMS).raised is None
    config = RewardSettings(click_rate=0, boosts=(boost,))
    found = Rewards(config, ITEMS, RATES, judged={(0, 0): 3, (0, 1): 3}).compute(QUERY, ITEM, CLICKED, ORDERED)
    assert found["relevance"].tolist() == [6, 3, 0, 0] and not found["click_rate"].any()
    with pytest.raises(ValueError, match="typo"):
        Boosts.from_settings([Boost(name="typo", column="seller", values=("newe",), times=2)], ITEMS)
    with pytest.raises(ValidationError, match="times"):
        Boost(name="x", column="seller", values=("new",), times=0)


def test_mistaken_weights_are_refused():
    for wrong, said in (({"click": 5.0}, "above order"), ({"low": 0.6, "high": 0.5}, "not below high")):
        with pytest.raises(ValidationError, match=said):
            RewardSettings(**wrong)


def test_without_sources_only_behaviour_counts():
    found = Rewards(RewardSettings(), ITEMS).compute(QUERY, ITEM, CLICKED, ORDERED)
    np.testing.assert_array_equal(found["total"], found["behaviour"])


def test_a_shared_sid_takes_the_best_reward():
    sids = np.array([[0, 1], [0, 1], [1, 0], [0, 0]])
    index = SidIndex.build(sids, np.eye(4, dtype=np.float32), (2, 2))
    nodes = index.path(torch.tensor([2, 1]))[:, -1]
    items, owner = items_of_sids(index, nodes)
    assert sorted(zip(owner.tolist(), items.tolist(), strict=True)) == [(0, 2), (1, 0), (1, 1)]
    worth = torch.tensor([10.0, 30.0, 20.0, 0.0])
    assert best_of_sids(worth[items], owner, 2).tolist() == [20.0, 30.0]


def test_a_judgment_goes_before_what_the_trees_say():
    class Trees:
        def compute(self, queries, items):
            return np.stack([queries, items], 1).astype(np.float32)

        def levels(self, features):
            return ((features[:, 0] + features[:, 1]) % 4).astype(np.int8)

    trees = Trees()
    rewards = Rewards(RewardSettings(), ITEMS, pairs=trees, relevance=trees, judged={(1, 2): 1, (0, 1): 3})
    assert rewards.levels(QUERY, ITEM).tolist() == [0, 3, 1, 1]  # by the trees 0, 1, 3, 1
    assert Rewards(RewardSettings(), ITEMS, judged={(0, 1): 3}).levels(QUERY, ITEM).tolist() == [0, 3, 0, 0]
