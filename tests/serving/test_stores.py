"""Both stores keep the same promises; SQLite's file format."""

import json
import re
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onesearch.data.records import KINDS, Item
from onesearch.serving.http_bodies import ItemBody
from onesearch.serving.keyword_coverage import coverage_by_span
from onesearch.serving.recorded_page_views import recorded_page_views
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import (
    Event,
    EventConflictError,
    ItemsConflictError,
    MadeFrom,
    RulesConflictError,
    RulesVersion,
    Search,
    StateCount,
    StoredItem,
    StoreError,
)
from onesearch.serving.stored_items import stored_change, stored_text

T0 = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def any_store(request, tmp_path):
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "store.sqlite3")
    else:
        from onesearch.serving.redis_store import RedisStore

        store = RedisStore(request.getfixturevalue("redis_url"), prefix=f"{tmp_path.name}:")
    yield store
    store.close()


def event(number, user="u", kind="click", item="i", query="q", minute=None):
    return Event(f"e{number}", user, item, kind, query, T0 + timedelta(minutes=number if minute is None else minute))


def test_history_is_newest_last_and_limited(any_store):
    for number in range(60):
        any_store.record(event(number, item=f"i{number}", query=f"q{number}"))
        any_store.record(event(100 + number, kind="order", item=f"o{number}"))
    any_store.record(event(999, user="other"))
    history = any_store.history("u")
    assert history.clicked == tuple(f"i{n}" for n in range(10, 60))
    assert history.clicked_queries[-1] == "q59"
    assert history.ordered == tuple(f"o{n}" for n in range(40, 60))
    assert not any_store.history("nobody")


def test_the_same_item_clicked_twice_is_two_clicks_as_they_came_whatever_their_times(any_store):
    any_store.record(event(1, item="a", minute=5))
    any_store.record(event(2, item="b", minute=1))
    any_store.record(event(3, item="a", minute=3))
    assert any_store.history("u").clicked == ("a", "b", "a")


def test_events_of_the_far_future_keep_no_later_one_out(any_store):
    for number in range(50):
        any_store.record(event(number, item="old", minute=60 * 24 * 365 * 900))
    any_store.record(event(50, item="new", minute=1))
    assert any_store.history("u").clicked == ("old",) * 49 + ("new",)


def test_events_count_once(any_store):
    assert any_store.record(event(1)) is True
    assert any_store.record(event(1)) is False
    assert any_store.record(event(1, minute=7)) is False, "a retry may come later"
    with pytest.raises(EventConflictError, match="'e1' was already used"):
        any_store.record(event(1, item="another"))
    assert any_store.history("u").clicked == ("i",)


def test_an_event_id_belongs_to_its_shopper(any_store):
    """Whoever claims another's id first keeps nothing from them, however ids and names are joined."""
    assert any_store.record(event(1, user="thief", item="x"))
    assert any_store.record(event(1, user="owner", item="y"))
    assert any_store.record(event(1, user=None, item="z"))
    assert any_store.record(event(1, user=None, item="z")) is False, "those of nobody share their ids"
    assert any_store.record(event(1, user="a:e"))
    assert any_store.record(Event("e:e1", "a", "other", "click", "q", T0))
    assert any_store.history("owner").clicked == ("y",)


def test_the_state_tells_which_store_it_is_and_its_newest_change(any_store):
    first = any_store.state()
    assert first.origin and first.revision == 0 and any_store.state() == first
    assert any_store.change_items([Item("a", "title")], ["b"]) == (first.origin, 2)
    assert any_store.state() == (first.origin, 2)


def test_items_that_are_not_what_a_change_was_made_from_are_left(any_store):
    never = any_store.stored_items(["a", "b"])
    assert never == MadeFrom(any_store.state().origin, {"a": StoredItem(), "b": StoredItem()})
    assert any_store.change_items([Item("a", "title")], ["b"], never).revision == 2
    first = any_store.stored_items(["a", "b"])
    assert first.items == {"a": StoredItem(1, stored_text(Item("a", "title"))), "b": StoredItem(2)}
    another = first._replace(origin="another")
    # Of a store that fell behind and went on, another state may have the same revision.
    same_number = first._replace(items={"a": StoredItem(1, stored_text(Item("a", "lost title")))})
    for made_from in (never, another, same_number):
        with pytest.raises(ItemsConflictError):
            any_store.change_items([Item("c", "x"), Item("a", "y")], ["b"], made_from)
    assert any_store.stored_items(["a", "b"]) == first and any_store.state().revision == 2
    any_store.change_items([Item("other", "title")], [])
    assert any_store.change_items([Item("a", "new title")], [], first).revision == 4, "others may change meanwhile"


