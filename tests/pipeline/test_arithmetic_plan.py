"""Operations and memory of a run's model, by hand."""

import json

import pytest
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.pipeline.arithmetic_plan import KNOWN, Machine, arithmetic
from onesearch.pipeline.plan import Size
from onesearch.pipeline.run_settings import RunSettings

# A prompt of 1 task mark, 1 + 4 of the query; no other part. One layer each way, d 8, ffn 16.
PROMPT = {
    **dict.fromkeys(("uid", "query_sid", "profile", "query_vector"), False),
    **{"query_tokens": 4, "recent_queries": 0, "short": 0, "long": 0, "fill": "none"},
}
BACKBONE = {"kind": "bart", "d_model": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "ffn": 16}
SETTINGS = {
    "data": {"market": {"items": 1000, "users": 50, "page_views": 2000}, "valid": 0.25, "test": 0.25},
    "model": {"backbone": BACKBONE, "prompt": PROMPT, "text_vocabulary": 300, "row_dim": 4},
    "sft1": {"steps": 10, "batch_size": 20, "text_tokens": 3},
    "sft3": {"epochs": 2, "pseudo_share": 0.2, "batch_size": 32},
    "evaluation": {"fit_requests": 100, "test_requests": 60},
    "search": {"width": 7},
}
READ, WRITTEN = 4 * 64 + 2 * 8 * 16, 8 * 64 + 2 * 8 * 16  # weights of the two layers
ATTENTION = 4 * 8 * 2 / 2  # times the places that look at each other


def stages(devices=1, **changes):
    config = RunSettings.model_validate({**SETTINGS, **changes})
    return {one.stage: one for one in arithmetic(config, Size(1000, 1000), devices)}


def test_a_training_by_hand():
    """2 passes over 1000 page views, a fifth of the batches beside them; 6 tokens read, 6 written."""
    found = stages()["sft3"]
    assert found.samples == 2 * 1000 / 0.8 and found.tokens == 6 + 6
    forward = 2 * (READ * 6 + WRITTEN * 6) + ATTENTION * (36 + 6 * 12)
    assert found.operations == pytest.approx(2500 * 3 * forward)
    weights = READ + WRITTEN + 300 * 8
    kept = 32 * 2 * (34 * 12 * 8 + 5 * 2 * 12 * 12)
    tables = 1000 * (1.3 * 4 * 4 + 4 * 4)
    assert found.device_gib == pytest.approx((16 * weights + kept + tables) / 2**30)


def test_words_pass_the_vocabulary_and_devices_share_a_batch():
    found = stages()["sft1"]
    assert found.samples == 200 and found.tokens == 4 + 3
    forward = 2 * (READ * 4 + (WRITTEN + 300 * 8) * 3) + ATTENTION * (16 + 3 * 7)
    assert found.operations == pytest.approx(200 * 3 * forward)
    one, four = (stages(devices)["sft3"] for devices in (1, 4))
    assert one.operations == four.operations
    kept = 32 * 2 * (34 * 12 * 8 + 5 * 2 * 12 * 12) / 2**30
    assert one.device_gib - four.device_gib == pytest.approx(kept * 3 / 4)


def test_v2_passes_its_samples_more_often():
    """The student, its copy, the teacher, the adversarial pass; each can be left out."""
    v1 = stages(understanding={"producer": "log-expert"})["sft3"].operations
    for settings, copies in (({}, 4), ({"fgm": 0}, 3), ({"fgm": 0, "r_drop": 0}, 2), ({"keywords": "none"}, 3)):
        found = stages(understanding={"producer": "log-expert"}, distill=settings)
        assert found["distill"].operations == pytest.approx(copies * v1)
    assert found["engine_v2"].samples == 100 and found["report"].samples == 120


def test_searches_write_five_codes_for_each_beam():
    found = stages()["engine"]
    assert found.tokens == 6 + 35
    each = 2 * READ * 6 + ATTENTION * 36 + 7 * (2 * WRITTEN * 5 + ATTENTION * 5 * (6 + 5))
    assert found.operations == pytest.approx(100 * each)


def test_layers_that_are_computed_again_keep_their_inputs_alone():
    plain = stages()["sft3"]
    less = stages(sft3={**SETTINGS["sft3"], "loop": {"recompute": True}})["sft3"]
    kept = 32 * 2 * (34 * 12 * 8 + 5 * 2 * 12 * 12 - 2 * 12 * 8)
    assert plain.device_gib - less.device_gib == pytest.approx(kept / 2**30)


