"""Local pictures lie below one folder; nothing else is opened, whatever a path says."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from onesearch.encoding.pictures.local_pictures import LocalPictures
from onesearch.encoding.pictures.picture_refusal import PictureRefusedError

MOST = 100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "shoes").mkdir(parents=True)
    (folder / "shoes" / "1.png").write_bytes(b"shoe")
    (folder / "large").write_bytes(bytes(MOST + 1))
    (folder / "full").write_bytes(bytes(MOST))
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    (folder / "within").symlink_to(folder / "shoes")
    (folder / "circle").symlink_to(folder / "circle")
    os.mkfifo(folder / "pipe")
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("shoes/2.png", b"zipped")
        archive.writestr("large", bytes(1_000_000))
        archive.writestr("../secret", b"a member called so")
    with tarfile.open(folder / "b.tar", "w") as archive:
        for name, data in (("c/3.png", b"tarred"), ("large", bytes(MOST + 1))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (folder / "broken.zip").write_bytes(b"PK\3\4 and nothing")
    (folder / "packed.tar").write_bytes(b"\x1f\x8b" + bytes(50))
    (folder / "folder.zip").mkdir()
    (folder / "folder.zip" / "x").write_bytes(b"a folder of that name")
    return folder


def read(root: Path, name: str) -> bytes | str:
    try:
        return LocalPictures(root, MOST).read(name)
    except PictureRefusedError as refused:
        return refused.reason


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("shoes/1.png", b"shoe"),
        ("./shoes/./1.png", b"shoe"),
        ("within/1.png", b"shoe"),
        ("full", bytes(MOST)),
        ("a.zip/shoes/2.png", b"zipped"),
        ("b.tar/c/3.png", b"tarred"),
        ("folder.zip/x", b"a folder of that name"),
        ("", "path"),
        (".", "path"),
        ("../secret", "path"),
        ("shoes/../../secret", "path"),
        ("a.zip/../secret", "path"),
        ("/etc/passwd", "path"),
        ("out", "path"),
        ("up/secret", "path"),
        ("shoes", "path"),
        ("pipe", "path"),
        ("b.tar/link", "path"),
        ("shoes/1.png\0.png", "path"),
        ("x" * 5000, "path"),
        ("x" * 300, "missing"),
        ("circle", "missing"),
        ("shoes/2.png", "missing"),
        ("a.zip/none", "missing"),
        ("b.tar/none", "missing"),
        ("none.zip/none", "missing"),
        ("large", "bytes"),
        ("a.zip/large", "bytes"),
        ("b.tar/large", "bytes"),
        ("broken.zip/x", "broken"),
        ("packed.tar/x", "broken"),
    ],
)
def test_a_path_leads_to_a_file_below_the_folder_or_to_a_reason(root: Path, name: str, found: bytes | str):
    assert read(root, name) == found


def test_what_a_zip_says_of_a_size_is_not_relied_on(root: Path):
    """A member that unpacks to more than its header says."""
    path = root / "lies.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(5000))
    data = path.read_bytes()
    path.write_bytes(data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    assert read(root, "lies.zip/x") in ("bytes", "broken")


def test_a_tar_that_ends_too_early_is_broken(root: Path):
    data = (root / "b.tar").read_bytes()
    (root / "short.tar").write_bytes(data[: 512 + 3])
    assert read(root, "short.tar/c/3.png") == "broken"


def test_archives_are_opened_once(root: Path, monkeypatch: pytest.MonkeyPatch):
    opened, plain = [], zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: opened.append(path) or plain(path))
    pictures = LocalPictures(root, MOST)
    assert [pictures.read("a.zip/shoes/2.png") for _ in range(3)] == [b"zipped"] * 3 and len(opened) == 1
