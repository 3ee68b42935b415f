"""Which worker does which part next, and what happens when one dies; the same for every engine::

start as many workers as are wanted
until every part is done or failed:
    a worker is ready, or through with a part    it gets the first part that waits
    a worker died                                its part waits again, before all others; a worker comes in its place
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from onesearch.batch.table_parts import Part

ATTEMPTS: Final = 3  # deaths of workers over the same part before it is given up


class Event(NamedTuple):
    """What happened to a worker: one of :data:`onesearch.batch.part_worker.Answer`, or that it ``died``."""

    worker: int
    kind: Literal["ready", "broken", "done", "failed", "died"]
    text: str = ""


class Workers(Protocol):
    """Workers of an engine, by number."""

    def start(self) -> int:
        """Start one more, which will be ready some time later."""
        ...

    def give(self, worker: int, part: Part) -> None:
        """Let a worker that is ready do a part."""
        ...

    def wait(self) -> Event:
        """The next thing that happens."""
        ...

    def close(self) -> None:
        """End all of them, whatever they do."""
        ...


class Outcome(NamedTuple):
    """What became of a part: "" or why it failed."""

    part: Part
    error: str


def outcomes(workers: Workers, count: int, parts: Sequence[Part]) -> Iterator[Outcome | None]:
    """Do the parts; yields each when it is done or failed, and before that None once, when the first worker is ready.

    Raises:
        ValueError: a worker cannot make its function.
        RuntimeError: workers die before they are ready.
    """
    waiting, doing, idle = deque(parts), dict[int, Part](), list[int]()
    deaths, stillborn, is_ready = Counter[Part](), 0, False
    left = len(parts)
    for _ in range(min(count, left)):
        workers.start()
    while left:
        event = workers.wait()
        part = doing.pop(event.worker, None)
        if event.kind == "broken":
            raise ValueError(event.text)
        if event.kind == "ready" and not is_ready:
            is_ready = True
            yield None
        # What became of the part that the worker had.
        if event.kind == "died" and part is not None:
            deaths[part] += 1
            if deaths[part] < ATTEMPTS:
                waiting.appendleft(part)
            else:
                left -= 1
                yield Outcome(part, f"{ATTEMPTS} workers died over it, perhaps of too little memory{event.text}")
        elif part is not None:
            left -= 1
            yield Outcome(part, event.text)
        elif event.kind == "died" and event.worker not in idle:
            stillborn += 1
            if stillborn >= ATTEMPTS:
                raise RuntimeError(f"{stillborn} workers died before they were ready{event.text}")
        # Who is free takes the next part; for a dead worker another one comes, if there is work for it.
        if event.kind != "died":
            idle.append(event.worker)
        elif event.worker in idle:
            idle.remove(event.worker)
        while waiting and idle:
            worker = idle.pop()
            doing[worker] = waiting.popleft()
            workers.give(worker, doing[worker])
        if event.kind == "died" and waiting:
            workers.start()
