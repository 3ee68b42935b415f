"""Which settings each stage reads, which weights it starts from, and what a changed setting makes outdated."""

import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from onesearch.common.settings import Settings
from onesearch.pipeline import training_stages
from onesearch.pipeline.config_files import settings_model
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stage_runner import StageContext, fingerprints
from onesearch.pipeline.stages import stage_3_settings, stages_of

CONFIG = RunSettings.model_validate(
    {
        "data": {"market": {"items": 400, "pictures": 2}},
        "pictures": {"model": "weights.pth"},
        "understanding": {"producer": "market"},
        "dpo": {"steps": 5},
        "grpo": {"steps": 5},
        "search": {"width": 16},
        "pseudo": {"searches": 9},
        "final": {},
    }
)
# What changes where the results lie, how they are made or shown, or how the run is named; but not what they are.
NOT_READ = {
    "name",
    "data.kuaisearch",
    "data.mapping",
    "data.folder",
    "rewards_file",
    "pictures.seconds",
    "pictures.private_hosts",
    "pictures.cache",
    "pictures.threads",
    "understanding.base_url",
    "understanding.response_format",
    "understanding.concurrency",
    "understanding.cache",
}
# By the longest prefix of a key: the stages that read it.
READ = {
    "data": {"data"},
    "pictures": {"pictures"},
    "lexicon": {"khqe"},
    "encoder": {"encoder"},
    "encoder.align.temperature": {"encoder", "sft1"},
    "encoder.align.nested": {"encoder", "index"},
    "khqe": {"khqe"},
    "model": {"sft1"},
    "model.row_dim": {"index", "sft1"},
    "model.row_precision": {"index", "sft1"},
    "model.text_vocabulary": {"index", "sft1"},
    "model.backbone.pretrained": {"index", "sft1"},
    "sft1": {"sft1"},
    "sft2": {"sft2"},
    "sft3": {"sft3", "distill", "dpo", "grpo", "final"},
    "sft3.held_out_vectors": {"sft1", "sft2", "sft3", "cot", "distill", "dpo", "grpo", "final"},
    "understanding": {"understanding"},
    "cot": {"cot", "distill", "final"},
    "distill": {"distill", "final"},
    "distill.teach": {"cot", "distill", "final"},
    "distill.shuffle": {"cot", "distill", "final"},
    "distill.keywords": {"distill", "engine_v2", "final"},
    "rewards": {"grpo"},
    "rewards.boosts": {"grpo", "engine", "engine_v2"},
    "dpo": {"dpo"},
    "grpo": {"grpo"},
    "pseudo": {"pseudo"},
    "search": {"pseudo", "engine", "engine_v2"},
    "search.relevance": {"baselines", "pseudo", "engine", "engine_v2"},
    "search.width": {"pseudo", "sft3", "distill", "dpo", "grpo", "engine", "engine_v2"},
    "evaluation.measures": {"report"},
    "evaluation.test_requests": {"report"},
    "evaluation.fit_requests": {"pseudo", "engine", "engine_v2"},
    "evaluation.cascade": {"baselines"},
    "evaluation.baselines": {"baselines"},
    "final": {"final"},
    "training_seed": {"sft1", "sft2", "sft3", "engine", "cot", "distill", "dpo", "grpo", "engine_v2", "final"},
    "seed": {"data"},
}


