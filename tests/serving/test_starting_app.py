"""The service from its first second: what it answers while the run is loaded, and where that fails."""

import subprocess
import sys
import threading
from contextlib import nullcontext

import pytest
from fastapi.testclient import TestClient

from onesearch.serving.http_app import create_app
from onesearch.serving.http_server import run_server
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.starting_app import StartingApp


def wait_until_ready(client):
    for _ in range(500):
        if client.get("/readyz").status_code == 200:
            return
        threading.Event().wait(0.01)
    raise AssertionError("not ready within five seconds")


def test_probes_and_searches_before_and_after_the_run_is_loaded(engine, store):
    gate = threading.Event()

    def load():
        gate.wait(10)
        return create_app(engine, store, ServingSettings(allowed_hosts=("shop.local",)))

    with TestClient(StartingApp(load), base_url="http://shop.local") as client:
        assert client.get("/livez").json() == {"status": "live"}
        early = client.get("/readyz")
        assert early.status_code == 503 and early.json() == {"status": "loading"}
        assert client.get("/healthz").status_code == 503 and "loaded" in client.get("/healthz").json()["reasons"][0]
        search = client.post("/search", json={"query": "lamp"})
        assert search.status_code == 503 and search.headers["retry-after"] == "5"
        assert "still being loaded" in search.json()["error"] and search.headers["x-content-type-options"] == "nosniff"
        gate.set()
        wait_until_ready(client)
        assert client.get("/livez").status_code == 200 and client.post("/search", json={"query": "lamp"}).json()
        # An orchestrator asks by the machine's address, which is no name of the service.
        by_address = {"host": "10.1.2.3:8000"}
        assert client.get("/readyz", headers=by_address).status_code == 200
        assert client.get("/healthz", headers=by_address).status_code == 400


def test_ready_means_that_searches_are_answered(client):
    assert client.get("/readyz").json() == {"status": "ready"}
    client.app.state.service.workers.by_method["bm25"].close()
    down = client.get("/readyz")
    assert down.status_code == 503 and down.json() == {"status": "down"}
    assert client.get("/livez").status_code == 200


def test_the_store_is_closed_with_the_loaded_application_and_one_that_loads_can_be_stopped(engine, store):
    with TestClient(StartingApp(lambda: create_app(engine, store))) as client:
        wait_until_ready(client)
    with pytest.raises(Exception, match="closed"):
        store.history("u")
    gate = threading.Event()
    with TestClient(StartingApp(lambda: gate.wait(10))) as client:
        assert client.get("/livez").status_code == 200
    gate.set()


def test_a_run_that_cannot_be_loaded_ends_the_server_with_its_error(monkeypatch):
    monkeypatch.setattr("uvicorn.Server.capture_signals", lambda self: nullcontext())

    def load():
        raise ValueError("runs/demo is no finished run")

    with pytest.raises(ValueError, match="no finished run"):
        run_server(StartingApp(load), "127.0.0.1", 0, ServingSettings())


def test_the_port_needs_no_library_of_models():
    code = (
        "import sys; import onesearch.cli.serve_command, onesearch.serving.http_server, onesearch.serving.starting_app,"
        " onesearch.serving.sqlite_store; print([one for one in ('torch', 'transformers') if one in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
