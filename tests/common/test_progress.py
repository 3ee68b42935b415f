import logging

from onesearch.common import progress
from onesearch.common.progress import beside, track


def test_steps_pass_through_and_a_log_gets_a_line_now_and_then(monkeypatch, caplog):
    clock = iter(range(0, 1000, 10))  # ten seconds a look: every second step is worth a line
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO, "onesearch"):
        assert list(track([7, 8, 9, 10], "encode", unit="items")) == [7, 8, 9, 10]
        assert list(track((step for step in [1, 2]), "count")) == [1, 2]
    assert caplog.messages == [
        "encode: 2 of 4, 0.1 items/s, 20 s left",
        "encode: 4 of 4, 0.1 items/s, 0 s left",
        "count: 2, 0.1 it/s",
    ]


def test_a_line_says_what_stands_beside_it(monkeypatch, caplog):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO, "onesearch"):
        with beside(lambda: "about 3 min left of the run"):
            list(track([1, 2], "encode"))
        list(track([1, 2], "count"))
    assert caplog.messages == [
        "encode: 2 of 2, 0.1 it/s, 0 s left; about 3 min left of the run",
        "count: 2 of 2, 0.1 it/s, 0 s left",
    ]
