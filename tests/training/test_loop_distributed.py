"""Several processes on the CPU train one model: what ``accelerate launch`` does on several GPUs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launch import launch
from onesearch.training.loop import mean_terms

SCRIPT = str(Path(__file__).with_name("several.py"))


def train(folder, world, *arguments):
    found = launch([SCRIPT, str(folder), *arguments], world)
    assert all(code == 0 for _, code in found), "\n".join(f"code {code}: {output}" for output, code in found)
    return load_file(folder / "model.safetensors"), json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return folder, *train(folder, 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, *train(folder, 2)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """What a job of two processes left that ended with an error behind its second checkpoint."""
    folder = tmp_path_factory.mktemp("broken")
    found = launch([SCRIPT, str(folder), "stop=13"], 2)
    assert all(code == 1 and "StoppedError" in text for text, code in found)
    return folder


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clock = ("seconds", "samples_per_second", "start_mib")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


def test_two_processes_learn_what_one_learns(one, two):
    # The same rows per step, so the same gradient up to the order of additions.
    assert all(torch.allclose(one[1][name], two[1][name], atol=1e-5) for name in one[1])
    for alone, shared in zip(log_of(one[0]), log_of(two[0]), strict=True):
        rare = {name for name in shared if name.endswith("rare")}  # of the first process's share alone
        assert alone.keys() == shared.keys() and bool(rare) == ("loss" in shared)
        assert alone == pytest.approx({**shared, **{name: alone[name] for name in rare}}, abs=1e-4)


def test_all_processes_end_with_the_same_weights_and_report_and_each_has_seen_its_share(one, two):
    _, _, found = two
    assert found[0][:4] == found[1][:4] and found[0][1] == [96, 96]
    assert [seen for *_, seen in found] == [96, 96]
    assert one[2][0][1] == [192] and one[2][0][3] == found[0][3]


def test_a_broken_job_goes_on_to_the_same_weights(two, broken, tmp_path):
    folder = shutil.copytree(broken, tmp_path / "again")
    checkpoint = next((folder / "checkpoints").glob("step-*"))
    assert sorted(p.name for p in checkpoint.glob("random-*.json")) == ["random-0.json", "random-1.json"]
    weights, found = train(folder, 2)
    assert all(torch.equal(two[1][name], weights[name]) for name in weights)
    assert found[0][1] == [96, 96] and log_of(folder) == log_of(two[0])  # one process writes
    assert train(folder, 2)[1][0][:2] == found[0][:2]  # what is finished is read


def test_another_number_of_processes_goes_on_from_the_checkpoint(one, broken, tmp_path):
    folder = shutil.copytree(broken, tmp_path / "alone")
    found = launch([SCRIPT, str(folder)], 1)
    assert found[0][1] == 0 and "1 processes go on from a checkpoint of 2" in found[0][0]
    weights = load_file(folder / "model.safetensors")
    # Without dropout the random states decide nothing.
    assert all(torch.allclose(one[1][name], weights[name], atol=1e-5) for name in weights)
    assert json.loads((folder / "found.json").read_text())[0][1] == [192]


def test_processes_draw_for_themselves_and_go_on_drawing_after_a_break(tmp_path):
    whole, found = train(tmp_path / "whole", 2, "dropout")
    assert found[0][4] != found[1][4]
    launch([SCRIPT, str(tmp_path / "broken"), "dropout", "stop=13"], 2)
    broken, again = train(tmp_path / "broken", 2, "dropout")
    assert [one[4] for one in again] == [one[4] for one in found]
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_batches_that_make_one_step_are_shared_alike(tmp_path):
    one, _ = train(tmp_path / "one", 1, "accumulate")
    two, found = train(tmp_path / "two", 2, "accumulate")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert found[0][1] == [96, 96]


def test_weights_that_differ_are_refused(tmp_path):
    found = launch([SCRIPT, str(tmp_path), "differ"], 2)
    assert all(code == 1 for _, code in found)
    assert "the processes' weights differ in" in found[0][0] and not (tmp_path / "finished.json").exists()


def test_terms_are_means_over_the_processes_that_have_them():
    nan = float("nan")
    found = mean_terms([{"loss": 1.0}, {"loss": 2.0, "kl": 4.0}, {"loss": nan}])
    assert list(found) == ["loss", "kl"] and found["kl"] == 4.0 and found["loss"] != found["loss"]
