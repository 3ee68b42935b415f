"""How costs grow: exponents by hand, the settings of a size, and two tiny sizes from end to end."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import growth
from onesearch import pipeline
from onesearch.common.artefact import write_manifest
from onesearch.common.memory import forget_peak, peak_mib, resident_mib
from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.run_settings import RunSettings


def test_the_exponent_is_the_slope_between_logarithms():
    assert growth.exponent([10, 100, 1000], [2.0, 20.0, 200.0]) == pytest.approx(1)
    assert growth.exponent([10, 100, 1000], [3.0, 300.0, 30_000.0]) == pytest.approx(2)
    assert growth.exponent([10, 1000], [7.0, 7.0]) == pytest.approx(0)


def test_what_comes_of_three_sizes_by_hand():
    by_size = {
        size: {"search: cpu_ms": 5.0, "stage data: cpu_s": size / 100, "serving: mib": 100 + size / 1024**2}
        | {"two replicas: pss over one": 1.2}
        for size in (1000, 10_000, 100_000)
    }
    by_size[100_000]["stage data: cpu_s"] = 10_000.0  # ten times as much as in proportion
    found = growth.found(by_size)
    assert found["exponents"]["search: cpu_ms"] == pytest.approx(0, abs=1e-9)
    assert "two replicas: pss over one" not in found["exponents"]
    assert found["last"]["stage data: cpu_s"] == 2 and found["exponents"]["stage data: cpu_s"] == 1.5
    assert found["largest_exponent"] == 1.5 and found["kb_per_item"] == 0.001
    assert found["by_items"]["1000"]["two replicas: pss over one"] == 1.2
    assert "exponents" not in growth.found({1000: by_size[1000]})


def test_every_size_trains_as_many_samples():
    samples = []
    for size in (20_000, 1_000_000):
        settings = load_settings(RunSettings, growth.ROOT / "configs/million.yaml", growth.settings_of(size))
        assert settings.data.market is not None
        assert (settings.data.market.items, settings.data.market.page_views) == (size, size)
        samples.append(settings.sft3.epochs * size)
    assert samples[0] == pytest.approx(samples[1], rel=1e-4)


def test_a_peak_is_forgotten():
    held = bytearray(64 * 2**20)
    high = peak_mib()
    del held
    forget_peak()
    assert 0 < resident_mib() <= peak_mib() + 1 and peak_mib() < high - 40


def test_a_finished_run_is_measured_and_not_made_again(tmp_path, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(pipeline, "run_config", lambda base, folder, overrides: made.append(folder))
    monkeypatch.setattr(growth, "stage_costs", lambda run: {"run": 1.0 + int(run.name[-1]), "serving: mib": 1.0})
    monkeypatch.setattr(growth, "_alone", lambda *_: {})
    monkeypatch.setattr(growth, "shared_memory", lambda *_: 1.0)
    write_manifest(tmp_path / "run7" / "data", {"metrics": {"items": 70}, "cpu_seconds": 1.0})
    growth.main(tmp_path, [20, 70], [tmp_path / "run7"])
    growth.main(tmp_path, None, [tmp_path / "run7"])
    both, alone = (json.loads(line)["by_items"] for line in capsys.readouterr().out.splitlines())
    assert both["70"]["run"] == 8 and both["20"]["run"] == 1 and set(alone) == {"70"}
    assert made == [tmp_path / "growth-20"], "no size but those asked for"


@pytest.mark.slow
@pytest.mark.long
def test_a_run_is_measured_from_stages_to_replicas(tiny_run, tmp_path, capsys, monkeypatch):
    asked = []

    def finished(base, folder, overrides):
        asked.append((base, folder))
        shutil.copytree(tiny_run, folder)

    monkeypatch.setattr(pipeline, "run_config", finished)
    growth.main(tmp_path, [500], requests=3, base=Path("base.yaml"))
    costs = json.loads(capsys.readouterr().out)["by_items"]["500"]
    assert asked == [(Path("base.yaml"), tmp_path / "growth-500")]
    # A training costs what a pass over the log takes at its speed, all else what its stage took.
    speed = growth.finished_stages(tiny_run)["sft1"]["metrics"]["samples_per_second"]
    assert costs["stage sft1: cpu_s"] == pytest.approx(growth.page_views(tiny_run) / speed, rel=1e-3)
    assert costs["stage data: cpu_s"] > 0 and costs["stage data: mib"] > 50
    # Two processes hold more than one, and less than twice as much.
    assert 1 < costs["two replicas: pss over one"] < 2
    calls = {name for name in costs if name.endswith("cpu_ms")}
    assert {"search: cpu_ms", "suggestions: cpu_ms", "upsert of 1: cpu_ms", "delete of 1000: cpu_ms"} <= calls
    assert all(costs[name] >= 0 for name in calls) and costs["load: s"] > 0 and costs["serving: mib"] > 0
