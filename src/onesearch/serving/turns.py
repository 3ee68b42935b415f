"""Searches and changes of the catalogue take turns at computing."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Any number of searches at a time, or one change alone.

    Both are many small steps in Python, of which only one thread can run at a time: side by side a search waits for its
    turn again at every step, and takes several times as long as the two one after the other. So a search that comes
    while a change runs waits for its end, a change waits for the searches that run, and whoever waited longest goes
    first. While there are searches, changes take half of the time at most.

    Args:
        longest_pause: seconds that a change waits at most to make up for a long one.
    """

    def __init__(self, longest_pause: float = 1.0) -> None:
        self._longest_pause = longest_pause
        self._turn = threading.Condition()
        self._searching = self._waiting = 0  # searches
        self._first = 0  # of those that wait: come before the next change
        self._changing = self._change_waits = False
        self._free_from = 0.0  # when changes have made up for the time that the last one took

    @contextmanager
    def search(self) -> Iterator[None]:
        """One of the searches that run now."""
        with self._turn:
            self._waiting += 1
            self._turn.wait_for(lambda: not self._changing and (self._first or not self._change_waits))
            self._waiting -= 1
            self._first = max(self._first - 1, 0)
            self._searching += 1
        try:
            yield
        finally:
            with self._turn:
                self._searching -= 1
                self._turn.notify_all()

    @contextmanager
    def change(self) -> Iterator[None]:
        """The only change, while no search runs; one thread at a time may ask for it."""
        with self._turn:
            # First make up for the last one, as long as there are searches.
            while self._searching + self._waiting and (left := self._free_from - time.monotonic()) > 0:
                self._turn.wait(left)
            self._change_waits = True
            self._turn.wait_for(lambda: not (self._searching or self._first or self._changing))
            self._changing, self._change_waits = True, False
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            with self._turn:
                self._changing, self._first = False, self._waiting
                self._free_from = end + min(end - start, self._longest_pause)
                self._turn.notify_all()
