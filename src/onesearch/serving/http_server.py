"""The HTTP server: uvicorn with deadlines for connections, which it has no options for."""

import asyncio
import json
from contextlib import suppress
from typing import Any, TextIO

from onesearch.common.extras import from_extra
from onesearch.serving.request_log import RequestLog
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.starting_app import StartingApp

with from_extra("serve"):
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_BYTES = 16 << 10  # of a request line with its headers
_FULL_BODY = json.dumps({"error": "too many connections, try again", "fields": {}}).encode()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)


def run_server(
    starting: StartingApp,
    host: str,
    port: int,
    config: ServingSettings,
    lines: TextIO | None = None,
    with_queries: bool = False,
) -> None:
    """Serve until a signal ends it; what is at work then has ``config.stop_seconds`` to finish.

    ``lines`` and ``with_queries`` are those of :class:`RequestLog`.

    Raises:
        Exception: why the application could not be made.
    """
    app = RequestLog(starting, lines, with_queries)
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, **server_options(config)))

    def stop() -> None:
        server.should_exit = True

    starting.stop = stop
    with suppress(KeyboardInterrupt):  # whoever stopped it knows
        server.run()
    if starting.failure is not None:
        raise starting.failure


def server_options(config: ServingSettings) -> dict[str, Any]:
    """What uvicorn is told besides the application and its address."""
    return {
        "http": type("Connection", (BoundedConnection,), {"limits": config}),
        "ws": "none",
        "h11_max_incomplete_event_size": _HEAD_BYTES,
        "timeout_graceful_shutdown": config.stop_seconds,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
    }


class _PlainFraming(h11.Connection):
    """Requests whose end can be told in one way only.

    Of a body with both a length and chunks a proxy in front may believe the one and this server the other: then what
    the proxy takes for a body is a request here, which nobody looked at (RFC 9112, 6.1: refuse it, or close at least).
    """

    def next_event(self) -> Any:
        """The next part of a request."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if b"transfer-encoding" in names and (b"content-length" in names or event.http_version < b"1.1"):
                raise h11.RemoteProtocolError("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
        return event


class BoundedConnection(H11Protocol):
    """A connection that is closed where its caller keeps it without using it.

    While no request is at work, its next one must be there, headers and all, within ``head_seconds``, however slowly
    its bytes drop in. An answer that nobody reads on for ``read_seconds`` ends with the connection. One connection too
    many is told so without being read; far too many are closed without a word, since each takes a file handle.
    """

    limits = ServingSettings()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _PlainFraming(h11.SERVER, _HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller connects."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        most = self.limits.max_connections
        self._refused = len(self.connections) > most
        if len(self.connections) > most + most // 4:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self._refused:
            self.transport.write(_FULL)
            self.transport.close()
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """The next request may come."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The caller reads more slowly than the answer comes."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has read on."""
        super().resume_writing()
        _cancel(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whom it may be."""
        super().connection_lost(exc)
        _cancel(self._deadline)
        _cancel(self._stalled)

    def _watch(self) -> None:
        """Set the deadline when waiting for a request begins; bytes that drop in do not put it off."""
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._deadline)
            self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.head_seconds, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
