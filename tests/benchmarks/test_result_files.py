"""What a clone of the repository holds of the studies: pages that can be rendered again, and little else."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.result_files import ResultFiles

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
STUDIES = (
    "v1",
    "v2",
    "v2_distillation",
    "generator",
    "balance",
    "abtest",
    "speed",
    "shop",
    "language_model",
    "quantizers",
    "kinds",
    "encodings",
    "scale",
)


def test_the_results_are_pages_charts_and_one_small_json_of_each_study():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".md", ".png", ".json"}
    assert {path.relative_to(RESULTS).as_posix() for path in files if path.suffix == ".json"} == {
        f"{name}.json" for name in STUDIES
    }
    assert sum(path.stat().st_size for path in files) < 4.5e6


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_is_what_its_figures_give(name, tmp_path, monkeypatch):
    study = importlib.import_module(f"benchmarks.{name}_page" if name == "speed" else f"benchmarks.{name}")
    shutil.copytree(RESULTS, tmp_path / "results")
    files = replace(study.FILES, folder=tmp_path / "results")
    monkeypatch.setattr(study, "FILES", files)
    if name == "speed":
        monkeypatch.setattr(study, "PLOT", files.charts / "width.png")
    files.page.unlink()
    study.render(files) if name in ("v2_distillation", "generator", "encodings") else study.render()
    assert files.page.read_text(encoding="utf-8") == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_figures_come_back_and_each_entry_has_a_line(tmp_path):
    files = ResultFiles("study", tmp_path / "new")
    assert files.figures() == {}
    figures = {"tests": {"b": [1, 2.5]}, "cells": {"market-1/a": {"what": "é"}, "market-1/b": {}}, "none": {}}
    files.write_figures(figures)
    text = (tmp_path / "new" / "study.json").read_text(encoding="utf-8")
    assert files.figures() == figures == json.loads(text)
    assert [line.strip() for line in text.splitlines() if "market-1/b" in line] == ['"market-1/b": {}']
    files.write_figures({"tests": {"p": {"low": [1 / 3, 12345678, True]}}})
    assert files.figures() == {"tests": {"p": {"low": [0.33333333, 12345678, True]}}}
    assert text.index('"cells"') < text.index('"none"') < text.index('"tests"')
