import json

import pytest

from onesearch.common.artefact import fingerprint, read_json, read_manifest, write_json, write_manifest


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": [1, "é"], "a": None})
    assert path.read_text(encoding="utf-8") == '{\n  "a": null,\n  "b": [\n    1,\n    "é"\n  ]\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": 1, "b": object()})
    assert read_json(path) == {"b": [1, "é"], "a": None}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_errors_name_the_place(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON at line 2, column 6"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.json"):
        read_json(tmp_path / "b.json")


def test_a_folder_is_an_artefact_once_it_has_a_manifest(tmp_path):
    assert read_manifest(tmp_path / "none") is None
    (tmp_path / "weights").write_text("half")
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, {"seed": 1})
    assert read_manifest(tmp_path) == {"seed": 1} == json.loads((tmp_path / "manifest.json").read_text())


def test_the_fingerprint_is_that_of_the_content():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
    # As it stands in the manifests of runs: another one would build every stage of them again.
    assert fingerprint({"a": 1, "b": [2, "é"]}) == "992f8d0a5d6192a6"


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """A power cut may otherwise leave the name with an empty file."""
    steps = []
    monkeypatch.setattr("os.fsync", lambda _: steps.append((tmp_path / "a.json").exists()))
    write_json(tmp_path / "a.json", {"a": 1})
    assert steps == [False]
