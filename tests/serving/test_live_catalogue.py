"""The engine follows the store's item changes: all of them, in order, and a bad one stops no other."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from serving_fakes import FakeEngine

from onesearch.data.records import Item
from onesearch.serving import live_catalogue
from onesearch.serving.live_catalogue import LiveCatalogue, UnreadableItemError
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import StoreError, StoreState


@pytest.fixture
def engine():
    return FakeEngine()


def changed(metrics, kind):
    return metrics.changes.labels(kind)._value.get()


def test_the_answer_names_only_the_callers_own_problems(engine, store):
    catalogue = LiveCatalogue(engine, store, Metrics())
    engine.refuse_titles = {"poison"}
    assert list(catalogue.change([Item("bad", "poison"), Item("a", "lamp")], [])) == ["bad"]
    assert catalogue.change([Item("b", "mug")], []) == {} and set(engine.items) == {"a", "b"}
    assert "1 could not be indexed, such as 'bad'" in catalogue.problems()[0]
    assert catalogue.change([Item("bad", "shoe")], []) == {} and catalogue.problems() == []


def test_changes_are_applied_once_and_in_order(engine, store):
    store.change_items([Item("a", "lamp"), Item("b", "mug")], [])
    store.change_items([Item("c", "shoe")], ["a"])
    metrics = Metrics()
    catalogue = LiveCatalogue(engine, store, metrics)
    assert "not applied yet" in catalogue.problems()[0]
    assert catalogue.follow() == 3 and set(engine.items) == {"b", "c"}, "of `a` only the newest state is left"
    assert catalogue.follow() == 0 and catalogue.problems() == []
    assert (changed(metrics, "upsert"), changed(metrics, "delete")) == (2, 1)


def test_many_changes_take_several_turns_of_about_a_tenth_of_a_second(engine, store, monkeypatch):
    clock, parts, plain, cost = [0.0], [], engine.upsert, [0.0005]

    def upsert(items) -> None:
        clock[0] += cost[0] * len(items)
        parts.append(len(items))
        plain(items)

    monkeypatch.setattr(live_catalogue, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(engine, "upsert", upsert)
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.change([Item(f"i{n}", "lamp") for n in range(900)], [])
    assert parts == [100, 200, 200, 200, 200], "0.05 seconds, then 0.1 each"
    cost[0] = 0.01  # another model, say
    catalogue.change([Item(f"i{n}", "lamp") for n in range(230)], [])
    assert parts[5:] == [200, 10, 10, 10]
    cost[0] = 1e-9
    catalogue.change([Item(f"i{n}", "lamp") for n in range(60)], [])
    assert parts[9:] == [10, 20, 30], "no more than twice as many at once"
    cost[0] = 5.0
    catalogue.change([Item(f"i{n}", "lamp") for n in range(83)], [])
    assert parts[12:] == [80, 1, 1, 1] and len(engine.items) == 900


def test_own_changes_are_read_back_only_behind_those_of_others(engine, store, monkeypatch):
    plain, read = store.item_changes, []
    monkeypatch.setattr(store, "item_changes", lambda *a: read.extend(found := plain(*a)) or found)
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.follow()
    catalogue.change([Item("a", "lamp"), Item("b", "mug")], [])
    catalogue.change([Item("a", "green lamp")], ["b"])
    assert read == [] and {i: item.title for i, item in engine.items.items()} == {"a": "green lamp"}
    store.change_items([Item("c", "shoe")], ["a"])  # another server
    catalogue.change([Item("d", "hat")], [])
    assert [change.item_id for change in read] == ["c", "a", "d"] and set(engine.items) == {"c", "d"}
    assert catalogue.follow() == 0


def test_changes_that_come_while_others_are_applied_are_applied_as_one(engine, store, monkeypatch):
    """Three callers behind a first one; of an item that was deleted and sent again the newest state counts."""
    begun, go_on, batches, plain = threading.Event(), threading.Event(), [], engine.upsert

    def upsert(items) -> None:
        batches.append([item.item_id for item in items])
        if len(batches) == 1:
            begun.set()
            assert go_on.wait(20)
        plain(items)

    monkeypatch.setattr(engine, "upsert", upsert)
    read, item_changes = [], store.item_changes
    monkeypatch.setattr(store, "item_changes", lambda *a: read.extend(found := item_changes(*a)) or found)
    catalogue = LiveCatalogue(engine, store, Metrics())
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(catalogue.change, [Item("a", "lamp")], [])]
        assert begun.wait(20)
        for waiting, item, deleted in (
            (3, Item("b", "mug"), ["a"]),
            (4, Item("a", "green lamp"), []),
            (5, Item("c", "shoe"), []),
        ):
            calls.append(pool.submit(catalogue.change, [item], deleted))
            while len(catalogue._written) < waiting:
                time.sleep(0.005)
        go_on.set()
        assert [call.result() for call in calls] == [{}] * 4
    assert batches == [["a"], ["b", "a", "c"]] and read == []
    assert seen(engine) == {"a": "green lamp", "b": "mug", "c": "shoe"}


def test_a_caller_is_not_kept_by_others_who_come_again_and_again(engine, store, monkeypatch):
    """It applies up to its own change; the eight that come one behind the other are applied by their own callers."""
    catalogue, plain, others, appliers = LiveCatalogue(engine, store, Metrics()), engine.upsert, [], []
    catalogue.follow()

    def upsert(items) -> None:
        appliers.append(threading.get_ident())
        if len(appliers) < 9:  # one more comes while these are applied
            others.append(pool.submit(catalogue.change, [Item(f"other{len(appliers)}", "mug")], []))
            while len(catalogue._written) < len(items) + 1:
                time.sleep(0.002)
        plain(items)

    monkeypatch.setattr(engine, "upsert", upsert)
    with ThreadPoolExecutor(9) as pool:
        assert catalogue.change([Item("own", "lamp")], []) == {}
        while len(others) < 8:
            time.sleep(0.002)
        assert [other.result() for other in others] == [{}] * 8
    assert appliers.count(threading.get_ident()) == 1
    assert len(engine.items) == 9 and catalogue._written == {}


def test_a_change_that_was_told_to_have_failed_is_taken_from_the_store_alone(engine, store, monkeypatch):
    """The store fails after the write and then comes back as an older copy, to which another server writes."""
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.follow()
    write, state = store.change_items, store.state
    origin = store.state().origin
    monkeypatch.setattr(store, "change_items", lambda *_: StoreState(origin, 1))  # as if written
    monkeypatch.setattr(store, "state", Mock(side_effect=StoreError("gone")))
    with pytest.raises(StoreError):
        catalogue.change([Item("lost", "lamp")], [])
    monkeypatch.setattr(store, "state", state)
    write([Item("kept", "mug")], [])
    catalogue.follow()
    assert set(engine.items) == {"kept"}


def test_pages_of_changes_are_read_to_the_end_and_a_failure_loses_none(engine, store, monkeypatch):
    store.change_items([Item(f"i{n}", "lamp") for n in range(7)], [])
    plain, pages = store.item_changes, []

    def paged(after, limit=3):
        pages.append(after)
        if len(pages) == 2:
            raise StoreError("disk on fire")
        return plain(after, 3)

    monkeypatch.setattr(store, "item_changes", paged)
    catalogue = LiveCatalogue(engine, store, Metrics())
    with pytest.raises(StoreError):
        catalogue.follow()
    assert len(engine.items) == 3, "what was applied stays"
    assert catalogue.follow() == 4 and len(engine.items) == 7
    assert pages == [0, 3, 3, 6]


def seen(engine):
    return {item_id: item.title for item_id, item in engine.items.items()}


def test_a_store_that_was_emptied_takes_the_catalogue_with_it(engine, tmp_path):
    """A run of a and b; the store knew of a new a, a deleted b and c, and lost all of it."""
    engine.upsert([Item("a", "lamp"), Item("b", "mug")])
    store = SqliteStore(tmp_path / "s.sqlite3")
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.change([Item("a", "new lamp"), Item("c", "shoe")], ["b"])
    catalogue.change([Item("a", "newest lamp")], [])
    assert seen(engine) == {"a": "newest lamp", "c": "shoe"} and catalogue.problems() == []
    (tmp_path / "s.sqlite3").unlink()
    assert catalogue.follow() == 0 and seen(engine) == {"a": "lamp", "b": "mug"}
    assert "went back from revision 4 to 0" in catalogue.problems()[0]
    catalogue.follow()
    assert seen(engine) == {"a": "lamp", "b": "mug"}, "once is enough"


def test_a_change_of_an_emptied_store_is_served_before_it_is_answered(engine, tmp_path):
    engine.upsert([Item("a", "lamp")])
    store = SqliteStore(tmp_path / "s.sqlite3")
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.change([Item("b", "mug"), Item("c", "shoe")], ["a"])
    (tmp_path / "s.sqlite3").unlink()
    assert catalogue.change([Item("d", "drill")], []) == {}
    assert seen(engine) == {"a": "lamp", "d": "drill"}


def test_a_store_that_failed_over_to_an_older_copy_is_followed_back(engine, tmp_path):
    path, copy = tmp_path / "s.sqlite3", tmp_path / "copy.sqlite3"
    store = SqliteStore(path)
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.change([Item("a", "lamp"), Item("b", "mug")], [])
    store.close()
    shutil.copy(path, copy)
    store = catalogue._store = SqliteStore(path)
    catalogue.change([Item("c", "shoe"), Item("a", "new lamp")], ["b"])
    assert seen(engine) == {"c": "shoe", "a": "new lamp"}
    store.close()
    copy.replace(path)
    catalogue._store = SqliteStore(path)
    catalogue.follow()
    assert seen(engine) == {"a": "lamp", "b": "mug"} and "from revision 5 to 2" in catalogue.problems()[0]


@pytest.mark.parametrize("left", ["nothing", "an older copy"])
def test_a_change_that_the_store_loses_at_once_is_not_answered(engine, tmp_path, monkeypatch, left):
    path = tmp_path / "s.sqlite3"
    store = SqliteStore(path)
    store.close()
    shutil.copy(path, tmp_path / "copy.sqlite3")
    store = SqliteStore(path)
    catalogue = LiveCatalogue(engine, store, Metrics())
    plain = store.change_items

    def changed_and_lost(items, deleted):
        written = plain(items, deleted)
        if left == "nothing":
            path.unlink()
        else:
            store.close()
            (tmp_path / "copy.sqlite3").replace(path)
            catalogue._store = SqliteStore(path)
        return written

    monkeypatch.setattr(store, "change_items", changed_and_lost)
    with pytest.raises(StoreError, match="not in the store any more"):
        catalogue.change([Item("a", "lamp")], [])


def test_a_change_is_not_answered_by_anothers_of_the_same_revision_in_a_new_store(engine, tmp_path, monkeypatch):
    """The store is replaced between two callers: both get revision 1, and only the second one's is there."""
    store = SqliteStore(tmp_path / "s.sqlite3")
    catalogue, plain = LiveCatalogue(engine, store, Metrics()), store.change_items

    def changed_and_lost(items, deleted):
        written = plain(items, deleted)
        (tmp_path / "s.sqlite3").unlink()
        monkeypatch.setattr(store, "change_items", plain)
        assert catalogue.change([Item("b", "mug")], []) == {}
        return written

    monkeypatch.setattr(store, "change_items", changed_and_lost)
    with pytest.raises(StoreError, match="up to revision 1 are not in the store any more"):
        catalogue.change([Item("a", "lamp")], [])
    assert seen(engine) == {"b": "mug"} and catalogue._written == {}


