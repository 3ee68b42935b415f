import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from onesearch.cli import market_command as cli
from onesearch.market.llm_server import OFF_CATALOGUE, make_app
from onesearch.market.stand_in_thinker import Thinker

QUERY = "waterproof tent"
URL = "/v1/chat/completions"
STRINGS = {"type": "array", "items": {"type": "string"}}


@pytest.fixture(scope="module")
def thinker(folder: Path) -> Thinker:
    return Thinker.load(folder, error=0.0)


def _body(task: Any, properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    body = {
        "model": "any",
        "messages": [{"role": "system", "content": "Answer."}, {"role": "user", "content": json.dumps(task)}],
        **more,
    }
    if properties is not None:
        schema = {"type": "object", "properties": properties, "$defs": {"Flag": {"type": "boolean"}}}
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return body


def _understand(query: str = QUERY) -> dict[str, Any]:
    return {"task": "understand", "query": query}


def test_answers_like_an_openai_server_and_counts(thinker):
    app = make_app(thinker)
    client = TestClient(app)
    body = _body(_understand())
    answer = client.post(URL, json=body, headers={"Authorization": "Bearer whatever"}).json()
    content = answer["choices"][0]["message"]["content"]
    assert json.loads(content) == thinker.think(QUERY)
    assert answer["object"] == "chat.completion" and answer["model"] == "Qwen3-32B"
    assert answer["choices"][0]["finish_reason"] == "stop"
    said = sum(len(message["content"]) for message in body["messages"])
    assert answer["usage"] == {
        "prompt_tokens": said // 4,
        "completion_tokens": len(content) // 4,
        "total_tokens": said // 4 + len(content) // 4,
    }
    assert app.state.calls == 1
    assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["Qwen3-32B"]


def test_fills_exactly_the_properties_of_the_schema(thinker):
    properties = {
        "keywords": {**STRINGS, "maxItems": 1},
        "query_type": {"type": "string"},
        "notes": STRINGS,
        "score": {"type": "number"},
        "flag": {"$ref": "#/$defs/Flag"},
        "kind": {"enum": ["a", "b"]},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "count": {"type": ["integer", "null"]},
        "analysis": {"type": "object", "properties": {"intent": {"type": "string"}, "other": {"type": "boolean"}}},
        "attributes": {"type": "array", "items": {"type": "object", "properties": {"type": {}, "value": {}}}},
    }
    answer = TestClient(make_app(thinker)).post(URL, json=_body(_understand(), properties)).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {
        "keywords": ["tent"],
        "query_type": "plain",
        "notes": [],
        "score": 0,
        "flag": False,
        "kind": "a",
        "maybe": "",
        "count": 0,
        "analysis": {"intent": "merchandise", "other": False},
        "attributes": [{"type": "Function", "value": "waterproof"}],
    }


def test_calibrates(thinker):
    task = {
        "task": "calibrate",
        "query": QUERY,
        "keywords": ["mug", "tent"],
        "history": {"queries": ["big tent"], "items": [], "profile": ""},
    }
    answer = TestClient(make_app(thinker)).post(URL, json=_body(task, {"keywords": STRINGS})).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"keywords": ["tent", "mug"]}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"model": "m"},
        {"model": "m", "messages": "hello"},
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
        _body([]),
        _body({"task": "understand"}),
        _body({"task": "sing", "query": "la"}),
        _body({"task": "calibrate", "query": "x", "keywords": "tent"}),
        _body({"task": "calibrate", "query": "x", "keywords": [], "history": {"queries": [1]}}),
        _body(_understand(), response_format={"type": "json_schema"}),
        _body(_understand(), response_format="json"),
        _body(_understand(), stream=True),
    ],
)
def test_malformed_requests_get_400(thinker, body):
    app = make_app(thinker)
    response = TestClient(app).post(URL, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert app.state.calls == 0


def test_no_json_gets_400(thinker):
    assert TestClient(make_app(thinker)).post(URL, content=b"\xff{").status_code == 400


def test_faults_come_in_the_stated_shares_and_are_the_same_again(thinker):
    def outcomes() -> list[str]:
        client = TestClient(make_app(thinker, fail=0.2, malformed=0.3, seed=5))
        out = []
        for _ in range(400):
            response = client.post(URL, json=_body(_understand(), {"keywords": STRINGS}))
            if response.status_code == 500:
                assert response.json()["error"]["type"] == "server_error"
                out.append("failed")
                continue
            content = response.json()["choices"][0]["message"]["content"]
            try:
                out.append("off" if OFF_CATALOGUE in json.loads(content)["keywords"] else "fine")
            except ValueError:
                out.append("broken")
        return out

    first = outcomes()
    assert first == outcomes()
    assert abs(first.count("failed") / 400 - 0.2) < 0.08
    assert abs(first.count("broken") / 400 - 0.8 * 0.15) < 0.07
    assert abs(first.count("off") / 400 - 0.8 * 0.15) < 0.07


def test_impossible_settings_are_refused(thinker):
    with pytest.raises(ValueError, match="share"):
        make_app(thinker, fail=2.0)
    with pytest.raises(ValueError, match="negative"):
        make_app(thinker, latency=-1.0)


def test_the_command_says_that_it_is_a_simulation(folder, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr("uvicorn.run", lambda app, **settings: served.append((app, settings["port"])))
    (tmp_path / "data").symlink_to(folder)
    for place in (folder, tmp_path):
        result = CliRunner().invoke(cli.app, ["llm", str(place), "--port", "8123", "--error", "0"])
        assert result.exit_code == 0 and "SIMULATION" in result.output
        assert TestClient(served[-1][0]).post(URL, json=_body(_understand())).status_code == 200
    assert [port for _, port in served] == [8123, 8123]
