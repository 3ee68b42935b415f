"""Talking between processes: collectives that pickle nothing, words of the first one, and how failures are told."""

import json
import math
import re
import signal
import textwrap
import time
from pathlib import Path

import pytest

from launch import finish, launch, start
from onesearch.common import processes
from onesearch.common.processes import (
    Job,
    OtherProcessError,
    exchanged,
    from_first,
    is_first,
    joined,
    place,
    summed,
    wait_for_all,
)

COLLECTIVES = """
    import json, sys, time
    import numpy as np
    from onesearch.common.processes import exchanged, from_first, is_first, joined, place, summed
    with joined() as job:
        rank, world = place()
        assert (job.rank, job.world, job.first) == (rank, world, is_first())
        texts = exchanged({"text": "ü" * (1 + 3 * rank), "number": float("nan") if rank else 0.1})
        heard = [from_first(["ü", (1,), rank]), from_first(None if rank else {"a": 0.1}), from_first()]
        assert heard == [["ü", [1], 0], {"a": 0.1}, None]
        total = summed(np.array([1.5, rank], np.float32))
        if job.first:
            job.tell("word", [1, None])
        else:
            assert job.hear("another", "word") == ("word", [1, None])
    with joined() as job:  # another job of the same processes: what was told before is not heard again
        if job.first:
            time.sleep(1)
            job.tell("word", 2)
        else:
            assert job.hear("word") == ("word", 2)
    print(json.dumps([texts, total.tolist(), str(total.dtype), place()]))
"""
WAITING = """
    import sys, time
    from onesearch.common.processes import joined, wait_for_all
    with joined() as job:
        wait_for_all()
        if not job.first:
            print("waiting", flush=True)
            job.hear("what nobody tells")
        FIRST
"""
TRAINED = """
    from pathlib import Path
    import torch
    from onesearch.common.processes import joined

    def threads():
        return [comm.read_text().strip() for comm in Path("/proc/self/task").glob("*/comm")]

    with joined():
        from torch.nn.parallel import DistributedDataParallel
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
        model(torch.ones(1, 2)).sum().backward()
        within = threads()
        known = {"group": torch.distributed.group.WORLD}
        known["known"] = known
        del model, known
    print([any("gloo" in name for name in found) for found in (within, threads())])
"""


def command(script: str, first: str = "") -> list[str]:
    return ["-c", textwrap.dedent(script).replace("FIRST", first)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="names of threads are read from /proc")
def test_no_thread_of_a_training_outlives_its_job():
    # One that still ran as the interpreter ends would abort it now and then.
    assert launch(command(TRAINED), 2) == [("[True, False]\n", 0)] * 2


def test_all_processes_get_the_values_of_all():
    found = launch(command(COLLECTIVES), 3)
    assert all(code == 0 for _, code in found), found
    values = [json.loads(text.splitlines()[-1]) for text, _ in found]
    for texts, total, dtype, after in values:
        assert [one["text"] for one in texts] == ["ü", "ü" * 4, "ü" * 7]
        assert texts[0]["number"] == 0.1 and math.isnan(texts[1]["number"])
        assert (total, dtype, after) == ([4.5, 3.0], "float32", [0, 1])  # outside of the job a process is alone


def test_one_process_has_nobody_to_talk_to(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as job:
        job.tell("word", 1)
        wait_for_all()
        assert job.first and is_first() and place() == (0, 1)
        value = {"a": (1, 2)}
        assert exchanged(value)[0] is value and summed(value) is value
        assert from_first(value) == {"a": [1, 2]} and from_first() is None
        job.failed(ValueError("alone"))


def test_who_waits_hears_why_the_first_process_failed():
    begin = time.monotonic()
    first, other = launch(command(WAITING, "raise ValueError('no such file')"), 2)
    assert time.monotonic() - begin < 60
    assert first[1] == 1 and "ValueError: no such file" in first[0]
    assert other[1] == 1 and "OtherProcessError: process 0 of 2 failed: ValueError: no such file" in other[0]


def test_who_waits_ends_when_the_first_process_is_killed():
    processes = start(command(WAITING, "time.sleep(300)"), 2)
    assert processes[1].stdout.readline() == "waiting\n"
    processes[0].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    _, (text, code) = finish(processes, 60)
    assert time.monotonic() - begin < 30 and code == 1
    assert "OtherProcessError: the connection to the first process is lost" in text


@pytest.mark.parametrize("loser", [0, 1])
def test_a_broken_collective_names_the_process_that_broke_it(loser):
    script = f"""
        from onesearch.common.processes import joined, wait_for_all
        with joined() as job:
            wait_for_all()
            if job.rank == {loser}:
                raise MemoryError("too many rows")
            wait_for_all()
    """
    found = launch(command(script), 2)
    assert [code for _, code in found] == [1, 1]
    # The first process may hold the store, and take the reason with it; what breaks then is the connection itself.
    if loser:
        assert "OtherProcessError: process 1 of 2 failed: MemoryError: too many rows" in found[0][0]
    else:
        assert re.search("OtherProcessError|RuntimeError|DistBackendError", found[1][0])


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError("mine"), {}), (OtherProcessError("theirs"), {"failed": '[1, "theirs"]'})]
)
def test_the_first_process_stays_until_others_have_looked_for_the_reason(monkeypatch, error, said):
    store, heard = Store(said), []
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: heard.append((seconds, "failed" in store)))
    Job(0, 2, store).failed(error)
    (waited,) = heard
    assert waited[1] and waited[0] > 2 * processes._SECONDS_BETWEEN_LOOKS


def test_a_process_that_fails_ends_though_others_do_not_come_to_what_it_began():
    script = """
        import atexit, time, torch
        from torch import distributed
        from onesearch.common.processes import joined, wait_for_all
        atexit.register(print, "what is done at the end")
        with joined() as job:
            wait_for_all()
            if job.rank == 1:
                works = [distributed.all_reduce(torch.ones(1000), async_op=True) for _ in range(20)]
                print("a last line", end="")
                raise MemoryError("too many rows")
            time.sleep(300)
    """
    busy, failing = start(command(script), 2, PYTHONUNBUFFERED="")
    try:
        ((text, code),) = finish([failing], 60)
        assert code == 1 and busy.poll() is None
        assert "a last line" in text and "MemoryError: too many rows" in text and "what is done at the end" in text
    finally:
        busy.kill()
        busy.communicate()


class Store(dict):
    def check(self, names):
        return all(name in self for name in names)

    set = dict.__setitem__


def test_a_reason_of_ones_own_is_told_at_once():
    store = Store()
    begin = time.monotonic()
    Job(1, 2, store).failed(ValueError("mine"))
    assert time.monotonic() - begin < 1 and json.loads(store["failed"]) == [1, "ValueError: mine"]
    with pytest.raises(RuntimeError, match="process 1 of 2 failed: ValueError: mine"):
        Job(0, 2, store).hear("word")
