"""What an attacker or a bad day does to the HTTP service: raw sockets against a server with small limits."""

import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi.testclient import TestClient

from onesearch.serving.access import Keys, host_name
from onesearch.serving.http_app import create_app
from onesearch.serving.http_server import server_options
from onesearch.serving.serving_settings import ServingSettings

TOKEN = "correct horse battery staple"
SEARCH = b'{"query": "lamp"}'


@contextmanager
def running(engine, store, **limits):
    """A server in a thread; gives its port and itself."""
    config = ServingSettings(**limits)
    app = create_app(engine, store, config, TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, port=0, **server_options(config)))
    server.waiting = lambda: app.state.service.workers.by_method["onesearch"].waiting
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server ends"


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def head(path, *headers, method="POST"):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request(path, body, *headers):
    return head(path, f"Content-Length: {len(body)}", *headers) + body


class Caller:
    """A connection that is used by hand."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data):
        self.socket.sendall(data)
        return self

    def answer(self):
        """Status, headers and JSON of one answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        top, _, body = data.partition(b"\r\n\r\n")
        lines = top.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(body) < int(headers["content-length"]):
            body += self._more()
        return int(lines[0].split()[1]), headers, json.loads(body)

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("closed")
        return data

    def seconds_until_closed(self):
        start = time.monotonic()
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return time.monotonic() - start


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("length", ["Content-Length: 5", "content-length: 23", ""])
def test_a_body_whose_end_can_be_told_in_two_ways_ends_the_connection(engine, store, version, length):
    """A proxy may believe the length: what it takes for the body's rest would be a request of its own here."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SEARCH), SEARCH)
    top = head("/search", "Transfer-Encoding: chunked", *filter(None, [length])).replace(b"1.1", version.encode(), 1)
    with running(engine, store) as (port, _):
        caller = Caller(port).send(top + body)
        plain = version == "1.1" and not length
        assert caller.socket.recv(12) == (b"HTTP/1.1 200" if plain else b"HTTP/1.1 400")
        if not plain:
            assert caller.seconds_until_closed() < 3 and engine.requests == []


def test_a_call_without_its_token_is_refused_before_its_body_is_read(engine, store):
    with running(engine, store) as (port, _):
        tries = (("POST", (), 401), ("PATCH", (), 401), ("POST", ("Authorization: Bearer wrong",), 403))
        for method, headers, expected in tries:
            caller = Caller(port).send(head("/items", "Content-Length: 8000000", *headers, method=method) + b"{")
            status, answered, body = caller.answer()
            assert status == expected and body["error"]
            assert answered["connection"] == "close" and caller.seconds_until_closed() < 2


def test_a_body_has_a_deadline_however_slowly_it_drops_in(engine, store):
    with running(engine, store, body_seconds=0.5) as (port, _):
        start = time.monotonic()
        caller = Caller(port).send(head("/search", "Content-Length: 500"))
        while time.monotonic() < start + 0.4:
            caller.send(b" ")
            time.sleep(0.05)
        status, headers, body = caller.answer()
        assert status == 408 and "0.5 seconds" in body["error"] and headers["connection"] == "close"
        assert time.monotonic() - start < 8 and caller.seconds_until_closed() < 8


def test_bodies_are_bounded_together(engine, store):
    with running(engine, store, max_held=100_000) as (port, _):
        holding = [Caller(port).send(head("/search", "Content-Length: 50000") + b" " * 30_000) for _ in range(3)]
        time.sleep(1.0)
        late = Caller(port).send(head("/search", "Content-Length: 50000") + b" " * 30_000)
        status, headers, body = late.answer()
        assert status == 503 and headers["retry-after"] == "1" and "bodies" in body["error"]
        for caller in holding:
            caller.socket.close()
        wait_for(lambda: Caller(port).send(request("/search", SEARCH)).answer()[0] == 200)  # what was held is free


@pytest.mark.parametrize("sent", [b"", b"POST /search HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_a_head_has_a_deadline_however_slowly_it_drops_in(engine, store, sent):
    with running(engine, store, head_seconds=0.6) as (port, _):
        caller = Caller(port)
        start = time.monotonic()
        if sent:
            caller.send(sent)
            while time.monotonic() < start + 0.4:
                caller.send(b"x")
                time.sleep(0.05)
        caller.seconds_until_closed()
        assert 0.4 < time.monotonic() - start < 8


def test_an_answered_connection_that_drops_in_its_next_head_is_closed(engine, store):
    with running(engine, store, head_seconds=0.6) as (port, _):
        caller = Caller(port).send(request("/search", SEARCH))
        assert caller.answer()[0] == 200
        start = time.monotonic()
        try:
            while time.monotonic() < start + 15:
                caller.send(b"P" if time.monotonic() < start + 0.05 else b"O")
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - start < 8


def test_an_endless_body_behind_its_answer_is_cut_off(engine, store):
    engine.gate = threading.Event()
    with running(engine, store, head_seconds=0.6, max_queue=1, max_batch=1) as (port, server):
        busy = [Caller(port).send(request("/search", SEARCH))]
        assert engine.at_work.wait(60)  # the first must have left the queue before another comes
        busy.append(Caller(port).send(request("/search", SEARCH)))
        wait_for(lambda: server.waiting() == 1)
        caller = Caller(port).send(head("/search", "Transfer-Encoding: chunked"))
        assert caller.answer()[0] == 503
        start = time.monotonic()
        try:
            while time.monotonic() < start + 20:
                caller.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
                time.sleep(0.002)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - start < 5
        engine.gate.set()
        assert [one.answer()[0] for one in busy] == [200, 200]


def test_an_answer_that_nobody_reads_ends_with_its_connection(engine, store):
    with running(engine, store, read_seconds=0.5) as (port, server):
        caller = Caller(port)
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        end = time.monotonic() + 20
        try:
            while time.monotonic() < end:
                caller.send(head("/openapi.json", method="GET") * 20)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        while server.server_state.connections and time.monotonic() < end:
            time.sleep(0.05)
        assert not server.server_state.connections


def test_connections_are_bounded(engine, store):
    with running(engine, store, max_connections=4, head_seconds=3) as (port, server):
        idle = [Caller(port) for _ in range(4)]
        time.sleep(0.2)
        status, headers, body = Caller(port).send(request("/search", SEARCH)).answer()
        assert status == 503 and headers["retry-after"] == "1" and "connections" in body["error"]
        flood = [Caller(port) for _ in range(20)]
        time.sleep(0.2)
        assert len(server.server_state.connections) <= 6, "far too many are closed at once"
        for caller in [*idle, *flood]:
            caller.socket.close()
        time.sleep(0.2)
        assert Caller(port).send(request("/search", SEARCH)).answer()[0] == 200


@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
def test_an_interrupted_request_is_not_executed(engine, store, framing):
    body = b'{"delete": ["i1"]}'
    if framing.startswith("Transfer"):
        body = b"%x\r\n%s\r\n" % (len(body), body)
    with running(engine, store) as (port, _):
        caller = Caller(port).send(head("/items", framing, f"Authorization: Bearer {TOKEN}") + body)
        time.sleep(0.2)
        caller.socket.close()
        time.sleep(0.3)
        assert "i1" in engine.items and store.item_changes(0) == []


def test_shutdown_has_a_deadline(engine, store):
    with running(engine, store, stop_seconds=1) as (port, server):
        stalled = Caller(port).send(head("/search", "Content-Length: 500") + b"{")
        time.sleep(0.2)
        start = time.monotonic()
        server.should_exit = True
        stalled.seconds_until_closed()
        while not server.lifespan.shutdown_event.is_set() and time.monotonic() < start + 10:
            time.sleep(0.05)
        assert time.monotonic() - start < 5


def test_a_running_search_is_answered_at_shutdown(engine, store):
    engine.gate = threading.Event()
    with running(engine, store, stop_seconds=5) as (port, server):
        caller = Caller(port).send(request("/search", SEARCH))
        time.sleep(0.3)
        server.should_exit = True
        time.sleep(0.3)
        engine.gate.set()
        assert caller.answer()[0] == 200


def test_overload_is_refused_first_thing_and_the_refused_are_held_back(engine, store, monkeypatch):
    """Three places, ten callers who come back at once: three searches are at work, seven answers say when to return."""
    engine.gate = threading.Event()
    with running(engine, store, max_queue=2, max_batch=1) as (port, server):
        callers = [Caller(port).send(request("/search", SEARCH))]
        assert engine.at_work.wait(60)
        callers += [Caller(port).send(request("/search", SEARCH)) for _ in range(2)]
        wait_for(lambda: server.waiting() == 2)
        reads = []
        monkeypatch.setattr(store, "history", lambda user: reads.append(user))
        refused = Caller(port)
        start = time.monotonic()
        refused.send(head("/search", "Content-Length: 1000"))  # its body never comes, and nobody waits for it
        status, headers, body = refused.answer()
        assert status == 503 and headers["retry-after"] == "1" and "too busy" in body["error"]
        assert time.monotonic() - start < 5 and not reads
        again = Caller(port)
        for at in range(2):
            again.send(request("/search", SEARCH))
            start = time.monotonic()
            assert again.answer()[0] == 503
            waited = time.monotonic() - start
            assert at == 0 or waited > 0.7, "the second one waits out Retry-After"
        assert Caller(port).send(head("/healthz", method="GET")).answer()[0] == 200
        engine.gate.set()
        assert [caller.answer()[0] for caller in callers] == [200] * 3
        assert Caller(port).send(request("/search", SEARCH)).answer()[0] == 200, "recovered right after"


def test_no_more_searches_are_taken_on_than_a_slow_engine_answers_in_time(engine, store, monkeypatch):
    """A search takes 0.1 s and may take one: of 24 callers five are at work, and nobody waits only to be given up."""
    plain = engine.search_batch

    def slow(requests):
        time.sleep(0.1 * len(requests))
        return plain(requests)

    monkeypatch.setattr(engine, "search_batch", slow)
    with running(engine, store, timeout_seconds=1.0) as (port, _), ThreadPoolExecutor(24) as pool:
        assert Caller(port).send(request("/search", SEARCH)).answer()[0] == 200  # tells the pace
        end = time.monotonic() + 2

        def call(_):
            caller, answers = Caller(port), []
            while time.monotonic() < end:
                answers.append(caller.send(request("/search", SEARCH)).answer())
            return answers

        answers = [answer for found in pool.map(call, range(24)) for answer in found]
    refused = [body["error"] for status, _, body in answers if status == 503]
    assert refused and not any("no answer within" in words for words in refused)
    assert sum(status == 200 for status, _, _ in answers) >= 6


def test_changes_and_other_calls_have_places_of_their_own(engine, store, monkeypatch):
    gate = threading.Event()
    plain = store.shoppers
    monkeypatch.setattr(store, "shoppers", lambda limit: gate.wait(10) and plain(limit))
    with TestClient(create_app(engine, store, ServingSettings(max_others=2))) as client, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(client.get, "/shoppers") for _ in range(2)]
        time.sleep(0.3)
        refused = client.get("/filters")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert client.post("/search", json={"query": "lamp"}).status_code == 200
        assert client.get("/healthz").status_code == 200
        gate.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert client.get("/filters").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("evil.example#localhost", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_only_allowed_hosts_are_answered(engine, store, host, status):
    config = ServingSettings(allowed_hosts=("localhost", "::1"))
    with TestClient(create_app(engine, store, config)) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == status
        answer = client.post("/events", json={"item_id": "i1", "kind": "click"}, headers={"host": host})
        assert answer.status_code == status and ("error" in answer.json()) == (status == 400)


def test_host_names_have_no_port():
    assert host_name(b"shop.example:443") == "shop.example" and host_name(b"\xff") == "" and host_name(b"[::1") == ""


@pytest.fixture
def keyed(engine, store):
    keys = {"admin_token": "a-key", "search_key": "s-key", "events_key": "e-kéy"}
    app = create_app(engine, store, ServingSettings(page=False), **keys)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


CALLS = {
    "s-key": ("POST", "/search", {"query": "", "user": "ann"}),
    "e-kéy": ("POST", "/events", {"item_id": "i8", "kind": "click", "user": "ann"}),
    "a-key": ("POST", "/items", {"delete": ["i2"]}),
}


def bearer(key):
    return {"authorization": f"Bearer {key}".encode()}


def test_each_role_has_a_key_of_its_own(keyed):
    for own, (method, path, body) in CALLS.items():
        assert keyed.request(method, path, json=body).status_code == 401
        for key in [*CALLS, own[:-1], own + "x", "", own.upper()]:
            answer = keyed.request(method, path, json=body, headers=bearer(key))
            assert answer.status_code == (200 if key == own else 403), (path, key)
    for path in ("/items/i1", "/suggest"):
        assert keyed.get(path).status_code == 401
        assert keyed.get(path, headers=bearer("s-key")).status_code == 200
    assert keyed.get("/healthz").status_code == 200


def test_keys_hold_where_the_application_is_mounted_and_however_a_path_is_written(engine, store):
    from fastapi import FastAPI

    outer = FastAPI()
    outer.mount("/shop", create_app(engine, store, admin_token="a-key"))
    with TestClient(outer, raise_server_exceptions=False) as client:
        assert client.post("/shop/items", json={"delete": ["i1"]}).status_code == 401
    with TestClient(create_app(engine, store, admin_token="a-key"), raise_server_exceptions=False) as client:
        for path in ("/items/", "//items", "/./items", "/%69tems", "/items?x=1", "/items%00", "/ITEMS", "/items;a=b"):
            client.post(path, json={"delete": ["i1"]})
    assert "i1" in engine.items


def test_a_key_for_searches_goes_with_no_page(engine, store):
    with pytest.raises(ValueError, match="--api-only"):
        create_app(engine, store, search_key="s")


def test_keys_are_in_no_log_and_no_text(keyed, caplog):
    caplog.set_level(logging.DEBUG)
    for own, (method, path, body) in CALLS.items():
        for key in (own, own + "-wrong"):
            keyed.request(method, path, json=body, headers=bearer(key))
    keyed.post("/search", json={"query": "explode"}, headers=bearer("s-key"))
    shown = caplog.text + keyed.get("/metrics").text + keyed.get("/openapi.json").text + repr(Keys("s-key", "e-kéy"))
    assert not any(key in shown for key in CALLS)
