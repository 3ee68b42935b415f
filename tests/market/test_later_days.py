"""Days after the log: the same every time, the log untouched, and each switch changes what it says and nothing else."""

import re

import numpy as np
import pytest

from onesearch.market.later_days import LaterDays, LaterSettings
from onesearch.market.make_market import items_table
from onesearch.market.market_catalogue import US_PER_DAY, model_names
from onesearch.market.market_settings import MarketSettings
from onesearch.market.stand_in_thinker import Thinker
from onesearch.market.world import World

CONFIG = MarketSettings(items=600, users=200, days=30, page_views=4_000, seed=3)
STILL = LaterSettings(days=8, page_views=300)
SWITCHED = STILL.updated(drift=1.0, new_items=0.1, new_needs=0.2)


@pytest.fixture(scope="module")
def still():
    return LaterDays(CONFIG, STILL)


@pytest.fixture(scope="module")
def switched():
    return LaterDays(CONFIG, SWITCHED)


@pytest.fixture(scope="module")
def world():
    return World.build(CONFIG)


def test_days_follow_the_log_and_are_the_same_every_time(still):
    again = LaterDays(CONFIG, STILL)
    end = int(np.datetime64(CONFIG.start, "us").astype(np.int64)) + CONFIG.days * US_PER_DAY
    for number in range(2):
        day = still.day(number)
        assert day.page_views.equals(again.day(number).page_views) and len(day.visits) == 300
        in_day = (day.visits.time - end - number * US_PER_DAY) / US_PER_DAY
        assert in_day.min() >= 0 and in_day.max() < 1.01, "a session may last beyond midnight"
        assert (np.diff(day.visits.time) >= 0).all()
    first, second = (set(still.day(number).page_views["page_view_id"]) for number in (0, 1))
    assert len(first | second) == 600
    with pytest.raises(IndexError):
        still.day(8)


def test_without_switches_the_market_stays_as_it_was(still, world):
    assert still.items.equals(items_table(world)) and still.logged == 600
    first, last = still.day(0), still.day(7)
    assert (first.truth.catalogue.quality == world.catalogue.quality).all()
    assert (last.truth.catalogue.quality == world.catalogue.quality).all()
    assert not any(still.day(number).new_words.any() for number in range(8))
    assert sum(len(still.new_items(number)) for number in range(8)) == 0
    # What shoppers look for: interests of the log's last week, and of nothing else.
    own = (last.visits.focus[:, None] == world.shoppers.interests[last.visits.user, -1]).any(1)
    assert own.mean() > 0.8


def test_a_shopper_has_another_fate_on_another_day_and_the_same_before_two_engines(still):
    one, other = still.day(0), still.day(1)
    pages = np.tile(np.arange(10, dtype=np.int32), (300, 1))
    here = one.truth.react(one.visits, pages)
    assert (here.clicked == one.truth.react(one.visits, pages).clicked).all()
    there = other.truth.react(one.visits, pages)  # the same visits, a day later
    assert (here.examined != there.examined).any()


def test_items_drift_along_their_own_direction(switched, world):
    moved = [switched.day(number).truth.catalogue.quality[:600] - world.catalogue.quality for number in (0, 3, 7)]
    assert moved[2].std() == pytest.approx(1.0, abs=0.1) and abs(moved[2].mean()) < 0.15
    assert moved[0] == pytest.approx(moved[2] / 8, abs=1e-5) and moved[1] == pytest.approx(moved[2] / 2, abs=1e-5)
    day = switched.day(7)
    own = (day.visits.focus[:, None] == world.shoppers.interests[day.visits.user, -1]).any(1)
    assert 0.35 < own.mean() < 0.75, "two weeks later a shopper has some other interests"


