"""Search, events and histories over HTTP."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from onesearch.search.confidence import NOTHING_FITS
from onesearch.serving import http_answers
from onesearch.serving.http_bodies import ItemBody, now
from onesearch.serving.store import Search


def search(client, **body):
    answer = client.post("/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def click(client, user, item_id, kind="click", **more):
    return client.post("/events", json={"user": user, "item_id": item_id, "kind": kind, **more})


def ids(answer):
    return [hit["item_id"] for hit in answer["results"]]


def test_answer_has_items_scores_and_sid_path(client, engine):
    answer = search(client, query="red shoe", k=3)
    assert len(answer["results"]) == 3
    first = answer["results"][0]
    assert first["item"]["title"].startswith("red shoe")
    sid = engine.sid(first["item_id"])
    assert first["sid"] == list(sid)
    assert first["sid_tokens"] == [f"a_{sid[0]}", f"b_{sid[1]}", f"c_{sid[2]}", f"d_{sid[3]}", f"d_{sid[4] + 256}"]
    assert answer["degraded"] == [] and answer["personalised"] is False and answer["took_ms"] >= answer["engine_ms"]


def test_completions_of_what_is_typed(client):
    answer = client.get("/suggest", params={"q": "red", "k": 2})
    assert answer.json() == {
        "query": "red",
        "suggestions": [
            {"text": "red shoe", "kind": "query", "item_id": None},
            {"text": "red shoe Swift no. 0", "kind": "item", "item_id": "i0"},
        ],
    }
    assert len(client.get("/suggest").json()["suggestions"]) == 8, "with nothing typed as well"
    for wrong in ({"k": 0}, {"k": 21}, {"q": "x" * 201}, {"q": "a\x00"}):
        assert client.get("/suggest", params=wrong).status_code == 422


def test_a_mistyped_query_is_recorded_as_it_was_meant(client, store):
    answer = search(client, query="red lmap", user="newcomer")
    assert (answer["query"], answer["corrected_query"], answer["did_you_mean"]) == ("red lmap", "red lamp", None)
    assert ids(answer) == ids(search(client, query="red lamp", record=False))
    assert store.history("newcomer").recent_queries == ("red lamp",)
    literal = search(client, query="red lmap", user="newcomer", correct=False)
    assert (literal["corrected_query"], literal["did_you_mean"]) == (None, "red lamp")
    assert store.history("newcomer").recent_queries[-1] == "red lmap"


def test_the_answer_says_how_sure_it_is(client):
    assert search(client, query="red shoe")["confidence"] == 1
    assert search(client, query="red qwertyzxcv")["confidence"] == 0.5
    assert search(client, query="")["confidence"] is None
    assert search(client, query="red shoe", method="bm25")["confidence"] is None
    page = (Path(http_answers.__file__).parent / "page" / "app.js").read_text(encoding="utf-8")
    assert f"const NOTHING_FITS = {NOTHING_FITS};" in page


def test_filters_reach_the_engine_without_unset_keys(client, engine):
    answer = search(client, query="lamp", filters={"brand": ["Acme", "Swift"], "price": [None, 40], "in_stock": True})
    assert engine.requests[-1].filters == {"brand": ["Acme", "Swift"], "price": [None, 40], "in_stock": True}
    assert answer["results"]
    for hit in answer["results"]:
        assert hit["item"]["brand"] in ("Acme", "Swift") and hit["item"]["price"] <= 40 and hit["item"]["in_stock"]
    search(client, query="lamp", filters={})
    assert engine.requests[-1].filters is None


def test_attributes_and_what_must_not_hold_reach_the_engine(client, engine):
    filters = {"attributes": {"Size": [{"min": 40, "max": None}, "XL"]}, "not": {"brand": "Acme", "price": [None, 5]}}
    search(client, query="lamp", filters=filters)
    wanted = {"attributes": {"Size": [{"min": 40}, "XL"]}, "not": {"brand": "Acme", "price": [None, 5]}}
    assert engine.requests[-1].filters == wanted
    search(client, query="lamp", filters={"not": {}, "attributes": {}})
    assert engine.requests[-1].filters is None


@pytest.mark.parametrize("method", ["onesearch", "bm25"])
def test_pages_join_to_one_long_page(client, method):
    whole = ids(search(client, query="red shoe", k=30, method=method))
    pages = [ids(search(client, query="red shoe", k=10, offset=offset, method=method)) for offset in (0, 10, 20)]
    assert [one for page in pages for one in page] == whole and len(whole) > 20


def test_totals_facets_and_orders_are_asked_for_and_answered(client, engine):
    asked = {"query": "red shoe", "count": True, "facets": ["brand", "attributes.Color"], "sort": "-price"}
    answer = search(client, **asked)
    request = engine.requests[-1]
    assert (request.count, tuple(request.facets), request.sort) == (True, ("brand", "attributes.Color"), "-price")
    assert answer["total"] > 20 and sum(one["count"] for one in answer["facets"]["brand"]) == answer["total"]
    assert search(client, query="red shoe", facets=["brand"])["total"] is not None
    plain = search(client, query="red shoe")
    assert plain["total"] is None and plain["facets"] == {} and not engine.requests[-1].count


def test_results_say_why_they_stand_where_they_do(client):
    for hit in search(client, query="red shoe", explain=True)["results"]:
        assert hit["why"]["parts"] == [{"feature": "words", "value": hit["score"], "weight": 1.0}]
        assert hit["why"]["found_by"] == ["BM25"] and hit["why"]["path"] == []
    assert all(hit["why"] is None for hit in search(client, query="red shoe")["results"])


def test_results_have_the_fields_and_highlights_that_are_asked_for(client):
    answer = search(client, query="red shoe", fields=["price", "title"], highlight=True)
    for hit in answer["results"]:
        assert hit["item"].keys() == {"item_id", "price", "title"}
        assert hit["highlights"] == {"title": [[0, 3]]} and hit["why"] is None
    whole = search(client, query="red shoe")["results"][0]
    assert whole["item"].keys() == ItemBody.model_fields.keys() and whole["highlights"] == {}
    wrong = client.post("/search", json={"query": "red", "fields": ["prise"]})
    assert wrong.status_code == 422 and "'title', 'category', 'brand', 'price'" in wrong.text


def test_width_user_and_empty_query_pass_through(client, engine):
    search(client, query="", user="ann", width=32)
    request = engine.requests[-1]
    assert (request.query, request.user, request.width) == ("", "ann", 32)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"query": "x" * 201}, "query", "at most 200 characters"),
        ({"query": "x", "k": 0}, "k", "greater than or equal to 1"),
        ({"query": "x", "k": 101}, "k", "less than or equal to 100"),
        ({"query": "x", "sort": "cheap"}, "sort", "'price', '-price', 'newest' or 'popularity'"),
        ({"query": "x", "facets": ["brand"] * 21}, "facets", "at most 20"),
        ({"query": "x", "method": "bm25", "count": True}, "body", "need the method onesearch"),
        ({"query": "x", "sort": "price", "explain": True}, "body", "leave sort or explain out"),
        ({"query": "x", "offset": -1}, "offset", "greater than or equal to 0"),
        ({"query": "x", "offset": 100_001}, "offset", "less than or equal to 100000"),
        ({"query": "x", "width": 513}, "width", "less than or equal to 512"),
        ({"query": "x", "k": "10"}, "k", "must be a number"),
        ({"query": "x", "width": True}, "width", "must be a number"),
        ({"query": "x", "record": "no"}, "record", "valid boolean"),
        ({"query": "x", "user": ""}, "user", "at least 1 character"),
        ({"query": "a\u0000b"}, "query", "control characters"),
        ({"query": "a\ud800b"}, None, ""),
        ({"query": "x", "method": "magic"}, "method", "'onesearch' or 'bm25'"),
        ({"query": "x", "filters": {"price": [9, 1]}}, "filters", "lowest (9.0) is above the highest (1.0)"),
        ({"query": "x", "filters": {"price": [-1, None]}}, "filters.price.0", "greater than or equal to 0"),
        ({"query": "x", "filters": {"brnad": "Acme"}}, "filters", "the nearest valid key is 'brand'"),
        ({"query": "x", "filters": {"nto": {}}}, "filters", "the nearest valid key is 'not'"),
        ({"query": "x", "filters": {"not": {"not": {}}}}, "filters.not", "unknown key 'not'"),
        ({"querry": "x"}, "body", "the nearest valid key is 'query'"),
        ({"query": "x", "filters": {"brand": []}}, None, ""),
        ({"query": "x", "filters": {"brand": ["a"] * 51}}, None, ""),
    ],
)
def test_limits_answer_422_and_name_the_field(client, engine, body, field, words):
    import json

    answer = client.post("/search", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    problem = answer.json()
    if field:
        assert words in problem["fields"][field], problem
    assert words in problem["error"] and len(problem["error"]) <= 500
    assert not engine.requests


def test_broken_and_large_bodies_are_refused(client):
    headers = {"content-type": "application/json"}
    answer = client.post("/search", content=b'{"query": ', headers=headers)
    assert answer.status_code == 400 and "not valid JSON" in answer.json()["error"]
    answer = client.post("/search", content=b" " * (1 << 20) + b"{}", headers=headers)
    assert answer.status_code == 413 and "at most 1048576 bytes" in answer.json()["error"]
    chunks = (b" " * 100_000 for _ in range(20))  # no content-length: counted while it comes in
    assert client.post("/search", content=chunks, headers=headers).status_code == 413
    assert client.post("/search", content=b'{"query": "lamp"}').status_code == 422, "only JSON is read"


def test_engine_refusal_is_the_callers_and_a_crash_is_ours(client):
    answer = client.post("/search", json={"query": "lamp", "filters": {"seller": "x"}})
    assert answer.status_code == 422 and "leave 'seller' out" in answer.json()["error"]
    answer = client.post("/search", json={"query": "explode"})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert search(client, query="lamp")["results"], "the worker lives on"


def test_next_search_sees_a_click(client):
    before = search(client, query="lamp", user="new", k=20)
    assert before["personalised"] is False
    target = ids(before)[7]
    assert click(client, "new", target, query="lamp").json()["recorded"] is True
    after = search(client, query="lamp", user="new", k=20)
    assert after["personalised"] is True
    assert ids(after).index(target) < 7
    assert ids(search(client, query="lamp", user="other", k=20)) == ids(before), "only this shopper's results change"
    assert ids(search(client, query="lamp", k=20)) == ids(before)


def test_history_joins_log_and_live_events_newest_first(client):
    search(client, query="drill", user="ann")
    search(client, query="drill", user="ann")
    click(client, "ann", "i8", query="drill")
    click(client, "ann", "i13", kind="order", query="drill")
    past = client.get("/shoppers/ann/history").json()
    assert [(e["item_id"], e["query"], e["live"]) for e in past["clicked"]] == [
        ("i8", "drill", True),
        ("i1", "lamp", False),
    ]
    assert [(e["item_id"], e["live"]) for e in past["ordered"]] == [("i13", True), ("i3", False)]
    assert past["recent_queries"] == ["drill", "lamp"], "a repeated query counts once"
    assert past["profile"] == "F 24-30" and past["clicked"][0]["title"].endswith("no. 8")


def test_engine_gets_the_joined_history(client, engine):
    click(client, "ann", "i8", query="drill")
    search(client, query="lamp", user="ann")
    history = engine.requests[-1].history
    assert history.clicked == ("i1", "i8") and history.clicked_queries == ("lamp", "drill")
    assert history.profile == "F 24-30" and history.recent_queries == ("lamp",)


def test_searches_not_to_be_recorded_are_not(client):
    search(client, query="mug", user="zoe", record=False)
    search(client, query="lamp", user="zoe", method="bm25")
    assert client.get("/shoppers/zoe/history").json()["recent_queries"] == []


def test_events_are_idempotent_by_id(client):
    assert click(client, "u", "i1", event_id="e1").json() == {"event_id": "e1", "recorded": True}
    assert click(client, "u", "i1", event_id="e1").json() == {"event_id": "e1", "recorded": False}
    answer = click(client, "u", "i2", event_id="e1")
    assert answer.status_code == 409 and "already used" in answer.json()["error"]
    assert len(client.get("/shoppers/u/history").json()["clicked"]) == 1


def test_events_are_checked(client):
    assert click(client, "u", "nothing").status_code == 404
    answer = click(client, "u", "i1", kind="stare")
    assert answer.status_code == 422 and "'click' or 'order'" in answer.json()["fields"]["kind"]
    assert click(client, "u", "i1", time="2024-01-01T00:00:00").status_code == 422, "a time needs its zone"


def test_the_servers_clock_bounds_times_and_orders_events(client):
    now = datetime.now(UTC)
    for gap in (timedelta(hours=25), timedelta(hours=-25)):
        answer = click(client, "u", "i1", time=(now + gap).isoformat())
        assert answer.status_code == 422 and "within a day" in answer.json()["fields"]["time"]
    for time in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        assert click(client, "u", "i1", time=time).status_code == 422
    assert click(client, "u", "i1", time=(now + timedelta(hours=23)).isoformat()).status_code == 200
    assert click(client, "u", "i2", time=(now - timedelta(hours=23)).isoformat()).status_code == 200
    assert [e["item_id"] for e in client.get("/shoppers/u/history").json()["clicked"]] == ["i2", "i1"]


def test_an_id_that_somebody_else_claimed_is_still_the_owners(client):
    assert click(client, "thief", "i1", event_id="order-1001").status_code == 200
    assert click(client, "owner", "i2", event_id="order-1001").json()["recorded"] is True


def test_anonymous_events_belong_to_nobody(client):
    assert click(client, None, "i1").json()["recorded"] is True
    assert 'onesearch_events_total{kind="click"} 1.0' in client.get("/metrics").text


def test_bm25_knows_nothing_of_the_shopper(client, engine):
    click(client, "u", "i6")
    with_user = search(client, query="lamp", user="u", method="bm25")
    assert with_user["personalised"] is False and ids(with_user) == ids(search(client, query="lamp", method="bm25"))
    assert not engine.requests, "BM25 does not wait for the model"


def test_shoppers_seen_here_come_first(client):
    click(client, "zoe", "i1")
    assert client.get("/shoppers").json()["shoppers"] == ["zoe", "ann", "bob"]
    assert client.get("/shoppers?limit=1").json()["shoppers"] == ["zoe"]
    assert client.get("/shoppers?limit=501").status_code == 422


def test_shoppers_with_strange_ids(client):
    from urllib.parse import quote

    user = "a/b ?%#ü"
    click(client, user, "i1")
    assert len(client.get(f"/shoppers/{quote(user, safe='')}/history").json()["clicked"]) == 1


@pytest.fixture
def asked(engine, monkeypatch):
    """The requests that the engine got; ask for it before the client, which holds on to the engine's functions."""
    requests, search = [], engine.search_batch
    monkeypatch.setattr(engine, "search_batch", lambda batch: requests.extend(batch) or search(batch))
    return requests


