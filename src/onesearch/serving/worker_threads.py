"""Model calls off the event loop: worker threads with a bounded queue that answer waiting searches together."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, NamedTuple, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class SaturatedError(RuntimeError):
    """The queue is full or closed: the caller should try again later."""


class Answer(NamedTuple, Generic[_Out]):
    """A result, how long the call that made it took, and how many results that call made."""

    value: _Out
    seconds: float
    batch: int


class Workers(Generic[_In, _Out]):
    """Runs ``call`` on batches of jobs; each thread repeats::

        wait for a job, then for the turn
        take all that wait, up to ``max_batch``; leave out those whose caller has given up
        one call for all of them; if it fails, one call for each, so that a wrong job fails alone
        hand each caller its answer

    There is no waiting for a batch to fill: a free worker takes whatever queued up while all were busy, so an idle
    server answers at once and a busy one in batches.

    Args:
        call: one result per job, in order.
        threads: calls at the same time.
        max_batch: jobs per call at most.
        max_queue: jobs waiting at most; more are refused.
        name: of the threads.
        turn: what a call waits for, and holds until it is done.
    """

    def __init__(
        self,
        call: Callable[[Sequence[_In]], Sequence[_Out]],
        threads: int,
        max_batch: int,
        max_queue: int,
        name: str,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        # A queue or a batch of nothing would never answer.
        for label, value in (("threads", threads), ("max_batch", max_batch), ("max_queue", max_queue)):
            if value < 1:
                raise ValueError(f"{label} must be >= 1, got {value}")
        self._call, self._turn = call, turn
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._jobs: deque[tuple[_In, Future[Answer[_Out]]]] = deque()
        self._changed = threading.Condition()  # of the queue, or closed
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: _In) -> "Future[Answer[_Out]]":
        """Queue a job.

        Raises:
            SaturatedError: too many jobs are waiting.
        """
        future: Future[Answer[_Out]] = Future()
        with self._changed:
            if self._closed:
                raise SaturatedError("the server is stopping")
            if len(self._jobs) >= self._max_queue:
                raise SaturatedError(f"{len(self._jobs)} searches are waiting already")
            self._jobs.append((job, future))
            self._changed.notify()
        return future

    @property
    def waiting(self) -> int:
        """Jobs in the queue now."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether every worker still runs."""
        return all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Refuse new jobs, cancel waiting ones and let running ones end."""
        # Waiting threads wake up and find it closed.
        with self._changed:
            self._closed = True
            for _, future in self._jobs:
                future.cancel()
            self._jobs.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=5)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
            with self._turn():
                with self._changed:  # also what came while this waited; another worker may have taken it
                    taken = [self._jobs.popleft() for _ in range(min(self._max_batch, len(self._jobs)))]
                # A caller that gave up has cancelled its future: its search is not run.
                batch = [(job, future) for job, future in taken if future.set_running_or_notify_cancel()]
                if batch:
                    self._run(batch)

    def _run(self, batch: "list[tuple[_In, Future[Answer[_Out]]]]") -> None:
        start = time.perf_counter()
        try:
            values = self._call([job for job, _ in batch])
            if len(values) != len(batch):
                raise RuntimeError(f"the engine gave {len(values)} answers to {len(batch)} searches")
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller, not to this thread
            if len(batch) == 1:  # the fault is its own
                batch[0][1].set_exception(error)
                return
            # One wrong request must not fail its neighbours.
            for job in batch:
                self._run([job])
            return
        seconds = time.perf_counter() - start
        for (_, future), value in zip(batch, values, strict=True):
            future.set_result(Answer(value, seconds, len(batch)))
