"""Rules over HTTP: who may, what is refused, versions, previews, and other servers on the same store."""

import time

import pytest
from fastapi.testclient import TestClient
from serving_fakes import FakeEngine, catalogue

from onesearch.serving.http_app import create_app
from onesearch.serving.live_rules import LiveRules
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import StoreError

PIN = "pins: [{name: best, items: [i6], when: {query: lamp}}]"


def first(client, query="lamp", **asked):
    return client.post("/search", json={"query": query, **asked}).json()["results"][0]["item_id"]


def put(client, admin, rules=PIN, who="ann", **more):
    return client.put("/rules", json={"rules": rules, "who": who, **more}, headers=admin)


def test_rules_are_in_force_when_the_answer_arrives_and_every_version_stays(client, admin, engine):
    empty = client.get("/rules", headers=admin).json()
    nothing = {"version": 0, "time": None, "who": "", "rules": "{}\n", "newest": 0, "warnings": {}}
    assert empty == nothing and first(client) != "i6"
    answer = put(client, admin)
    assert answer.status_code == 200 and (answer.json()["version"], answer.json()["who"]) == (1, "ann")
    assert first(client) == "i6" and engine.rules.pins[0].name == "best"
    assert client.get("/rules", headers=admin).json() == answer.json()
    assert put(client, admin, "", "bob", base=1).json()["version"] == 2 and first(client) != "i6"
    versions = client.get("/rules/versions", headers=admin).json()["versions"]
    assert [(one["version"], one["who"]) for one in versions] == [(2, "bob"), (1, "ann")] and versions[0]["time"]
    assert client.get("/rules/versions", params={"limit": 1}, headers=admin).json()["versions"] == versions[:1]
    old = client.get("/rules/versions/1", headers=admin).json()
    assert (
        old == {key: value for key, value in answer.json().items() if key in old}
        and put(client, admin, old["rules"], "bob").json()["version"] == 3
    )
    assert first(client) == "i6"
    assert client.get("/rules/versions/9", headers=admin).status_code == 404


def test_rules_need_the_admin_token(client, admin, engine, store):
    calls = [("GET", "/rules"), ("PUT", "/rules"), ("GET", "/rules/versions"), ("GET", "/rules/versions/1")]
    for method, path in [*calls, ("POST", "/rules/preview")]:
        body = None if method == "GET" else {"rules": PIN, "who": "eve", "search": {"query": "lamp"}}
        assert client.request(method, path, json=body).status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert client.request(method, path, json=body, headers=wrong).status_code == 403
    assert store.rules() is None
    with TestClient(create_app(engine, store)) as off:
        assert off.put("/rules", json={"rules": PIN, "who": "ann"}, headers=admin).status_code == 403


def test_what_cannot_work_is_refused_by_name_and_changes_nothing(client, admin, store):
    answer = put(client, admin, "pins: [{name: best, items: [i6]}, {name: worst, items: [nobody]}]")
    assert answer.status_code == 422
    assert answer.json()["fields"] == {"worst": "pins, worst: no item 'nobody' in the catalogue"}
    for wrong, words in (("pins: {", "not valid YAML"), ("pin: []", "nearest valid key is 'pins'")):
        answer = put(client, admin, wrong)
        assert answer.status_code == 422 and words in answer.json()["error"]
    for body in ({"rules": PIN}, {"who": "ann"}, {"rules": PIN, "who": "a\nb"}, {"rules": PIN, "who": "a", "base": -1}):
        assert client.put("/rules", json=body, headers=admin).status_code == 422
    assert store.rules() is None


def test_what_left_the_catalogue_is_told_and_holds_up_no_other_change(client, admin, engine):
    put(client, admin)
    put(client, admin, "pins: [{name: best, items: [i6, i7]}, {name: other, items: [i8]}]")
    engine.delete(["i6", "i8"])
    gone = {"best": "pins, best: no item 'i6' in the catalogue", "other": "pins, other: no item 'i8' in the catalogue"}
    there = client.get("/rules", headers=admin).json()
    assert there["warnings"] == gone
    # An urgent recall beside somebody else's pins, in the page's preview as well; a pin may move.
    recall = there["rules"].replace("other", "another") + "hides: [{name: recalled, column: item_id, values: [i9]}]"
    told = {"best": gone["best"], "another": gone["other"].replace("other", "another")}
    preview = client.post("/rules/preview", json={"rules": recall, "search": {"query": "mug"}}, headers=admin)
    assert preview.status_code == 200 and preview.json()["warnings"] == told
    saved = put(client, admin, recall, base=2)
    assert saved.status_code == 200 and saved.json()["warnings"] == told and saved.json()["newest"] == 3
    assert put(client, admin, "").json()["warnings"] == {}
    # What names it for the first time is refused, by what is new alone; to go back, an old version is written again.
    refused = put(client, admin, recall.replace("i7", "nobody"))
    assert refused.json()["fields"] == {"best": "pins, best: no item 'nobody' in the catalogue"}
    assert put(client, admin, recall).json()["warnings"] == told
    assert put(client, admin, PIN, base=5).json()["warnings"] == {"best": gone["best"]}


def test_versions_that_cannot_be_read_are_passed_over_for_what_was_named(client, admin, engine, store):
    put(client, admin)
    store.write_rules("{", "a newer onesearch", time_of(1))
    engine.delete(["i6"])
    assert put(client, admin).json()["warnings"].keys() == {"best"}
    store.broken = frozenset({"rules"})
    assert put(client, admin).status_code == 503


