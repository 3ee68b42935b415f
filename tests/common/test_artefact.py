import json
import os
import stat
from pathlib import Path

import pytest

from onesearch.common.artefact import (
    fingerprint,
    inside,
    read_json,
    read_manifest,
    refuse_links,
    write_json,
    write_manifest,
)


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
    assert steps == [False, True], "the content before the name is there, the name in its folder after"


def test_all_of_a_folder_is_on_disk_before_its_mark(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    paths = [tmp_path / "deep" / "weights", tmp_path / "table", tmp_path / "deep", tmp_path]
    for path in paths[:2]:
        path.write_text("x")
    synced = []

    def fsync(handle):
        assert not (tmp_path / "manifest.json").exists() or os.fstat(handle).st_ino == tmp_path.stat().st_ino
        synced.append(os.fstat(handle).st_ino)

    monkeypatch.setattr("os.fsync", fsync)
    write_manifest(tmp_path, {})
    assert {path.stat().st_ino for path in paths} <= set(synced[:-2])


def test_a_folder_with_links_is_refused_and_one_behind_a_link_is_not(tmp_path):
    run = tmp_path / "run"
    (run / "a" / "b").mkdir(parents=True)
    (run / "a" / "b" / "file").write_text("x")
    (tmp_path / "short").symlink_to(run)
    refuse_links(run)
    refuse_links(tmp_path / "short")
    refuse_links(tmp_path / "nothing")
    for at, target in enumerate((tmp_path, "file", "/dev/zero", "nowhere")):
        link = run / "a" / "b" / f"link{at}"
        link.symlink_to(target)
        with pytest.raises(ValueError, match=f"link{at} is a link"):
            refuse_links(run)
        link.unlink()


@pytest.mark.parametrize("name", ["../other", "/etc", "a/../../b", "..", "", "a\0b"])
def test_names_in_a_folders_files_do_not_lead_out_of_it(tmp_path, name):
    with pytest.raises(ValueError, match="folder of its own"):
        inside(tmp_path, name)
    assert inside(tmp_path, "versions/0001") == tmp_path / "versions" / "0001"


@pytest.mark.parametrize(("mode", "after"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_files_of_their_owner_alone_are_read_by_whom_their_folder_is(tmp_path: Path, mode: int, after: int):
    folder = tmp_path / "stage"
    (folder / "generator").mkdir(parents=True)
    file = folder / "generator" / "model.safetensors"
    file.write_bytes(b"x")
    file.chmod(0o600)
    (folder / "script").touch(mode=0o755)
    folder.chmod(mode)
    write_manifest(folder, {})
    assert stat.S_IMODE(file.stat().st_mode) == after
    assert stat.S_IMODE((folder / "script").stat().st_mode) == 0o755 & ~0o022 | 0o055, "what is there stays"


def test_tensors_that_may_not_be_read_are_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sft3").mkdir()
    (tmp_path / "sft3" / "model.safetensors").touch()
    refuse_links(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("model.safetensors"))
    with pytest.raises(PermissionError, match=r"sft3/model\.safetensors may not be read by this user: `chmod -R a\+rX"):
        refuse_links(tmp_path)
