"""The stand-in language model behind an OpenAI-compatible address, with the faults of a real server on request.

The last user message is a JSON object that names the task: ``{"task": "understand", "query": ...}`` or
``{"task": "calibrate", "query": ..., "keywords": [...], "history": {...}}``, where a history has lists of strings
``queries`` and ``items`` (titles) and a string ``profile``.
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from onesearch.common.extras import from_extra
from onesearch.market import keyed_random as keyed
from onesearch.market.stand_in_thinker import Thinker

with from_extra("serve"):
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

OFF_CATALOGUE: Final = "flux capacitor"  # no market sells it
_FAIL, _MALFORMED, _HOW = 0, 1, 2  # what a draw is for
_BLANKS: Final = {"array": [], "integer": 0, "number": 0, "boolean": False, "object": {}, "null": None}


class BadRequestError(ValueError):
    """A request that this server does not understand."""


class _Message(BaseModel):
    """A string, or parts of which those of type text count."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        parts = self.content or ""
        return parts if isinstance(parts, str) else "".join(str(part.get("text", "")) for part in parts)


class _ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] = {}


class _ChatRequest(BaseModel):
    model: str
    messages: list[_Message]
    stream: Literal[False] = False
    """Streaming is not simulated."""
    response_format: _ResponseFormat | None = None


class _Understand(BaseModel):
    task: Literal["understand"]
    query: str


class _History(BaseModel):
    queries: list[str] = []
    items: list[str] = []
    profile: str | None = None


class _Calibrate(BaseModel):
    task: Literal["calibrate"]
    query: str
    keywords: list[str]
    history: _History = _History()


_TASK: Final = TypeAdapter[_Understand | _Calibrate](Annotated[_Understand | _Calibrate, Field(discriminator="task")])


