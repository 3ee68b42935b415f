"""Who does what next, by an engine whose workers do what a script says."""

import pytest

from onesearch.batch.part_schedule import ATTEMPTS, Event, outcomes
from onesearch.batch.table_parts import Part

PARTS = [Part(0, "t", 0, start, 1) for start in range(4)]


class Scripted:
    """Workers of which the script says what happens next; remembers who got which part."""

    def __init__(self, *script: Event) -> None:
        self.script, self.given, self.started = list(script), [], 0

    def start(self) -> int:
        self.started += 1
        return self.started - 1

    def give(self, worker: int, part: Part) -> None:
        self.given.append((worker, part.start))

    def wait(self) -> Event:
        return self.script.pop(0)

    def close(self) -> None: ...


def event(worker: int, kind: str, text: str = "") -> Event:
    return Event(worker, kind, text)


def done(found) -> list[int]:
    return [one.part.start for one in found if one is not None and not one.error]


def test_parts_are_given_in_order_to_whoever_is_free():
    workers = Scripted(
        event(1, "ready"), event(0, "ready"), event(0, "done"), event(1, "done"), event(0, "done"), event(1, "done")
    )
    found = list(outcomes(workers, 2, PARTS))
    assert workers.given == [(1, 0), (0, 1), (0, 2), (1, 3)]
    assert found[0] is None and done(found) == [1, 0, 2, 3] and workers.started == 2


def test_there_are_no_more_workers_than_parts():
    workers = Scripted(event(0, "ready"), event(0, "done"))
    list(outcomes(workers, 5, PARTS[:1]))
    assert workers.started == 1


def test_the_part_of_a_dead_worker_comes_first_and_another_worker_in_its_place():
    workers = Scripted(
        *[event(0, "ready"), event(1, "ready"), event(0, "died"), event(1, "done"), event(2, "ready")],
        *[event(1, "done"), event(2, "done"), event(1, "done")],
    )
    found = list(outcomes(workers, 2, PARTS))
    assert workers.given == [(0, 0), (1, 1), (1, 0), (2, 2), (1, 3)]
    assert sorted(done(found)) == [0, 1, 2, 3] and workers.started == 3


def test_an_idle_worker_takes_the_part_of_a_dead_one_and_no_other_is_started():
    workers = Scripted(event(0, "ready"), event(1, "ready"), event(0, "done"), event(1, "died"), event(0, "done"))
    found = list(outcomes(workers, 2, PARTS[:2]))
    assert workers.given == [(0, 0), (1, 1), (0, 1)] and done(found) == [0, 1] and workers.started == 2


def test_a_dead_idle_worker_gets_nothing():
    script = [event(0, "ready"), event(1, "ready"), event(0, "done"), event(0, "died"), event(1, "died")]
    workers = Scripted(*script, event(2, "ready"), event(2, "done"))
    assert done(outcomes(workers, 2, PARTS[:2])) == [0, 1]
    assert workers.given == [(0, 0), (1, 1), (2, 1)]


def test_idle_workers_may_die_as_they_like():
    ready = [event(worker, "ready") for worker in range(4)]
    over = [event(worker, kind) for kind in ("done", "died") for worker in range(3)]
    assert done(outcomes(Scripted(*ready, *over, event(3, "done")), 4, PARTS)) == [0, 1, 2, 3]


def test_a_part_that_kills_is_given_up_and_the_others_are_done():
    deaths = [event(worker, kind) for worker in range(ATTEMPTS) for kind in ("ready", "died")]
    workers = Scripted(*deaths, event(ATTEMPTS, "ready"), event(ATTEMPTS, "done"))
    found = [one for one in outcomes(workers, 1, PARTS[:2]) if one is not None]
    assert found[0].part == PARTS[0] and f"{ATTEMPTS} workers died over it" in found[0].error
    assert found[1].part == PARTS[1] and not found[1].error


def test_a_failed_part_is_told_and_the_others_are_done():
    workers = Scripted(event(0, "ready"), event(0, "failed", "why"), event(0, "done"))
    found = [one for one in outcomes(workers, 1, PARTS[:2]) if one is not None]
    assert [(one.part.start, one.error) for one in found] == [(0, "why"), (1, "")]


def test_workers_that_cannot_begin_end_it():
    with pytest.raises(ValueError, match="no such run"):
        list(outcomes(Scripted(event(0, "broken", "no such run")), 1, PARTS))
    with pytest.raises(RuntimeError, match="3 workers died before they were ready"):
        list(outcomes(Scripted(*[event(number, "died") for number in range(9)]), 1, PARTS))
