"""The model of choice against its plain twin, one pair at a time, and what its randomness rests on."""

import math

import numpy as np
import pytest

from onesearch.market import keyed_random as keyed
from onesearch.market.kuaisearch_export import _Counts
from onesearch.market.market import Market
from onesearch.market.market_traffic import QUERY_TYPES
from onesearch.market.market_vocabulary import SLOTS
from onesearch.market.word_tables import read_words
from onesearch.market.world import World

from .conftest import CONFIG


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _plain_choice(market: Market, view: int, item: int) -> tuple[float, float]:
    """P(click | examined) and P(order | clicked) of a page view and an item by the formulas of docs/concepts.md."""
    truth = market.truth
    c, catalogue, shoppers, queries = truth.choice, truth.catalogue, truth.shoppers, truth.queries
    user, query = int(market.visits.user[view]), int(market.visits.query[view])
    level = int(truth.levels(np.array([query]), np.array([item]))[0])
    kind = QUERY_TYPES[queries.kind[query]]
    own = c.gift_taste if kind == "recommendation" else 1.0
    taste = sum(float(a) * float(b) for a, b in zip(shoppers.taste[user], catalogue.taste[item], strict=True)) * own
    gap = float(catalogue.price_level[item] - shoppers.price_level[user])
    price = min(1.0, max(-2.0, 1 - gap**2 / 2)) * own
    names = [catalogue.value_type[v] for v in queries.predicates[query] if 0 <= v < len(catalogue.value_names)]
    audience = int(catalogue.values[item, SLOTS.index("Audience")])
    wrong = audience >= 0 and not ("Audience" in names or kind == "recommendation")
    if wrong:
        place = read_words("attributes")["Audience"]["values"].index(catalogue.value_names[audience])
        wrong = not shoppers.audience_fit[user, place]
    quality, focus = float(catalogue.quality[item]), catalogue.leaves[item] == market.visits.focus[view]
    weight = c.click_quality + (c.ranking_quality if kind == "ranking" else 0.0)
    click = c.click_bias + c.click_relevance[level] + c.click_taste * taste + c.click_price * price + weight * quality
    order = c.order_bias + c.order_relevance[level] + c.order_taste * taste + c.order_price * price
    order += c.order_quality * quality + c.order_audience * wrong
    return _sigmoid(click + c.click_audience * wrong + c.click_focus * focus), _sigmoid(order)


def test_choice_follows_its_formulas(market: Market):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(market.visits), 150)
    visits = market.visits.select(rows)
    items = rng.integers(0, len(market.truth.catalogue), (len(rows), 8))
    owner, found = market.truth.candidates(visits)
    for row in range(len(rows)):  # half of the items are of the right leaves
        near = found[owner == row]
        items[row, :4] = near[rng.integers(0, len(near), 4)] if len(near) else items[row, :4]
    _, click, order = market.truth.probabilities(visits, items)
    listed = market.truth.catalogue.listed[items] <= visits.time[:, None]
    assert listed.mean() > 0.5 and not click[~listed].any() and not order[~listed].any()
    for row, place in zip(*np.nonzero(listed), strict=True):
        expected = _plain_choice(market, int(rows[row]), int(items[row, place]))
        assert (click[row, place], order[row, place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_mixer_is_splitmix64():
    """First outputs of the published generator for the seeds 0 and 1."""
    found = keyed.mix(np.array([0, 1], np.uint64))
    assert [hex(value) for value in found.tolist()] == ["0xe220a8397b1dcdaf", "0x910a2dec89025cc1"]


def test_examination_falls_with_the_rank_of_the_item(market: Market):
    """As many shoppers read down to a rank as the exponent says."""
    visits = market.visits
    examined = market.truth.react(visits, np.zeros((len(visits), 10), np.int64)).examined
    who = np.unique(np.stack([visits.user, visits.query], 1), axis=0, return_index=True)[1]
    expected = [rank**-market.truth.choice.examination_exponent for rank in range(1, 11)]
    assert examined[who].mean(0) == pytest.approx(expected, abs=0.03)


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(CONFIG.updated(items=6_000))


def test_listings_lie_as_often_as_their_department_does(world: World):
    """Stated colours that are not the item's: the chance of a conflict times that of another colour."""
    catalogue, settings = world.catalogue, world.config.catalogue
    _, attributes = world.listings()
    names = np.array([*catalogue.value_names, None], object)[catalogue.values[:, SLOTS.index("Color")]]
    department = world.vocabulary.leaf_department[catalogue.leaves]
    ambiguous = np.array([one["ambiguous"] for one in read_words("catalogue")["departments"].values()])[department]
    said = [
        next((entry["value"] for entry in entries if entry["type"] == "Color"), None)
        for entries in attributes.to_list()
    ]
    stated = np.array([value is not None for value in said])
    false = np.array([value is not None and value != true for value, true in zip(said, names, strict=True)])
    assert stated[names != None].mean() == pytest.approx(settings.field_stated, abs=0.03)  # noqa: E711 - elementwise
    for part, conflict in ((ambiguous, settings.conflict_ambiguous), (~ambiguous, settings.conflict)):
        # A type has ten colours with Zipf shares: another draw is another colour about five times in six.
        assert false[part & stated].mean() == pytest.approx(0.84 * conflict, rel=0.35)


def test_counts_of_the_month_before():
    """Events of one's own second and of more than 30 days ago do not count, nor do those of others."""
    day = 86_400
    keys = np.array([1, 1, 1, 1, 2])
    times = np.array([0, day, 31 * day, 31 * day + 5, 31 * day])
    counts = _Counts(keys, times)
    when = np.array([31 * day, 31 * day + 5, 31 * day + 6, 31 * day + 6])
    assert counts.before(np.array([1, 1, 1, 2]), when).tolist() == [1, 1, 2, 1]
    spent = _Counts(keys, times, np.array([1.0, 2, 4, 8, 16]))
    assert spent.before(np.array([1, 1, 1, 2]), when).tolist() == [2, 4, 12, 16]