def test_what_is_old_is_forgotten_and_item_changes_stay(any_store, monkeypatch):
    monkeypatch.setattr("onesearch.serving.sqlite_store._FORGOTTEN_AT_ONCE", 3)
    any_store.change_items([Item("a", "title")], [])
    for number in range(8):
        any_store.record(event(number))
        any_store.record_search(Search(f"s{number}", "u", f"q{number}", T0 + timedelta(minutes=number), ()))
    if isinstance(any_store, SqliteStore):
        assert any_store.forget(T0 + timedelta(minutes=7)) == 14
        assert any_store.history("u").clicked == ("i",) and any_store.forget(T0 + timedelta(minutes=7)) == 0
    else:  # its entries are dated as they come
        assert any_store.forget(T0) == 0 and any_store.forget(datetime.now(UTC) + timedelta(minutes=1)) == 16
    assert sum(traffic.searches for traffic in any_store.traffic(60)) == (isinstance(any_store, SqliteStore))
    assert len(any_store.item_changes(0)) == 1


def test_a_file_of_the_first_version_keeps_what_it_holds(tmp_path):
    from onesearch.serving import sqlite_store

    path = tmp_path / "old.sqlite3"
    with sqlite3.connect(path) as raw:
        raw.executescript(sqlite_store._MIGRATIONS[0])
        for n in (1, 2):
            values = (f"e{n}", "u", f"i{n}", "click", "q", 3 - n)
            raw.execute("INSERT INTO events (event_id, user, item_id, kind, query, time) VALUES (?,?,?,?,?,?)", values)
        raw.execute("PRAGMA user_version = 1")
    store = SqliteStore(path)
    assert store.history("u").clicked == ("i1", "i2")
    assert store.record(event(1, item="i1")) is False and store.record(event(1, user="other"))


