"""Several processes that do one job together, started by `torchrun` or `accelerate launch`.

Two ways of talking, since stages of a run take hours and collectives must not wait that long:

- ``Job.tell`` and ``Job.hear``: the first process leaves a word in the job's store, and the others look for it now and
  then. They hear of a failure as well, so that nobody waits for one that is gone.
- ``exchanged``, ``from_first``, ``summed``, ``wait_for_all``: collectives, which every process must come to. Nothing is
  pickled.

Without a launcher there is one process, and all of it does nothing.
"""

import atexit
import functools
import gc
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from onesearch.common import rank as launched
from onesearch.common.device import best_device

_BLOCKS = itertools.count()
_FAILED = "failed"
_PATIENCE = timedelta(hours=1)  # of a collective: others may still prepare their share of a stage
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_BE_HEARD = 2.0  # by others that look now and then: the first process may take the store with it
_SECONDS_FOR_A_REASON = 2.0  # a process that fails says why before it goes, but maybe after its connections are cut


class OtherProcessError(RuntimeError):
    """Another process of the job failed, so that this one cannot go on."""


class Job:
    """The place of a process in a job, and what the first process tells the others.

    Args:
        rank: number of this process.
        world: how many there are.
        store: what ``tell`` and ``hear`` share; None for one process.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Any = None) -> None:
        self.rank, self.world, self._store = rank, world, store

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def tell(self, name: str, value: Any) -> None:
        """Leave a JSON-able value under a name that is used once."""
        if self._store is not None:
            self._store.set(name, json.dumps(value))

    def hear(self, *names: str) -> tuple[str, Any]:
        """Wait for the first of ``names`` that there is, however long that takes; its name and value.

        Raises:
            OtherProcessError: another process failed, or is gone.
        """
        while True:
            # Words come in the order in which they were left, so the names are looked for in that order, too.
            for name in names:
                if self._there(name):
                    return name, json.loads(self._store.get(name))
            self._look_for_failures()
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def failed(self, error: BaseException) -> None:
        """Say that this process cannot go on; the first one stays until others that look now and then have looked.

        Raises:
            OtherProcessError: it cannot because another one has failed before.
        """
        if self._store is None:
            return
        try:
            if not isinstance(error, OtherProcessError):
                self._say(error)
        finally:
            if self.first:
                time.sleep(_SECONDS_TO_BE_HEARD)

    def _say(self, error: BaseException) -> None:
        """Leave the reason, unless another process has one."""
        # A broken connection is what one sees of another's failure; an error of one's own is the reason itself.
        end = time.monotonic() + (_SECONDS_FOR_A_REASON if _is_broken_connection(error) else 0.0)
        try:
            while True:
                self._look_for_failures()
                if time.monotonic() >= end:
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            told = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
            self.tell(_FAILED, [self.rank, told])
        except OtherProcessError as other:
            raise other from error
        except RuntimeError:
            return  # the store is gone with the process that failed: this one's own error must do

    def _there(self, name: str) -> bool:
        try:
            return bool(self._store.check([name]))
        except RuntimeError as error:
            raise OtherProcessError(
                "the connection to the first process is lost: it ended, or was killed. Start the job again; it goes on"
                " from the last checkpoint"
            ) from error

    def _look_for_failures(self) -> None:
        if self._there(_FAILED):
            rank, message = json.loads(self._store.get(_FAILED))
            raise OtherProcessError(f"process {rank} of {self.world} failed: {message}")


def _is_broken_connection(error: BaseException) -> bool:
    """Whether an error may come of a collective that another process did not come to."""
    return type(error) is RuntimeError or isinstance(error, distributed.DistError)


@functools.cache
def _store() -> Any:
    """The launcher's store, or one that the first process holds as long as it lives.

    One for all blocks: who enters the next block early would still reach the store of the last one, which then goes.
    """
    return next(rendezvous("env://", timeout=timedelta(minutes=5)))[0]


@contextmanager
def joined() -> Iterator[Job]:
    """The job that this process belongs to, for the length of a ``with`` block that all of its processes enter.

    A process that an error takes out of the block (an interrupt is none) is good for nothing but its last words: it
    ends with exit code 1 whatever comes later, does what is registered for its end (twice what was registered after
    the error), and does not write out files that are still open.

    Raises:
        OtherProcessError: another process failed meanwhile.
    """
    rank, world = launched.rank(), launched.world()
    if world == 1:
        yield Job()
        return
    # Nothing must keep the group beyond the block: its threads let go of the last tensors when they come to it, and
    # abort a process that is about to end (exit code -6, now and then). Functions of this module take the group of the
    # time of its import as their default; a training imports it.
    importlib.import_module("torch.distributed.nn")
    # Each process has a GPU of its own, where there are any; "cuda" means that one from here on.
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # The store outlives a block, and a launcher's an attempt: words of earlier ones must not be heard again.
    store = _store()
    block = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-{next(_BLOCKS)}"
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore(f"collectives-{block}", store),
        rank=rank,
        world_size=world,
        timeout=_PATIENCE,
    )
    job = Job(rank, world, PrefixStore(f"job-{block}", store))
    try:
        yield job
        # The first process may hold the store: it stays until all have heard the last word.
        wait_for_all()
    except Exception as error:
        atexit.register(_end)
        job.failed(error)
        raise
    gc.collect()  # sharded models know their group, and are in cycles
    distributed.destroy_process_group()


def _end() -> None:
    """End this process without the group's consent, when everything else that it does at its end is done.

    The group is in the hands of models and of the error itself. Its threads would be waited for, also those that wait
    for the others, and those that let go of their last tensors while the interpreter ends abort it (exit code -6).
    """
    atexit.unregister(_end)
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # it may be closed, or nobody may read it any more
                stream.flush()
    finally:
        os._exit(1)


def place() -> tuple[int, int]:
    """Number of this process and how many there are; (0, 1) outside of :func:`joined`."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this is the process that writes."""
    return place()[0] == 0


