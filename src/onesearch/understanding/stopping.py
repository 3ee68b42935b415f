"""Ending a long piece of work cleanly when a signal asks for it."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

log = logging.getLogger("onesearch")
GRACE: Final = 10.0
"""Seconds that calls in flight get when somebody asks to stop."""


@contextmanager
def stopped_by(stop: asyncio.Event, *signals: signal.Signals) -> Iterator[None]:
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
