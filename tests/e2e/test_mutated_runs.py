"""A run's folder may come from a stranger: whatever its files hold, it is used or refused in a sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=[pytest.mark.hours, pytest.mark.timeout(7200)])])
def test_no_change_of_a_run_is_a_traceback_a_crash_or_leads_outside(tiny_run: Path, count: int):
    script = Path(__file__).parents[1] / "mutated_runs.py"
    command = [sys.executable, str(script), str(tiny_run), str(count), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == count, done.stderr[-2000:]
    assert [one for one in found if not one["outcome"].startswith(("used", "refused: "))] == []
    assert {one["outcome"].partition(":")[0] for one in found} == {"used", "refused"}