def test_concurrent_events_count_once(any_store):
    recorded = []
    threads = [
        threading.Thread(target=lambda: recorded.extend(any_store.record(event(n, item=f"i{n}")) for n in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(recorded) == 20 and len(recorded) == 80
    assert len(any_store.history("u").clicked) == 20


def test_events_and_searches_are_read_as_they_came_page_by_page(any_store):
    events = [event(number, user=None if number % 2 else "u", minute=9 - number) for number in range(5)]
    events[2] = Event("e2", "u", "i", "order", "靴子", T0 + timedelta(minutes=7, microseconds=3), "s1")
    searches = [Search(f"s{number}", None, "q", T0, ("i", "j")[:number]) for number in range(3)]
    for one in events:
        any_store.record(one)
    for search in searches:
        any_store.record_search(search)
    page, place = any_store.events(limit=3)
    rest, end = any_store.events(place)
    assert page + rest == events and any_store.events(end) == ([], end) and len(page) == 3
    assert any_store.searches()[0] == searches and any_store.searches(any_store.searches(limit=2)[1])[0] == searches[2:]
    any_store.record(event(7, item="later"))
    assert [one.item_id for one in any_store.events(end)[0]] == ["later"]
    # SQLite knows the events' own times, Redis when they came.
    at = T0 + timedelta(minutes=8) if isinstance(any_store, SqliteStore) else datetime.now(UTC) + timedelta(minutes=1)
    assert len(any_store.events(since=at)[0]) == 2 * isinstance(any_store, SqliteStore)
    assert len(any_store.events(since=T0)[0]) == 6


def test_what_came_after_all_was_forgotten_is_read(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite3")
    for number in range(3):
        store.record(event(number))
    _, place = store.events()
    store.forget(T0 + timedelta(days=1))
    assert store.events(place)[0] == []
    store.record(event(9))
    assert [one.event_id for one in store.events(place)[0]] == ["e9"]


def test_recent_queries_are_distinct_newest_last(any_store):
    for number, query in enumerate(["a", "b", "", "a", "c", "d", "e", "f"]):
        any_store.record_search(Search(f"s{number}", "u", query, T0, ("i1", "i2")))
    any_store.record_search(Search("s9", None, "nobody's", T0, ()))
    assert any_store.history("u").recent_queries == ("a", "c", "d", "e", "f")


def typed(number, text, seconds, user="u", query=None):
    time = T0 + timedelta(seconds=seconds)
    return Search(f"s{number}", user, text if query is None else query, time, (f"i{number}",), typed=text)


def recorded(store):
    return [search.query for search in store.searches()[0]]


def test_what_is_typed_on_takes_the_place_of_what_stood_there(any_store):
    any_store.record_search(Search("s0", "u", "sc", T0 - timedelta(days=1), ("i1",)))
    # "scoote" was corrected; letters are taken back as well.
    letters = ["s", "sc", "sco", "scoo", "scoot", "scoote", "scooter", "scooters", "scooter"]
    for number, text in enumerate(letters, 1):
        any_store.record_search(typed(number, text, number / 2, query="scooter" if text == "scoote" else None))
        any_store.record_search(typed(100 + number, text[:1], number / 2, user="other"))
    assert [query for query in recorded(any_store) if query != "s"] == ["sc", "scooter"]
    assert any_store.history("u").recent_queries == ("sc", "scooter"), "and what was searched for before stays"
    assert sum(one.searches for one in any_store.traffic(3600) if one.query == "scooter") == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (typed(1, "red", 0), typed(2, "red shoe", 3.1)),
        (typed(1, "red", 1), typed(2, "red shoe", 0.9)),
        (typed(1, "red", 0), typed(2, "red", 1)),
        (typed(1, "red", 0), typed(2, "blue", 1)),
        (typed(1, "red", 0), typed(2, "red shoe", 1, user="v")),
        (typed(1, "red", 0, user=None), typed(2, "red shoe", 1, user=None)),
        (typed(1, "red", 0), Search("s2", "u", "red shoe", T0 + timedelta(seconds=1), ())),
        (Search("s1", "u", "red", T0, ()), typed(2, "red shoe", 1)),
    ],
)
def test_what_is_no_typing_stays(any_store, before, after):
    any_store.record_search(before)
    any_store.record_search(after)
    assert recorded(any_store) == [before.query, after.query]


def test_a_search_that_was_made_in_between_ends_typing(any_store):
    for search in (typed(1, "red", 0), Search("s2", "u", "blue", T0 + timedelta(seconds=1), ()), typed(3, "red s", 2)):
        any_store.record_search(search)
    assert recorded(any_store) == ["red", "blue", "red s"]


@pytest.mark.parametrize("who", ["u", None])
def test_a_search_that_got_a_click_stays(any_store, who):
    for number in range(3):  # of other searches
        any_store.record(Event(f"e{number}", "u", "i1", "click", "", T0, None if number else "s9"))
    any_store.record_search(typed(1, "red", 0))
    any_store.record(Event("e9", who, "i1", "click", "red", T0, "s1"))
    any_store.record_search(typed(2, "red shoe", 1))
    any_store.record_search(typed(3, "red shoes", 2))
    assert recorded(any_store) == ["red", "red shoes"] and any_store.history("u").recent_queries == ("red", "red shoes")
    assert any_store.delete_user("u").searches == 2
    any_store.record_search(typed(4, "red shoes x", 2.5))
    assert recorded(any_store) == ["red shoes x"]


def test_readers_miss_nothing_that_took_the_place_of_what_they_read(any_store):
    any_store.record_search(typed(1, "r", 0))
    _, place = any_store.searches()
    any_store.record_search(typed(2, "re", 1))
    assert [search.query for search in any_store.searches(place)[0]] == ["re"]


def test_traffic_is_counted_by_span_and_query(any_store):
    for minute, query in ((1, "lamp"), (59, "lamp"), (2, "mug"), (60, "lamp"), (61, "")):
        any_store.record_search(Search(f"s{minute}", None, query, T0 + timedelta(minutes=minute), ("i1",)))
    hour = T0 + timedelta(hours=1)
    assert any_store.traffic(3600) == [(T0, "lamp", 2), (T0, "mug", 1), (hour, "", 1), (hour, "lamp", 1)]
    assert any_store.traffic(86400) == [(T0, "", 1), (T0, "lamp", 3), (T0, "mug", 1)]


def test_item_changes_come_in_order_and_only_the_newest_state(any_store):
    items = [Item(item_id=f"i{n}", title=f"title {n}", attributes={"Color": ("red",)}, listed_at=T0) for n in range(3)]
    assert any_store.item_changes(0) == []
    first = any_store.change_items(items, ["gone"]).revision
    changes = any_store.item_changes(0)
    assert [(c.item_id, c.item) for c in changes] == [*((i.item_id, i) for i in items), ("gone", None)]
    assert changes[-1].revision == first and any_store.item_changes(first) == []
    any_store.change_items([], ["i0"])
    assert [(c.item_id, c.item) for c in any_store.item_changes(first)] == [("i0", None)]
    assert [c.item_id for c in any_store.item_changes(0, limit=2)] == ["i1", "i2"]
    assert [c.item_id for c in any_store.item_changes(0)] == ["i1", "i2", "gone", "i0"]


def test_shoppers_by_last_event(any_store):
    for number, user in enumerate(["a", "b", None, "a", "c", "b"]):
        any_store.record(event(number, user=user))
    assert any_store.shoppers(10) == ["b", "c", "a"] and any_store.shoppers(1) == ["b"]


def test_every_version_of_the_rules_stays_with_its_writer_and_time(any_store):
    assert any_store.rules() is None and any_store.rules(1) is None and any_store.rules_versions(9) == []
    noon = T0 + timedelta(hours=12, microseconds=7)
    assert any_store.write_rules("{}", "ann", T0, base=0) == 1
    assert any_store.write_rules('{"pins": []}', "bøb", noon) == 2
    newest = RulesVersion(2, noon, "bøb", '{"pins": []}')
    assert any_store.rules() == any_store.rules(2) == newest and any_store.rules(1).body == "{}"
    assert any_store.rules(3) is None and any_store.rules(0) is None
    assert any_store.rules_versions(9) == [newest._replace(body=""), RulesVersion(1, T0, "ann", "")]
    assert any_store.rules_versions(1) == [newest._replace(body="")]


def test_rules_made_from_an_older_version_are_refused(any_store):
    any_store.write_rules("{}", "ann", T0)
    for base in (0, 2):
        with pytest.raises(RulesConflictError, match=f"made from version {base} of the rules, and 1 is the newest"):
            any_store.write_rules("no", "bob", T0, base=base)
    assert any_store.rules().body == "{}" and any_store.write_rules("yes", "bob", T0, base=1) == 2


def test_a_deleted_shopper_leaves_nothing_and_others_everything(any_store):
    for user in ("u", "ux", "u*", "v", None):
        for number in range(3):
            any_store.record(event(number, user=user))
            any_store.record(event(10 + number, user=user, kind="order"))
            any_store.record_search(Search(f"s{number}", user, "lamp", T0, ("i",)))
    assert any_store.delete_user("u*") == (6, 3), "as a text, not as a pattern"
    assert any_store.record(event(1, user="ux")) is False, "the ids of others are known"
    assert not any_store.history("u*") and any_store.shoppers(9) == ["v", "ux", "u"]
    assert any_store.delete_user("u") == (6, 3) and any_store.delete_user("u") == (0, 0)
    assert len(any_store.history("v").clicked) == 3 and any_store.history("v").recent_queries == ("lamp",)
    assert any_store.traffic(60) == [(T0, "lamp", 9)]
    assert any_store.record(event(1)) is True, "their ids are forgotten, too"
    # Whoever reads on behind the last event misses none and reads none twice, also where the last one is deleted.
    _, place = any_store.events()
    assert any_store.delete_user("u") == (1, 0)
    any_store.record(event(50, user="w"))
    assert [one.user for one in any_store.events(place)[0]] == ["w"]
    assert any_store.record(event(1, user="u")) is True
    assert any_store.record(event(1, user="v")) is False and any_store.record(event(1, user=None)) is False


def test_of_a_deleted_shopper_not_even_the_newest_event_is_left(any_store):
    """Its row may have to stay where it was, so that its number is given to no other one; it must say nothing."""
    any_store.record(event(1, user="stays"))
    any_store.record_search(Search("s1", "gone", "lamp", T0, ("i1",)))
    _, place = any_store.searches()
    any_store.record(Event("e2", "gone", "secret", "order", "lamp", T0 + timedelta(minutes=1), "s1"))
    assert any_store.delete_user("gone") == (1, 1)
    assert [one.user for one in any_store.events()[0]] == ["stays"] and any_store.searches()[0] == []
    assert any_store.traffic(60) == []
    views = recorded_page_views(any_store)
    assert views["user_id"].to_list() == ["stays"] and views["clicked"].to_list() == [["i"]]
    any_store.record_search(Search("s3", "stays", "mug", T0, ()))
    assert [one.search_id for one in any_store.searches(place)[0]] == ["s3"]
    if isinstance(any_store, SqliteStore):
        with any_store._db.read("look") as db:
            rows = db.execute("SELECT * FROM events WHERE gone").fetchall()
        assert len(rows) == 1 and not {"gone", "secret", "lamp", "s1", "e2"} & set(map(str, rows[0]))


def test_ids_of_shown_items_may_hold_anything(any_store):
    shown = ("nl\nid", '["x"]', "", "靴子\t")
    any_store.record_search(Search("s1", None, "q", T0, shown))
    any_store.record_search(Search("s2", None, "q", T0, ()))
    assert [one.shown for one in any_store.searches()[0]] == [shown, ()]


def test_what_was_shown_before_ids_could_hold_line_ends_is_read(tmp_path):
    from onesearch.serving import sqlite_store

    with sqlite3.connect(tmp_path / "old.sqlite3") as raw:
        for script in sqlite_store._MIGRATIONS[:3]:
            raw.executescript(script)
        for values in (("s1", "i1\ni2"), ("s2", ""), ("s3", '["x"]')):
            raw.execute("INSERT INTO searches (search_id, query, time, shown) VALUES (?, 'q', 1, ?)", values)
        raw.execute("PRAGMA user_version = 3")
    store = SqliteStore(tmp_path / "old.sqlite3")
    store.record_search(Search("s4", None, "q", T0, ("i3",)))
    assert [one.shown for one in store.searches()[0]] == [("i1", "i2"), (), ('["x"]',), ("i3",)]
    assert store.traffic(60)[0].searches == 3


def test_what_was_known_of_a_query_and_what_was_explored_stay_with_the_search(any_store):
    kept = [
        Search("s1", None, "q", T0, ("i1", "i2"), "distilled", ("i2",)),
        Search("s2", None, "q", T0, ("i1",), "none"),
        Search("s3", None, "q", T0, ()),
        Search("s4", None, "q", T0, ("i1",), first_rank=20),
        Search("s5", None, "q", T0, ("i1",), first_rank=None),
    ]
    for one in kept:
        any_store.record_search(one)
    assert any_store.searches()[0] == kept


def test_coverage_counts_searches_with_a_query_by_span_and_state(any_store):
    hour = timedelta(hours=1)
    searched = [("a", 0, "none"), ("b", 0, "none"), ("a", 1, "cached"), (" ", 1, "none"), ("", 1, None), ("c", 1, None)]
    for number, (query, hours, state) in enumerate(searched):
        any_store.record_search(Search(f"s{number}", "u", query, T0 + hours * hour, (), state))
    any_store.record_search(Search("s9", "gone", "d", T0 + hour, ("i",), "queued", ("i",)))
    any_store.delete_user("gone")
    assert any_store.coverage(3600) == [(T0, "none", 2), (T0 + hour, None, 1), (T0 + hour, "cached", 1)]
    if isinstance(any_store, SqliteStore):
        with any_store._db.read("look") as db:
            assert db.execute("SELECT thought, explored FROM searches WHERE gone").fetchall() == [(None, None)]
    assert any_store.coverage(86_400) == [(T0, None, 1), (T0, "cached", 1), (T0, "none", 2)]
    day, *others = coverage_by_span(any_store.coverage(86_400))
    assert others == [] and (day.start, day.searches) == (T0, 4)
    assert day.states == {"none": 2, "cached": 1, "unknown": 1}
    assert day.share("cached", "distilled") == pytest.approx(1 / 3), "of those that are known"
    assert coverage_by_span([StateCount(T0, None, 3)])[0].share("none") is None


def test_deletions_are_counted_whether_there_was_anything_or_not(any_store):
    assert any_store.deletions() == 0
    any_store.record(event(1))
    any_store.delete_user("u")
    any_store.delete_user("nobody")
    assert any_store.deletions() == 2


def test_searches_of_an_earlier_file_have_no_state(tmp_path):
    from onesearch.serving import sqlite_store

    with sqlite3.connect(tmp_path / "old.sqlite3") as raw:
        for script in sqlite_store._MIGRATIONS[:4]:
            raw.executescript(script)
        raw.execute("INSERT INTO searches (search_id, query, time, shown, shown_ids) VALUES ('s1', 'q', 1, '', '[]')")
        raw.execute("PRAGMA user_version = 4")
    store = SqliteStore(tmp_path / "old.sqlite3")
    store.record_search(Search("s2", None, "q", T0, (), "cached"))
    assert [one.thought for one in store.searches()[0]] == [None, "cached"]
    assert [one.first_rank for one in store.searches()[0]] == [0, 0] and store.deletions() == 0
    assert [one.state for one in store.coverage(60)] == [None, "cached"]


@pytest.mark.redis
def test_searches_of_an_earlier_redis_have_no_state_and_its_format_is_raised(redis_url, tmp_path):
    from onesearch.serving.redis_store import RedisStore

    store = RedisStore(redis_url, f"{tmp_path.name}:")
    old = {"search_id": "s1", "user": None, "query": "q", "time": T0.isoformat(), "shown": ["i"]}
    client = store._redis.client
    client.xadd(f"{tmp_path.name}:searches", {"search": json.dumps(old)})
    client.set(f"{tmp_path.name}:format", 1)
    assert store.searches()[0] == [Search("s1", None, "q", T0, ("i",))]
    store.state()
    assert client.get(f"{tmp_path.name}:format") == "3", "an earlier version could not read what is recorded now"


def test_check_passes(any_store):
    any_store.check()


text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.builds(
        Item,
        item_id=text,
        title=text,
        category=st.lists(text, max_size=3).map(tuple),
        brand=st.none() | text,
        price=st.none() | st.floats(0, 1e9),
        attributes=st.dictionaries(
            st.sampled_from(["Color", "Material"]), st.lists(text, min_size=1, max_size=2).map(tuple)
        ),
        seller=st.none() | text,
        images=st.lists(text, max_size=2).map(tuple),
        listed_at=st.none() | st.datetimes(timezones=st.just(UTC)),
        in_stock=st.booleans(),
        kind=st.sampled_from(KINDS),
        transcript=st.none() | text,
        host=st.none() | text,
        linked=st.lists(text, max_size=2).map(tuple),
        start=st.none() | st.datetimes(max_value=datetime(2020, 1, 1), timezones=st.just(UTC)),
        end=st.none() | st.datetimes(min_value=datetime(2020, 1, 2), timezones=st.just(UTC)),
    )
)
def test_items_survive_json_unchanged(item):
    assert ItemBody.model_validate_json(stored_text(item)).item() == item
    assert stored_change(7, item.item_id, stored_text(item)) == (7, item.item_id, item, "")


def test_what_was_imported_beyond_the_limits_of_a_call_is_read_back(any_store):
    """Files have longer texts than callers may send; a price sent by itself writes the whole item to the store."""
    item = Item("a", "t" * 2000, ("c" * 300, "d\n"), attributes={"Color": ("v" * 300,) * 60}, description="x" * 60_000)
    any_store.change_items([item], [])
    assert [(change.item, change.problem) for change in any_store.item_changes(0)] == [(item, "")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting"),
        ("[1]", "attribute"),
        ("[" * 100_000, "recursion"),
        ('{"item_id": "a"}', "Field required|missing"),
        ('{"item_id": "a", "title": "x", "price": "cheap"}', "valid number"),
        ('{"item_id": "a", "title": "x", "attributes": {"": ["v"]}}', "attribute type"),
        ('{"item_id": "a", "title": "x", "colour": 7}', "unknown field 'colour'"),
    ],
)
def test_a_stored_item_that_cannot_be_read_has_a_problem_in_its_place(text, why):
    revision, item_id, item, problem = stored_change(3, "a", text)
    assert (revision, item_id, item) == (3, "a", None) and re.search(f"({why}).*; send it again$", problem), problem


