"""Settings and stages of runs that another version of onesearch made."""

from importlib.metadata import version

import pytest

from onesearch.common.artefact import write_json, write_manifest
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stages import settings_of, stages_of
from onesearch.search.run_versions import STAGE_VERSIONS


def test_settings_of_another_version_are_refused_by_key_and_version(tmp_path):
    write_manifest(tmp_path / "data", {"versions": {"onesearch": "9.8.7"}})
    write_json(tmp_path / "config.json", {"name": "x", "sft4": {}})
    with pytest.raises(ValueError, match=r"config\.json: .*unknown key 'sft4'") as told:
        settings_of(tmp_path)
    assert f"made by onesearch 9.8.7, this is {version('onesearch')}" in told.value.__notes__[0]


def test_every_stage_has_a_number():
    market = {"market": {"items": 400, "users": 120, "days": 20, "page_views": 1500}}
    parts = {
        "understanding": {"producer": "market"},
        "dpo": {"steps": 1},
        "grpo": {"steps": 1},
        "pseudo": {"searches": 9},
        "pictures": True,
    }
    settings = RunSettings.model_validate({"name": "x", "data": market, "final": True, **parts})
    assert {stage.name: stage.version for stage in stages_of(settings)} == STAGE_VERSIONS