def _parse(body: bytes) -> tuple[_ChatRequest, _Understand | _Calibrate]:
    """A request and the task in its last user message."""
    try:
        request = _ChatRequest.model_validate_json(body)
        asked = [message.text for message in request.messages if message.role == "user"]
        if not asked:
            raise BadRequestError("there is no message of the user")
        task = _TASK.validate_json(asked[-1])
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequestError(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from None
    wanted = request.response_format
    if wanted and wanted.type == "json_schema" and not isinstance(wanted.json_schema.get("schema"), dict):
        raise BadRequestError("response_format.json_schema has no schema")
    return request, task


def _answer(thinker: Thinker, task: _Understand | _Calibrate) -> dict[str, Any]:
    if isinstance(task, _Understand):
        return thinker.think(task.query)
    history = task.history
    kept = thinker.calibrate(task.query, task.keywords, history.queries, history.items, history.profile or "")
    return {"keywords": kept}


def make_app(
    thinker: Thinker,
    model: str = "Qwen3-32B",
    fail: float = 0.0,
    malformed: float = 0.0,
    seed: int = 0,
    latency: float = 0.0,
) -> FastAPI:
    """The server: POST /v1/chat/completions and GET /v1/models.

    ``fail`` is the share of calls answered with 500, ``malformed`` that of answers with broken JSON or a keyword which
    is in no catalogue, both drawn by number of call; ``latency`` is waited before each answer, in seconds. Well-formed
    calls are counted in ``app.state.calls``. Headers are neither read nor logged, so any API key will do.

    Raises:
        ValueError: a share is not in [0, 1], or ``latency`` is negative.
    """
    for name, share in (("fail", fail), ("malformed", malformed)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} {share} is not a share")
    if latency < 0.0:
        raise ValueError(f"latency {latency} is negative")
    app = FastAPI(title="Stand-in language model: a simulation", docs_url=None, redoc_url=None)
    app.state.calls = 0

    def drawn(call: int, what: int, share: float) -> bool:
        return share > 0.0 and float(keyed.uniform(keyed.key(seed, call, what))[0]) < share

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The only model there is."""
        return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "simulation"}]}

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> JSONResponse:
        """Answer the last user message."""
        try:
            asked, task = _parse(await request.body())
        except BadRequestError as error:
            return _error(400, str(error), "invalid_request_error")
        answer = _answer(thinker, task)
        if asked.response_format and asked.response_format.type == "json_schema":
            answer = fill(asked.response_format.json_schema["schema"], answer)
        # Only well-formed calls count; the number of the call decides its fault.
        app.state.calls += 1
        call = app.state.calls
        if latency:
            await asyncio.sleep(latency)
        if drawn(call, _FAIL, fail):
            return _error(500, "the simulated server failed on purpose", "server_error")
        # Half of the spoilt answers name what no catalogue has, the others are broken JSON.
        spoil = drawn(call, _MALFORMED, malformed)
        if spoil and drawn(call, _HOW, 0.5) and isinstance(answer.get("keywords"), list):
            answer = {**answer, "keywords": [OFF_CATALOGUE, *answer["keywords"]][: max(1, len(answer["keywords"]))]}
            spoil = False
        content = json.dumps(answer, ensure_ascii=False)
        # Cut short, as when a limit of tokens is hit: never valid JSON.
        content = content[: 1 + len(content) // 2] if spoil and len(content) > 2 else "{" if spoil else content
        # Four characters a token, roughly.
        prompt_tokens = sum(len(message.text) for message in asked.messages) // 4
        completion_tokens = len(content) // 4
        return JSONResponse(
            {
                "id": f"chatcmpl-{call}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": model,
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
                ],
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": completion_tokens,
                    "total_tokens": prompt_tokens + completion_tokens,
                },
            }
        )

    return app


def fill(schema: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """An object with exactly the schema's properties: known ones by name, the others blank values of their type.

    Arrays are cut to ``maxItems``; an unknown property that is itself an object is filled likewise.
    """
    return _filled(schema, known, schema)


def _filled(schema: dict[str, Any], known: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, raw in _mapping(schema.get("properties")).items():
        part = _resolved(raw, root)
        if name in known:
            out[name] = _fitted(known[name], part, root)
        elif _type(part) == "object":
            out[name] = _filled(part, known, root)
        else:
            out[name] = part["const"] if "const" in part else (part.get("enum") or [_BLANKS.get(_type(part), "")])[0]
    return out


def _fitted(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    if isinstance(value, list):
        items = _resolved(schema.get("items"), root)
        return [_fitted(item, items, root) for item in value[: schema.get("maxItems", len(value))]]
    if isinstance(value, dict) and "properties" in schema:
        return {name: value[name] for name in _mapping(schema["properties"]) if name in value}
    return value


def _resolved(schema: Any, root: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """A schema with a reference into the document or the first of several alternatives followed."""
    part = _mapping(schema)
    if depth < 8 and str(part.get("$ref", "")).startswith("#/"):
        target: Any = root
        for step in part["$ref"][2:].split("/"):
            target = _mapping(target).get(step)
        return _resolved(target, root, depth + 1)
    choices = part.get("anyOf") or part.get("oneOf")
    return _resolved(choices[0], root, depth + 1) if depth < 8 and isinstance(choices, list) and choices else part


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "string")
    return str(kind[0]) if isinstance(kind, list) and kind else str(kind)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _error(status: int, message: str, kind: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)


def serve_until_closed(dataset: Path, error: float, seed: int, parent: "Connection") -> None:
    """Answer on a free local port, whose number ``parent`` gets; ends when its other end is closed, also by a death.

    The target of a process of its own; ``dataset`` is the folder of a market's dataset.
    """
    with from_extra("serve"):
        import uvicorn

    app = make_app(Thinker.load(dataset, error, seed))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))

        def watch() -> None:
            parent.send(listening.getsockname()[1])
            with contextlib.suppress(EOFError, OSError):
                parent.recv()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
        server.run(sockets=[listening])
