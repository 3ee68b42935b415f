"""What a run still takes, by hand."""

import pytest

from onesearch.common.time_left import TimeLeft


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_finished_stages_correct_the_forecast():
    clock = Clock()
    left = TimeLeft({"data": 60.0, "model": 600.0, "report": 120.0}, clock)
    assert left.seconds() == 780 and str(left) == "about 13 min left of the run"
    # Half of the first stage's forecast is over.
    left.begin("data")
    clock.now = 30.0
    assert left.seconds() == 750
    # It takes twice as long as forecast, so what comes does, too.
    clock.now = 120.0
    left.finish("data")
    assert left.seconds() == 2 * 720
    # A stage that is longer than forecast leaves those after it.
    left.begin("model")
    clock.now = 120.0 + 1000
    assert left.seconds() == 200 + 2 * 120
    clock.now += 5000
    assert left.seconds() == 2 * 120
    left.finish("model")
    left.begin("report")
    left.finish("report")
    assert left.seconds() == 0 and str(left) == ""


def test_what_is_taken_over_says_nothing_of_the_pace():
    clock = Clock()
    left = TimeLeft({"data": 100.0, "model": 300.0}, clock)
    left.begin("data")
    clock.now = 1.0
    left.finish("data", built=False)
    assert left.seconds() == 300


def test_a_short_stage_does_not_set_the_pace():
    clock = Clock()
    left = TimeLeft({"data": 2.0, "model": 300.0}, clock)
    left.begin("data")
    clock.now = 8.0
    left.finish("data")
    assert left.seconds() == 300


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.0, "about 45 s"), (5460.0, "about 1 h 31 min"), (3600.0, "about 60 min")]
)
def test_the_text(seconds, text):
    assert str(TimeLeft({"model": seconds})) == f"{text} left of the run"
    assert str(TimeLeft({"model": seconds, "other": None})) == f"at least{text[5:]} left of the run"
