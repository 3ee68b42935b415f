"""Workers as processes of this machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from onesearch.batch.part_schedule import Event
from onesearch.batch.part_worker import THREAD_VARIABLES, PartWorker, Task
from onesearch.batch.table_parts import Part


class LocalWorkers:
    """Processes that are started afresh (spawn): a fork would inherit threads and locks of libraries.

    A worker's end of its pipe is open in that worker alone, so that its death, however it comes, closes the pipe; and
    so does ours, at which workers end.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._context = get_context("spawn")
        self._workers: dict[Connection, tuple[int, SpawnProcess]] = {}
        self._pipes: dict[int, Connection] = {}

    def start(self) -> int:
        """Start one more."""
        number = max(self._pipes, default=-1) + 1
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._task), daemon=True)
        with _threads_of_children(self._task.threads):
            process.start()
        theirs.close()
        self._workers[ours], self._pipes[number] = (number, process), ours
        return number

    def give(self, worker: int, part: Part) -> None:
        """Let a worker do a part; of one that has just died :meth:`wait` tells."""
        try:
            self._pipes[worker].send(part)
        except OSError:
            return

    def wait(self) -> Event:
        """The next thing that happens."""
        pipe = wait(list(self._workers))[0]
        assert isinstance(pipe, Connection)
        number, process = self._workers[pipe]
        try:
            kind, text = pipe.recv()
        except (EOFError, OSError):
            del self._workers[pipe]
            pipe.close()
            process.join()
            return Event(number, "died", f" (exit code {process.exitcode})")
        return Event(number, kind, text)

    def close(self) -> None:
        """Kill all of them: what they have not written yet, nobody will miss."""
        for pipe, (_, process) in self._workers.items():
            process.kill()
            process.join()
            pipe.close()
        self._workers.clear()


def _work(pipe: Connection, task: Task) -> None:
    """Do parts until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    worker = PartWorker(task)
    try:
        pipe.send(worker.start())
        while True:
            pipe.send(worker.do(pipe.recv()))
    except (EOFError, OSError):
        return


@contextmanager
def _threads_of_children(threads: int) -> Iterator[None]:
    """What libraries read when a process loads them, so that workers do not crowd the cores."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