def test_of_two_who_change_the_same_version_the_second_is_told(client, admin):
    assert put(client, admin, base=0).status_code == 200
    answer = put(client, admin, "", base=0)
    assert answer.status_code == 409 and "1 is the newest" in answer.json()["error"]
    assert first(client) == "i6"


def test_a_preview_shows_both_and_changes_nothing(client, admin, store):
    before = first(client)
    asked = {"query": "lamp", "user": "ann", "k": 3}
    answer = client.post("/rules/preview", json={"rules": PIN, "search": asked}, headers=admin).json()
    assert answer["after"]["results"][0]["item_id"] == "i6" != answer["before"]["results"][0]["item_id"]
    assert len(answer["after"]["results"]) == 3 and first(client) == before and store.rules() is None
    assert store.history("ann").recent_queries == (), "a preview is no search of a shopper"
    wrong = client.post("/rules/preview", json={"rules": "pin: 1", "search": asked}, headers=admin)
    assert wrong.status_code == 422 and "nearest valid key" in wrong.json()["error"]


def test_groups_of_a_search_reach_the_engine(client, engine):
    client.post("/search", json={"query": "lamp", "groups": ["vip"]})
    assert engine.requests[-1].groups == ("vip",)
    assert client.post("/search", json={"query": "lamp", "groups": ["x"] * 21}).status_code == 422


def test_another_server_on_the_store_follows_within_a_second(tmp_path, admin):
    path = tmp_path / "store.sqlite3"
    slow = ServingSettings(follow_seconds=30)
    engines = [FakeEngine(catalogue()), FakeEngine(catalogue())]
    apps = [create_app(engine, SqliteStore(path), slow, "correct horse battery staple") for engine in engines]
    with TestClient(apps[0]) as one, TestClient(apps[1]) as other:
        assert first(other) != "i6"
        put(one, admin)
        begun = time.monotonic()
        while first(other) != "i6":
            assert time.monotonic() - begun < 5
            time.sleep(0.02)
        assert time.monotonic() - begun < 1


def test_a_new_server_begins_with_the_rules_of_the_store(store):
    store.write_rules('{"pins": [{"name": "p", "items": ["i6"]}]}', "ann", time_of(1))
    engine = FakeEngine(catalogue())
    with TestClient(create_app(engine, store)):
        assert engine.rules.pins[0].items == ("i6",)


def time_of(minute):
    from datetime import UTC, datetime

    return datetime(2026, 11, 27, 12, minute, tzinfo=UTC)


def test_a_store_that_lost_its_rules_takes_them_with_it_and_other_rules_of_the_same_number_are_noticed(tmp_path):
    engine, store = FakeEngine(catalogue()), SqliteStore(tmp_path / "s.sqlite3")
    live = LiveRules(engine, store)
    assert not live.follow()
    store.write_rules('{"pins": [{"name": "p", "items": ["i6"]}]}', "ann", time_of(1))
    assert live.follow() and not live.follow() and engine.live_rules.pins[0].name == "p"
    (tmp_path / "s.sqlite3").unlink()
    assert live.follow() and engine.live_rules is None
    store.write_rules('{"pins": [{"name": "q", "items": ["i6"]}]}', "ann", time_of(2))
    assert live.follow() and engine.live_rules.pins[0].name == "q"


def test_rules_that_cannot_be_read_leave_those_before_and_health_says_so(client, admin, store, engine):
    put(client, admin)
    store.write_rules('{"pons": []}', "a newer onesearch", time_of(1))
    live = client.app.state.service.rules
    live.follow()
    assert engine.rules.pins[0].name == "best"
    health = client.get("/healthz").json()
    assert health["status"] == "degraded" and "version 2 cannot be read" in health["reasons"][0]
    # So does a server that begins now, and whoever asks sees the rules in force.
    begun = FakeEngine(catalogue())
    LiveRules(begun, store).follow()
    assert begun.rules.pins[0].name == "best"
    told = client.get("/rules", headers=admin).json()
    assert (told["version"], told["newest"]) == (1, 2)
    unreadable = client.get("/rules/versions/2", headers=admin)
    assert unreadable.status_code == 503 and "cannot be read" in unreadable.json()["error"]
    assert put(client, admin, base=1).status_code == 409
    assert put(client, admin, base=told["newest"]).status_code == 200
    assert client.get("/healthz").json()["status"] == "ready"


def test_what_nobody_expected_is_on_the_health_page(client, admin, store, monkeypatch):
    put(client, admin)
    live, rules = client.app.state.service.rules, store.rules
    monkeypatch.setattr(store, "rules", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        live.follow()
    assert live.problems() == ["rules: the newest cannot be followed (ZeroDivisionError), see the log"]
    monkeypatch.setattr(store, "rules", rules)
    assert put(client, admin).status_code == 200 and live.problems() == []


def test_where_no_rules_can_be_read_those_of_the_run_are_in_force(store):
    engine, live = FakeEngine(catalogue()), None
    store.write_rules("{", "a newer onesearch", time_of(1))
    live = LiveRules(engine, store)
    assert live.follow() and not live.follow() and live.newest() == (None, engine.rules, 1)
    assert live.problems() == ["rules: version 1 cannot be read; the run's own rules in its place"]


def test_a_failing_store_is_said_and_nothing_changes(client, admin, store, engine):
    store.broken = frozenset({"write_rules"})
    assert put(client, admin).status_code == 503 and not engine.rules.pins
    store.broken = frozenset({"rules"})
    assert client.get("/rules", headers=admin).status_code == 503
    with pytest.raises(StoreError):
        client.app.state.service.rules.follow()
    assert first(client)
