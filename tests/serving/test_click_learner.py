"""The service learns from clicks while it serves."""

import time
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from onesearch.data.records import Item
from onesearch.serving import click_learner
from onesearch.serving.click_learner import ClickLearner
from onesearch.serving.http_app import create_app
from onesearch.serving.http_bodies import now
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import Event, Search, StoreError
from small_engine import small_engine

TICK = 0.05
QUICK = ServingSettings(learn_seconds=TICK)


def counted(engine) -> dict[tuple[str, str], float]:
    live = engine.counted[-1]
    names = [(live.queries[q], live.item_ids[i]) for q, i in zip(live.query, live.item, strict=True)]
    return dict(zip(names, (round(count, 3) for count in live.counts.tolist()), strict=True))


def click(number: int, user: str | None = "ann", item: str = "i1", query: str = "Red  shoe", **more) -> Event:
    return Event(f"e{number}", user, item, more.pop("kind", "click"), query, more.pop("time", now()), **more)


@pytest.fixture
def learner(engine, store):
    return ClickLearner(engine, store, ServingSettings(half_life_days=10, learn_shoppers=1))


def test_a_shopper_counts_once_for_a_query_an_item_and_a_day(engine, store, learner):
    for number in range(150):
        store.record(click(number, kind="click" if number % 2 else "order"))
    store.record(click(200, query="lamp"))
    assert learner.learn() == 2 and counted(engine) == {("red shoe", "i1"): 1, ("lamp", "i1"): 1}
    assert engine.counted[-1].clicked.tolist() == pytest.approx([1], abs=1e-4), "an item once a day for all queries"
    assert learner.learn() == 0 and len(engine.counted) == 1, "nothing new, nothing to do"
    store.record(click(201))
    store.record(click(202, user="bob"))
    store.record(click(203, time=now() - timedelta(days=1)))
    assert learner.learn() == 2 and counted(engine)[("red shoe", "i1")] == pytest.approx(2 + 0.5**0.1, abs=2e-3)


def test_without_a_shopper_an_event_counts_once_for_a_search_that_showed_the_item(engine, store, learner):
    for number in range(3):
        store.record_search(Search(f"s{number}", None, "Red shoe", now(), ("i0", "i1")))
        for again in range(2):
            store.record(click(10 * number + again, None, query="whatever", search_id=f"s{number}"))
    for number in range(50, 80):  # made-up searches, one that did not show the item, none: all of these count as one
        store.record(click(number, None, query="boots", search_id=f"made up {number}"))
    store.record(click(90, None, "i7", query="boots", search_id="s1"))
    store.record(click(91, None, "i7", query="boots"))
    learner.learn()
    assert counted(engine) == {("red shoe", "i1"): 3, ("boots", "i1"): 1, ("boots", "i7"): 1}


def test_clicks_count_for_more_where_few_look(engine, store):
    learner = ClickLearner(engine, store, ServingSettings(examination=(1.0, 0.5, 0.01), learn_shoppers=1))
    for number, rank in enumerate((0, 1, 2, 7)):
        shown = tuple(f"i{one}" for one in range(rank + 1))
        store.record_search(Search(f"s{number}", None, "shoe", now(), shown))
        store.record(click(number, None, f"i{rank}", search_id=f"s{number}"))
    learner.learn()
    mean = 4 / (1 + 2 + 10 + 10)  # a tenth of the shoppers look at the lowest ranks at least
    wanted = {("shoe", f"i{rank}"): mean * times for rank, times in ((0, 1), (1, 2), (2, 10), (7, 10))}
    assert counted(engine) == pytest.approx(wanted, abs=2e-3)


def test_clicks_on_later_pages_count_at_their_ranks_and_those_of_sorted_pages_at_none(engine, store):
    config = ServingSettings(examination=(1.0, 0.5, 0.25, 0.2), learn_shoppers=1)
    learner = ClickLearner(engine, store, config)
    for number, first in enumerate((0, 2, None)):
        store.record_search(Search(f"s{number}", None, "shoe", now(), ("i8", f"i{number}"), first_rank=first))
        store.record(click(number, None, f"i{number}", search_id=f"s{number}", query="not asked"))
    learner.learn()
    mean = 2 / (1 / 0.5 + 1 / 0.2)  # of the two whose ranks are known
    wanted = {("shoe", "i0"): mean / 0.5, ("shoe", "i1"): mean / 0.2, ("shoe", "i2"): 1}
    assert counted(engine) == pytest.approx(wanted, abs=2e-3)


def test_clicks_of_a_shopper_who_was_deleted_count_no_more(engine, store, learner):
    store.record(click(1))
    store.record(click(2, user="bob", item="i2"))
    assert learner.learn() == 2 and len(counted(engine)) == 2
    store.delete_user("ann")
    learner.learn()
    assert counted(engine) == {("red shoe", "i2"): 1}
    another = ClickLearner(engine, store, ServingSettings(half_life_days=10, learn_shoppers=1))
    another.learn()
    assert counted(engine) == {("red shoe", "i2"): 1}, "as a server that starts now"
    store.delete_user("bob")
    learner.learn()
    assert counted(engine) == {}


def test_what_the_log_has_or_nearly_counts_nothing_is_left_out(engine, store, learner):
    engine.logged_until = now() - timedelta(days=3)
    for number, days in enumerate((1, 2, 5)):
        store.record(click(number, user=f"u{number}", time=now() - timedelta(days=days)))
    assert learner.learn() == 2
    engine.logged_until = now() + timedelta(days=300)  # a clock that was wrong keeps no click out for ever
    late = ClickLearner(engine, store, ServingSettings())
    assert late.learn() == 0
    engine.logged_until = None
    store.record(click(7, user="old", time=now() - timedelta(days=101)))
    assert ClickLearner(engine, store, ServingSettings(half_life_days=10, learn_shoppers=1)).learn() == 3


