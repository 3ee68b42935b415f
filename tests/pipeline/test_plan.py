"""Forecasts by hand: in proportion to one run, on the line through two, trainings by their samples."""

import json

import pytest
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.common.artefact import write_json, write_manifest
from onesearch.pipeline.plan import Size, plan, size_of
from onesearch.pipeline.run_settings import RunSettings

PROGRAM_MIB = 450.0
SETTINGS = {
    "data": {"market": {"items": 1000, "users": 50, "page_views": 2000}, "valid": 0.1, "test": 0.1},
    "sft1": {"steps": 10, "batch_size": 20},
    "sft3": {"epochs": 2, "pseudo_share": 0},
    "evaluation": {"fit_requests": 100},
}


def made(folder, items, page_views, stages, settings=SETTINGS):
    """A run's folder whose stages took what is said of them."""
    write_json(folder / "config.json", RunSettings.model_validate(settings).model_dump(mode="json"))
    counts = {"items": items, "train_page_views": page_views}
    for name, about in {"data": {"seconds": 1.0, "peak_mib": 500}, **stages}.items():
        about = {"cpu_seconds": 1.0, "resumed": False, "files": {"a": 2**20}, "metrics": {}, **about}
        about["metrics"] |= counts
        write_manifest(folder / name, about)
    return folder


def costs(config, size, *runs):
    return {cost.stage: cost for cost in plan(config, size, runs, PROGRAM_MIB)}


def test_one_run_tells_by_proportion(tmp_path):
    stages = {"lexical": {"seconds": 8.0, "peak_mib": PROGRAM_MIB + 50}, "engine": {"seconds": 30.0, "peak_mib": 600}}
    stages["baselines"] = {"seconds": 20.0, "peak_mib": 600}
    run = made(tmp_path, 1000, 500, stages)
    config = RunSettings.model_validate({**SETTINGS, "evaluation": {"fit_requests": 200}})
    found = costs(config, Size(3000, 1500), run)
    # BM25 goes with the items, memory and disk with items and page views, what the program takes stays.
    assert found["lexical"].seconds == pytest.approx(24)
    assert found["lexical"].memory_mib == pytest.approx(PROGRAM_MIB + 150) and found["lexical"].disk_mib == 3
    assert found["data"].seconds == pytest.approx(3)
    # Twice the searches, each a little dearer: 140,000 items more would double its price.
    assert found["engine"].seconds == pytest.approx(60 * (1 + 3000 / 140_000) / (1 + 1000 / 140_000))
    # The cascade's trees cost as much for any catalogue: its page views count, each a little dearer as well.
    few = RunSettings.model_validate({**SETTINGS, "evaluation": {"cascade": {"page_views": 400}}})
    dearer = (1 + 3000 / 140_000) / (1 + 1000 / 140_000)
    assert found["baselines"].seconds == pytest.approx(60 * dearer)
    assert costs(few, Size(3000, 1500), run)["baselines"].seconds == pytest.approx(20 * 400 / 500 * dearer)
    # A stage that no run has.
    assert (found["khqe"].seconds, found["khqe"].memory_mib, found["khqe"].disk_mib) == (None, None, None)


def test_two_runs_tell_by_the_line_through_them(tmp_path):
    few = made(tmp_path / "few", 1000, 1000, {"lexical": {"seconds": 5.0, "peak_mib": PROGRAM_MIB + 100}})
    many = made(tmp_path / "many", 3000, 3000, {"lexical": {"seconds": 9.0, "peak_mib": PROGRAM_MIB + 140}})
    config = RunSettings.model_validate(SETTINGS)
    for runs in ((few, many), (many, few)):
        found = costs(config, Size(10_000, 10_000), *runs)["lexical"]
        assert found.seconds == pytest.approx(3 + 2 * 10)
        assert found.memory_mib == pytest.approx(PROGRAM_MIB + 80 + 20 * 10)


def test_a_training_costs_its_samples_and_its_preparation(tmp_path):
    of_sft1 = {"seconds": 50.0, "peak_mib": 600, "metrics": {"samples_per_second": 5.0}}  # 200 samples: 40 s
    of_sft3 = {"seconds": 130.0, "peak_mib": 600, "metrics": {"samples_per_second": 10.0}}  # 1,000 samples: 100 s
    run = made(tmp_path, 1000, 500, {"sft1": of_sft1, "sft3": of_sft3})
    config = RunSettings.model_validate({**SETTINGS, "sft1": {"steps": 40, "batch_size": 20}})
    found = costs(config, Size(1000, 2500), run)
    assert found["sft1"].seconds == pytest.approx(160 + 10 * 3500 / 1500)
    assert found["sft3"].seconds == pytest.approx(500 + 30 * 3500 / 1500)
    # A network with twice the layers takes twice as long for a sample.
    wide = config.updated(model={"backbone": {"encoder_layers": 6, "decoder_layers": 6}})
    before = config.model.backbone
    assert (before.encoder_layers, before.decoder_layers) == (3, 3)
    assert costs(wide, Size(1000, 2500), run)["sft1"].seconds == pytest.approx(320 + 10 * 3500 / 1500)


