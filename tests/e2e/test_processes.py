"""Two processes go through all stages of a run, and come to what one process comes to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from launch import finish, start
from onesearch.common.artefact import read_json
from onesearch.pipeline import training_stages
from onesearch.pipeline.run_data import RunData
from onesearch.search.engine import SearchEngine

TRAINED = ("sft1", "sft2", "sft3", "cot", "distill", "dpo", "grpo", "final")
SETS = (
    "pseudo.searches=40",
    "dpo={steps: 3, batch_size: 16, validate_requests: 40, loop: {validate_steps: 2}}",
    "grpo={steps: 3, prompts: 8, rollouts: 4, validate_requests: 40, loop: {validate_steps: 2}}",
    "final={epochs: 0.5}",
    "evaluation.fit_requests=40",
    "evaluation.test_requests=40",
)
SFT3 = ("sft3.epochs=1.5", "sft3.loop.checkpoint_steps=5")


def arguments(config: Path, run: Path, sets: tuple[str, ...], *more: str) -> list[str]:
    return ["-m", "onesearch", "run", str(config), "--out", str(run), *(f"--set={one}" for one in sets), *more]


def metrics(run: Path, stage: str) -> dict:
    return read_json(run / stage / "manifest.json")["metrics"]


def weights(run: Path, stage: str) -> dict:
    return load_file(next((run / stage / "generator").glob("*.safetensors")))


@pytest.fixture(scope="module")
def two(tiny_config, tmp_path_factory):
    """A run whose every stage two processes have gone through, as `torchrun` starts them."""
    run = tmp_path_factory.mktemp("processes") / "two"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # As many threads as the shared run had here: with others, sums end in other digits.
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, *launcher, *arguments(tiny_config, run, SETS)],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return run, done.stdout + done.stderr


def test_two_processes_finish_all_stages_and_one_speaks(two):
    run, said = two
    results = [line.split("│") for line in said.splitlines() if line.startswith("│")]
    stages = {row[1].strip(): row[2].strip() for row in results}
    assert len(stages) == len(results) == 20 and set(stages.values()) == {"built"} and set(TRAINED) <= set(stages)
    assert all((run / stage / "manifest.json").is_file() for stage in stages)
    assert said.count("sft3: done") == 1 and "Warning" not in said
    assert SearchEngine.load(run).search("lamp", k=3)


def test_each_process_trains_on_half_of_the_samples(two):
    for stage in TRAINED:
        one, other = metrics(two[0], stage)["samples_by_process"]
        assert one > 0 and abs(one - other) <= metrics(two[0], stage)["steps"]  # a step's rows may be odd in number
        report = read_json(two[0] / stage / "finished.json")["report"]
        assert report["samples"] == one + other


def test_validation_and_loss_are_near_those_of_one_process(two, tiny_run):
    # The stages before pseudo-queries are those of the shared run, which one process made.
    for stage in ("data", "encoder", "khqe", "index"):
        for file in (tiny_run / stage).glob("*.npy"):
            assert file.read_bytes() == (two[0] / stage / file.name).read_bytes(), file
    for stage in ("sft1", "sft2", "sft3", "cot", "distill"):
        here, there = metrics(two[0], stage), metrics(tiny_run, stage)
        assert here["steps"] == there["steps"]
        assert here["loss"] == pytest.approx(there["loss"], rel=0.05), stage
        for figure in {"hr10", "mrr10"} & set(there):
            assert here[figure] == pytest.approx(there[figure], abs=0.08), (stage, figure)


def test_processes_validate_a_share_each(tiny_run, monkeypatch):
    run_data = RunData(tiny_run)
    generator = run_data.generator("sft3")
    whole = training_stages.validator(run_data, generator, 8, 0, most=61)(generator)
    # What each of three processes adds to the figures of all page views, float32 [2, n].
    parts = []
    for rank in range(3):
        monkeypatch.setattr(training_stages, "place", lambda rank=rank: (rank, 3))
        monkeypatch.setattr(training_stages, "summed", lambda own: parts.append(own) or own)
        training_stages.validator(run_data, generator, 8, 0, most=61)(generator)
    assert all((part[:, np.arange(part.shape[1]) % 3 != rank] == 0).all() for rank, part in enumerate(parts))
    hits, places = sum(parts)
    assert 0 < whole["hr10"] < 1 and whole["hr10"] == pytest.approx(np.nanmean(hits))
    assert whole["mrr10"] == pytest.approx(np.nanmean(places), abs=1e-3)


@pytest.mark.long  # two minutes; tests/training/test_loop_distributed.py tries the loop alone
@pytest.mark.timeout(900)
def test_a_killed_process_ends_the_job_which_goes_on_to_the_same_weights(tiny_config, tiny_run, tmp_path):
    runs = [tmp_path / "whole", tmp_path / "killed"]
    command = [arguments(tiny_config, run, SFT3, "--from", str(tiny_run), "--until", "sft3") for run in runs]
    assert all(code == 0 for _, code in finish(start(command[0], 2)))

    processes = start(command[1], 2)
    end = time.monotonic() + 240
    while not list((runs[1] / "sft3" / "checkpoints").glob("step-*")):
        assert processes[1].poll() is None and time.monotonic() < end, processes[1].communicate()
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    (said, code), (_, killed) = finish(processes, 120)
    assert (code, killed) == (1, -signal.SIGKILL) and "in stage 'sft3'" in said
    assert not (runs[1] / "sft3" / "finished.json").exists()

    # The same again, by the other launcher: without a GPU, `--multi_gpu` starts as many processes on the CPU.
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launcher += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    again = subprocess.run(
        [sys.executable, *launcher, *command[1]], capture_output=True, text=True, timeout=300, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert read_json(runs[1] / "sft3" / "manifest.json")["resumed"] is True
    whole, again = (weights(run, "sft3") for run in runs)
    assert whole.keys() == again.keys() and all((whole[name] == again[name]).all() for name in whole)


def test_a_stage_that_fails_in_the_first_process_ends_the_other(tiny_config, tiny_run, tmp_path):
    sets = ("pseudo={searches: 10, titles: 0, traits: 0, rewritten: 0}",)
    processes = start(arguments(tiny_config, tmp_path / "run", sets, "--from", str(tiny_run), "--until", "pseudo"), 2)
    (first, code), (other, after) = finish(processes, 200)
    assert (code, after) == (1, 1) and "error: pseudo.titles, pseudo.traits and pseudo.rewritten are all 0" in first
    assert "OtherProcessError: process 0 of 2 failed: ValueError: pseudo.titles" in other and "stage 'pseudo'" in other
