"""The page of the million: what was forecast beside what was measured, and how cost grows."""

import json
import shutil
from types import SimpleNamespace

import pytest
from benchmarks.result_files import ResultFiles

from benchmarks import scale
from onesearch import pipeline


@pytest.fixture
def files(tmp_path, monkeypatch):
    found = ResultFiles("scale", tmp_path / "results")
    monkeypatch.setattr(scale, "FILES", found)
    found.folder.mkdir()
    (found.folder / "scale.head.md").write_text("# Scale\n")
    return found


def rows(files, first):
    """Cells of the table rows that begin so."""
    lines = files.page.read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(f"| {first}")]


@pytest.mark.long
def test_a_run_forecasts_the_million_and_is_set_beside_it(files, tiny_run, tmp_path, monkeypatch):
    asked = []

    def finished(config, folder, overrides=(), forecast=None):
        asked.append((config, folder.name, list(overrides), forecast))
        shutil.copytree(tiny_run, folder)

    monkeypatch.setattr(pipeline, "run_config", finished)
    scale.tenth(tmp_path)
    forecast = files.figures()["forecast"]
    assert forecast["items"] == 1_000_000 and forecast["page_views"] == 950_000
    scale.render()
    assert "The million was not run yet." in files.page.read_text()
    assert rows(files, "`lexical`")[0][2] == "–" and rows(files, "`lexical`")[0][1] != "–"
    # The tiny run stands in for the million.
    scale.million(tmp_path)
    assert [one[:3] for one in asked] == [(scale.CONFIG, "tenth", list(scale.TENTH)), (scale.CONFIG, "million", [])]
    assert asked[1][3]["lexical"] == forecast["stages"]["lexical"]["seconds"]
    scale.render()
    stages = files.figures()["million"]["stages"]
    assert stages["lexical"]["memory_mib"] > 0 and next(iter(stages)) == "data"
    assert rows(files, "at most 3 hours")[0][1] == "yes"
    assert rows(files, "time within 30%")[0][1] == "**no**"  # a thousandth of the items
    mean = files.figures()["million"]["methods"]["engine"]["click/HR@10"][0]
    assert rows(files, "engine")[0][1].startswith(f"{mean:.4f} [")
    made = rows(files, "million")[0]
    assert made[1] == "`python -m benchmarks.scale million RUNS`"


def test_totals_and_goals_by_hand(files):
    cost = lambda seconds, mib, disk: {"seconds": seconds, "memory_mib": mib, "disk_mib": disk, "resumed": False}  # noqa: E731
    made = {"commit": "abc", "date": "2026-01-01", "machine": "2 cores"}
    forecast = {"data": cost(1800.0, 2048, 100), "engine_v2": cost(7200.0, 9000, 50), "report": cost(None, None, None)}
    took = {"data": cost(3600.0, 4096, 100), "engine_v2": {**cost(7200.0, 8192, 60), "resumed": True}}
    growth = {
        "by_items": {
            "20000": {"search: cpu_ms": 10.0, "two replicas: pss over one": 1.9},
            "100000": {"search: cpu_ms": 30.0, "two replicas: pss over one": 1.2},
        },
        "exponents": {"search: cpu_ms": 0.683},
        "last": {"search: cpu_ms": 0.683},
        "kb_per_item": 1.4,
    }
    files.write_figures(
        {
            "forecast": {"made": made, "stages": forecast},
            "million": {"made": made, "stages": took, "methods": {"engine": {"click/HR@10": [0.5, 0.4, 0.6]}}},
            "growth": {"made": made, **growth},
            "beside": {
                "made": made,
                "then": "0ld",
                "items": 500_000,
                "requests": 64,
                "single": {"then_ms": 50.0, "now_ms": 40.0, "ratio": 0.81},
                "batch": {"then_ms": 20.0, "now_ms": 10.0, "ratio": 0.5},
                "same_ids": 0.5,
                "largest_difference": 2e-5,
            },
        }
    )
    scale.render()
    assert rows(files, "all")[0] == ["all", "2.50 h", "3.00 h", "8.8 GiB", "8.0 GiB", "150 MiB", "160 MiB"]
    assert rows(files, "`engine_v2` (went on after a stop)") and rows(files, "`report`")[0][1:] == ["–"] * 6
    assert rows(files, "at most 3 hours")[0] == ["at most 3 hours", "yes", "3.00 h"]
    assert rows(files, "at most 16 GiB")[0][1] == "yes"
    assert rows(files, "time within")[0][1:] == ["yes", "1.20 times"]
    assert rows(files, "memory within")[0][1:] == ["yes", "0.91 times"]
    assert rows(files, "engine")[0] == ["engine", "0.5000 [0.4000, 0.6000]", "–", "–", "–", "–"]
    assert rows(files, "search: cpu_ms")[0][1:] == ["10", "30", "0.68", "0.68"]
    assert rows(files, "no exponent above")[0][1:] == ["yes", "search: cpu_ms: 0.68"]
    assert rows(files, "at most 1.3 kB")[0][1:] == ["**no**", "1.4 kB"]
    assert rows(files, "two replicas at most")[0][1:] == ["yes", "1.20 times"]
    assert "growth RUNS 20000 100000`" in rows(files, "growth")[0][1]
    assert "beside RUN 0ld`" in rows(files, "beside")[0][1]
    assert rows(files, "alone")[0][1:] == ["50", "40", "0.81"] and rows(files, "in batches of 32")[0][3] == "0.50"
    assert rows(files, "at most 0.7 times")[0][1:] == ["**no**", "0.81 times"]
    assert rows(files, "the same ten items")[0][1:] == ["**no**", "50.0% of the searches"]
    assert rows(files, "scores within")[0][1] == "yes"


def test_growth_is_measured_by_its_command(files, tmp_path, monkeypatch):
    asked = []

    def ran(command, **_):
        asked.append(command[1:])
        return SimpleNamespace(stdout="a line\n" + json.dumps({"by_items": {"20": {"search: cpu_ms": 1.0}}}) + "\n")

    monkeypatch.setattr(scale.subprocess, "run", ran)
    (tmp_path / "million" / "report").mkdir(parents=True)
    scale.growth(tmp_path, ["20"])
    made = ["--run", str(tmp_path / "million")]
    assert asked[:1] == [["-m", "benchmarks.growth", str(tmp_path), "--items", "20", *made]]
    scale.render()
    assert rows(files, "search: cpu_ms")[0][1:] == ["1", "–", "–"]
