"""The port opens before the run is loaded: probes are answered from then on, searches are put off."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from onesearch.common.extras import from_extra
from onesearch.serving.middleware import security_headers

with from_extra("serve"):
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

_RETRY_SECONDS = 5
_LOADING = "the run is still being loaded"


class StartingApp:
    """ASGI application that makes the real one in a thread, and hands everything to it from then on::

        meanwhile     /livez 200; /readyz and /healthz 503; all else 503 with Retry-After
        it is made    its own start runs, then every request is its
        that failed   ``failure`` holds the error, and ``stop`` is called: a service that cannot load ends

    Attributes:
        load: makes the application.
        failure: why there is none.
        stop: ends the server.
    """

    def __init__(self, load: Callable[[], FastAPI]) -> None:
        self.load = load
        self.failure: Exception | None = None
        self.stop: Callable[[], None] = lambda: None
        self._app: FastAPI | None = None

    def fail(self, error: Exception) -> None:
        """End the service: it cannot go on."""
        self.failure = error
        self.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _put_off(scope["path"], send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # the server starts
        ending = asyncio.Event()
        life = asyncio.create_task(self._load_and_run(ending))
        await send({"type": "lifespan.startup.complete"})
        await receive()  # it ends: what is loaded has work to finish, what is not is given up
        ending.set()
        if self._app is None:
            life.cancel()
        with suppress(asyncio.CancelledError):
            await life
        await send({"type": "lifespan.shutdown.complete"})

    async def _load_and_run(self, ending: asyncio.Event) -> None:
        loaded: Future[FastAPI] = Future()

        def load() -> None:
            try:
                loaded.set_result(self.load())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
                loaded.set_exception(error)

        # A thread that the interpreter does not wait for: a service may be stopped while it loads.
        loaded.set_running_or_notify_cancel()
        threading.Thread(target=load, name="load", daemon=True).start()
        try:
            app = await asyncio.wrap_future(loaded)
            async with app.router.lifespan_context(app):
                self._app = app
                await ending.wait()
        except Exception as error:  # noqa: BLE001 - raised by whoever runs the server, behind its end
            self.fail(error)


async def _put_off(path: str, send: Send) -> None:
    """Answer a request while the run is loaded."""
    answers = {
        "/livez": {"status": "live"},
        "/readyz": {"status": "loading"},
        "/healthz": {"status": "down", "reasons": [_LOADING], "items": 0, "version": ""},
    }
    body = json.dumps(answers.get(path) or {"error": f"too early, try again: {_LOADING}", "fields": {}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *security_headers(),
    ]
    status = 200 if path == "/livez" else 503
    if status == 503:
        headers.append((b"retry-after", str(_RETRY_SECONDS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