def test_new_items_stand_behind_the_old_ones_and_are_listed_day_by_day(switched, world):
    old, new = switched.items[:600], switched.items[600:]
    assert old.equals(items_table(world)), "their titles stay"
    assert len(new) == 60 and new["item_id"].to_list() == [f"i{row}" for row in range(600, 660)]
    names, models = model_names(world.catalogue, CONFIG.seed), switched.day(0).truth.catalogue.models[600:]
    stated = [(re.findall(r"\b[A-Z]{2}\d{3,4}\b", title), row) for title, row in zip(new["title"], models, strict=True)]
    assert sum(bool(found) for found, _ in stated) > 5
    assert all(found == [names[row]] for found, row in stated if found), "as queries name them"
    by_day = [switched.new_items(number) for number in range(8)]
    assert [one for day in by_day for one in day["item_id"]] == new["item_id"].to_list()
    catalogue, kinds = switched.day(0).truth.catalogue, world.vocabulary
    assert len(catalogue) == 660 and (catalogue.leaves == kinds.type_leaf[catalogue.types]).all()
    # Nobody gets what is not listed yet.
    last = switched.day(7)
    first_day = switched.day(0)
    late = np.flatnonzero(catalogue.listed > first_day.visits.time.max())
    assert len(late) > 20
    pages = np.tile(late[:10].astype(np.int32), (300, 1))
    assert first_day.truth.probabilities(first_day.visits, pages)[1].max() == 0
    assert last.truth.probabilities(last.visits, pages)[1].max() > 0
    morning = int(first_day.visits.time.min() // US_PER_DAY * US_PER_DAY)
    assert (switched._in_mind(0, morning).log_popularity[late] < -20).all(), "nor has anybody it in mind"
    assert not np.isin(first_day.truth.best(first_day.visits, 10), late).any()


def test_new_words_are_said_from_a_day_on_and_a_language_model_knows_them(switched, world, tmp_path):
    days = [switched.day(number) for number in range(8)]
    new = [int(day.new_words.sum()) for day in days]
    assert new[-1] > new[0] and sum(new) > 30
    for number, day in enumerate(days):
        topic = day.truth.queries.topic[day.visits.query]
        assert (switched._said[0][topic[topic >= 0]] <= number).all(), "no topic before its day"
    known = {*world.needs.topics, *world.needs.traits}
    said = [{word for query in day.page_views.filter(day.new_words)["query"] for word in query.split()} for day in days]
    switched.save(tmp_path / "later")
    switched.save(tmp_path / "later")  # as it is
    thinker = Thinker.load(tmp_path / "later", error=0.0)
    words = {*thinker.knowledge.topics, *thinker.knowledge.traits} - known
    assert len(words) == round(0.2 * len(world.needs.topics)) + round(0.2 * len(world.needs.traits))
    assert all(
        words & query for query in map(set, map(str.split, days[-1].page_views.filter(days[-1].new_words)["query"]))
    )
    assert not any(words & set(query.split()) for query in days[-1].page_views.filter(~days[-1].new_words)["query"])
    firsts = {word: next(n for n, texts in enumerate(said) if word in texts) for word in set().union(*said) & words}
    assert len(set(firsts.values())) > 3
    query = days[-1].page_views.filter(days[-1].new_words)["query"][0]
    assert thinker.think(query)["keywords"], query


def test_complex_queries_are_asked_again_by_zipfs_law(still):
    again = LaterDays(CONFIG, STILL.updated(repeated=0.6))
    days = [(still.day(number), again.day(number)) for number in range(8)]
    leaf_of: dict[str, int] = {}
    asked, repeated = [], []
    for before, after in days:
        one, other = before.page_views, after.page_views
        assert one.drop("query", "query_type").equals(other.drop("query", "query_type"))
        hard = (one["query_type"] != "plain").to_numpy()
        assert (hard == (other["query_type"] != "plain").to_numpy()).all()
        # Plain queries stay; a complex one is its own, or one of those that stood before it.
        assert one["query"].filter(~hard).equals(other["query"].filter(~hard))
        leaves = [day.visits.focus[hard].tolist() for day in (before, after)]
        rows = zip(one["query"].filter(hard), other["query"].filter(hard), *leaves, strict=True)
        for own, found, leaf, now in rows:
            leaf_of.setdefault(own, leaf)
            asked.append(found)
            assert found in leaf_of
            if found != own:
                repeated.append(leaf_of[found] == now)
    # Whoever asks for something has its leaf in mind.
    assert np.mean(repeated) > 0.9
    assert 0.45 < len(repeated) / len(asked) < 0.6
    # The first of them all comes about n / ln n times as often as chance would have it, the tenth a tenth as often.
    counts = [asked.count(query) for query in leaf_of]
    assert counts[0] > 0.05 * len(asked) and counts[0] > 3 * np.mean(counts[8:13])
