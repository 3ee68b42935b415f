import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from launch import launch
from onesearch.common.run_lock import RunLock, RunLockedError
from onesearch.pipeline.stage_runner import MANIFEST, STARTED, Stage, execute, fingerprints, status


def chain(calls, a=1, b=1, resumable=False, version=1):
    """data → model → report, and data → other: each writes what it read and its setting."""

    def build(setting):
        def run(context, **_):
            calls.append(context.name)
            read = [(folder / "out.txt").read_text() for folder in context.inputs.values()]
            (context.folder / "out.txt").write_text(f"{context.name}={setting}({','.join(read)})")
            return {"value": setting, "resumed": context.resumed}

        return run

    return [
        Stage("data", (), {"a": a}, build(a), version=version),
        Stage("model", ("data",), {"b": b}, build(b), resumable=resumable),
        Stage("other", ("data",), {}, build(0)),
        Stage("report", ("model",), {}, build(0)),
    ]


def outcomes(results):
    return {result.name: result.outcome for result in results}


def test_a_stage_may_have_a_seed_of_its_own(tmp_path):
    seen = []

    def stages(seed):
        build = lambda context: seen.append((context.name, context.seed)) or {}  # noqa: E731
        return [Stage("data", (), {}, build), Stage("model", ("data",), {}, build, seed=seed)]

    execute(stages(2), tmp_path / "two", 7)
    assert seen == [("data", 7), ("model", 2)]
    assert json.loads((tmp_path / "two" / "model" / MANIFEST).read_text())["seed"] == 2
    # Another seed of the training shares the data.
    assert outcomes(execute(stages(3), tmp_path / "three", 7, reuse=[tmp_path / "two"])) == {
        "data": "reused",
        "model": "built",
    }
    assert fingerprints(stages(None), 7) == fingerprints(stages(7), 7)


@pytest.mark.parametrize("given", [{}, {"ONEDNN": "7"}, {"DNNL": "8"}])
def test_compiled_kernels_of_a_run_are_few_unless_the_user_says_how_many(tmp_path, monkeypatch, given):
    name, seen = "{}_PRIMITIVE_CACHE_CAPACITY", []
    for library in ("ONEDNN", "DNNL"):
        monkeypatch.setenv(name.format(library), "")  # what the run sets is taken back after the test
        monkeypatch.delenv(name.format(library))
    for library, number in given.items():
        monkeypatch.setenv(name.format(library), number)

    def build(context):
        there = {library: os.environ.get(name.format(library)) for library in ("ONEDNN", "DNNL")}
        seen.append({library: value for library, value in there.items() if value is not None})
        return {}

    execute([Stage("data", (), {}, build)], tmp_path)
    assert seen == [given or {"ONEDNN": "64"}]


def test_a_forecast_tells_what_is_left_of_the_run(tmp_path, caplog):
    """Skipped stages count no longer, and one that nobody forecast makes the rest a lower bound."""
    execute(chain([]), tmp_path, until="data")
    caplog.set_level("INFO", "onesearch")
    execute(chain([]), tmp_path, forecast={"data": 1000.0, "model": 20.0, "other": 300.0})
    told = [line for line in caplog.messages if "left of the run" in line]
    assert told[0] == "at least 5 min left of the run" and len(told) == 2  # nothing is left after the report
    execute(chain([], b=2), tmp_path / "two")
    assert len([line for line in caplog.messages if "left of the run" in line]) == 2


