"""Catalogue changes over HTTP: who may, what happens, and what searches see meanwhile."""

import threading

import pytest
from fastapi.testclient import TestClient
from serving_fakes import FakeEngine, catalogue

from onesearch.search.confidence import Confidence
from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from small_engine import small_engine

NEW = {
    "item_id": "n1",
    "title": "violet teapot",
    "category": ["Home", "teapot"],
    "brand": "Acme",
    "price": 12.5,
    "attributes": {"Color": ["violet"]},
    "listed_at": "2024-05-01T10:00:00+02:00",
}


def found(client, query):
    return [hit["item_id"] for hit in client.post("/search", json={"query": query}).json()["results"]]


def test_similar_items(client, engine):
    item_id = next(iter(engine.items))
    answer = client.get(f"/items/{item_id}/similar", params={"k": 3}).json()
    assert answer["item_id"] == item_id and len(answer["results"]) == 3
    assert item_id not in [hit["item_id"] for hit in answer["results"]]
    assert client.get("/items/nobody/similar").status_code == 404
    assert client.get(f"/items/{item_id}/similar", params={"k": 101}).status_code == 422
    assert client.get(f"/items/{item_id}").json()["item"]["item_id"] == item_id


def test_everything_may_be_deleted_and_sent_again(tmp_path):
    """Over HTTP, with the engine itself."""
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    items = [engine.item(item_id) for item_id in list(engine.snapshot.number)]
    app = create_app(engine, SqliteStore(tmp_path / "s.sqlite3"), admin_token="token")
    admin = {"Authorization": "Bearer token"}
    with TestClient(app) as client:
        before = found(client, "red tent")
        gone = client.post("/items", json={"delete": [item.item_id for item in items]}, headers=admin)
        assert gone.status_code == 200
        for body in ({"query": "red tent"}, {"query": ""}, {"query": "lamp", "count": True, "facets": ["brand"]}):
            answer = client.post("/search", json=body)
            assert answer.status_code == 200 and answer.json()["results"] == []
        assert client.post("/search", json={"query": "lamp", "count": True}).json()["total"] == 0
        again = [{"item_id": item.item_id, "title": item.title, "category": item.category} for item in items]
        assert client.post("/items", json={"upsert": again}, headers=admin).status_code == 200
        assert len(found(client, "red tent")) == len(before) > 0


def test_an_id_may_end_as_another_path_does(client, admin):
    item = {"item_id": "tea/similar", "title": "a teapot"}
    assert client.post("/items", json={"upsert": [item]}, headers=admin).status_code == 200
    assert client.get("/items/tea%2Fsimilar").json()["item"]["title"] == "a teapot"
    assert client.get("/items/tea%2Fsimilar/similar").json()["item_id"] == "tea/similar"
    assert client.get("/items/tea/similar").status_code == 404 and client.get("/items/pot%2Fsimilar").status_code == 404


def test_a_line_end_in_an_id_is_an_unknown_id_and_no_unknown_path(client, admin):
    assert client.get("/items/tea%0A").json() == {"error": "no item 'tea\\n' in the catalogue", "fields": {}}
    assert client.get("/shoppers/%0A/history").status_code == 200
    assert client.delete("/users/a%0Ab", headers=admin).status_code == 200


def test_attribute_types_are_one_line(client, admin):
    for name in ("a\x1fb", "a\nb"):
        item = {"item_id": "n1", "title": "lamp", "attributes": {name: ["red"]}}
        answer = client.post("/items", json={"upsert": [item]}, headers=admin)
        assert answer.status_code == 422 and "control characters" in answer.json()["error"]


@pytest.mark.parametrize("field", ["category", "brand", "seller", "attributes"])
def test_names_have_no_separator_of_names_in_them(client, admin, field):
    """`A` U+001F `B` would be read as the category B below A."""
    name = {"category": ["A\x1fB"], "attributes": {"Color": ["A\x1fB"]}}.get(field, "A\x1fB")
    answer = client.post("/items", json={"upsert": [{"item_id": "n1", "title": "lamp", field: name}]}, headers=admin)
    assert answer.status_code == 422 and "U+001C to U+001F" in answer.json()["error"]