def test_what_the_store_has_and_cannot_be_read_keeps_nothing_else_out(engine, store):
    """As of a newer version, in an upgrade: the item stays as it was, is named, and a new change mends it."""
    engine.upsert([Item("a", "lamp")])
    store.change_items([Item("a", "new lamp"), Item("b", "mug")], [])
    with store._db.write("damage it") as db:
        db.execute("UPDATE items SET body = ? WHERE item_id = 'a'", ('{"item_id": "a", "title": "x", "colour": 7}',))
    catalogue = LiveCatalogue(engine, store, Metrics())
    assert catalogue.change([Item("c", "shoe")], []) == {} and seen(engine) == {"a": "lamp", "b": "mug", "c": "shoe"}
    assert "1 could not be indexed, such as 'a'" in catalogue.problems()[0]
    assert "cannot be read: unknown field 'colour'" in catalogue.problems()[0]
    assert catalogue.change([Item("a", "newest lamp")], []) == {} and catalogue.problems() == []
    assert seen(engine)["a"] == "newest lamp"


def test_a_store_that_fails_while_it_is_noticed_changes_nothing_yet(engine, tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "s.sqlite3")
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.change([Item("a", "lamp")], [])
    (tmp_path / "s.sqlite3").unlink()

    def fails(*_):
        raise StoreError("disk on fire")

    with monkeypatch.context() as broken, pytest.raises(StoreError):
        broken.setattr(store, "item_changes", fails)
        catalogue.follow()
    assert seen(engine) == {"a": "lamp"} and "not applied yet" in catalogue.problems()[0]
    catalogue.follow()
    assert seen(engine) == {} and len(catalogue.problems()) == 1


