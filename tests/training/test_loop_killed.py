"""A real process, really killed: the same command must end in the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).with_name("tiny_fit.py")


def start(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), *arguments], env=environment)


def log_lines(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clock = ("seconds", "samples_per_second", "start_mib")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


def test_kill_minus_nine_and_the_same_command_ends_in_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    unbroken = start(whole)
    process = start(killed, "0.05")
    deadline = time.monotonic() + 60
    while not list((killed / "checkpoints").glob("step-*")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)
    time.sleep(0.12)  # into the middle of a step after the checkpoint
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert not (killed / "finished.json").exists()
    suffixes = {p.suffix for p in killed.rglob("*") if p.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jsonl"}

    assert start(killed).wait(60) == 0
    assert unbroken.wait(60) == 0
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert log_lines(killed) == log_lines(whole)
