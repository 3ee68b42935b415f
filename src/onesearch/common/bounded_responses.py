"""Answers of HTTP servers that may be without end: hooks of an httpx client, by which no more than so much is read."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any


def bounded(most: int, refused: Callable[[str], Exception]) -> Callable[[Any], None]:
    """A response hook of a client. ``most``: bytes of an answer; ``refused``: makes the error of the reason.

    The error is raised by the hook where the answer is compressed (few bytes could become any number), and by whoever
    reads an answer that is longer.
    """

    def hook(response: Any) -> None:
        whole = _stream(response, refused)

        class Bounded(_base(whole, "SyncByteStream")):  # type: ignore[misc]
            def __iter__(self) -> Iterator[bytes]:
                size = 0
                for chunk in whole:
                    yield _within(size := size + len(chunk), most, refused, chunk)

            def close(self) -> None:
                whole.close()

        response.stream = Bounded()

    return hook


def bounded_async(most: int, refused: Callable[[str], Exception]) -> Callable[[Any], Awaitable[None]]:
    """:func:`bounded` for an asynchronous client."""

    async def hook(response: Any) -> None:
        whole = _stream(response, refused)

        class Bounded(_base(whole, "AsyncByteStream")):  # type: ignore[misc]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                size = 0
                async for chunk in whole:
                    yield _within(size := size + len(chunk), most, refused, chunk)

            async def aclose(self) -> None:
                await whole.aclose()

        response.stream = Bounded()

    return hook


def _stream(response: Any, refused: Callable[[str], Exception]) -> Any:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise refused("compressed, which was not asked for")
    return response.stream


def _base(stream: Any, name: str) -> Any:
    # The client's library has another name in newer versions; its streams are told by their base.
    return next(kind for kind in type(stream).__mro__ if kind.__name__ == name)


def _within(size: int, most: int, refused: Callable[[str], Exception], chunk: bytes) -> bytes:
    if size > most:
        raise refused(f"longer than {most:,} bytes")
    return chunk
