"""Copies of a store and what is put in its place: both stores, the command, a service that goes on meanwhile."""

import json
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from serving_fakes import FakeEngine, catalogue
from typer.testing import CliRunner

from onesearch.cli import app as command_line
from onesearch.data.records import Item
from onesearch.serving import sqlite_store
from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import Event, Search, StoreError
from onesearch.understanding.thought_cache import SqliteThoughts

T0 = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def any_store(request, tmp_path):
    """A store whose name in Redis holds what its patterns give a meaning."""
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "store.sqlite3")
    else:
        from onesearch.serving.redis_store import RedisStore

        store = RedisStore(request.getfixturevalue("redis_url"), prefix=f"[{tmp_path.name}]*:")
    yield store
    store.close()


def event(number, user="u", kind="click"):
    return Event(f"e{number}", user, f"i{number}", kind, "lamp", T0 + timedelta(minutes=number))


def fill(store, numbers):
    for number in numbers:
        store.record(event(number))
        store.record(event(100 + number, "v", "order"))
        store.record_search(Search(f"s{number}", "u", f"lamp {number}", T0, ("i1", "i2")))
        store.change_items([Item(f"i{number}", f"title {number}")], [f"gone {number}"])


def content(store):
    changes = [(change.item_id, change.item) for change in store.item_changes(0)]
    return store.history("u"), store.history("v"), store.shoppers(9), store.traffic(60), changes


def test_a_backup_holds_what_the_store_held_and_restoring_it_forgets_what_came_later(any_store, tmp_path, monkeypatch):
    monkeypatch.setattr("onesearch.serving.redis_backup._AT_ONCE", 2)
    fill(any_store, range(3))
    before, state = content(any_store), any_store.state()
    any_store.backup(tmp_path / "backup")
    fill(any_store, range(3, 6))
    any_store.record(event(9, "w"))
    any_store.restore(tmp_path / "backup")
    assert content(any_store) == before and not any_store.history("w")
    assert any_store.state().revision == state.revision and any_store.state().origin != state.origin, "it is noticed"
    # Retries are known as before, and what came later is new.
    assert any_store.record(event(1)) is False and any_store.record(event(4)) is True
    assert any_store.change_items([Item("new", "title")], []).revision > state.revision
    assert sorted(path.name for path in tmp_path.iterdir() if "store" not in path.name) == ["backup"], "no scraps"


