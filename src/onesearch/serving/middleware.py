"""Around every request: who may call, how much is taken on, limits of the body, security headers, measurements."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence

from onesearch.common.extras import from_extra
from onesearch.serving.access import SEARCHES, Keys, host_name, role_of
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.serving_settings import ServingSettings

with from_extra("serve"):
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PROBES = ("/livez", "/readyz")  # asked by the machine's address, and tell nothing
_WATCHED = ("/healthz", "/metrics", *_PROBES)  # answered also when everything else is refused
_LONGEST_RETRY = 5  # seconds
_REFUSALS_PER_SECOND = 40
HUNG_UP = 499  # in the measurements: nobody is there to read an answer


def security_headers(image_hosts: Sequence[str] = ()) -> tuple[tuple[bytes, bytes], ...]:
    """Of every answer: scripts, styles and calls of this origin only, and pictures of named hosts besides.

    So a listing's text can neither run anything nor load it from elsewhere.
    """
    pictures = " ".join(("'self'", *image_hosts))
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {pictures}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )


class _RefusedError(Exception):
    """The request is answered here, with these words."""

    def __init__(self, status: int, words: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(words)
        self.status, self.headers = status, headers


class _HungUpError(Exception):
    """The caller went away before the whole request was there."""


class Guard:
    """ASGI middleware. For each request::

        refuse what comes for another host, without its role's key, or while as many are at work as may be
        read the body up to its limit, in time, and refuse if too many bytes wait in all bodies; nothing runs on a half
        hand it to the application
        count what came of it

    A connection whose request was refused as one too many is not read for the seconds that ``Retry-After`` names, so
    that callers who come back at once do not take the time of those who are served. The more of them wait, the later:
    refusing stays at a rate that costs little.

    Args:
        app: what it guards.
        metrics: where answers are counted.
        config: limits and hosts.
        keys: of the roles.
        most_at_work: how many requests of a kind ("search", "change", "other", "watch") may be at work; None for any.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        config: ServingSettings,
        keys: Keys,
        most_at_work: Callable[[str], int | None],
    ) -> None:
        self._app, self._metrics, self._config, self._keys = app, metrics, config, keys
        self._most_at_work = most_at_work
        self._headers = security_headers(config.image_hosts)
        self._at_work: Counter[str] = Counter()  # requests by kind
        self._held = 0  # bytes of all bodies
        self._refused = 0  # connections that wait out their ``Retry-After``

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500  # unless an answer begins
        kind, body = _kind(scope), bytearray()

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        try:
            # Looked at twice: while the body came others may have taken the last place.
            self._check_caller(scope)
            self._check_room(kind)
            await self._read_body(scope, receive, body)
            self._check_room(kind)
            self._at_work[kind] += 1
            try:
                await self._app(scope, _replay(bytes(body), receive), send_guarded)
            finally:
                self._at_work[kind] -= 1
        except _RefusedError as refused:
            await self._refuse(send_guarded, refused)
        except _HungUpError:
            status = HUNG_UP
        finally:
            self._held -= len(body)
            route = route_of(scope)
            self._metrics.requests.labels(route, known_method(scope), status).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - start)

    def _check_caller(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        hosts = self._config.allowed_hosts
        if hosts and scope["path"] not in _PROBES and host_name(headers.get(b"host", b"")) not in hosts:
            raise _RefusedError(400, "this service has another name: see --allowed-host")
        # The routes check keys once more, since only they know for sure which route a path leads to.
        role = role_of(scope["method"], scope["path"])
        problem = role and self._keys.problem(role, headers.get(b"authorization", b""))
        if problem:
            status, words = problem
            wanted = ((b"www-authenticate", b"Bearer"),) if status == 401 else ()
            raise _RefusedError(status, words, *wanted, (b"connection", b"close"))

    def _check_room(self, kind: str) -> None:
        if (most := self._most_at_work(kind)) is not None and self._at_work[kind] >= most:
            if kind == "search":
                self._metrics.refused.inc()
            raise _too_busy(f"{most} requests of this kind are at work already")

    async def _read_body(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        """Fill ``body``, which never holds more than its limit and one chunk."""
        # A caller that says how much is coming is believed if it is too much, and counted in any case.
        config, headers = self._config, dict(scope["headers"])
        limit = config.max_items_body if scope["path"] == "/items" else config.max_body
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        if not length and b"transfer-encoding" not in headers:  # HTTP's way to say that there is no body
            return
        try:
            async with asyncio.timeout(config.body_seconds):
                await self._read_chunks(receive, body, limit)
        except TimeoutError:
            words = f"the request body did not arrive within {config.body_seconds:g} seconds"
            raise _RefusedError(408, words, (b"connection", b"close")) from None

    async def _read_chunks(self, receive: Receive, body: bytearray, limit: int) -> None:
        # Chunk by chunk, so that a caller who sends without end is cut off at the limit.
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise _HungUpError
            chunk = message.get("body", b"")
            body += chunk
            self._held += len(chunk)
            if len(body) > limit:
                raise _too_large(limit)
            if self._held > self._config.max_held:
                raise _too_busy("too many request bodies are on their way", (b"connection", b"close"))
            more = message.get("more_body", False)

    async def _refuse(self, send: Send, refused: _RefusedError) -> None:
        """Answer; one that was too many ends its message, and lets its connection go on, only after ``Retry-After``."""
        answer = json.dumps({"error": str(refused), "fields": {}}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
            *refused.headers,
        ]
        if refused.status != 503:
            await send({"type": "http.response.start", "status": refused.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer})
            return
        seconds = min(_LONGEST_RETRY, 1 + self._refused // _REFUSALS_PER_SECOND)
        headers.append((b"retry-after", str(seconds).encode()))
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": True})
        self._refused += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._refused -= 1
        await send({"type": "http.response.body", "body": b""})


def _kind(scope: Scope) -> str:
    """What a request takes a place of."""
    path = scope["path"]
    if (path == "/items" and scope["method"] in ("POST", "PATCH")) or (path == "/rules" and scope["method"] == "PUT"):
        return "change"
    searches = path in SEARCHES or path.startswith("/indexes/")
    return "search" if searches else "watch" if path in _WATCHED else "other"


def route_of(scope: Scope) -> str:
    """The template of the path of a request that was answered, such as "/items/{item_id:text}"; "other" for none."""
    return getattr(scope.get("route"), "path", "other")


def known_method(scope: Scope) -> str:
    """The method of a request; "other" for one that no route has, since labels must not grow with what callers send."""
    method = str(scope["method"])
    return method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"


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


def _too_large(limit: int) -> _RefusedError:
    return _RefusedError(413, f"the request body is too large: at most {limit} bytes", (b"connection", b"close"))


def _too_busy(why: str, *headers: tuple[bytes, bytes]) -> _RefusedError:
    return _RefusedError(503, f"too busy, try again: {why}", *headers)
