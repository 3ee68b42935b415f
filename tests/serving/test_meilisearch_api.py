"""Searches as Meilisearch's clients send them."""

import pytest

from onesearch.data.records import Item
from onesearch.serving import sqlite_store


def ask(client, path, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_search_finds_what_our_own_finds(client):
    ours = client.post("/search", json={"query": "red shoe", "k": 5, "count": True}).json()
    theirs = ask(client, "/indexes/products/search", q="red shoe", limit=5)
    assert [hit["id"] for hit in theirs["hits"]] == [hit["item_id"] for hit in ours["results"]]
    assert theirs["estimatedTotalHits"] == ours["total"] and (theirs["limit"], theirs["offset"]) == (5, 0)
    assert {hit["__queryID"] for hit in theirs["hits"]} == {theirs["searchId"]}, "which InstantSearch sends with clicks"
    assert theirs["query"] == "red shoe" and theirs["indexUid"] == "products" and "facetDistribution" not in theirs
    first = theirs["hits"][0]
    assert first["category.lvl0"] == first["category"][0]
    assert first["category.lvl1"] == " > ".join(first["category"][:2])
    assert "_formatted" not in first


def test_pages_of_both_kinds(client):
    everything = ask(client, "/indexes/a/search", q="red shoe", limit=100)
    assert [hit["id"] for hit in ask(client, "/indexes/a/search", q="red shoe", limit=4, offset=4)["hits"]] == [
        hit["id"] for hit in everything["hits"][4:8]
    ]
    page = ask(client, "/indexes/a/search", q="red shoe", hitsPerPage=4, page=2)
    assert [hit["id"] for hit in page["hits"]] == [hit["id"] for hit in everything["hits"][4:8]]
    total = everything["estimatedTotalHits"]
    assert (page["totalHits"], page["totalPages"], page["page"], page["hitsPerPage"]) == (total, -(-total // 4), 2, 4)
    none = ask(client, "/indexes/a/search", q="red shoe", hitsPerPage=0, page=1)
    assert none["hits"] == [] and none["totalHits"] == total and none["totalPages"] == 0


def test_filters_facets_and_highlights(client, engine):
    found = ask(
        client,
        "/indexes/a/search",
        q="red shoe",
        filter=[['"brand"="Acme"', '"brand"="Swift"'], "price <= 60"],
        facets=["brand", "category.lvl0", "category.lvl1", "price"],
        attributesToHighlight=["*"],
        attributesToRetrieve=["title", "brand"],
        highlightPreTag="<b>",
        highlightPostTag="</b>",
        sort=["price:desc"],
    )
    request = engine.requests[-1]
    assert request.filters == {"brand": ["Acme", "Swift"], "price": [None, 60]} and request.sort == "-price"
    assert list(request.facets) == ["brand", "category", "price"] and request.highlight
    counts = found["facetDistribution"]
    assert sum(counts["brand"].values()) == found["estimatedTotalHits"] and set(counts["brand"]) <= {"Acme", "Swift"}
    assert all(" > " not in path for path in counts["category.lvl0"])
    for hit in found["hits"]:
        assert hit.keys() == {"id", "title", "brand", "_formatted", "__queryID"}
        assert hit["_formatted"]["title"] == f"<b>{hit['title'][:3]}</b>{hit['title'][3:]}"
        assert hit["_formatted"]["brand"] == hit["brand"]


def test_values_that_an_item_has_both_and_levels_of_the_menu(client, engine):
    both = Item("both", "odd mug", ("Kitchen", "Home"), attributes={"Color": ("red", "blue")})
    engine.upsert([both])

    def found(**asked):
        page = ask(client, "/indexes/a/search", limit=100, **asked)
        assert page["estimatedTotalHits"] == len(page["hits"])
        return {hit["id"] for hit in page["hits"]}

    assert found(filter=['"attributes.Color"="red"', '"attributes.Color"="blue"']) == {"both"}
    assert found(filter="price < 10 AND price > 20") == set()
    counts = ask(client, "/indexes/a/search", facets=["category.lvl0"])["facetDistribution"]["category.lvl0"]
    for name, count in counts.items():
        assert len(found(filter=[f'"category.lvl0"="{name}"'])) == count
    assert len(found(filter="category = Home")) == counts["Home"] + 1 and counts["Kitchen"] == 1


def test_counts_alone_are_nobodys_search(client, store):
    for query, limit in (("red shoe", 0), ("lamp", 5)):
        body = {"q": query, "limit": limit, "facets": ["brand"]}
        client.post("/indexes/a/search", json=body, headers={"X-OneSearch-User": "ann"})
    assert list(store.history("ann").recent_queries) == ["lamp"]


def test_letters_on_the_way_to_a_query_are_nobodys_search(client, store, monkeypatch):
    monkeypatch.setattr(sqlite_store, "TYPING_SECONDS", 60.0)  # a busy machine types slowly
    typist = {"X-OneSearch-User": "typist"}
    opening = {"queries": [{"indexUid": "products", "limit": 21, "offset": 0}]}
    assert client.post("/multi-search", json=opening, headers=typist).status_code == 200
    for text in ("l", "la", "lam", "lmap", "lmaps"):  # the last two are corrected
        client.post("/indexes/a/search", json={"q": text, "limit": 21}, headers=typist)
    client.post("/indexes/a/search", json={"q": "lamp", "limit": 5, "offset": 5}, headers=typist)
    found = [(search.query, len(search.shown)) for search in store.searches()[0]]
    assert [query for query, _ in found] == ["lam", "lamps", "lamp"], "and the second page has its own"
    assert client.get("/shoppers/typist/history").json()["recent_queries"] == ["lamp", "lamps", "lam"]
    for text in ("mu", "mug"):
        client.post("/search", json={"query": text, "user": "typist"})
    assert [search.query for search in store.searches()[0]][3:] == ["mu", "mug"], "who calls us directly means it"


def test_several_searches_in_one_call(client):
    found = ask(client, "/multi-search", queries=[{"indexUid": "a", "q": "red"}, {"indexUid": "b", "q": "lamp"}])
    assert [one["indexUid"] for one in found["results"]] == ["a", "b"] and all(one["hits"] for one in found["results"])
    many = client.post("/multi-search", json={"queries": [{"indexUid": "a"}] * 21})
    assert many.status_code == 422


def test_values_of_a_facet_are_searched(client):
    found = ask(client, "/indexes/a/facet-search", facetName="brand", facetQuery="AC", q="red shoe")
    assert [hit["value"] for hit in found["facetHits"]] == ["Acme"] and found["facetHits"][0]["count"] > 0


def test_rare_values_of_a_facet_are_found(client, engine):
    engine.upsert([Item(f"n{i}", "odd mug", ("Home",), brand=f"Señor {i:03}") for i in range(130)])
    found = ask(client, "/indexes/a/facet-search", facetName="brand", facetQuery="SEÑOR 129")
    assert found["facetHits"] == [{"value": "Señor 129", "count": 1}]
    assert engine.requests[-1].facet_query == "SEÑOR 129"
    whole = ask(client, "/indexes/a/facet-search", facetName="brand")
    assert len(whole["facetHits"]) == 100


def test_a_page_of_a_hundred_may_ask_whether_there_is_another(client, engine):
    engine.upsert([Item(f"n{i}", "odd mug", ("Home",)) for i in range(130)])
    assert len(ask(client, "/indexes/a/search", q="mug", limit=101)["hits"]) == 101
    assert client.post("/search", json={"query": "mug", "k": 101}).status_code == 422


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"filter": "brand = A OR price < 5"}, "cannot join"),
        ({"sort": ["title:asc"]}, "sort takes one of price:asc"),
        ({"filter": "colour = red"}, "colour"),
        ({"facets": ["colour"]}, "pattern"),
        ({"limit": 102}, "at most 100 hits, got 102"),
        ({"hitsPerPage": 101}, "at most 100 hits, got 101"),
        ({"hitsPerPage": 500}, "at most 100 hits, got 500"),
        ({"offset": 100_001}, "offset: "),
        ({"q": "x" * 201}, "query: "),
    ],
)
def test_what_cannot_be_done_is_said_as_meilisearch_says_it(client, body, words):
    answer = client.post("/indexes/a/search", json={"q": "red"} | body)
    assert answer.status_code == 400 and words in answer.json()["message"]
    assert answer.json()["type"] == "invalid_request"