def test_a_manifest_says_what_the_stage_itself_took(tmp_path):
    def greedy(context):
        loaded = np.ones(13_000_000)  # 99 MiB
        context.all_loaded()
        held = np.ones(25_000_000) * loaded[0]  # 190 MiB, gone at the end
        context.all_loaded()  # the first time counts
        return {"sum": held.sum()}

    def busy(context):
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        return {}

    kept = []

    def keeping(context):
        kept.append(np.ones(13_000_000))  # 99 MiB, as a library keeps something
        return {}

    stages = [Stage("greedy", (), {}, greedy), Stage("busy", ("greedy",), {}, busy), Stage("keeping", (), {}, keeping)]
    execute([*stages, Stage("last", ("keeping",), {}, busy)], tmp_path)
    names = ("greedy", "busy", "keeping", "last")
    first, second, third, last = (json.loads((tmp_path / name / MANIFEST).read_text()) for name in names)
    assert first["peak_mib"] > second["peak_mib"] + 100 and second["peak_mib"] > 20
    assert 70 < first["start_mib"] - first["held_mib"] < 130 and "start_mib" not in second
    # What there was before each stage.
    assert 20 < first["held_mib"] < first["peak_mib"] - 100 and abs(second["held_mib"] - first["held_mib"]) < 50
    assert 70 < last["held_mib"] - third["held_mib"] < 130
    assert 0.2 <= second["cpu_seconds"] < 2 and second["seconds"] >= 0.19


def test_a_build_gets_what_its_stage_declares_and_nothing_else(tmp_path):
    def build(context, width, *, server):
        return {"width": width, "server": server}

    (result,) = execute([Stage("a", (), {"width": 3}, build, {"server": "here"})], tmp_path / "run")
    assert result.metrics == {"width": 3, "server": "here"}
    elsewhere = [Stage("a", (), {"width": 3}, build, {"server": "there"})]
    assert status(elsewhere, tmp_path / "run") == {"a": "finished"}
    assert status([Stage("a", (), {"width": 4}, build)], tmp_path / "run") == {"a": "outdated"}
    assert status([Stage("a", (), {"width": 3}, build, outside="files")], tmp_path / "run") == {"a": "outdated"}
    with pytest.raises(TypeError, match="height"):
        execute([Stage("b", (), {"height": 3}, build)], tmp_path / "run")


def test_second_run_does_nothing_and_a_changed_setting_rebuilds_what_depends_on_it(tmp_path):
    calls = []
    assert set(outcomes(execute(chain(calls), tmp_path)).values()) == {"built"}
    assert calls == ["data", "model", "other", "report"]
    assert (tmp_path / "report/out.txt").read_text() == "report=0(model=1(data=1()))"
    assert set(outcomes(execute(chain(calls), tmp_path)).values()) == {"skipped"}
    assert len(calls) == 4
    changed = execute(chain(calls, b=2), tmp_path)
    assert outcomes(changed) == {"data": "skipped", "model": "built", "other": "skipped", "report": "built"}
    assert (tmp_path / "report/out.txt").read_text() == "report=0(model=2(data=1()))"
    assert set(outcomes(execute(chain(calls, a=3, b=2), tmp_path)).values()) == {"built"}


def test_manifest_names_settings_inputs_versions_metrics_seed_and_files(tmp_path):
    stages = chain([])
    execute(stages, tmp_path, seed=5)
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_text())
    marks = fingerprints(stages, 5)
    assert manifest["fingerprint"] == marks["model"] and manifest["inputs"] == {"data": marks["data"]}
    assert manifest["settings"] == {"b": 1} and manifest["seed"] == 5 and manifest["metrics"]["value"] == 1
    assert "torch" in manifest["versions"] and manifest["seconds"] >= 0 and list(manifest["files"]) == ["out.txt"]
    assert not (tmp_path / "model" / STARTED).exists()
    assert fingerprints(stages, 6)["data"] != marks["data"]
    assert fingerprints(chain([], version=2), 5)["report"] != marks["report"]


def failing(until):
    """A stage that leaves half a file behind for its first ``until`` calls."""
    state = {"calls": 0}

    def build(context, **_):
        state["calls"] += 1
        half = context.folder / "half"
        found = half.read_text() if half.exists() else ""
        half.write_text("half")
        if state["calls"] <= until:
            raise RuntimeError("no more electricity")
        return {"found": found}

    return build


@pytest.mark.parametrize("resumable", [True, False])
def test_an_unfinished_stage_is_resumed_or_redone(tmp_path, resumable):
    stages = [Stage("train", (), {}, failing(1), resumable=resumable)]
    with pytest.raises(RuntimeError, match="electricity") as caught:
        execute(stages, tmp_path)
    assert any("stage 'train'" in note for note in caught.value.__notes__)
    assert status(stages, tmp_path) == {"train": "begun"}
    (result,) = execute(stages, tmp_path)
    assert result.outcome == ("resumed" if resumable else "built")
    assert result.metrics["found"] == ("half" if resumable else "")
    assert status(stages, tmp_path) == {"train": "finished"}


def test_unfinished_work_of_other_settings_is_not_resumed(tmp_path):
    with pytest.raises(RuntimeError):
        execute([Stage("train", (), {"lr": 1}, failing(1), resumable=True)], tmp_path)
    (result,) = execute([Stage("train", (), {"lr": 2}, failing(0), resumable=True)], tmp_path)
    assert result.outcome == "built" and result.metrics["found"] == ""


def test_reuse_takes_over_finished_stages_with_the_same_fingerprint(tmp_path):
    calls = []
    execute(chain(calls), tmp_path / "first")
    calls.clear()
    results = execute(chain(calls, b=2), tmp_path / "second", reuse=[tmp_path / "absent", tmp_path / "first"])
    assert outcomes(results) == {"data": "reused", "model": "built", "other": "reused", "report": "built"}
    assert calls == ["model", "report"]
    first, second = tmp_path / "first/data/out.txt", tmp_path / "second/data/out.txt"
    assert first.stat().st_ino == second.stat().st_ino or first.read_bytes() == second.read_bytes()
    (tmp_path / "first/data/out.txt").unlink()  # the second run stands on its own
    assert set(outcomes(execute(chain(calls, b=2), tmp_path / "second")).values()) == {"skipped"}
    assert second.read_text() == "data=1()"


def test_redo_and_until(tmp_path):
    calls = []
    assert outcomes(execute(chain(calls), tmp_path, until="model")) == {"data": "built", "model": "built"}
    execute(chain(calls), tmp_path)
    calls.clear()
    execute(chain(calls), tmp_path, redo=["model"])
    assert calls == ["model", "report"]
    with pytest.raises(ValueError, match=r"no stage 'modle'.*'model'"):
        execute(chain(calls), tmp_path, until="modle")


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="no stage made it"):
        execute(chain([]), tmp_path)
    assert (tmp_path / "data" / "thesis.tex").read_text() == "precious"


def test_wrong_plans_are_refused(tmp_path):
    stage = Stage("a", (), {}, lambda context: {})
    with pytest.raises(ValueError, match="two stages are named 'a'"):
        execute([stage, stage], tmp_path)
    with pytest.raises(ValueError, match=r"'b' reads \['c'\]"):
        execute([Stage("b", ("c",), {}, lambda context: {})], tmp_path)
    with pytest.raises(ValueError, match="settings of stage 'a' are not JSON"):
        execute([Stage("a", (), {"x": {1}}, lambda context, x: {})], tmp_path)


def test_metrics_of_numpy_are_written_as_numbers(tmp_path):
    execute([Stage("a", (), {}, lambda context: {"x": np.float32(0.5), "y": [np.int64(3)]})], tmp_path)
    assert json.loads((tmp_path / "a" / MANIFEST).read_text())["metrics"] == {"x": 0.5, "y": [3]}


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    code = f"""
        import pathlib, time
        from onesearch.common.run_lock import RunLock
        with RunLock(pathlib.Path({str(tmp_path)!r})):
            print("held", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=f"in use by process {holder.pid}"):
            execute(chain([]), tmp_path)
        holder.send_signal(signal.SIGKILL)
    with RunLock(tmp_path):
        pass


def test_other_processes_wait_for_the_first_and_share_distributed_stages(tmp_path):
    code = """
        import json, os, pathlib, sys, time
        from dataclasses import asdict
        from onesearch.pipeline.stage_runner import Stage, execute
        rank = os.environ["RANK"]
        def build(context):
            (context.folder / f"rank{rank}").write_text(str(context.inputs))
            deadline = time.time() + 20
            while len(list(context.folder.glob("rank*"))) < (2 if context.name == "train" else 1):
                assert time.time() < deadline, "the other process did not come"
                time.sleep(0.05)
            return {"rank": int(rank), "resumed": context.resumed}
        stages = [Stage("data", (), {}, build), Stage("train", ("data",), {}, build, resumable=True, distributed=True),
                  Stage("report", ("train",), {}, build)]
        run = pathlib.Path(sys.argv[1])
        found = [execute(stages, run, until="train"), execute(stages, run, redo=["train"])]
        print(json.dumps([[asdict(one) for one in results] for results in found]))
    """
    found = launch(["-c", textwrap.dedent(code), str(tmp_path)], 2)
    assert [code for _, code in found] == [0, 0], found
    assert [p.name for p in sorted(Path(tmp_path / "data").glob("rank*"))] == ["rank0"]
    assert [p.name for p in sorted(Path(tmp_path / "train").glob("rank*"))] == ["rank0", "rank1"]
    assert [p.name for p in sorted(Path(tmp_path / "report").glob("rank*"))] == ["rank0"]
    # Everyone's result is that of the first process.
    first, other = (json.loads(text.splitlines()[-1]) for text, _ in found)
    assert first == other
    assert [[one["outcome"] for one in results] for results in first] == [["built"] * 2, ["skipped", "built", "built"]]
    assert first[1][1]["metrics"] == {"rank": 0, "resumed": False}


def test_processes_continue_a_distributed_stage_together(tmp_path):
    code = """
        import os, pathlib, sys
        from onesearch.common.processes import wait_for_all
        from onesearch.pipeline.stage_runner import Stage, execute
        def build(context):
            wait_for_all()
            (context.folder / f"{os.environ['RANK']}-{context.resumed}").touch()
            wait_for_all()
            if not context.resumed and os.environ["RANK"] == "1":
                raise MemoryError("one process is out of memory")
            wait_for_all()
            return {}
        execute([Stage("train", (), {}, build, resumable=True, distributed=True)], pathlib.Path(sys.argv[1]))
    """
    command = ["-c", textwrap.dedent(code), str(tmp_path)]
    (first, code_first), (other, code_other) = launch(command, 2)
    assert (code_first, code_other) == (1, 1) and "MemoryError" in other
    assert "process 1 of 2 failed: MemoryError: one process is out of memory" in first
    assert not (tmp_path / "train" / "manifest.json").exists()
    assert [code for _, code in launch(command, 2)] == [0, 0]
    assert sorted(p.name for p in (tmp_path / "train").glob("?-*")) == ["0-False", "0-True", "1-False", "1-True"]


def test_a_stage_that_fails_in_the_first_process_ends_the_others(tmp_path):
    code = """
        import pathlib, sys
        from onesearch.pipeline.stage_runner import Stage, execute
        def build(context):
            raise ValueError("the file has no rows")
        execute([Stage("data", (), {}, build), Stage("index", ("data",), {}, build)], pathlib.Path(sys.argv[1]))
    """
    found = launch(["-c", textwrap.dedent(code), str(tmp_path)], 2)
    assert [code for _, code in found] == [1, 1]
    assert "process 0 of 2 failed: ValueError: the file has no rows; in stage 'data'" in found[1][0]


def test_ten_finished_stages_are_checked_in_a_moment(tmp_path):
    stages = [Stage(f"s{i}", (f"s{i - 1}",) if i else (), {"i": i}, lambda context, i: {}) for i in range(10)]
    execute(stages, tmp_path)
    start = time.perf_counter()
    execute(stages, tmp_path)
    assert time.perf_counter() - start < 1.0