def test_later_pages_have_the_history_of_the_first(asked, client, store):
    """What the first page and its clicks add to a history would bring other results into the order."""
    search(client, query="lamp", user="nina")
    first = search(client, query="red shoe", user="nina", k=2)
    click(client, "nina", ids(first)[1], search_id=first["search_id"], query="red shoe")
    second = search(client, query="red shoe", user="nina", k=2, offset=2)
    assert asked[-1].history == asked[-2].history and asked[-1].history.recent_queries == ("lamp",)
    assert not set(ids(first)) & set(ids(second))
    # Another search, and the same one begun again, know all of it.
    search(client, query="lamp", user="nina", offset=2)
    assert asked[-1].history.clicked == () and asked[-1].history == asked[0].history
    search(client, query="red shoe", user="nina", k=2)
    assert asked[-1].history.clicked == (ids(first)[1],)
    assert [one.first_rank for one in store.searches()[0]] == [0, 0, 2, 2, 0]
    search(client, query="red shoe", user="nina", sort="price")
    assert store.searches()[0][-1].first_rank is None


def test_a_later_page_alone_is_searched_without_its_own_query(asked, client, store):
    """The first page was another server's, which recorded it."""
    for number, query in enumerate(("lamp", "red shoe")):
        store.record_search(Search(f"s{number}", "nina", query, now(), ("i1",)))
    search(client, query="red shoe", user="nina", offset=2)
    assert asked[-1].history.recent_queries == ("lamp",)