def test_sqlite_survives_reopening(tmp_path):
    path = tmp_path / "deep" / "store.sqlite3"
    store = SqliteStore(path)
    store.record(event(1))
    store.change_items([Item("i", "title")], [])
    store.close()
    again = SqliteStore(path)
    assert again.history("u").clicked == ("i",) and again.item_changes(0)[0].item.title == "title"
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("PRAGMA user_version").fetchone() == (6,)


def test_sqlite_without_close_keeps_what_was_answered(tmp_path):
    """As after a kill: a second process opens the file while the first never closed it."""
    store = SqliteStore(tmp_path / "s.sqlite3")
    store.record(event(1))
    assert SqliteStore(tmp_path / "s.sqlite3").history("u").clicked == ("i",)


@pytest.mark.redis
def test_redis_refuses_keys_of_a_newer_version_and_brings_older_ones_their_number(redis_url, tmp_path):
    from onesearch.serving.redis_store import RedisStore

    store = RedisStore(redis_url, prefix=f"{tmp_path.name}:")
    redis, key = store._redis.client, f"{tmp_path.name}:format"
    assert redis.get(key) is None and store.state() and redis.get(key) == "3"
    RedisStore(redis_url, prefix=f"{tmp_path.name}:").close()
    redis.set(key, 4)
    with pytest.raises(StoreError, match=r"newer onesearch \(format 4, known up to 3\)"):
        RedisStore(redis_url, prefix=f"{tmp_path.name}:")
    with pytest.raises(StoreError, match="newer onesearch"):
        store.state()
    assert redis.get(key) == "4"