@pytest.mark.parametrize(("kind", "weights", "layer"), [("gpt2", 2 * READ + 2400, READ), ("bart", None, 0)])
def test_parts_of_a_model_take_a_share_of_its_memory_beside_what_is_gathered(kind, weights, layer):
    """A decoder of two layers gathers one at a time, but all in distillation, as an encoder-decoder always does."""
    weights = weights or READ + 2 * WRITTEN + 300 * 8
    model = {**SETTINGS["model"], "backbone": {**BACKBONE, "kind": kind, "decoder_layers": 2}}
    less = {}
    for shard in (False, True):
        sft3 = {**SETTINGS["sft3"], "loop": {"shard": shard}}
        understood = {"understanding": {"producer": "log-expert"}, "distill": {"fgm": 0}}
        found = stages(4, model=model, sft3=sft3, **understood)
        less[shard] = {name: found[name].device_gib * 2**30 for name in ("sft3", "distill")}
    saved = {name: less[False][name] - less[True][name] for name in less[True]}
    assert saved["distill"] == pytest.approx(16 * weights * 3 / 4 - 8 * weights)
    # Of both layers autocast keeps a copy of two bytes a weight.
    assert saved["sft3"] == pytest.approx(16 * weights * 3 / 4 - 8 * (weights - layer) - 2 * 2 * layer)


def test_what_is_no_model_of_layers_has_no_operations():
    found = stages()
    for name in ("data", "encoder", "khqe", "index", "lexical", "baselines"):
        assert found[name].operations is None and found[name].device_gib is None
    aligned = stages(encoder={"transformer": "BAAI/bge-base-en-v1.5", "folds": 0, "align": {"epochs": 3}})["encoder"]
    assert aligned.samples == 3000
    text = 2 * 12 * (4 * 768**2 + 2 * 768 * 3072) * 32 + 2 * 12 * 768 * 32**2
    assert aligned.operations == pytest.approx(3000 * 2 * 3 * text + 1000 * text)


def test_pretrained_sizes_are_known_or_read_or_refused(tmp_path):
    known = stages(model={**SETTINGS["model"], "backbone": {"kind": "bart", "pretrained": "facebook/bart-base"}})
    sizes = KNOWN["facebook/bart-base"]
    plain = stages(model={**SETTINGS["model"], "text_vocabulary": sizes["vocabulary"], "backbone": {
        "kind": "bart", **{name: value for name, value in sizes.items() if name != "vocabulary"}}})  # fmt: skip
    assert known["sft1"].operations == plain["sft1"].operations
    own = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "vocab_size": 99}
    (tmp_path / "config.json").write_text(json.dumps(own))
    read = stages(model={**SETTINGS["model"], "backbone": {"kind": "gpt2", "pretrained": str(tmp_path)}})["sft1"]
    weights = 3 * (4 * 16**2 + 2 * 16 * 64)
    forward = 2 * (weights * 4 + (weights + 99 * 16) * 3) + 4 * 16 * 3 / 2 * (16 + 3 * 7)
    assert read.operations == pytest.approx(200 * 3 * forward)
    with pytest.raises(ValueError, match="sizes of 'no/such-model' are not known"):
        stages(model={**SETTINGS["model"], "backbone": {"kind": "bart", "pretrained": "no/such-model"}})


def test_hours_of_a_machine():
    assert Machine(8, 1e15, 0.25).hours(7.2e18) == pytest.approx(1)


def test_the_command_counts_for_a_machine(tmp_path):
    path = tmp_path / "new.yaml"
    path.write_text(json.dumps(SETTINGS))
    done = CliRunner().invoke(app, ["plan", str(path), "--tflops", "2", "--gpus", "4", "--share", "0.5", "--json"])
    told = json.loads(done.stdout)
    assert told["machine"] == {"devices": 4, "peak": 2e12, "share": 0.5} and told["page_views"] == 1000
    (sft3,) = [one for one in told["stages"] if one["stage"] == "sft3"]
    assert sft3["hours"] == pytest.approx(sft3["operations"] / 4e12 / 3600)
    shown = CliRunner().invoke(app, ["plan", str(path), "--tflops", "2"])
    assert "1 GPUs of 2 TFLOP/s, 30% of them reached" in shown.output.replace("\n", " ") and "khqe" in shown.output
    both = CliRunner().invoke(app, ["plan", str(path), "--tflops", "2", "--like", str(tmp_path)])
    assert both.exit_code == 2 and "without --like" in both.output
    refused = CliRunner().invoke(app, ["plan", str(path)])
    assert refused.exit_code == 2 and "--tflops" in refused.output