def test_memory_held_before_and_that_of_steps_does_not_grow(tmp_path):
    trained = {"samples_per_second": 5.0, "start_mib": 700}
    of_sft1 = {"seconds": 50.0, "peak_mib": 900, "held_mib": 400, "metrics": trained}
    of_lexical = {"seconds": 1.0, "peak_mib": 500, "held_mib": 450}
    of_report = {"seconds": 1.0, "peak_mib": 900, "held_mib": 450, "start_mib": 500}
    run = made(tmp_path, 1000, 500, {"sft1": of_sft1, "lexical": of_lexical, "report": of_report})
    found = costs(RunSettings.model_validate(SETTINGS), Size(10_000, 5000), run)
    assert found["sft1"].memory_mib == pytest.approx(400 + 200 + 10 * 300)
    # What trainings left in the process is not this stage's.
    assert found["lexical"].memory_mib == pytest.approx(450 + 10 * 50)
    # Searches are as large for any catalogue.
    assert found["report"].memory_mib == pytest.approx(450 + 400 + 10 * 50)


def test_thoughts_cost_the_queries_that_are_asked(tmp_path):
    v2 = {**SETTINGS, "understanding": {"producer": "market"}}
    thought = {"seconds": 60.0, "peak_mib": 600, "metrics": {"queries": 300}}
    run = made(tmp_path, 1000, 500, {"understanding": thought}, v2)
    assert costs(RunSettings.model_validate(v2), Size(1000, 5000), run)["understanding"].seconds == pytest.approx(600)
    few = {**v2, "understanding": {"producer": "market", "max_calls": 900}}
    assert costs(RunSettings.model_validate(few), Size(1000, 5000), run)["understanding"].seconds == pytest.approx(180)


def test_alignment_costs_its_rollouts(tmp_path):
    """64 page views a step by default, whatever stage 3's batches are."""
    v2 = {**SETTINGS, "understanding": {"producer": "market"}, "grpo": {"steps": 5}}
    of_grpo = {"seconds": 40.0, "peak_mib": 600, "metrics": {"samples_per_second": 8.0}}  # 320 of them: 40 s
    run = made(tmp_path, 1000, 500, {"grpo": of_grpo}, v2)
    twice = RunSettings.model_validate({**v2, "grpo": {"steps": 5, "prompts": 128}, "sft3": {"batch_size": 7}})
    assert costs(twice, Size(1000, 500), run)["grpo"].seconds == pytest.approx(80)


def test_a_stage_that_went_on_after_a_stop_tells_nothing(tmp_path):
    stages = {"lexical": {"seconds": 5.0, "peak_mib": 600, "resumed": True}, "index": {"seconds": 5.0, "peak_mib": 600}}
    run = made(tmp_path, 1000, 500, stages)
    found = costs(RunSettings.model_validate(SETTINGS), Size(1000, 500), run)
    assert found["lexical"].seconds is None and found["index"].seconds == 5


def test_a_run_without_the_figures_is_refused(tmp_path):
    config = RunSettings.model_validate(SETTINGS)
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        plan(config, Size(1, 1), [tmp_path], PROGRAM_MIB)
    write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    with pytest.raises(FileNotFoundError, match="no finished stage"):
        plan(config, Size(1, 1), [tmp_path], PROGRAM_MIB)
    write_manifest(tmp_path / "data", {"metrics": {"items": 1, "train_page_views": 1}, "seconds": 1.0})
    with pytest.raises(ValueError, match="did not note what stages take"):
        plan(config, Size(1, 1), [tmp_path], PROGRAM_MIB)


def test_the_size_is_the_markets_or_unknown(tmp_path):
    assert size_of(RunSettings.model_validate(SETTINGS)) == Size(1000, 1600)
    assert size_of(RunSettings.model_validate({"data": {"folder": str(tmp_path)}})) is None


@pytest.mark.slow
def test_a_run_forecasts_itself(tiny_run, tiny_config):
    asked = ["plan", str(tiny_config), "--like", str(tiny_run), "--json"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    for one in json.loads(result.stdout)["stages"]:
        about = json.loads((tiny_run / one["stage"] / "manifest.json").read_text())
        assert one["seconds"] == pytest.approx(about["seconds"], rel=0.02, abs=0.05), one["stage"]
        assert one["disk_mib"] == pytest.approx(sum(about["files"].values()) / 2**20)
    shown = CliRunner().invoke(app, asked[:-1])
    assert shown.exit_code == 0 and "memory at most" in shown.output and "sft3" in shown.output


def test_a_run_tells_its_time_left_like_another(tmp_path, monkeypatch):
    """``run --like`` forecasts what ``plan`` does; a size that nobody knows yet is refused."""
    known = made(tmp_path / "known", 1000, 500, {"lexical": {"seconds": 8.0, "peak_mib": 600}})
    config, told = tmp_path / "new.yaml", {}
    config.write_text(json.dumps({**SETTINGS, "data": {**SETTINGS["data"], "market": {"items": 3000, "users": 50}}}))
    monkeypatch.setattr("onesearch.pipeline.run_config", lambda *_, **more: told.update(more) or [])
    command = ["run", str(config), "--out", str(tmp_path / "out"), "--like", str(known)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert told["forecast"]["lexical"] == pytest.approx(24) and told["forecast"]["engine"] is None
    config.write_text(json.dumps({**SETTINGS, "data": {"mapping": "mine.yaml"}}))
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2 and "onesearch data import" in refused.output