@pytest.mark.parametrize(
    "given",
    [
        {"title": " \u3000\t"},
        {"item_id": "  "},
        {"brand": " "},
        {"seller": "\u00a0"},
        {"category": ["Home", " "]},
        {"attributes": {"Color": ["red", " "]}},
    ],
)
def test_blanks_are_no_text(client, admin, given):
    """The import takes them for an empty cell, and an item without a title for none."""
    answer = client.post("/items", json={"upsert": [{"item_id": "n1", "title": "lamp", **given}]}, headers=admin)
    assert answer.status_code == 422 and "must not be blank" in answer.json()["error"], answer.text
    patch = {"item_id": "i1", **given}
    assert client.patch("/items", json={"items": [patch]}, headers=admin).status_code == 422
    spaced = {"item_id": " n 2 ", "title": " a lamp ", "brand": "\u3000B", "attributes": {"Color": [" red"]}}
    assert client.post("/items", json={"upsert": [spaced]}, headers=admin).status_code == 200


def test_upsert_and_delete_are_searchable_at_once(client, admin):
    assert found(client, "teapot") == []
    answer = client.post("/items", json={"upsert": [NEW], "delete": ["i1"]}, headers=admin)
    assert answer.status_code == 200, answer.text
    assert answer.json() | {"version": ""} == {"upserted": 1, "deleted": 1, "items": 60, "version": ""}
    assert found(client, "teapot") == ["n1"]
    assert client.get("/items/i1").status_code == 404
    item = client.get("/items/n1").json()
    assert item["item"]["listed_at"] == "2024-05-01T08:00:00Z" and item["item"]["attributes"] == {"Color": ["violet"]}
    assert item["sid_tokens"][0] == "a_2" and len(item["sid"]) == 5
    client.post("/items", json={"upsert": [NEW | {"title": "violet kettle"}]}, headers=admin)
    assert found(client, "teapot") == [] and found(client, "kettle") == ["n1"]


def test_a_patch_changes_what_it_names_and_nothing_else(client, admin):
    client.post("/items", json={"upsert": [NEW]}, headers=admin)
    before = client.get("/items/n1").json()["item"]
    body = {"items": [{"item_id": "n1", "price": 9.5, "in_stock": False}, {"item_id": "i1", "brand": None}]}
    answer = client.patch("/items", json=body, headers=admin)
    assert answer.status_code == 200 and answer.json()["upserted"] == 2, answer.text
    assert client.get("/items/n1").json()["item"] == before | {"price": 9.5, "in_stock": False}
    assert client.get("/items/i1").json()["item"]["brand"] is None and found(client, "teapot") == ["n1"]
    client.patch("/items", json={"items": [{"item_id": "n1", "title": "violet kettle"}]}, headers=admin)
    assert found(client, "kettle") == ["n1"]
    assert client.get("/items/n1").json()["item"] == before | {
        "price": 9.5,
        "in_stock": False,
        "title": "violet kettle",
    }


def test_a_live_room_comes_with_its_fields_and_its_times_are_checked(client, admin):
    times = {"start": "2024-05-01T10:00:00+02:00", "end": "2024-05-01T12:00:00Z"}
    room = {"item_id": "l1", "title": "teapots live", "kind": "live", "host": "Ann", "linked": ["i1", "i2"], **times}
    assert client.post("/items", json={"upsert": [room]}, headers=admin).status_code == 200
    shown = client.get("/items/l1").json()["item"]
    assert shown | room | {"start": "2024-05-01T08:00:00Z"} == shown
    assert client.get("/items/i1").json()["item"]["kind"] == "product"
    # The end of one, and of a patch the end against the start that stays.
    for wrong in ({**room, "end": times["start"]}, {**room, "kind": "podcast"}, {**room, "start": "1714550400"}):
        assert client.post("/items", json={"upsert": [wrong]}, headers=admin).status_code == 422
    patch = {"items": [{"item_id": "l1", "end": "2024-05-01T08:00:00Z"}]}
    answer = client.patch("/items", json=patch, headers=admin)
    assert answer.status_code == 422
    assert "before it starts" in answer.json()["error"]
    patch["items"][0]["end"] = "2024-05-01T08:30:00Z"
    assert client.patch("/items", json=patch, headers=admin).status_code == 200
    assert client.get("/items/l1").json()["item"]["end"] == "2024-05-01T08:30:00Z"