@pytest.mark.redis
def test_a_redis_that_was_emptied_is_noticed(engine, redis_url, tmp_path):
    from onesearch.serving.redis_store import RedisStore

    store = RedisStore(redis_url, prefix=f"{tmp_path.name}:")
    catalogue = LiveCatalogue(engine, store, Metrics())
    catalogue.change([Item("a", "lamp"), Item("b", "mug")], [])
    for key in store._redis.client.scan_iter(f"{tmp_path.name}:*"):
        store._redis.client.delete(key)
    assert catalogue.change([Item("c", "shoe")], []) == {} and seen(engine) == {"c": "shoe"}
    assert "went back from revision 2 to 1" in catalogue.problems()[0]
    store.close()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def servers(request, tmp_path):
    """Two servers of one run on one store, each with connections of its own."""

    def opened():
        if request.param == "sqlite":
            return SqliteStore(tmp_path / "shared.sqlite3")
        from onesearch.serving.redis_store import RedisStore

        return RedisStore(request.getfixturevalue("redis_url"), prefix=f"{tmp_path.name}:")

    run = [Item(f"i{number}", f"lamp {number}", price=1.0) for number in range(20)]
    both = [LiveCatalogue(FakeEngine(run), opened(), Metrics()) for _ in range(2)]
    yield both
    for one in both:
        one._store.close()