def leaves(model: type[Settings], values: Settings | None, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a settings model with its value and type, sections walked through."""
    for name in model.model_fields:
        value = getattr(values, name) if values is not None else None
        inner = settings_model(model.model_fields[name].annotation)
        if inner is not None:
            yield from leaves(inner, value, f"{above}{name}.")
        else:
            yield above + name, (value, model.model_fields[name].annotation)


def others(value: Any, annotation: Any) -> Iterator[Any]:
    """Values near a value, and values of many kinds: one of them is valid where it stands."""
    yield from (choice for part in (annotation, *get_args(annotation)) for choice in get_args(part))
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (value + 1, value - 1, value / 2, value * 2, value * 0.9 + 0.05)
    elif isinstance(value, tuple):
        yield from (value[:-1], (*value, "brand"), (*value, 8))
        if value and isinstance(value[0], float):
            yield tuple(number * 0.5 for number in value)
    yield from ({"query_to_sid": 0.5}, ["another"], "another", "2025-02-03T00:00:00", 500, 1, BOOSTS)


BOOSTS = [{"name": "new", "column": "brand", "values": ["x"], "times": 2}]


def changed(config: RunSettings, key: str, value: Any, annotation: Any) -> RunSettings | None:
    """``config`` with another valid value at ``key``, if one is found."""
    for other in others(value, annotation):
        values = config.model_dump()
        place = values
        for part in key.split(".")[:-1]:
            place = place[part]
        place[key.split(".")[-1]] = other
        try:
            found = RunSettings.model_validate(values)
        except (ValidationError, TypeError):
            continue
        if found != config and found.model_dump() != config.model_dump():
            return found
    return None


def dependants(stages: set[str]) -> set[str]:
    """The stages and all that read what they make."""
    found = set(stages)
    for stage in stages_of(CONFIG):
        if found & set(stage.inputs):
            found.add(stage.name)
    return found


@functools.cache
def marks() -> dict[str, str]:
    return fingerprints(stages_of(CONFIG), CONFIG.seed)


def outdated(config: RunSettings, before: RunSettings = CONFIG) -> set[str]:
    now = fingerprints(stages_of(config), config.seed)
    known = marks() if before is CONFIG else fingerprints(stages_of(before), before.seed)
    return {name for name, mark in known.items() if now.get(name) != mark}


KEYS = dict(leaves(RunSettings, CONFIG))
WITHOUT_PICTURES = CONFIG.updated(data={"market": CONFIG.data.market.model_dump() | {"pictures": 0}})


@pytest.mark.parametrize(
    "key", [key for key in KEYS if key not in NOT_READ and not key.endswith((".recompute", ".shard"))]
)
def test_a_changed_setting_makes_exactly_the_stages_that_read_it_outdated(key: str):
    # A market draws pictures of products alone.
    before = WITHOUT_PICTURES if key in ("data.market.videos", "data.market.live_rooms") else CONFIG
    other = changed(before, key, *KEYS[key])
    assert other is not None, f"no other valid value of {key} is known to this test"
    prefix = max((one for one in READ if f"{key}.".startswith(f"{one}.")), key=len)
    assert outdated(other, before) == dependants(READ[prefix])


def test_how_and_where_a_run_works_makes_nothing_outdated(tmp_path: Path):
    rewards = tmp_path / "rewards.yaml"
    rewards.write_text("relevance: 1\n")
    plain = {"base_url": "http://there/v1", "concurrency": 3, "cache": tmp_path / "thoughts"}
    other = CONFIG.updated(name="another", understanding={**CONFIG.understanding.model_dump(), **plain})
    assert outdated(other) == set()
    ways = {"seconds": 1.0, "private_hosts": ("img.shop.example",), "cache": tmp_path, "threads": 2}
    assert outdated(CONFIG.updated(pictures=CONFIG.pictures.updated(**ways))) == set()
    memory = {**CONFIG.sft1.model_dump(), "loop": {**CONFIG.sft1.loop.model_dump(), "recompute": True, "shard": True}}
    assert outdated(CONFIG.updated(sft1=memory)) == set()
    default = CONFIG.rewards.relevance
    rewards.write_text(f"relevance: {default}\n")
    assert outdated(CONFIG.updated(rewards_file=rewards)) == set()
    rewards.write_text(f"relevance: {default + 1}\n")
    assert outdated(CONFIG.updated(rewards_file=rewards)) == dependants({"grpo"})


def test_pictures_are_a_stage_of_their_own_which_towers_alone_read():
    """Without a section nothing is as much as marked otherwise, so that runs of before stay what they are."""
    plain = CONFIG.updated(pictures=None, data={"market": {"items": 400}})
    found = fingerprints(stages_of(plain), plain.seed)
    assert "pictures" not in found and not {"encoding", "pictures"} & set(CONFIG.encoder.marking())
    assert not {"pictures", "picture_only"} & set(plain.data.marking()["market"])
    with_stage = fingerprints(stages_of(plain.updated(pictures=True)), plain.seed)
    assert found == {name: mark for name, mark in with_stage.items() if name != "pictures"}
    for encoding in ("unified", "concat"):
        config = CONFIG.updated(encoder={"encoding": encoding})
        stages = {stage.name: stage for stage in stages_of(config)}
        assert "pictures" in stages["encoder"].inputs and not stages["pictures"].distributed
        assert stages["index"].settings["leading"] is (encoding == "unified")
        with pytest.raises(ValidationError, match=f"encoding {encoding} needs pictures"):
            plain.updated(encoder={"encoding": encoding})
        assert outdated(config) == dependants({"encoder"})


def test_a_file_of_rules_gives_the_rewards_its_boosts_and_the_run_all_else(tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "boosts:\n- {name: a, column: seller, values: [x], times: 2}\n"
        "- {name: b, column: seller, values: [x], times: 3, when: {query: tent}}\n"
        "- {name: c, column: seller, values: [x], times: 4, when: {end: 2020-01-01T00:00:00Z}}\n"
        "pins: [{name: d, items: [i]}]\nclick: 2.5\n"
    )
    config = CONFIG.updated(rewards_file=rules, rewards={"order": 5.0, "boosts": [], "click": 1.0})
    found = config.rewards_now()
    assert [boost.name for boost in found.boosts] == ["a"] and (found.order, found.click) == (5.0, 2.5)
    assert config.boosts_now() == found.boosts and CONFIG.rewards_now() == CONFIG.rewards
    rules.write_text("pins: [{name: d}]\n")
    with pytest.raises(ValueError, match=r"rules.yaml: pins\.0\.items"):
        config.rewards_now()


@pytest.mark.parametrize("producer", ["none", "market"])
def test_the_settings_of_a_stage_are_the_arguments_of_its_build(producer: str):
    """So a build cannot read what its stage did not declare, and nothing declared goes unread."""
    steps = {} if producer == "market" else {"dpo": {}, "grpo": {}}
    config = CONFIG.updated(understanding={"producer": producer}, **steps)
    for stage in stages_of(config):
        wanted = set(inspect.signature(stage.build).parameters) - {"run_data", "context"}
        optional = {"distill", "cot", "reads", "pseudo"}  # of V2 alone, or of runs that write searches
        optional |= {"calibrate", "max_calls", "encoder"}  # where they are set
        given = {*stage.settings, *stage.unmarked}
        assert given <= wanted and wanted - given <= optional, stage.name
        assert not any(isinstance(value, RunSettings) for value in stage.settings.values())


def test_each_training_stage_starts_from_the_weights_of_the_one_before():
    stages = {stage.name: stage for stage in stages_of(CONFIG)}
    before = {name: stage.settings["before"] for name, stage in stages.items() if "before" in stage.settings}
    assert before == {
        "sft2": "sft1",
        "pseudo": "sft2",
        "sft3": "sft2",
        "engine": "sft3",
        "cot": "sft2",
        "distill": "cot",
        "dpo": "distill",
        "grpo": "dpo",
        "engine_v2": "grpo",
        "final": "grpo",
    }
    assert all(start in stages[name].inputs for name, start in before.items())
    shorter = {stage.name: stage for stage in stages_of(CONFIG.updated(dpo={}, grpo={}))}
    assert shorter["engine_v2"].settings["before"] == "distill" and not {"dpo", "rewards", "grpo"} & set(shorter)


def test_several_processes_build_the_training_stages_together_and_one_the_others():
    together = {stage.name for stage in stages_of(CONFIG) if stage.distributed}
    assert together == {"sft1", "sft2", "sft3", "cot", "distill", "dpo", "grpo", "final"}


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_keeps_the_weights_for_all(first, tmp_path, monkeypatch):
    class Weights:
        def save(self, folder):
            folder.mkdir()

    monkeypatch.setattr(training_stages, "is_first", lambda: first)
    training_stages.keep(Weights(), StageContext("sft1", tmp_path, {}))
    assert (tmp_path / "generator").is_dir() is first


def test_without_a_weight_boosts_are_no_matter_of_engines():
    off = CONFIG.updated(search={"boost": 0})
    engines = [stage for stage in stages_of(off.updated(rewards={"boosts": BOOSTS})) if "engine" in stage.name]
    assert [stage.settings["boosts"] for stage in engines] == [(), ()]


@pytest.mark.parametrize("producer", ["none", "market"])
def test_the_final_stage_is_the_last_one_and_changes_no_other(producer: str):
    steps = {} if producer == "market" else {"dpo": {}, "grpo": {}}
    config = CONFIG.updated(understanding={"producer": producer}, **steps)
    stages, without = stages_of(config), stages_of(config.updated(final=False))
    assert stages[-1].name == "final" and stages[-2].name == without[-1].name == "report"
    assert not any("final" in stage.inputs for stage in stages)
    found = fingerprints(stages, config.seed)
    del found["final"]
    assert found == fingerprints(without, config.seed)
    newest = "engine" if producer == "none" else "engine_v2"
    assert stages[-1].settings["engine"] == newest and newest in stages[-1].inputs


def test_final_is_true_false_or_settings():
    for given, epochs in ((True, 1.0), (False, None), (None, None), ({"epochs": 2}, 2.0)):
        final = CONFIG.updated(final=given).final
        assert (None if final is None else final.epochs) == epochs
    with pytest.raises(ValidationError, match="epochs"):
        CONFIG.updated(final={"epoch": 2})


def test_a_training_seed_is_that_of_the_generators_training_alone():
    stages = stages_of(CONFIG.updated(seed=3, training_seed=8))
    own = {stage.name for stage in stages if stage.seed_in(3) == 8}
    assert own == READ["training_seed"]
    assert {stage.seed_in(3) for stage in stages} == {3, 8}
    # What is drawn with the run's seed stays the same: page views that validate, and those the weights are fitted on.
    assert {stage.settings["run_seed"] for stage in stages if "run_seed" in stage.settings} == {3}


def test_the_markets_stand_in_thinks_of_a_market_alone():
    with pytest.raises(ValidationError, match=r"producer: market is the stand-in.*log-expert"):
        RunSettings.model_validate({"data": {"folder": "shop"}, "understanding": {"producer": "market"}})
    assert RunSettings.model_validate({"data": {"folder": "shop"}, "understanding": {"producer": "log-expert"}}).has_v2


@pytest.mark.parametrize(("width", "validated"), [(8, 8), (32, 32), (512, 32)])
def test_training_is_validated_with_no_more_beams_than_the_engine_has(width, validated):
    config = CONFIG.model_copy(update={"search": CONFIG.search.updated(width=width)})
    assert stage_3_settings(config)["validation_width"] == validated