def test_servers_come_to_the_same_counts_however_they_read(engine, store, learner, monkeypatch):
    monkeypatch.setattr(click_learner, "_SEARCHES", 2)
    for number in range(6):
        store.record_search(Search(f"s{number}", None, "shoe", now(), ("i0", "i1")))
        store.record(click(number, None, f"i{number % 2}", search_id=f"s{number}"))
        learner.learn()
    stepwise = counted(engine)
    assert ClickLearner(engine, store, ServingSettings(half_life_days=10, learn_shoppers=1)).learn() == 6
    assert counted(engine) == stepwise == {("shoe", "i0"): 3, ("shoe", "i1"): 3}


def test_a_store_that_fails_or_begins_anew(engine, store, learner, tmp_path):
    store.record(click(1))
    store.broken = frozenset({"searches"})
    with pytest.raises(StoreError):
        learner.learn()
    assert "clicks" in learner.problem and not engine.counted
    store.broken = frozenset()
    assert learner.learn() == 1 and learner.problem is None
    learner._store = SqliteStore(tmp_path / "another.sqlite3")
    assert learner.learn() == 0 and counted(engine) == {}, "what the store does not know does not count"


def test_an_engine_whose_counts_end_elsewhere_gets_its_clicks_anew(engine, store, learner):
    for number, days in enumerate((1, 2, 5)):
        store.record(click(number, user=f"u{number}", time=now() - timedelta(days=days)))
    assert learner.learn() == 3
    engine.logged_until = now() - timedelta(days=3)  # an update counted the oldest
    assert learner.learn() == 2 and sum(counted(engine).values()) == pytest.approx(0.5**0.1 + 0.5**0.2, abs=2e-3)
    engine.logged_until = None  # and was taken back
    assert learner.learn() == 3 and learner.learn() == 0


def test_clicks_on_items_that_the_log_does_not_count_stay_when_an_update_counted_the_rest(engine, store, learner):
    engine.later = {"i5"}
    for number, (item, days) in enumerate((("i5", 5), ("i1", 5), ("i5", 1), ("i1", 1))):
        shown = now() - timedelta(days=days)
        store.record_search(Search(f"s{number}", "ann", "red shoe", shown, (item,)))
        store.record(click(number, item=item, query="whatever", time=shown, search_id=f"s{number}"))
    engine.logged_until = now() - timedelta(days=3)
    assert learner.learn() == 3
    assert counted(engine)[("red shoe", "i5")] == pytest.approx(0.5**0.1 + 0.5**0.5, abs=2e-3)
    assert counted(engine)[("red shoe", "i1")] == pytest.approx(0.5**0.1, abs=2e-3)
    store.record(click(9, item="i1"))
    assert learner.learn() == 1 and counted(engine)[("red shoe", "i5")] == pytest.approx(0.5**0.1 + 0.5**0.5, abs=2e-3)


def test_an_engine_knows_which_items_its_log_counts():
    engine = small_engine()
    engine.upsert([Item("new", "red tent")])
    assert engine.in_log_counts("red-tent-0") and not engine.in_log_counts("new") and not engine.in_log_counts("none")


def page(client: TestClient, query: str, **more) -> list[str]:
    found = client.post("/search", json={"query": query, "record": False, **more}).json()
    return [hit["item_id"] for hit in found["results"]]


def within(client: TestClient, query: str, item: str, place: int) -> bool:
    """Whether an item comes to a place within a few ticks."""
    until = time.monotonic() + 100 * TICK
    while time.monotonic() < until:
        if page(client, query, k=40).index(item) <= place:
            return True
        time.sleep(TICK)
    return False


def test_clicks_move_an_item_up_for_everybody_and_a_restart_keeps_it(tmp_path):
    """Through the service, on a whole engine: an item of the log, and one that came later, each for a new query."""
    engine = small_engine()

    def served(config: ServingSettings) -> TestClient:
        own = engine.with_settings(engine.config, engine.weights)
        return TestClient(create_app(own, SqliteStore(tmp_path / "s"), config, "token"))

    query, store = "green lamp", SqliteStore(tmp_path / "s")
    new = {"item_id": "brass-lamp", "title": "green brass lamp", "category": ["Shop", "lamp"]}
    with served(QUICK) as client:
        client.post("/items", json={"upsert": [new]}, headers={"Authorization": "Bearer token"})
        before = page(client, query, k=40)
        low = before[7]
        # One client alone moves nothing, however often it says so.
        said = {"user": "eve", "item_id": low, "kind": "click", "query": query}
        assert client.post("/events", json=said).is_success
        for number in range(150):
            store.record(click(number, "eve", low, query, time=now() - timedelta(hours=number % 20)))
        time.sleep(6 * TICK)
        assert page(client, query, k=40) == before
        # As many shoppers move it up for everybody; those without a name count by their searches.
        for number in range(150):
            store.record(click(number, f"u{number}", low, query))
            store.record_search(Search(f"s{number}", None, "brass thing", now(), ("red-tent-0", "brass-lamp")))
            store.record(click(1000 + number, None, "brass-lamp", "", search_id=f"s{number}"))
        assert within(client, query, low, 0) and within(client, "brass thing", "brass-lamp", 0)
        assert page(client, query, user="nobody yet")[0] == low
        after = page(client, query, k=40)
    with served(QUICK) as client:
        assert page(client, query, k=40) == after, "counted again before the first search"
    with served(QUICK.updated(learn_seconds=0)) as client:
        assert page(client, query, k=40) == before, "without learning the log alone counts"
    store.close()
