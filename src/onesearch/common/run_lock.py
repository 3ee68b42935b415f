"""One process per run: a lock that the operating system drops when its holder dies, however it dies."""

import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from onesearch.common.artefact import refuse_links


class RunLockedError(RuntimeError):
    """Another process works on the run."""


class RunLock:
    """Hold ``<run>/.lock`` for the length of a ``with`` block.

    The folder may come from a stranger: one that holds links is refused. The file stays afterwards; what counts is the
    lock on it, which dies with the process. POSIX only, and not across machines on network file systems without
    locking.

    Raises:
        RunLockedError: another process holds it.
        ValueError: the folder holds a link.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._handle = -1

    def __enter__(self) -> Self:
        refuse_links(self.run)  # what is written here must not end elsewhere
        self.run.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.run / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        found = os.fstat(self._handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(self._handle)
            raise ValueError(f"{self.run / '.lock'} is another file's name, too: remove it")
        # Open first, lock then: a file that is there says nothing, its holder may be dead.
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Written by the holder after it took the lock, so it may not be there yet.
            holder = os.read(self._handle, 64).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise RunLockedError(
                f"run {self.run} is in use by process {holder}: wait for it, or name another run folder"
            ) from None
        # Who holds it, for the message of the next one.
        os.ftruncate(self._handle, 0)
        os.write(self._handle, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
