"""One tiny trained run, shared by the end-to-end tests and the examples; its figures mean nothing."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
import yaml

TINY = {
    "name": "tiny",
    "data": {"market": {"items": 400, "users": 120, "days": 20, "page_views": 1500}},
    "encoder": {"static": {"dimension": 32}, "align": {"epochs": 1, "nested": [], "batch_size": 128}},
    "khqe": {"layers": [32, 16, 8], "opq_size": 16, "iterations": 4},
    "model": {
        "backbone": {"d_model": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "ffn": 64},
        "text_vocabulary": 600,
        "row_dim": 32,
    },
    "sft1": {"steps": 11, "batch_size": 32},
    "sft2": {"steps": 4, "batch_size": 32},
    "sft3": {"epochs": 0.5, "batch_size": 64, "score_negatives": 128},
    "understanding": {"producer": "market", "error": 0.1},
    "cot": {"steps": 9, "batch_size": 16, "page_views": 200},
    "distill": {"cot": 0.2},
    "search": {"width": 16, "lexical": True, "relevance": 0.5},
    "evaluation": {
        "measures": {"resamples": 20, "flips": 50},
        "test_requests": 80,
        "fit_requests": 80,
        "cascade": {"trees": 5, "page_views": 300, "validation_page_views": 80},
    },
}


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from onesearch.pipeline import run_config

    # Processes of one test run make it once, and each takes a copy, since some tests change it for a moment.
    base, folder = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("runs") / "tiny"
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-run"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "finished").exists():
            run_config(tiny_config, made / "tiny")
            (made / "finished").touch()
    shutil.copytree(made / "tiny", folder)
    return folder
