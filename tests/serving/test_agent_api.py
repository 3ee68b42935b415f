"""``POST /agent/search`` and ``GET /agent/filters`` over HTTP."""

import math

import pytest
from fastapi.testclient import TestClient

from onesearch.search.results import SearchRequest
from onesearch.serving.access import role_of
from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings


def ask(client, **body):
    answer = client.post("/agent/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_answer_has_facts_words_reasons_and_questions(client, engine):
    answer = ask(client, query="red lamp nice", k=3)
    assert [one["item_id"] for one in answer["items"]] == [
        hit.item_id for hit in engine._search("red lamp nice", 3, None, engine.logged_history("x"))
    ]
    first = answer["items"][0]
    item = engine.items[first["item_id"]]
    facts = (item.title, "product", item.price, item.brand)
    assert tuple(first[name] for name in ("title", "kind", "price", "brand")) == facts
    assert (first["category"], first["attributes"]) == (list(item.category), {"Color": ["red"]})
    assert (first["in_stock"], first["rating"], first["seller"]) == (item.in_stock, None, None)
    assert first["meets"] == [{"word": "red", "fields": ["title", "attributes"]}, {"word": "lamp", "fields": ["title"]}]
    assert first["misses"] == ["nice"] and len(first["reasons"]) == 1
    # Red lamps, red things, other lamps: colours split them.
    assert answer["fits"] is True and answer["total"] > 3 and answer["degraded"] == []
    asked = {one["filter"]: one for one in answer["ask"]}
    assert asked["attributes.Color"]["question"] == "Which Color?"
    counts = [one["count"] for one in asked["attributes.Color"]["values"]]
    bits = -sum(n / answer["total"] * math.log2(n / answer["total"]) for n in counts)
    assert asked["attributes.Color"]["bits"] == pytest.approx(bits, abs=1e-3) and sum(counts) == answer["total"]


def test_alternatives_say_what_a_filter_costs(client):
    answer = ask(client, query="shoe", k=20, filters={"brand": "Swift"}, budget=30)
    assert [one["item_id"] for one in answer["items"]] == ["i0", "i15"]
    # Shoes of the brand at any price, and of any brand at this one.
    assert answer["alternatives"]["relaxed"] == [
        {"filter": "brand", "value": "Swift", "total": 6, "more": 4},
        {"filter": "price", "value": [None, 30.0], "total": 4, "more": 2},
    ]
    shown = {one["item_id"] for one in answer["items"]}
    near = answer["alternatives"]["near"]
    assert len(near) == 3 and shown.isdisjoint(one["item_id"] for one in near)
    bare = ask(client, query="shoe", filters={"brand": "Swift"}, alternatives=False, reasons=False, questions=0)
    assert (
        bare["alternatives"] == {"relaxed": [], "near": []} and bare["ask"] == [] and bare["items"][0]["reasons"] == []
    )


def test_a_search_of_an_agent_is_a_search_of_its_shopper(client, engine, store):
    first = ask(client, query="red lmap", user="newcomer", k=2)
    assert first["corrected_query"] == "red lamp" and store.history("newcomer").recent_queries == ("red lamp",)
    (found,), _ = store.searches()
    assert (found.search_id, found.user, found.query) == (first["search_id"], "newcomer", "red lamp")
    assert list(found.shown) == [one["item_id"] for one in first["items"]]
    ask(client, query="quiet", user="newcomer", record=False)
    assert store.history("newcomer").recent_queries == ("red lamp",)
    ask(client, query="jacket", user="ann")
    assert engine.requests[-1].user is None or engine.requests[-1].history.clicked == ("i1",)
    event = {
        "user": "newcomer",
        "item_id": first["items"][0]["item_id"],
        "kind": "order",
        "search_id": first["search_id"],
    }
    assert client.post("/events", json=event).status_code == 200


def test_seen_items_are_left_out(client):
    first = ask(client, query="lamp", k=3)
    seen = [one["item_id"] for one in first["items"]]
    second = ask(client, query="lamp", k=3, exclude=seen)
    assert len(second["items"]) == 3 and set(seen).isdisjoint(one["item_id"] for one in second["items"])
    assert second["total"] == first["total"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"query": "x", "k": 21}, "k: "),
        ({"query": "x", "k": 0}, "k: "),
        ({"query": "x" * 201}, "query: "),
        ({"query": "a\x00b"}, "control characters"),
        ({"query": "x", "budget": -1}, "budget: "),
        ({"query": "x", "budget": "80"}, "must be a number"),
        ({"query": "x", "exclude": ["i"] * 81}, "exclude: "),
        ({"query": "x", "questions": 11}, "questions: "),
        ({"query": "x", "filter": {}}, "the nearest valid key is 'filters'"),
        ({"query": "x", "filters": {"colour": "red"}}, "unknown key 'colour'"),
        (
            {"query": "x", "filters": {"price": [50, None]}, "budget": 20},
            "the lowest (50.0) is above the highest (20.0",
        ),
        ({"query": "lamp", "filters": {"seller": "nobody"}}, "no item has a seller"),
    ],
)
def test_what_breaks_a_rule_is_named(client, body, words):
    answer = client.post("/agent/search", json=body)
    assert answer.status_code == 422 and words in answer.json()["error"], answer.text


def test_a_broken_store_makes_it_anonymous(client, store):
    store.broken = frozenset({"history", "record_search"})
    assert set(ask(client, query="lamp", user="ann")["degraded"]) == {"history", "log"}


def test_what_is_counted_beside_the_page_is_refused_in_words(client, engine, monkeypatch):
    whole = engine.search_batch

    def only_pages(requests: list[SearchRequest]):
        if any(one.sort for one in requests):
            raise ValueError("this engine counts nothing")
        return whole(requests)

    monkeypatch.setattr(engine, "search_batch", only_pages)
    answer = client.post("/agent/search", json={"query": "lamp", "filters": {"brand": "Swift"}})
    assert answer.status_code == 422 and answer.json()["error"] == "this engine counts nothing"


def test_filters_are_told(client):
    answer = client.get("/agent/filters", params={"most": 1}).json()
    assert answer["categories"] == [{"value": "Home", "items": 24}] and len(answer["brands"]) == 1
    assert answer["attributes"] == [{"value": "Color", "items": 60}] and answer["price"] == [5.0, 64.0]
    assert client.get("/agent/filters", params={"most": 201}).status_code == 422


def test_keys_are_looked_at_before_a_body_is_read():
    assert role_of("POST", "/agent/search") == role_of("GET", "/agent/filters") == "search"


def test_they_need_the_key_for_searches(engine, store):
    app = create_app(engine, store, ServingSettings(page=False), search_key="s3cret")
    with TestClient(app) as client:
        assert client.post("/agent/search", json={"query": "x"}).status_code == 401
        assert client.get("/agent/filters").status_code == 401
        wrong = {"Authorization": "Bearer other"}
        assert client.post("/agent/search", json={"query": "x"}, headers=wrong).status_code == 403
        right = {"Authorization": "Bearer s3cret"}
        assert client.post("/agent/search", json={"query": "lamp"}, headers=right).status_code == 200
        assert client.get("/agent/filters", headers=right).status_code == 200
