"""Which engine of a run is served."""

import pytest

from onesearch.common.artefact import write_manifest
from onesearch.search.run_parts import choose_model


@pytest.fixture
def run(tmp_path):
    write_manifest(tmp_path / "index", {"fingerprint": "i1", "inputs": {}})
    write_manifest(tmp_path / "engine", {"fingerprint": "e1", "inputs": {"index": "i1"}})
    return tmp_path


def test_v2_is_served_where_there_is_one(run):
    assert choose_model(run) == "v1"
    write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {"index": "i1"}})
    assert choose_model(run) == choose_model(run, "v2") == "v2" and choose_model(run, "v1") == "v1"


def test_a_run_without_v2_says_what_makes_one(run):
    (run / "engine_v2").mkdir()  # begun, not finished
    assert choose_model(run) == "v1"
    with pytest.raises(FileNotFoundError, match=r"has no V2 engine.*understanding\.producer"):
        choose_model(run, "v2")


def test_a_v2_engine_of_an_earlier_index_is_not_served_unasked(run, caplog):
    write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {"index": "i0"}})
    with caplog.at_level("WARNING"):
        assert choose_model(run) == "v1"
    assert "another index" in caplog.text and choose_model(run, "v2") == "v2"