def test_a_backup_overwrites_nothing(any_store, tmp_path):
    (tmp_path / "backup").write_text("precious")
    with pytest.raises(StoreError, match="exists already"):
        any_store.backup(tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "precious"


def test_what_is_no_backup_or_a_damaged_one_changes_nothing(any_store, tmp_path):
    fill(any_store, range(3))
    any_store.backup(tmp_path / "whole")
    before = content(any_store)
    whole = (tmp_path / "whole").read_bytes()
    head = whole[: whole.index(b"\n") + 1] if whole.startswith(b"{") else whole[:4096]
    strange = {"head": head, "empty": b"", "text": b"hello", "json": b'{"a": 1}\n', "cut": whole[: len(whole) * 2 // 3]}
    for name, data in strange.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StoreError, match=name):
            any_store.restore(tmp_path / name)
        assert content(any_store) == before


@pytest.mark.redis
def test_redis_backups_leave_out_what_is_not_the_stores_and_expire_as_before(redis_url, tmp_path):
    from onesearch.serving.redis_store import RedisStore

    store = RedisStore(redis_url, prefix=f"{tmp_path.name}:")
    fill(store, range(2))
    redis, p = store._redis.client, f"{tmp_path.name}:"
    redis.set(p + "thought_queue", "the cache's own")
    store.backup(tmp_path / "b")
    redis.set(p + "thought_queue", "newer")
    store.restore(tmp_path / "b")
    assert redis.get(p + "thought_queue") == "newer" and "thought_queue" not in (tmp_path / "b").read_text()
    assert 0 < redis.ttl(p + "last_clicks:u") <= 365 * 24 * 3600 and redis.ttl(p + "items") == -1
    assert not list(redis.scan_iter(match=p + "restoring:*"))
    newer = (tmp_path / "b").read_text().replace('"version": 1', '"version": 7', 1)
    (tmp_path / "newer").write_text(newer)
    with pytest.raises(StoreError, match=r"newer onesearch \(version 7"):
        store.restore(tmp_path / "newer")
    lines = (tmp_path / "b").read_text().splitlines()
    for line in lines:
        json.loads(line)
    # A key whose time is over while it is restored keeps nothing else out.
    expiring = ["string", "event:1:u:over", 0, "x"]
    (tmp_path / "over").write_text("\n".join([lines[0], json.dumps(expiring), *lines[1:]]))
    before = content(store)
    store.restore(tmp_path / "over")
    assert content(store) == before
    for wrong in (["set", "items", None, ["i1"]], [[], "items", None, "x"], ["hash", "items", None, 5], "[" * 100_000):
        text = wrong if isinstance(wrong, str) else json.dumps(wrong)
        (tmp_path / "wrong").write_text("\n".join([lines[0], text, *lines[1:]]))
        with pytest.raises(StoreError, match="wrong is damaged"):
            store.restore(tmp_path / "wrong")
        assert content(store) == before


def test_backups_of_an_older_version_are_brought_to_this_one_and_newer_ones_are_refused(tmp_path):
    old = tmp_path / "old.sqlite3"
    with sqlite3.connect(old) as raw:
        raw.executescript(sqlite_store._MIGRATIONS[0])
        raw.execute("INSERT INTO events VALUES (1, 'e1', 'u', 'i1', 'click', 'q', 3, NULL)")
        raw.execute("PRAGMA user_version = 1")
    store = SqliteStore(tmp_path / "s.sqlite3")
    store.restore(old)
    assert store.history("u").clicked == ("i1",) and store.record(event(2))
    with sqlite3.connect(old) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"newer onesearch \(file version 99"):
        store.restore(old)
    foreign = tmp_path / "foreign.sqlite3"
    with sqlite3.connect(foreign) as raw:
        raw.execute("CREATE TABLE a (x)")
    with pytest.raises(StoreError, match="no backup of a store"):
        store.restore(foreign)
    assert store.history("u").clicked == ("i1", "i2")


def test_a_service_goes_on_while_it_is_backed_up_and_serves_what_is_restored(tmp_path):
    """Another process, as far as SQLite is concerned: connections of its own."""
    path, stop, refused = tmp_path / "s.sqlite3", threading.Event(), []
    config = ServingSettings(follow_seconds=0.02)
    with TestClient(create_app(FakeEngine(catalogue()), SqliteStore(path), config, "t")) as client:
        admin = {"Authorization": "Bearer t"}

        def shop():
            for number in range(10_000):
                body = {"event_id": f"e{number}", "user": "ann", "item_id": "i1", "kind": "click"}
                if client.post("/events", json=body).status_code != 200:
                    refused.append(number)
                if stop.wait(0.002):
                    return

        shopping = threading.Thread(target=shop, daemon=True)
        shopping.start()
        client.post("/items", json={"upsert": [{"item_id": "new", "title": "kept"}]}, headers=admin)
        other = SqliteStore(path)
        other.backup(tmp_path / "backup")
        client.post("/items", json={"upsert": [{"item_id": "newer", "title": "lost"}]}, headers=admin)
        other.restore(tmp_path / "backup")
        end = time.monotonic() + 10
        while client.get("/items/newer").status_code != 404 and time.monotonic() < end:
            time.sleep(0.02)
        stop.set()
        shopping.join()
        assert client.get("/items/newer").status_code == 404 and client.get("/items/new").status_code == 200
        assert refused == [] and "went back" in str(client.get("/healthz").json()["reasons"])


def test_the_command_backs_up_and_restores(tmp_path):
    store = SqliteStore(tmp_path / "s.sqlite3")
    fill(store, range(2))

    def call(*arguments):
        return CliRunner().invoke(command_line, ["store", *map(str, arguments)])

    done = call("backup", tmp_path / "s.sqlite3", tmp_path / "b")
    assert done.exit_code == 0 and "bytes" in done.output
    done = call("restore", tmp_path / "b", tmp_path / "other.sqlite3")
    assert done.exit_code == 0, done.output
    assert content(SqliteStore(tmp_path / "other.sqlite3")) == content(store)
    missing = call("backup", tmp_path / "nothing.sqlite3", tmp_path / "c")
    assert missing.exit_code == 1 and "no store" in missing.output and not (tmp_path / "nothing.sqlite3").exists()
    assert call("restore", tmp_path / "nothing", tmp_path / "s.sqlite3").exit_code == 1


def test_a_restore_that_fails_leaves_no_new_store(tmp_path):
    (tmp_path / "text").write_text("no backup")
    place = tmp_path / "new" / "s.sqlite3"
    done = CliRunner().invoke(command_line, ["store", "restore", str(tmp_path / "text"), str(place)])
    assert done.exit_code == 1 and "text" in done.output and list(place.parent.iterdir()) == []


@pytest.mark.parametrize("command", ["events export {other} out.parquet", "store backup {other} out", "cache"])
def test_a_database_of_another_program_is_not_touched(tmp_path, monkeypatch, command):
    """What is named as the store may be anything: a cache of thoughts, or the shop's own."""
    monkeypatch.chdir(tmp_path)
    if command == "cache":
        SqliteThoughts(tmp_path / "other.db")._db.close()
        command = "store backup {other} out"
    else:
        with closing(sqlite3.connect("other.db")) as raw:
            raw.execute("CREATE TABLE orders (x)")
    before = (tmp_path / "other.db").read_bytes()
    done = CliRunner().invoke(command_line, command.format(other="other.db").split())
    assert done.exit_code == 1 and "no file of onesearch" in done.output, done.output
    assert (tmp_path / "other.db").read_bytes() == before and not list(tmp_path.glob("out*"))
    (tmp_path / "empty.db").touch()
    done = CliRunner().invoke(command_line, command.format(other="empty.db").split())
    assert done.exit_code == 1 and "no store" in done.output and (tmp_path / "empty.db").stat().st_size == 0