def test_a_patch_of_an_unknown_item_changes_nothing(client, admin):
    body = {"items": [{"item_id": "i1", "price": 1.0}, {"item_id": "nobody", "price": 1.0}]}
    before = client.get("/items/i1").json()
    answer = client.patch("/items", json=body, headers=admin)
    assert answer.status_code == 404 and "'nobody'" in answer.json()["error"]
    assert client.get("/items/i1").json() == before
    changes = (
        {"title": ""},
        {"price": -1},
        {"price": "9"},
        {"in_stock": 0},
        {"listed_at": "1714550400"},
        {"colour": "red"},
    )
    for wrong in ({"item_id": "i1", **change} for change in changes):
        assert client.patch("/items", json={"items": [wrong]}, headers=admin).status_code == 422
    assert client.patch("/items", json={"items": [{"item_id": "i1"}] * 2}, headers=admin).status_code == 422
    assert client.patch("/items", json={"items": []}, headers=admin).status_code == 422
    assert client.patch("/items", json={"items": [{"item_id": "i1", "price": 1.0}]}).status_code == 401


def test_a_patch_of_an_item_that_the_store_cannot_read_says_what_to_do(client, admin, store):
    client.post("/items", json={"upsert": [NEW]}, headers=admin)
    with store._db.write("damage it") as db:
        db.execute("UPDATE items SET body = '{' WHERE item_id = 'n1'")
    answer = client.patch("/items", json={"items": [{"item_id": "n1", "price": 1.0}]}, headers=admin)
    assert answer.status_code == 409 and "'n1'" in answer.json()["error"], answer.text
    assert answer.json()["error"].endswith("send it again, with all of its fields")


def test_two_patches_of_one_item_at_a_time_both_count(client, admin, engine):
    ids = [f"i{number}" for number in range(1, 9)]

    def patch(field: str, value: object) -> None:
        for item_id in ids:
            body = {"items": [{"item_id": item_id, field: value}]}
            assert client.patch("/items", json=body, headers=admin).status_code == 200

    threads = [threading.Thread(target=patch, args=one) for one in (("price", 77.0), ("brand", "Zeta"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(engine.items[item_id].price, engine.items[item_id].brand) for item_id in ids} == {(77.0, "Zeta")}


def test_needs_the_token(client, engine, admin):
    body = {"upsert": [NEW]}
    answer = client.post("/items", json=body)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answer.json()["error"]
    assert client.post("/items", json=body, headers={"Authorization": "Basic eDp5"}).status_code == 401
    for wrong in ("wrong", admin["Authorization"][7:-1], "ünïcode".encode().decode("latin-1")):
        headers = {"Authorization": f"Bearer {wrong}".encode("latin-1")}
        assert client.post("/items", json=body, headers=headers).status_code == 403
    assert "n1" not in engine.items


def test_without_a_token_admin_calls_are_off(engine, store):
    with TestClient(create_app(engine, store)) as client:
        answer = client.post("/items", json={"upsert": [NEW]}, headers={"Authorization": "Bearer "})
        assert answer.status_code == 403 and "ONESEARCH_ADMIN_TOKEN" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "at least one item"),
        ({"upsert": [NEW], "delete": ["n1"]}, "more than once"),
        ({"upsert": [NEW, NEW]}, "more than once"),
        ({"delete": [str(i) for i in range(1001)]}, "at most 1000"),
        ({"upsert": [NEW | {"attributes": {"Colour": ["x"]}}]}, "the nearest valid one is 'Color'"),
        ({"upsert": [NEW | {"price": -1}]}, "upsert.0.price"),
        ({"upsert": [NEW | {"title": ""}]}, "upsert.0.title"),
        ({"upsert": [NEW | {"listed_at": "2024-05-01T10:00:00"}]}, "upsert.0.listed_at"),
        ({"upsert": [NEW | {"listed_at": "0001-01-01T00:00:00+23:59"}]}, "upsert.0.listed_at: lies outside"),
        ({"upsert": [NEW | {"item_id": "n0"}, NEW | {"listed_at": "9999-12-31T23:59:59-23:59"}]}, "(item 'n1')"),
        ({"upsert": [NEW, NEW | {"item_id": "n2", "category": ["a", 5]}]}, "(item 'n2')"),
        ({"upsert": [{"title": "x"}, 7, {"item_id": 5, "title": "x"}]}, "upsert.0.item_id"),
        ({"upsert": [NEW | {"titel": "x"}]}, "the nearest valid key is 'title'"),
    ],
)
def test_changes_are_checked(client, admin, engine, body, words):
    answer = client.post("/items", json=body, headers=admin)
    assert answer.status_code == 422 and words in answer.json()["error"], answer.text
    assert engine.changes == 0


def test_store_failure_changes_nothing(client, admin, engine, store):
    store.broken = frozenset({"change_items"})
    answer = client.post("/items", json={"upsert": [NEW]}, headers=admin)
    assert answer.status_code == 503 and "again" in answer.json()["error"] and answer.headers["retry-after"]
    assert "n1" not in engine.items
    store.broken = frozenset()
    assert client.post("/items", json={"upsert": [NEW]}, headers=admin).status_code == 200


