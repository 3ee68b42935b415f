"""Around everything: each request has an id, and a JSON line where that is asked for."""

import json
import logging
import re
import time
import uuid
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from onesearch.common.extras import from_extra
from onesearch.serving.middleware import HUNG_UP, known_method, route_of

with from_extra("serve"):
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADER = b"x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOGGERS = ("onesearch.serving", "uvicorn.error")

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_noted: ContextVar[dict[str, Any] | None] = ContextVar("noted", default=None)


def note(query: str, user: str | None) -> None:
    """Say what the request now answered asks for; it is written only where the log was told to."""
    if (noted := _noted.get()) is not None:
        noted.update(query=query, user=user)


class RequestLog:
    """ASGI application around another one. For each request::

        take the caller's X-Request-ID if it is well-formed, else make one
        let the application answer; the id is added to its answer, and to what is logged meanwhile
        write one line: time, id, method, route, status, milliseconds

    Args:
        app: what answers.
        lines: where the lines go; None for nowhere.
        with_queries: whether the lines also hold queries and shoppers.
    """

    def __init__(self, app: ASGIApp, lines: TextIO | None = None, with_queries: bool = False) -> None:
        self._app, self._lines, self._with_queries = app, lines, with_queries
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_name_request)  # one that is there already is not added again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the application's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), HUNG_UP  # unless an answer begins
        own_id, noted = _id_of(scope), dict[str, Any]()
        _request_id.set(own_id)
        _noted.set(noted)

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), (_HEADER, own_id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        finally:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "id": own_id,
                "method": known_method(scope),
                "route": route_of(scope),
                "status": status,
                "ms": round((time.perf_counter() - start) * 1e3, 2),
            }
            self._write(line | noted if self._with_queries else line)

    def _write(self, line: dict[str, Any]) -> None:
        if self._lines is not None:
            with suppress(OSError):  # a full disk or a reader that went away stops no search
                self._lines.write(json.dumps(line) + "\n")
                self._lines.flush()


def _id_of(scope: Scope) -> str:
    given = dict(scope["headers"]).get(_HEADER, b"").decode("latin-1")
    return given if _WELL_FORMED.fullmatch(given) else uuid.uuid4().hex


def _name_request(record: logging.LogRecord) -> bool:
    """A filter that drops nothing: it says which request a line of the log belongs to."""
    if own_id := _request_id.get():
        record.msg = f"{record.msg} [request {own_id}]"
    return True
