"""Around every request: a limit on the body, security headers, and measurements."""

import json
import time
from collections.abc import Mapping

from onesearch.common.extras import from_extra
from onesearch.serving.service_metrics import Metrics

with from_extra("serve"):
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts, styles and calls of this origin only: a listing's text can neither run nor load anything.
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        metrics: where answers are counted.
        max_body: bytes of a request body at most.
        max_body_of: other limits by path.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body: int, max_body_of: Mapping[str, int]) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body = max_body
        self._max_body_of = max_body_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500  # unless an answer begins

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        # The body is read here, so that one that is too large costs nothing further.
        try:
            limit = self._max_body_of.get(scope["path"], self._max_body)
            body = await _read_body(scope, receive, limit)
            if body is None:
                await _refuse(send_guarded, limit)
            else:
                await self._app(scope, _replay(body, receive), send_guarded)
        finally:
            # The template, not the path: labels must not grow with what callers send.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, _method(scope), status).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - start)


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in ("GET", "POST", "HEAD", "OPTIONS") else "other"


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when it is too large; never holds more than the limit and one chunk."""
    # A caller that says how much is coming is believed if it is too much, and counted in any case.
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        return None
    if not length and b"transfer-encoding" not in headers:  # HTTP's way to say that there is no body
        return b""
    # Chunk by chunk, so that a caller who sends without end is cut off at the limit.
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # the caller hung up
            break
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body read before, then whatever comes."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _refuse(send: Send, limit: int) -> None:
    answer = json.dumps({"error": f"the request body is too large: at most {limit} bytes", "fields": {}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
