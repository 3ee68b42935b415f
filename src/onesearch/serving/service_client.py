"""Calls of the HTTP service: a running one at an address, or an application in this process, over the same API.

So there is one way to every answer: limits, keys and the words of errors are the service's own, wherever it runs.
"""

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlsplit

from onesearch.common.extras import from_extra

with from_extra("agents"):
    import httpx2

if TYPE_CHECKING:
    from fastapi import FastAPI

_SECONDS: Final = 30.0
_MOST_BYTES: Final = 4 << 20  # of an answer
_LONGEST_WORDS: Final = 1000  # of an error


class CallRefusedError(Exception):
    """The service did not do what it was asked; the words say why and what to do."""


class ServiceClient:
    """The service as an async context; calls are made inside of it.

    Args:
        service: address of a running one, as ``http://127.0.0.1:8000``, or an application.
        search_key: what it asks for searches; None sends none.
        admin_key: what it asks for changes; None makes :meth:`call` refuse them here.

    Raises:
        ValueError: the address is none of HTTP, or holds a password.
    """

    def __init__(self, service: "str | FastAPI", search_key: str | None = None, admin_key: str | None = None) -> None:
        if isinstance(service, str):
            parts = urlsplit(service)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{service!r} is no address of a service, such as http://127.0.0.1:8000")
            if parts.username or parts.password:
                raise ValueError("the address holds a password; give keys by ONESEARCH_SEARCH_KEY and the like instead")
        self._service, self._search_key, self._admin_key = service, search_key, admin_key
        self._open = AsyncExitStack()
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        if isinstance(self._service, str):
            self._client = httpx2.AsyncClient(base_url=self._service.rstrip("/"), timeout=_SECONDS, trust_env=False)
        else:
            # The application's threads live as long as this context.
            app = self._service
            await self._open.enter_async_context(app.router.lifespan_context(app))
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
            self._client = httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=_SECONDS)
        await self._open.enter_async_context(self._client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        admin: bool = False,
    ) -> dict[str, Any]:
        """The JSON object that a call answers.

        Args:
            method: of HTTP.
            path: with what comes from outside quoted by :func:`quoted`.
            body: sent as JSON.
            query: parameters of the address.
            admin: whether the admin key is sent, and not that for searches.

        Raises:
            CallRefusedError: the service refuses it, cannot be reached, or answers what is no answer of it.
        """
        assert self._client is not None, "calls are made inside of the context"
        key = self._admin_key if admin else self._search_key
        if admin and key is None:
            raise CallRefusedError("changes need the admin key, which was not given")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        content = b""
        try:
            async with self._client.stream(method, path, json=body, params=query, headers=headers) as answer:
                # What answers at an address may be anything, of any length.
                async for part in answer.aiter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise CallRefusedError(f"the service answers more than the {_MOST_BYTES:,} bytes that are read")
        except httpx2.HTTPError as error:
            raise CallRefusedError(f"the service does not answer: {type(error).__name__}; is it running?") from error
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise CallRefusedError(f"what answers there (status {answer.status_code}) is no onesearch service")
        if not answer.is_success:
            raise CallRefusedError(f"{str(found.get('error', 'no reason given'))[:_LONGEST_WORDS]}")
        return found


def quoted(text: str) -> str:
    """A text from outside as one part of a path.

    >>> quoted("a/b c")
    'a%2Fb%20c'
    """
    return quote(text, safe="")
