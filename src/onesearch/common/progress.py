"""Progress of long steps: a bar with rate and time left on a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("onesearch")
_SECONDS_BETWEEN_LINES = 15.0
_beside: ContextVar[Callable[[], object]] = ContextVar("what stands beside every progress line", default=str)


@contextmanager
def beside(tell: Callable[[], object]) -> Iterator[None]:
    """While it is open, what ``tell`` returns stands at the end of every progress line, "" for nothing."""
    token = _beside.set(tell)
    try:
        yield
    finally:
        _beside.reset(token)


_T = TypeVar("_T")


def track(steps: Iterable[_T], label: str, total: int | None = None, unit: str = "it") -> Iterator[_T]:
    """Yield from ``steps`` and show progress under ``label``; ``total`` defaults to ``len(steps)`` if it has one."""
    if total is None:
        total = len(steps) if isinstance(steps, Sized) else None
    # A person sees a bar that goes away afterwards.
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[beside]}"),
        )
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task(label, total=total, rate="", beside=str(_beside.get()()))
            start = time.perf_counter()
            for done, step in enumerate(steps, 1):
                yield step
                speed = f"{done / (time.perf_counter() - start):,.1f} {unit}/s"
                bar.update(task, advance=1, rate=speed, beside=str(_beside.get()()))
        return
    # A log file gets a line now and then, none for a step that is quickly done.
    start = last = time.perf_counter()
    for done, step in enumerate(steps, 1):
        yield step
        now = time.perf_counter()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            rate = done / (now - start)
            # Time left at the mean rate so far, where the end is known.
            left = f", {(total - done) / rate:,.0f} s left" if total else ""
            more = f"; {text}" if (text := str(_beside.get()())) else ""
            log.info("%s: %s%s, %.1f %s/s%s%s", label, done, f" of {total}" if total else "", rate, unit, left, more)
