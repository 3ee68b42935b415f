"""Which queries are thought about, and in which order they are asked for."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from onesearch.pipeline import understanding_stage
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.understanding_stage import UnderstandingSettings, build_understanding


class _AskedError(Exception):
    """Ends the stage where it would ask."""


def test_the_most_searched_queries_are_asked_first(data: Path, tmp_path: Path, monkeypatch):
    def ask(queries, *_):
        raise _AskedError(list(queries))

    monkeypatch.setattr(understanding_stage, "run_understand", ask)
    monkeypatch.setattr(understanding_stage, "_producer", lambda *_: nullcontext())
    settings = UnderstandingSettings(producer="log-expert").model_dump(exclude={"calibrate", "max_calls", "encoder"})
    with pytest.raises(_AskedError) as caught:
        build_understanding(RunData(data), StageContext("understanding", tmp_path, {}), **settings)
    # Twenty times each, then ten times each.
    assert caught.value.args[0] == ["train 0", "train 1", "test", "valid"]