def test_sqlite_refuses_files_of_a_newer_version_and_strange_files(tmp_path):
    path = tmp_path / "new.sqlite3"
    SqliteStore(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"newer onesearch \(file version 99"):
        SqliteStore(path)
    strange = tmp_path / "strange.sqlite3"
    strange.write_bytes(b"not a database, but long enough to be read as a header of one" * 20)
    with pytest.raises(StoreError, match="could not open"):
        SqliteStore(strange)


def test_sqlite_failures_are_store_errors(tmp_path):
    store = SqliteStore(tmp_path / "s.sqlite3")
    store.close()
    for action in (lambda: store.history("u"), lambda: store.record(event(1)), store.check):
        with pytest.raises(StoreError, match=r"s\.sqlite3"):
            action()


def test_sqlite_failed_write_leaves_nothing(tmp_path):
    store = SqliteStore(tmp_path / "s.sqlite3")
    with pytest.raises(StoreError):
        store.change_items([Item("fine", "title")], [None])  # type: ignore[list-item]  # NOT NULL fails in the middle
    assert store.item_changes(0) == []
    store.check()


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path):
    """SQLite may take no more pages, as where there is no room for them; then there is some again."""
    store = SqliteStore(tmp_path / "s.sqlite3")
    with store._db.write("set") as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 4}")
    items, kept = [Item(f"i{n}", "x" * 500) for n in range(200)], 0
    with pytest.raises(StoreError, match="full"):
        for item in items:
            store.change_items([item], [])
            kept += 1
    assert 0 < kept < 199
    with pytest.raises(StoreError, match="full"):
        store.change_items(items, [])
    assert [change.item_id for change in store.item_changes(0)] == [f"i{n}" for n in range(kept)]
    with store._db.write("set") as db:
        db.execute("PRAGMA max_page_count = 100000")
    store.change_items(items[kept:], [])
    assert len(store.item_changes(0)) == 200


@pytest.mark.redis
def test_redis_that_is_down_is_a_store_error(tmp_path: Path):
    pytest.importorskip("redis", reason="the redis client is not installed")
    from onesearch.serving.redis_store import RedisStore

    store = RedisStore(f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(StoreError, match="Redis: could not check"):
        store.check()
    with pytest.raises(StoreError, match="not a Redis address"):
        RedisStore("nonsense://")


def test_missing_redis_client_names_the_install(monkeypatch):
    import sys

    from onesearch.serving.redis_store import RedisStore

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StoreError, match=r'pip install -e "\.\[redis\]"'):
        RedisStore("redis://127.0.0.1/0")