def test_errors_show_no_paths(tmp_path, admin, engine):
    """A store whose file is lost says in the log which one, and to callers that it failed."""
    store = SqliteStore(tmp_path / "store.sqlite3")
    with TestClient(create_app(engine, store, admin_token=admin["Authorization"][7:])) as client:
        with store._db._lock:  # threads of the service use the connection, and would make the file anew
            store._db._disconnect()
            (tmp_path / "store.sqlite3").unlink()
            (tmp_path / "store.sqlite3").mkdir()
        click = {"user": "u", "item_id": "i1", "kind": "click"}
        for answer in (
            client.post("/events", json=click),
            client.post("/items", json={"upsert": [NEW]}, headers=admin),
            client.get("/healthz"),
            client.get("/shoppers/u/history"),
            client.post("/search", json={"query": "lamp", "user": "u"}),
        ):
            assert tmp_path.name not in answer.text and "sqlite" not in answer.text, answer.text
        assert client.post("/events", json=click).status_code == 503
        assert client.get("/healthz").json()["status"] == "degraded"


def test_an_item_the_engine_cannot_take_is_named_and_stops_no_other(client, admin, engine):
    engine.refuse_titles = {"poison"}
    body = {"upsert": [NEW | {"item_id": "bad", "title": "poison"}, NEW]}
    answer = client.post("/items", json=body, headers=admin)
    assert answer.status_code == 500 and "'bad'" in answer.json()["error"] and "encode" not in answer.text
    assert found(client, "teapot") == ["n1"]
    health = client.get("/healthz").json()
    assert health["status"] == "degraded" and "'bad'" in health["reasons"][0]
    client.post("/items", json={"delete": ["bad"]}, headers=admin)
    assert client.get("/healthz").json()["status"] == "ready"


def test_restart_keeps_events_and_items(tmp_path, admin):
    def service():
        store = SqliteStore(tmp_path / "store.sqlite3")
        return TestClient(create_app(FakeEngine(catalogue()), store, admin_token=admin["Authorization"][7:]))

    with service() as client:
        client.post("/items", json={"upsert": [NEW], "delete": ["i1"]}, headers=admin)
        client.post("/events", json={"event_id": "e", "user": "u", "item_id": "n1", "kind": "order"})
    with service() as client:
        assert found(client, "teapot") == ["n1"]
        assert client.get("/items/i1").status_code == 404
        assert [e["title"] for e in client.get("/shoppers/u/history").json()["ordered"]] == ["violet teapot"]
        again = client.post("/events", json={"event_id": "e", "user": "u", "item_id": "n1", "kind": "order"})
        assert again.json()["recorded"] is False


def test_several_servers_on_one_store_follow_each_other(tmp_path, admin):
    import time

    token = admin["Authorization"][7:]
    config = ServingSettings(follow_seconds=0.05)
    apps = [create_app(FakeEngine(catalogue()), SqliteStore(tmp_path / "s.sqlite3"), config, token) for _ in range(2)]
    with TestClient(apps[0]) as one, TestClient(apps[1]) as two:
        one.post("/items", json={"upsert": [NEW]}, headers=admin)
        end = time.monotonic() + 5
        while found(two, "teapot") != ["n1"] and time.monotonic() < end:
            time.sleep(0.02)
        assert found(two, "teapot") == ["n1"]
        one.post("/events", json={"user": "u", "item_id": "n1", "kind": "click"})
        assert len(two.get("/shoppers/u/history").json()["clicked"]) == 1


def test_searches_go_on_while_items_change(client, admin):
    """Each call adds one item before it removes another: no search may find neither."""
    first, second = (NEW | {"item_id": name, "title": "wandering teapot"} for name in ("w1", "w2"))
    client.post("/items", json={"upsert": [first]}, headers=admin)
    problems, stop = [], threading.Event()

    def keep_searching():
        while not stop.is_set():
            answer = client.post("/search", json={"query": "wandering"})
            if answer.status_code != 200 or not answer.json()["results"]:
                problems.append(answer.text)

    readers = [threading.Thread(target=keep_searching) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(15):
        new, old = (second, "w1") if turn % 2 == 0 else (first, "w2")
        answer = client.post("/items", json={"upsert": [new], "delete": [old]}, headers=admin)
        assert answer.status_code == 200
        assert found(client, "wandering") == [new["item_id"]]
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems
