"""Each example runs as it stands, on the tiny run where it needs one."""

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from launch import launch
from onesearch.common.artefact import read_manifest
from onesearch.search.run_parts import RunParts
from onesearch.serving.http_bodies import SearchBody

FOLDER = Path(__file__).parents[2] / "examples"


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'example("{path.stem}")' in text or f'"{path.name}"' in text for path in FOLDER.glob("*.py"))


def test_a_run_is_searched(tiny_run, capsys):
    example("search_a_run").main(tiny_run, "boots")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("400 items") and len(lines) == 1 + 5 + 1 + 2


def test_a_run_is_searched_in_shards(tiny_run, tmp_path, capsys):
    example("search_in_shards").main(tiny_run, "boots")
    alone = capsys.readouterr().out.splitlines()
    assert alone[0] == "400 items, 400 of them in this process" and len(alone) == 1 + 5
    command = [str(FOLDER / "search_in_shards.py"), str(tiny_run), "boots"]
    (first, code), (second, other) = launch(command, 2, PYTHONPATH=os.pathsep.join(sys.path))
    assert (code, other) == (0, 0), first + second
    pages = [[line for line in text.splitlines() if line[:1] == " "] for text in (first, second)]
    assert [line[8:] for line in pages[0]] == [line[8:] for line in alone[1:]] and not pages[1]
    assert "400 items, 400" not in first


@pytest.mark.long
def test_a_run_is_trained_on_ray_and_goes_on_when_a_process_is_killed(tiny_config, tmp_path):
    pytest.importorskip("ray.train.torch", reason="Ray Train is not installed (`ray[train]`)")
    run, sets = tmp_path / "run", ("sft1.loop.checkpoint_steps=2", "sft1.steps=40", "sft1.loop.checkpoint_seconds=0")
    command = [sys.executable, str(FOLDER / "train_on_ray.py"), str(tiny_config), str(run), "2", "cpu"]
    command += ["--until", "sft1", *(f"--set={one}" for one in sets)]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(command, env={**os.environ, **paths}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not list((run / "sft1" / "checkpoints").glob("step-*")):
            assert job.poll() is None, job.communicate()[0].decode()[-3000:]
            time.sleep(0.02)
        # One of the two processes that train, whichever comes first.
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            told = process.read_bytes().split(b"\0") if process.exists() else []
            if told[1:4] == [b"-m", b"onesearch", b"run"] and str(run).encode() in told:
                os.kill(int(process.parent.name), signal.SIGKILL)
                break
        else:
            pytest.fail("no process trains")
        said = job.communicate(timeout=500)[0].decode()
    finally:
        job.kill()
    assert job.returncode == 0, said[-3000:]
    made = read_manifest(run / "sft1")
    assert made["resumed"] and sum(made["metrics"]["samples_by_process"]) > 0
    assert min(made["metrics"]["samples_by_process"]) > 0


def test_vectors_are_quantized(capsys):
    example("quantizer_only").main(400, 16)
    assert "codebooks (64, 32, 16, 64, 64)" in capsys.readouterr().out


def test_what_another_engine_showed_is_compared():
    """Three searches: the same page; another one that has the clicked item second; none."""
    shown = [["a", "b"], ["c", "d"], ["e"]]
    log = pl.DataFrame({"query": ["x", "y", "z"], "shown": shown, "clicked": [["b"], ["c"], []]})
    log = log.with_columns(user_id=pl.lit("u"), time=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)))
    answers = {"x": ["a", "b"], "y": ["q", "c"], "z": []}
    found = example("shadow_traffic").compare(SimpleNamespace(page_views=log), lambda query, user: answers[query])
    assert found == {
        "searches": 3,
        "same items": pytest.approx((1 + 0.5 + 0) / 3),
        "same first item": pytest.approx(1 / 3),
        "theirs: empty": 0,
        "ours: empty": pytest.approx(1 / 3),
        "theirs: clicked item found": 1,
        "theirs: 1 / its rank": 0.75,
        "ours: clicked item found": 1,
        "ours: 1 / its rank": 0.5,
    }


def test_a_service_is_asked_without_a_trace(monkeypatch):
    asked = []

    def answer(request):
        asked.append((request.full_url, json.loads(request.data), dict(request.headers)))
        return io.BytesIO(b'{"results": [{"item_id": "a"}, {"item_id": "b"}]}')

    module = example("shadow_traffic")
    monkeypatch.setattr(module, "urlopen", answer)
    monkeypatch.setenv("ONESEARCH_SEARCH_KEY", "k")
    assert module.asking("http://shop:8000")("boots", "ann") == ["a", "b"]
    ((url, body, headers),) = asked
    assert url == "http://shop:8000/search" and headers["Authorization"] == "Bearer k"
    assert SearchBody.model_validate(body).record is False and body["user"] == "ann"


@pytest.mark.slow
def test_files_become_an_engine(capsys):
    example("own_data").main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4 and all("boot" in line or "red" in line for line in lines[-3:])


@pytest.mark.slow
def test_two_engines_are_compared(tiny_run, capsys):
    example("ab_test").main(f"{tiny_run}:v1", f"{tiny_run}:v2", 100)
    shown = capsys.readouterr().out
    assert "100 page views" in shown and "item CTR" in shown


def test_the_encoder_becomes_a_sentence_transformer(tiny_run, tmp_path):
    encoder = RunParts(tiny_run).encoder
    model = example("sentence_export").as_sentence_transformer(encoder)
    texts = ["red boots", "blue lamp"]
    np.testing.assert_allclose(model.encode(texts), encoder.encode(texts), atol=1e-5)
