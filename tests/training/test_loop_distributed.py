"""Several processes on the CPU train one model: what ``accelerate launch`` does on several GPUs."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launch import launch
from onesearch.pipeline.run_settings import RunSettings
from onesearch.training.loop import mean_terms
from onesearch.training.loop_settings import PreferenceLoopSettings

SCRIPT, IN_PARTS = (str(Path(__file__).with_name(f"{name}.py")) for name in ("several", "in_parts"))


def train(folder, world, *arguments, script=SCRIPT):
    found = launch([script, str(folder), *arguments], world, PYTHONPATH=os.pathsep.join(sys.path))
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


def test_processes_that_hold_parts_go_on_where_others_held_the_whole_and_learn_the_same(one, two, broken, tmp_path):
    """Averages, best weights, weights of no dimension, heads that a step leaves unused; from a checkpoint of others."""
    folder = shutil.copytree(broken, tmp_path / "again")
    weights, found = train(folder, 2, "shard")
    assert all(torch.allclose(one[1][name], weights[name], atol=1e-5) for name in weights)
    assert found[0][:2] == [pytest.approx(two[2][0][0], abs=1e-5), [96, 96]] and found[0][2:4] == [
        pytest.approx(two[2][0][2], abs=1e-5),
        two[2][0][3],
    ]
    for whole, parts in zip(log_of(two[0]), log_of(folder), strict=True):
        assert parts == pytest.approx(whole, abs=1e-4)


@pytest.mark.long
def test_a_broken_job_of_parts_goes_on_in_parts_or_without(two, tmp_path):
    found = launch([SCRIPT, str(tmp_path / "parts"), "shard", "stop=13"], 2)
    assert all(code == 1 and "StoppedError" in text for text, code in found)
    shutil.copytree(tmp_path / "parts", tmp_path / "whole")
    for folder, flags in ((tmp_path / "parts", ["shard"]), (tmp_path / "whole", [])):
        weights, _ = train(folder, 2, *flags)
        assert all(torch.allclose(two[1][name], weights[name], atol=1e-5) for name in weights)


KINDS = [("qwen3", ("recompute",), "layers"), pytest.param("qwen3", ("teacher",), "whole", marks=pytest.mark.long)]


@pytest.mark.parametrize(
    ("kind", "flags", "sharding"), [*KINDS, pytest.param("bart", (), "layers", marks=pytest.mark.long)]
)
def test_parts_of_a_generator_learn_what_whole_ones_learn(tmp_path, kind, flags, sharding):
    """The same weights, from the same draws of dropout; of what it trains each process holds half."""
    whole, _ = train(tmp_path / "whole", 2, kind, *flags, script=IN_PARTS)
    parts, found = train(tmp_path / "parts", 2, kind, *flags, "shard", script=IN_PARTS)
    # A bias of keys has no gradient but rounding, which AdamW makes as large as any other.
    names = [name for name in whole if not name.endswith("k_proj.bias")]
    assert all(torch.allclose(whole[name], parts[name], atol=1e-4) for name in names)
    assert [[one[0] for one in process["held"]] for process in found["every"]] == [[sharding], [sharding]]
    held = [process["held"][0][1] for process in found["every"]]
    assert found["size"] <= sum(held) <= found["size"] + 10 and max(held) < 0.55 * found["size"]
    assert found["every"][0]["metrics"] == found["every"][1]["metrics"]


def test_what_needs_the_whole_model_is_refused_in_parts(tmp_path):
    found = launch(
        [IN_PARTS, str(tmp_path), "gpt2", "teacher", "fgm", "shard"], 2, PYTHONPATH=os.pathsep.join(sys.path)
    )
    assert all(code == 1 for _, code in found) and "each process needs the whole model for this" in found[0][0]
    with pytest.raises(ValueError, match="shard"):
        PreferenceLoopSettings(shard=True)
    with pytest.raises(ValueError, match=r"set distill\.fgm and distill\.ema to 0"):
        RunSettings.model_validate(
            {
                "data": {"folder": "here"},
                "understanding": {"producer": "log-expert"},
                "sft3": {"loop": {"shard": True}},
                "distill": {"fgm": 0, "ema": 0.9},
            }
        )


def test_terms_are_means_over_the_processes_that_have_them():
    nan = float("nan")
    found = mean_terms([{"loss": 1.0}, {"loss": 2.0, "kl": 4.0}, {"loss": nan}])
    assert list(found) == ["loss", "kl"] and found["kl"] == 4.0 and found["loss"] != found["loss"]
