"""Searches and changes take turns: nobody computes beside a change, and nobody is overtaken for ever."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from onesearch.serving import turns as module
from onesearch.serving.turns import Turns


class Computing:
    """Threads that take a turn, and what happened in which order."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.log, self.gates = turns, [], {}
        self.pool = ThreadPoolExecutor(8)

    def begin(self, kind: str, name: str) -> None:
        """Ask for a turn in a thread of its own, which lasts until :meth:`end`; back when it has it or waits for it."""
        self.gates[name] = threading.Event()
        waiting = self.turns._waiting

        def run() -> None:
            with getattr(self.turns, kind)():
                self.log.append(name)
                assert self.gates[name].wait(20)

        def waits() -> bool:
            return self.turns._waiting > waiting if kind == "search" else self.turns._change_waits

        self.pool.submit(run)
        self.until(lambda: name in self.log or waits())

    def end(self, name: str, turns: int) -> None:
        """End a turn; back when ``turns`` in all have begun, and nobody who could begin as well did not."""
        self.gates[name].set()
        self.until(lambda: len(self.log) >= turns)
        time.sleep(0.05)

    @staticmethod
    def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.002)


@contextmanager
def computing(turns=None):
    found = Computing(turns or Turns(longest_pause=0.0))
    yield found
    for gate in found.gates.values():
        gate.set()
    found.pool.shutdown()


def test_searches_run_side_by_side_and_a_change_alone():
    with computing() as found:
        found.begin("search", "s1")
        found.begin("search", "s2")
        assert found.log == ["s1", "s2"]
        found.begin("change", "c")
        found.end("s1", 2)
        assert found.log == ["s1", "s2"], "one search still runs"
        found.end("s2", 3)
        assert found.log == ["s1", "s2", "c"]
        found.begin("search", "s3")
        assert found.log == ["s1", "s2", "c"], "not beside the change"
        found.end("c", 4)
        assert found.log == ["s1", "s2", "c", "s3"]


def test_whoever_waited_longest_goes_first():
    with computing() as found:
        found.begin("search", "s1")
        found.begin("change", "c1")
        found.begin("search", "s2")
        assert found.log == ["s1"], "a change that waits is not overtaken by new searches"
        found.end("s1", 2)
        assert found.log == ["s1", "c1"]
        found.begin("change", "c2")
        found.begin("search", "s3")
        found.end("c1", 4)
        assert sorted(found.log[2:]) == ["s2", "s3"], "searches that waited come before the next change"
        found.begin("search", "s4")
        found.end("s2", 4)
        found.end("s3", 5)
        assert found.log[4:] == ["c2"]
        found.end("c2", 6)
        assert found.log[5:] == ["s4"]


def test_a_failure_ends_a_turn():
    turns = Turns()
    for kind in ("search", "change"):
        with pytest.raises(RuntimeError), getattr(turns, kind)():
            raise RuntimeError
    with turns.search(), turns.search():
        pass
    with turns.change():
        pass


def test_while_there_are_searches_changes_take_half_of_the_time_at_most(monkeypatch):
    clock, slept, turns = [100.0], [], Turns()

    def wait(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    def change(seconds: float) -> float:
        slept.clear()
        with turns.change():
            clock[0] += seconds
        return sum(slept)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(turns._turn, "wait", wait)
    monkeypatch.setattr(turns._turn, "wait_for", lambda condition: None)
    with turns.search():
        assert change(0.4) == 0, "an answer waits for nothing"
        clock[0] += 0.1
        assert change(7.0) == pytest.approx(0.3), "0.4 seconds after the first one was through"
        assert change(0.4) == pytest.approx(1.0), "at the longest"
    assert change(0.4) == 0, "nobody searches"