def test_pages_of_a_deleted_shopper_are_forgotten(asked, client, admin):
    search(client, query="lamp", user="nina")
    first = search(client, query="red shoe", user="nina", k=2)
    click(client, "nina", ids(first)[1], search_id=first["search_id"], query="red shoe")
    search(client, query="red shoe", user="nina", k=2)
    assert client.delete("/users/nina", headers=admin).status_code == 200
    search(client, query="red shoe", user="nina", k=2, offset=2)
    assert not asked[-1].history


def test_first_pages_are_not_remembered_for_ever(asked, client, monkeypatch):
    monkeypatch.setattr("onesearch.serving.live_shoppers._FIRST_PAGES", 1)
    search(client, query="lamp", user="nina")
    search(client, query="red shoe", user="nina")
    search(client, query="lamp", user="nina", offset=2)
    assert asked[-1].history.recent_queries == ("red shoe",), "the history as it is now, without its own query"


@pytest.fixture
def replacing(engine, monkeypatch):
    """The engine says that it searched for something else."""
    found = engine.search_batch

    def searched(batch):
        answers = found(batch)
        for answer in answers:
            answer.searched = "wallet"
        return answers

    monkeypatch.setattr(engine, "search_batch", searched)


def test_a_replaced_query_is_recorded_as_what_was_searched(replacing, client, store):
    answer = search(client, query="purze", user="nina")
    assert answer["query"] == "purze" and answer["corrected_query"] is None
    assert store.history("nina").recent_queries == ("wallet",)


def test_the_plain_ranking_is_asked_for_the_shoppers_groups(client, engine):
    search(client, query="lamp", user="ann", groups=["new"], method="bm25")
    search(client, query="lamp", method="bm25")
    assert engine.lexical_groups == [("new", "F", "24-30"), ()]
