"""Health, metrics, degraded stores, saturation, headers, the API description."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from onesearch.data.records import Item
from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings


def test_ready_when_all_is_well(client):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "reasons": [], "items": 60, "version": "fake@0"}


def test_failing_store_degrades_visibly(client, store, engine):
    client.post("/events", json={"user": "ann", "item_id": "i8", "kind": "click"})
    plain = client.post("/search", json={"query": "lamp"}).json()
    store.broken = frozenset({"history", "record", "record_search", "check", "shoppers"})
    answer = client.post("/search", json={"query": "lamp", "user": "ann"}).json()
    assert answer["degraded"] == ["history", "log"] and answer["personalised"] is False
    assert answer["results"] == plain["results"], "answered as an anonymous search"
    assert engine.requests[-1].user is None
    health = client.get("/healthz")
    assert health.status_code == 200 and health.json()["status"] == "degraded"
    assert "the store failed" in health.json()["reasons"][0] and "fire" not in health.text, "the log has the words"
    event = client.post("/events", json={"user": "ann", "item_id": "i8", "kind": "click"})
    assert event.status_code == 503 and "safe" in event.json()["error"]
    past = client.get("/shoppers/ann/history").json()
    assert past["degraded"] == ["history"] and past["clicked"] == []
    assert client.get("/shoppers").json()["shoppers"] == ["ann", "bob"]
    metrics = client.get("/metrics").text
    assert 'onesearch_store_failures_total{call="record"} 1.0' in metrics
    assert 'onesearch_degraded_total{part="history"} 1.0' in metrics
    store.broken = frozenset()
    assert client.post("/search", json={"query": "lamp", "user": "ann"}).json()["personalised"] is True
    assert client.get("/healthz").json()["status"] == "ready"


def test_whatever_else_is_checked_degrades_the_service(engine, store):
    said = [None]
    with TestClient(create_app(engine, store, checks=[lambda: said[0]])) as client:
        assert client.get("/healthz").json()["status"] == "ready"
        said[0] = "versions: unreadable"
        health = client.get("/healthz")
        assert health.status_code == 200 and health.json()["reasons"] == ["versions: unreadable"]
        assert health.json()["status"] == "degraded"


def test_a_service_that_ends_closes_its_engine(engine, store, monkeypatch):
    closed = []
    monkeypatch.setattr(engine, "close", lambda: closed.append(store.check()))
    with TestClient(create_app(engine, store)):
        assert not closed
    assert closed == [None], "the store was still open"


def test_store_that_is_down_at_start_is_followed_later(engine, store):
    store.broken = frozenset({"item_changes"})
    with TestClient(create_app(engine, store, ServingSettings(follow_seconds=0.05))) as client:
        health = client.get("/healthz").json()
        assert health["status"] == "degraded" and "not applied yet" in health["reasons"][0]
        assert client.post("/search", json={"query": "lamp"}).status_code == 200
        store.broken = frozenset()
        end = time.monotonic() + 5
        while client.get("/healthz").json()["status"] != "ready" and time.monotonic() < end:
            time.sleep(0.02)
        assert client.get("/healthz").json()["status"] == "ready"


def test_what_is_old_is_forgotten_by_itself(engine, store):
    from datetime import UTC, datetime, timedelta

    from onesearch.serving.store import Event, Search

    for days in (40, 20):
        time_ = datetime.now(UTC) - timedelta(days=days)
        store.record(Event(f"e{days}", "u", "i1", "click", "", time_))
        store.record_search(Search(f"s{days}", "u", "lamp", time_, ()))
    with TestClient(create_app(engine, store, ServingSettings(keep_days=30))) as client:
        end = time.monotonic() + 5
        while sum(found.searches for found in store.traffic(1)) > 1 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(client.get("/shoppers/u/history").json()["clicked"]) == 1
        assert sum(found.searches for found in store.traffic(1)) == 1


def test_item_changes_are_followed_where_forgetting_fails(engine, store, monkeypatch):
    monkeypatch.setattr(store, "forget", lambda before: [].pop())
    with TestClient(create_app(engine, store, ServingSettings(follow_seconds=0.02))) as client:
        store.change_items([Item("new", "lamp")], [])
        end = time.monotonic() + 5
        while client.get("/items/new").status_code != 200 and time.monotonic() < end:
            time.sleep(0.02)
        assert client.get("/items/new").status_code == 200


def test_a_stored_change_that_cannot_be_read_is_told_and_later_ones_are_followed(engine, store, monkeypatch):
    plain = store.item_changes
    monkeypatch.setattr(store, "item_changes", lambda after, limit=5000: [].pop())  # as a body of another version
    with TestClient(create_app(engine, store, ServingSettings(follow_seconds=0.05))) as client:
        assert "not applied yet" in client.get("/healthz").json()["reasons"][0]
        monkeypatch.setattr(store, "item_changes", plain)
        end = time.monotonic() + 5
        while client.get("/healthz").json()["status"] != "ready" and time.monotonic() < end:
            time.sleep(0.02)
        assert client.get("/healthz").json()["status"] == "ready"


def test_a_shopper_is_deleted_on_demand(client, store, admin):
    client.post("/events", json={"user": "a/b c", "item_id": "i8", "kind": "click"})
    client.post("/search", json={"user": "a/b c", "query": "lamp"})
    assert client.delete("/users/a%2Fb%20c").status_code == 401
    assert client.delete("/users/a%2Fb%20c", headers={"Authorization": "Bearer x"}).status_code == 403
    gone = client.delete("/users/a%2Fb%20c", headers=admin)
    assert gone.status_code == 200 and gone.json() == {"user": "a/b c", "events": 1, "searches": 1}
    assert client.get("/shoppers/a%2Fb%20c/history").json()["clicked"] == []
    assert client.delete("/users/a%2Fb%20c", headers=admin).json()["events"] == 0, "again is as good"
    assert client.delete("/users/", headers=admin).status_code == 422, "nobody's events are nobody's to delete"
    store.broken = frozenset({"delete_user"})
    assert client.delete("/users/ann", headers=admin).status_code == 503
    assert "onesearch_users_deleted_total 2.0" in client.get("/metrics").text


def test_saturated_server_refuses_and_batches_what_waited(engine, store):
    engine.gate = threading.Event()
    config = ServingSettings(max_queue=4, max_batch=8)
    with TestClient(create_app(engine, store, config)) as client, ThreadPoolExecutor(16) as pool:
        first = pool.submit(client.post, "/search", json={"query": "lamp"})
        time.sleep(0.2)  # the worker now holds the first search
        others = [pool.submit(client.post, "/search", json={"query": "lamp"}) for _ in range(8)]
        time.sleep(0.5)
        assert client.get("/healthz").status_code == 200, "the rest of the service answers meanwhile"
        engine.gate.set()
        answers = [future.result() for future in (first, *others)]
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 5 + [503] * 4
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1" and "too busy" in refused.json()["error"]
    assert engine.batches == [1, 4], "what waited is answered in one batch"


def test_one_wrong_search_does_not_fail_its_batch(engine, store):
    engine.gate = threading.Event()
    with TestClient(create_app(engine, store), raise_server_exceptions=False) as client, ThreadPoolExecutor(8) as pool:
        pool.submit(client.post, "/search", json={"query": "lamp"})
        time.sleep(0.2)
        bodies = [{"query": "lamp"}, {"query": "explode"}, {"query": "mug"}]
        futures = [pool.submit(client.post, "/search", json=body) for body in bodies]
        time.sleep(0.3)
        engine.gate.set()
        assert [future.result().status_code for future in futures] == [200, 500, 200]


def test_a_search_that_waits_too_long_is_refused(engine, store):
    engine.gate = threading.Event()
    with TestClient(create_app(engine, store, ServingSettings(timeout_seconds=0.2))) as client:
        answer = client.post("/search", json={"query": "lamp"})
        assert answer.status_code == 503 and "0.2 seconds" in answer.json()["error"]
        engine.gate.set()
        assert client.post("/search", json={"query": "lamp"}).status_code == 200
        assert "onesearch_searches_refused_total 1.0" in client.get("/metrics").text


def test_metrics_count_by_route_and_not_by_path(client):
    client.post("/search", json={"query": "lamp"})
    client.post("/search", json={"query": "x" * 201})
    for name in ("a", "b", "c"):
        client.get(f"/items/{name}")
    client.get("/no/such/page")
    text = client.get("/metrics").text
    assert 'onesearch_http_requests_total{method="POST",route="/search",status="200"} 1.0' in text
    assert 'onesearch_http_requests_total{method="POST",route="/search",status="422"} 1.0' in text
    assert 'onesearch_http_requests_total{method="GET",route="/items/{item_id:text}",status="404"} 3.0' in text
    assert 'onesearch_http_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert 'onesearch_search_seconds_count{method="onesearch"} 1.0' in text
    assert "onesearch_items 60.0" in text
    assert "process_resident_memory_bytes" in text and "process_cpu_seconds_total" in text


def test_security_headers_and_offline_pages(client):
    for path in ("/", "/docs", "/search-is-not-a-page"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/docs", "/page/app.js", "/page/docs.js", "/page/style.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        urls = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in urls and "https://" not in urls, f"{path} loads something from elsewhere"
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in answer.text, f"{path} uses {sink}: catalogue text is untrusted"
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404


def test_api_only(engine, store):
    with TestClient(create_app(engine, store, ServingSettings(page=False))) as client:
        for path in ("/", "/shoppers", "/shoppers/ann/history", "/filters", "/page/app.js"):
            assert client.get(path).status_code == 404, path
        assert client.post("/search", json={"query": "lamp"}).status_code == 200


def test_api_description_has_examples_that_work(client, admin):
    spec = client.get("/openapi.json").json()
    assert {"/search", "/events", "/items", "/items/{item_id}", "/healthz", "/metrics"} <= set(spec["paths"])
    for example in spec["components"]["schemas"]["SearchBody"]["examples"]:
        assert client.post("/search", json=example).status_code == 200
    for name in ("EventBody", "ItemBody"):
        assert spec["components"]["schemas"][name]["examples"]
    for method, name in ((client.post, "ItemsBody"), (client.patch, "PatchBody")):
        for example in spec["components"]["schemas"][name]["examples"]:
            assert method("/items", json=example, headers=admin).status_code == 200
    assert "security" not in spec["paths"]["/search"]["post"], "open to everybody here"
    assert spec["paths"]["/items"]["post"]["security"] == [{"admin_key": []}], "the description names the key"
    for name in [*spec["components"]["securitySchemes"], *spec["components"]["schemas"]]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), "OpenAPI's rule for names"
    for path, methods in spec["paths"].items():
        for method in methods.values():
            assert {"400", "408", "413", "503"} <= set(method["responses"]), f"{path}: any call may be refused"


@pytest.mark.parametrize("path", ["/search", "/events"])
def test_other_methods_are_refused_in_the_same_words(client, path):
    answer = client.get(path)
    assert answer.status_code == 405 and answer.json()["error"] and answer.headers["allow"] == "POST"
    assert client.delete("/items").headers["allow"] == "PATCH, POST", "of both routes of the path"


@pytest.mark.parametrize(("size", "refused"), [(1024, False), (1025, True)])
@pytest.mark.parametrize("counted", [True, False])
def test_the_limit_of_a_body_holds_with_and_without_its_length(engine, store, size, refused, counted):
    body = b'{"query": "lamp"' + b" " * (size - 17) + b"}"
    assert len(body) == size
    with TestClient(create_app(engine, store, ServingSettings(max_body=1024))) as client:
        headers = {"content-type": "application/json"}
        content = body if counted else iter([body[:700], body[700:]])
        answer = client.post("/search", content=content, headers=headers)
        assert answer.status_code == (413 if refused else 200)
        assert ("at most 1024 bytes" in answer.text) == refused