def fields(**given):
    return lambda item: replace(item, **given)


def as_served(servers):
    """What both serve, which is the same, once they have followed."""
    for one in servers:
        one.follow()
    assert servers[0]._engine.items == servers[1]._engine.items
    return servers[0]._engine.items


def test_patches_of_two_servers_at_once_both_count(servers):
    """Both have read each item before one of them writes it: the second one begins again from what the first wrote."""
    together, asked = threading.Barrier(2), [set(), set()]

    def patch(at, **given):
        def changed(item):
            if item.item_id not in asked[at]:
                asked[at].add(item.item_id)
                together.wait(20)
            return replace(item, **given)

        for number in range(20):
            assert servers[at].patch({f"i{number}": changed}) == {}

    with ThreadPoolExecutor(2) as pool:
        for call in [pool.submit(patch, 0, price=7.0), pool.submit(patch, 1, in_stock=False)]:
            call.result()
    assert {(item.price, item.in_stock) for item in as_served(servers).values()} == {(7.0, False)}


def while_patched(patching, item_id, other):
    """A patch of an item's price, beside which ``other`` happens in another thread, from its read to its end."""
    happened = []

    def changed(item):
        if not happened:
            happened.append(True)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(other).result(20)
        return replace(item, price=7.0)

    return patching.patch({item_id: changed})


