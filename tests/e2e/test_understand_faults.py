"""The script behind docs/results/speed.md#understanding, at a small scale."""

import json
import sys

import pytest


@pytest.mark.slow
@pytest.mark.long
def test_nothing_is_lost_and_nothing_asked_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["understand_faults.py", "400"])
    from benchmarks import understand_faults

    understand_faults.main()
    figures = json.loads(capsys.readouterr().out)
    assert (figures["lost"], figures["asked_twice"], figures["unfinished"]) == (0, 0, 0)
    assert figures["second_run_cached"] == 40 and figures["second_run_retries"] > 0
    assert figures["calls_of_a_third_run"] <= 4 * figures["second_run_set_aside"]
