"""Runs that another version of onesearch made."""

from importlib.metadata import version

import pytest

from onesearch.common.artefact import write_manifest
from onesearch.search.engine import load_engine
from onesearch.search.run_parts import need
from onesearch.search.run_versions import SCHEMA, STAGE_VERSIONS, other_version, readable

HERE = version("onesearch")


def made(run, stage, by=HERE, number=None, **more):
    manifest = {"fingerprint": stage, "inputs": {}, "versions": {"onesearch": by}, **more}
    write_manifest(run / stage, {**manifest, "version": STAGE_VERSIONS[stage] if number is None else number})


def test_a_run_of_this_version_is_not_another_ones(tmp_path):
    made(tmp_path, "data", schema=SCHEMA)
    made(tmp_path, "engine")
    assert other_version(tmp_path) == "" and need(tmp_path, "data") == tmp_path / "data"
    assert need(tmp_path, "engine") == tmp_path / "engine", "as manifests were before they named a schema"


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, "2", None, []])
def test_a_run_of_another_schema_is_refused_by_both_versions(tmp_path, schema):
    made(tmp_path, "data", by="9.8.7", schema=schema)
    words = (
        rf"data was made by onesearch 9\.8\.7 .*this is {HERE} \(schema {SCHEMA}\): make it again with `onesearch run"
    )
    with pytest.raises(ValueError, match=words):
        need(tmp_path, "data")


def test_stages_of_another_number_are_named_with_both(tmp_path):
    made(tmp_path, "data", by="0.0.9", number=2)
    made(tmp_path, "encoder", by="0.0.8")
    for by_name in (True, False):
        said = other_version(tmp_path, by_name)
        assert f"made by onesearch 0.0.8, 0.0.9, this is {HERE}, which makes data (2, now 3) otherwise" in said
        assert said.endswith(f"`onesearch run CONFIG --out {tmp_path}`, which keeps what did not change")


def test_another_name_alone_is_said_where_something_fails(tmp_path):
    made(tmp_path, "data", by="9.8.7")
    assert other_version(tmp_path, by_name=False) == ""
    assert f"was made by onesearch 9.8.7, this is {HERE}: make it again" in other_version(tmp_path)


@pytest.mark.parametrize(
    "manifest", ["[]", "[1]", "{", '{"versions": []}', '{"versions": {"onesearch": [1]}}', "[" * 9999]
)
def test_a_strangers_manifest_is_no_traceback(tmp_path, manifest):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text(manifest)
    assert "unknown version" in (said := other_version(tmp_path)) or said == ""


@pytest.mark.parametrize("error", [EOFError("nothing left"), TypeError("int"), MemoryError(), KeyError("size")])
def test_what_damaged_files_raise_is_a_sentence(tmp_path, error):
    damaged = f"cannot be read .{type(error).__name__}.*a file is damaged"
    with pytest.raises(ValueError, match=damaged), readable(tmp_path):
        raise error
    made(tmp_path, "engine", number=1)
    older = rf"{type(error).__name__}.*makes engine \(1, now \d+\) otherwise"
    with pytest.raises(ValueError, match=older), readable(tmp_path):
        raise error


def test_what_says_what_is_wrong_stays_and_gets_a_note(tmp_path):
    for plain in (FileNotFoundError("no folder"), RuntimeError("locked"), ValueError("wrong")):
        with pytest.raises(type(plain), match=str(plain)) as told, readable(tmp_path):
            raise plain
        assert not hasattr(told.value, "__notes__")
    made(tmp_path, "engine", number=1)
    for plain, notes in ((FileNotFoundError("no folder"), 0), (RuntimeError("shapes"), 1), (ValueError("a key"), 1)):
        with pytest.raises(type(plain), match=str(plain)) as told, readable(tmp_path):
            raise plain
        assert len(getattr(told.value, "__notes__", [])) == notes


def test_an_engine_whose_stages_are_made_otherwise_now_is_served_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("onesearch.search.engine.load_engines", lambda *given: ["engine"])
    made(tmp_path, "data", by="0.0.9")
    with caplog.at_level("WARNING"):
        assert load_engine(tmp_path) == "engine" and not caplog.text
        made(tmp_path, "engine", number=1)
        assert load_engine(tmp_path) == "engine"
    assert "makes engine (1, now" in caplog.text