def test_lone_surrogates_of_a_caller_are_told_and_no_fault(client):
    for body in (
        '{"filter": ["\\ud800 > 5"]}',
        '{"filter": ["\\ud800 = 1 OR b = 2"]}',
        '{"sort": ["\\ud800"]}',
    ):
        answer = client.post("/indexes/a/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and "?" in answer.json()["message"], body


@pytest.mark.parametrize("name", ["attributesToRetrieve", "attributesToHighlight", "sort"])
def test_lists_of_names_are_short(client, name):
    assert client.post("/indexes/a/search", json={name: ["title"] * 201}).status_code == 422


def test_pages_of_other_origins_may_call_where_the_shop_says(engine, store):
    from fastapi.testclient import TestClient

    from onesearch.serving.http_app import create_app
    from onesearch.serving.serving_settings import ServingSettings

    shop = "https://shop.example"
    app = create_app(engine, store, ServingSettings(allowed_origins=(shop,)))
    with TestClient(app) as client:
        for origin, allowed in ((shop, True), ("https://other.example", False)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            asked["Access-Control-Request-Headers"] = "authorization,content-type"
            answer = client.options("/multi-search", headers=asked)
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
            answer = client.post("/multi-search", json={"queries": []}, headers={"Origin": origin})
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


def test_searches_need_the_key_where_there_is_one(engine, store):
    from fastapi.testclient import TestClient

    from onesearch.serving.http_app import create_app
    from onesearch.serving.serving_settings import ServingSettings

    app = create_app(engine, store, ServingSettings(page=False), search_key="secret")
    with TestClient(app) as client:
        for path in ("/indexes/a/search", "/multi-search", "/indexes/a/facet-search"):
            assert client.post(path, json={}).status_code == 401
        good = client.post("/indexes/a/search", json={}, headers={"Authorization": "Bearer secret"})
        assert good.status_code == 200
