"""Every training of a run in the arithmetic that this machine would not choose; the other tests take what it does."""

from pathlib import Path

import pytest

from onesearch.pipeline import run_config
from onesearch.search.engine import SearchEngine
from onesearch.training import precision

SETS = ("dpo.steps=3", "dpo.batch_size=16", "grpo.steps=3", "grpo.prompts=8", "grpo.rollouts=4", "grpo.kl=0.1")
TRAINED = ("sft1", "sft2", "sft3", "cot", "distill", "dpo", "grpo")


@pytest.mark.long
def test_all_stages_train_on_the_other_kind_of_machine(tiny_config: Path, tmp_path: Path, monkeypatch):
    native = precision.has_native_bf16()
    monkeypatch.setattr(precision, "has_native_bf16", lambda: not native)
    results = run_config(tiny_config, tmp_path / "run", SETS, until="engine_v2")
    used = {result.name: result.metrics["precision"] for result in results if result.name in TRAINED}
    assert used == dict.fromkeys(TRAINED, "no" if native else "bf16")
    assert len(SearchEngine.load(tmp_path / "run").search("boots")) > 0
