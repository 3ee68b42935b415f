"""The worker threads: order, bounds, batching, failures, cancellation."""

import threading
from concurrent.futures import CancelledError
from contextlib import contextmanager

import pytest

from onesearch.serving.worker_threads import SaturatedError, Workers


def doubled(jobs):
    return [2 * job for job in jobs]


def test_each_job_gets_its_own_answer():
    workers = Workers(doubled, threads=3, max_batch=4, max_queue=1000, name="t")
    futures = [workers.submit(n) for n in range(200)]
    assert [f.result(5).value for f in futures] == [2 * n for n in range(200)]
    assert max(f.result().batch for f in futures) <= 4
    workers.close()


def test_waiting_jobs_share_a_call_and_overflow_is_refused():
    gate, started, sizes = threading.Event(), threading.Event(), []

    def slow(jobs):
        started.set()
        gate.wait(5)
        sizes.append(len(jobs))
        return doubled(jobs)

    workers = Workers(slow, threads=1, max_batch=3, max_queue=5, name="t")
    first = workers.submit(0)
    assert started.wait(5)
    waiting = [workers.submit(n) for n in range(5)]
    assert workers.waiting == 5
    with pytest.raises(SaturatedError, match="5 searches are waiting"):
        workers.submit(9)
    waiting[1].cancel()
    gate.set()
    assert first.result(5).value == 0 and waiting[4].result(5).value == 8
    assert sizes == [1, 2, 2], "the cancelled job is not run"
    workers.close()


def test_a_call_answers_what_came_while_it_waited_for_its_turn():
    gate, asked, held = threading.Event(), threading.Event(), []

    @contextmanager
    def turn():
        asked.set()
        assert gate.wait(20)
        held.append("in")
        yield
        held.append("out")

    workers = Workers(lambda jobs: held.append(len(jobs)) or doubled(jobs), 1, 8, 8, "t", turn)
    first = workers.submit(1)
    assert asked.wait(20)
    second = workers.submit(2)
    gate.set()
    assert [first.result(5).value, second.result(5).value] == [2, 4]
    workers.close()
    assert held == ["in", 2, "out"]


def test_failures_belong_to_their_job():
    def picky(jobs):
        if 3 in jobs:
            raise KeyError("three")
        return doubled(jobs)

    workers = Workers(picky, threads=1, max_batch=8, max_queue=8, name="t")
    futures = [workers.submit(n) for n in (1, 3, 5)]
    assert [futures[0].result(5).value, futures[2].result(5).value] == [2, 10]
    with pytest.raises(KeyError):
        futures[1].result(5)
    assert workers.alive
    workers.close()


def test_wrong_number_of_answers_is_an_error():
    workers = Workers(lambda jobs: [], threads=1, max_batch=8, max_queue=8, name="t")
    with pytest.raises(RuntimeError, match="0 answers to 1 searches"):
        workers.submit(1).result(5)
    workers.close()


def test_close_cancels_what_waits_and_refuses_more():
    gate, started = threading.Event(), threading.Event()

    def slow(jobs):
        started.set()
        gate.wait(5)
        return doubled(jobs)

    workers = Workers(slow, threads=1, max_batch=1, max_queue=8, name="t")
    running, waiting = workers.submit(1), None
    assert started.wait(5)
    waiting = workers.submit(2)
    closer = threading.Thread(target=workers.close)
    closer.start()
    gate.set()
    closer.join(5)
    assert running.result(5).value == 2
    with pytest.raises(CancelledError):
        waiting.result(5)
    with pytest.raises(SaturatedError, match="stopping"):
        workers.submit(3)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="max_queue must be >= 1, got 0"):
        Workers(doubled, threads=1, max_batch=1, max_queue=0, name="t")
