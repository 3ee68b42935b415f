"""Preference alignment of the tiny run: rewards, listwise DPO, GRPO, and that a fall is never kept."""

import json
from pathlib import Path

import pytest
import torch

from onesearch.common.artefact import read_json
from onesearch.model.generator import Generator
from onesearch.pipeline import run_config
from onesearch.pipeline.preference_stages import rewards_of
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stages import settings_of
from onesearch.search.engine import SearchEngine

LOOP = ("validate_steps=3", "checkpoint_steps=2", "log_steps=2")
SETS = (
    "dpo.steps=5",
    "dpo.batch_size=32",
    "grpo.steps=6",
    "grpo.prompts=16",
    "grpo.rollouts=4",
    "grpo.kl=0.1",
    *(f"{stage}.loop.{one}" for stage in ("dpo", "grpo") for one in LOOP),
)


@pytest.fixture(scope="module")
def aligned(tiny_run: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligned") / "run"
    results = run_config(tiny_config, folder, SETS, reuse=(tiny_run,), until="engine_v2")
    built = [result.name for result in results if result.outcome == "built"]
    assert built == ["dpo", "rewards", "grpo", "engine_v2"]
    return folder


def test_alignment_goes_on_from_stage_3_and_serves(aligned):
    assert read_json(aligned / "engine_v2" / "engine.json")["model"] == "grpo"
    assert len(SearchEngine.load(aligned).search("boots")) > 0
    for stage, terms in (
        ("dpo", ("preference", "nll", "accuracy")),
        (
            "grpo",
            (
                "policy",
                "sft",
                "kl",
                "hit",
                "reward_behaviour",
                "reward_click_rate",
                "reward_relevance",
                "gate_2",
                "advantage_1",
                "entropy_1",
            ),
        ),
    ):
        log = [json.loads(line) for line in (aligned / stage / "log.jsonl").read_text().splitlines()]
        logged = {key.split("/")[-1] for line in log for key in line}
        assert set(terms) <= logged and {"hr10", "mrr10"} <= logged
        assert log[0]["step"] == 0  # the weights before the first step were validated


def test_rewards_are_measured(aligned):
    figures = read_json(aligned / "rewards" / "rewards.json")
    assert figures["impressions"] > 1000 and 0 <= figures["calibration_error"] < 0.2
    assert figures["relevance_accuracy"] > figures["relevance_majority"]
    assert (aligned / "rewards" / "reliability.png").stat().st_size > 2000
    run_data = RunData(aligned)
    queries = run_data.split.train["query"].unique().to_list()
    rewards, number = rewards_of(run_data, settings_of(aligned).rewards, queries)
    judged = run_data.training_judgments.row(0, named=True)
    if judged["query"] in number:
        query, item = number[judged["query"]], run_data.dataset.item_rows[judged["item_id"]]
        assert rewards.levels(torch.tensor([query]).numpy(), torch.tensor([item]).numpy()) == [judged["level"]]


def test_weights_of_the_rewards_can_change_between_rounds(aligned, tiny_config, tmp_path):
    path, folder = tmp_path / "rewards.yaml", tmp_path / "run"
    seller = RunData(aligned).dataset.items["seller"].drop_nulls()[0]
    path.write_text(f"boosts: [{{name: emerging, column: seller, values: ['{seller}'], times: 2}}]\n")
    sets = (*SETS, f"rewards_file={path}")
    changed = run_config(tiny_config, folder, sets, reuse=(aligned,), until="grpo")
    assert [result.name for result in changed if result.outcome == "built"] == ["engine", "grpo"]
    assert SearchEngine.load(folder, model="v1").snapshot.boosts[0].values == (seller,)
    path.write_text("relevance: 2\n")
    again = run_config(tiny_config, folder, sets, until="grpo")
    assert [result.name for result in again if result.outcome == "built"] == ["engine", "grpo"]
    assert SearchEngine.load(folder, model="v1").snapshot.boosts == ()
    path.write_text("relevence: 2\n")
    with pytest.raises(ValueError, match="relevance"):
        run_config(tiny_config, folder, sets, until="grpo")


def test_a_fall_is_never_kept(aligned, tiny_config, tmp_path, monkeypatch):
    falls = iter(range(100, 0, -1))
    figures = lambda _: {"hr10": float(next(falls)), "mrr10": 0.0}  # noqa: E731
    monkeypatch.setattr("onesearch.pipeline.preference_stages.validator", lambda *_, **__: figures)
    folder = tmp_path / "run"
    sets = (*SETS, "grpo.steps=30", "grpo.loop.learning_rate=0.1", "grpo.patience=2")
    run_config(tiny_config, folder, sets, reuse=(aligned,), until="grpo")
    manifest = read_json(folder / "grpo" / "manifest.json")["metrics"]
    assert manifest["chosen_step"] == 0 and manifest["steps"] == 6
    before, after = (Generator.load(folder / stage / "generator") for stage in ("dpo", "grpo"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_alignment_needs_v2(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="align V2"):
        run_config(tiny_config, tmp_path / "run", ("grpo.steps=1", "understanding.producer=none"))
