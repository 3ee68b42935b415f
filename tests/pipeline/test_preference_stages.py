"""What alignment asks of the data of a run."""

from types import SimpleNamespace

import pytest

from onesearch.pipeline import preference_stages
from onesearch.pipeline.preference_stages import run_dpo, run_grpo


class AskedError(Exception):
    pass


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (run_dpo, [SimpleNamespace(steps=5, batch_size=8)]),
        (run_grpo, [SimpleNamespace(steps=10, prompts=4), None]),
    ],
)
def test_evidence_is_found_for_the_page_views_that_a_short_alignment_draws(monkeypatch, run, settings):
    """40 of 200."""
    asked = []

    def training_columns(page_views, prompt, held_out, drawn):
        asked.append((len(page_views), prompt, held_out, drawn))
        raise AskedError

    monkeypatch.setattr(preference_stages, "searches", lambda *given: (range(200), None, None))
    generator = SimpleNamespace(config=SimpleNamespace(prompt="prompt"))
    run_data = SimpleNamespace(generator=lambda before: generator, training_columns=training_columns)
    with pytest.raises(AskedError):
        run(run_data, None, "sft3", *settings, SimpleNamespace(held_out_vectors=True), 4, 0)
    assert asked == [(200, "prompt", True, 0.2)]
