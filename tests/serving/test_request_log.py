"""Request ids and the lines that are written about requests."""

import io
import json
import logging

import pytest
from fastapi.testclient import TestClient

from onesearch.serving.http_app import create_app
from onesearch.serving.request_log import RequestLog
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.starting_app import StartingApp

LINE = {"time", "id", "method", "route", "status", "ms"}


@pytest.fixture
def logged(engine, store):
    """A client, and what was written about its requests."""
    lines = io.StringIO()
    app = RequestLog(create_app(engine, store, admin_token="t"), lines)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, lambda: [json.loads(line) for line in lines.getvalue().splitlines()]


def test_one_line_for_each_request_by_the_template_of_its_path(logged):
    client, lines = logged
    client.post("/search", json={"query": "secret wish", "user": "ann"})
    client.get("/items/i3")
    client.get("/no/such/page?q=secret")
    client.post("/items", json={})
    client.request("BREW", "/search")
    assert [(line["method"], line["route"], line["status"]) for line in lines()] == [
        ("POST", "/search", 200),
        ("GET", "/items/{item_id:text}", 200),
        ("GET", "other", 404),
        ("POST", "other", 401),
        ("other", "/search", 405),
    ]
    assert all(set(line) == LINE and line["ms"] >= 0 for line in lines())
    assert "secret" not in str(lines()) and "ann" not in str(lines()), "neither what was searched nor by whom"


def test_queries_and_shoppers_only_where_they_are_asked_for(engine, store):
    lines = io.StringIO()
    with TestClient(RequestLog(create_app(engine, store), lines, with_queries=True)) as client:
        client.post("/search", json={"query": 'red "lamp"', "user": "ann"})
        client.get("/healthz")
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["query"], first["user"]) == ('red "lamp"', "ann") and set(second) == LINE


@pytest.mark.parametrize("given", ["abc-1.2_X", "x" * 64])
def test_a_well_formed_id_is_taken(logged, given):
    client, lines = logged
    assert client.get("/healthz", headers={"X-Request-ID": given}).headers.get_list("x-request-id") == [given]
    assert lines()[-1]["id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, 'a"b', "two words", "a\xe9"])
def test_another_id_is_made(logged, given):
    client, lines = logged
    headers = {} if given is None else {"X-Request-ID": given.encode("latin-1")}
    made = {client.get("/healthz", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2 and all(len(one) == 32 for one in made) and lines()[-1]["id"] in made


def test_every_answer_has_its_id_also_refusals_errors_and_those_of_a_service_that_loads(logged, engine, store):
    client, lines = logged
    answers = [
        client.post("/search", json={"query": "explode"}),
        client.post("/items", json={}),
        client.post("/search", json={"query": 7}),
        client.get("/nowhere"),
    ]
    assert [answer.status_code for answer in answers] == [500, 401, 422, 404] == [line["status"] for line in lines()]
    assert [answer.headers["x-request-id"] for answer in answers] == [line["id"] for line in lines()]
    with TestClient(RequestLog(StartingApp(lambda: None))) as starting:
        assert starting.get("/readyz").headers["x-request-id"]


def test_errors_in_the_log_name_their_request(logged, store, caplog):
    client, _ = logged
    store.broken = frozenset({"record", "history"})
    with caplog.at_level(logging.WARNING, "onesearch"):
        client.post("/events", json={"item_id": "i1", "kind": "click"}, headers={"X-Request-ID": "r1"})
        client.post("/search", json={"query": "lamp", "user": "ann"}, headers={"X-Request-ID": "r2"})
    assert [record.getMessage()[-12:] for record in caplog.records] == ["[request r1]", "[request r2]"]


def test_an_answer_that_nobody_waited_for_is_told_apart(engine, store):
    import asyncio

    lines = io.StringIO()
    app = RequestLog(create_app(engine, store, ServingSettings()), lines)
    scope = {"type": "http", "method": "POST", "path": "/search", "headers": [(b"content-length", b"9")]}

    async def hung_up():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError("nobody is there")

    asyncio.run(app(scope, hung_up, send))
    assert json.loads(lines.getvalue())["status"] == 499


def test_a_log_that_cannot_be_written_stops_no_answer(engine, store):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError("no space left")

    with TestClient(RequestLog(create_app(engine, store), Full())) as client:
        assert client.get("/readyz").status_code == 200