def wait_for_all() -> None:
    """Go on when every process has come here: what the first one wrote before is there for all."""
    if place()[1] > 1:
        exchanged(None)


def exchanged(value: Any) -> list[Any]:
    """The JSON-able value of each process, by its number; floats come as they are, NaN included."""
    world = place()[1]
    if world == 1:
        return [value]
    # All lengths first, then the texts, filled up to the longest: uint8 [world, longest].
    device = best_device()
    own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    distributed.all_gather(lengths, torch.tensor([len(own)], device=device))
    longest = max(int(length) for length in lengths)
    texts = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in range(world)]
    distributed.all_gather(texts, torch.nn.functional.pad(own, (0, longest - len(own))))
    pairs = zip(texts, lengths, strict=True)
    return [json.loads(bytes(text[: int(length)].tolist())) for text, length in pairs]


def from_first(value: Any = None, group: Any = None) -> Any:
    """The JSON-able value of the first process, in all of them; it, too, has what came of it through JSON.

    They meet in ``group``, by default in that of the job, whose patience is longer than a service's.
    """
    text = json.dumps(value).encode() if is_first() else b""
    if place()[1] > 1:
        # Its length first, then the text, uint8 [length].
        device = best_device()
        length = torch.tensor([len(text)], device=device)
        distributed.broadcast(length, 0, group)
        sent = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.zeros(int(length)).byte()
        sent = sent.to(device)
        distributed.broadcast(sent, 0, group)
        text = sent.cpu().numpy().tobytes()
    return json.loads(text)


def summed(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """The sum over all processes of arrays of one shape."""
    if place()[1] == 1:
        return values
    total = torch.from_numpy(np.array(values)).to(best_device())
    distributed.all_reduce(total)
    return np.asarray(total.cpu().numpy())
