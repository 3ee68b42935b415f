"""Work in an event loop that signals stop: the first one lets calls in flight end, the second one does not."""

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

log = logging.getLogger("onesearch")
_T = TypeVar("_T")
GRACE: Final = 10.0
"""Seconds that calls in flight get when somebody asks to stop."""


def run_until_stopped(work: Callable[[asyncio.Event], Awaitable[_T]], producer: object, *signals: signal.Signals) -> _T:
    """What ``work`` gives in an event loop of its own, stopped by signals; the producer is closed at the end."""

    async def main() -> _T:
        stop = asyncio.Event()
        try:
            with _stopped_by(stop, *signals):
                return await work(stop)
        finally:
            close = getattr(producer, "close", None)
            if close is not None:
                await close()

    return asyncio.run(main())


@contextmanager
def _stopped_by(stop: asyncio.Event, *signals: signal.Signals) -> Iterator[None]:
    """Set ``stop`` on the first of ``signals``; a second one does what it always did. For use in a running loop."""
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        again = " (Ctrl-C again stops at once)" if number is signal.SIGINT else ""
        log.warning("stopping; calls in flight get %.0f s%s", GRACE, again)
        stop.set()
        loop.remove_signal_handler(number)

    if threading.current_thread() is threading.main_thread():
        with suppress(NotImplementedError):  # Windows: Ctrl-C cancels, which loses no more
            for number in signals:
                loop.add_signal_handler(number, interrupt, number)
                handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