@pytest.mark.parametrize("other", [0, 1], ids=["same server", "another server"])
@pytest.mark.parametrize("state", ["run's own", "changed before"])
def test_a_patch_brings_no_item_back_that_is_deleted_meanwhile(servers, other, state):
    if state == "changed before":
        servers[0].change([Item("i3", "new lamp")], [])
    with pytest.raises(KeyError, match="i3"):
        while_patched(servers[0], "i3", lambda: servers[other].change([], ["i3"]))
    assert "i3" not in as_served(servers) and len(as_served(servers)) == 19


@pytest.mark.parametrize("other", [0, 1], ids=["same server", "another server"])
def test_a_patch_loses_no_upsert_that_comes_meanwhile(servers, other):
    assert while_patched(servers[0], "i3", lambda: servers[other].change([Item("i3", "new lamp", price=2.0)], [])) == {}
    assert as_served(servers)["i3"] == Item("i3", "new lamp", price=7.0)


def test_a_patch_begins_from_what_others_stored_and_is_not_followed_yet(servers):
    """Of another server: a title, an item that is new, and one that is gone."""
    servers[1].change([Item("i1", "green lamp"), Item("new", "mug")], ["i2"])
    assert servers[0].patch({"i1": fields(price=7.0), "new": fields(price=8.0)}) == {}
    with pytest.raises(KeyError, match="i2"):
        servers[0].patch({"i3": fields(price=9.0), "i2": fields(price=9.0)})
    found = as_served(servers)
    assert (found["i1"], found["new"]) == (Item("i1", "green lamp", price=7.0), Item("new", "mug", price=8.0))
    assert found["i3"].price == 1.0, "all or nothing"


def test_a_patch_begins_again_where_the_store_is_replaced_meanwhile(servers, tmp_path):
    """By an empty one: an item of the run is what the run has, and one that only the old store knew is unknown."""
    servers[0].change([Item("i1", "lost lamp"), Item("lost", "mug")], [])

    def emptied():
        store = servers[0]._store
        if isinstance(store, SqliteStore):
            (tmp_path / "shared.sqlite3").unlink()
        else:
            store._redis.client.delete(*store._redis.client.scan_iter(f"{tmp_path.name}:*"))

    assert while_patched(servers[0], "i1", emptied) == {}
    assert as_served(servers)["i1"] == Item("i1", "lamp 1", price=7.0) and "lost" not in as_served(servers)
    servers[0].change([Item("lost", "mug")], [])
    with pytest.raises(KeyError, match="lost"):
        while_patched(servers[0], "lost", emptied)
    assert as_served(servers)["i1"] == Item("i1", "lamp 1", price=1.0)


def test_a_patch_that_others_always_forestall_ends_and_changes_nothing(servers, monkeypatch):
    monkeypatch.setattr(live_catalogue, "_MOST_TRIES", 3)
    prices = iter(range(10, 99))

    def changed(item):
        servers[1].patch({"i1": fields(price=float(next(prices)))})
        return replace(item, brand="Acme")

    with pytest.raises(StoreError, match="'i1' were changed by others 3 times"):
        servers[0].patch({"i1": changed})
    assert as_served(servers)["i1"] == Item("i1", "lamp 1", price=12.0)


def test_a_patch_of_an_item_that_cannot_be_read_is_refused(engine, store):
    """What is not understood must not be overwritten by what this server knew before; sent as a whole it may be."""
    engine.upsert([Item("a", "lamp")])
    store.change_items([Item("a", "new lamp")], [])
    with store._db.write("damage it") as db:
        db.execute("UPDATE items SET body = ? WHERE item_id = 'a'", ('{"item_id": "a", "title": "x", "colour": 7}',))
    catalogue = LiveCatalogue(engine, store, Metrics())
    with pytest.raises(UnreadableItemError, match=r"item 'a'.* unknown field 'colour'; send it again, with all of its"):
        catalogue.patch({"a": fields(price=7.0)})
    assert catalogue.change([Item("a", "newest lamp")], []) == {}
    assert catalogue.patch({"a": fields(price=7.0)}) == {} and engine.item("a") == Item("a", "newest lamp", price=7.0)
