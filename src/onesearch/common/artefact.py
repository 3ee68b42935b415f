"""Artefact folders: files written atomically, and a ``manifest.json`` written last, whose presence means complete."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file beside it, on disk before it takes the name: a rename within a folder is atomic.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files that only their owner can read
        Path(name).replace(path)
        _on_disk(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: the file is missing; the message names the path.
        ValueError: the file is not JSON; the message names path, line and column.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error


def fingerprint(value: Any) -> str:
    """A short stable hash of a JSON-able value, for 'did the inputs of this stage change?'."""
    # One text for equal values, whatever the order of their keys; 64 bits of its hash.
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def refuse_links(folder: Path) -> None:
    """Look through a folder that a stranger may have packed: what it holds must lie in it.

    Raises:
        ValueError: a link, or something else that is neither a file nor a folder.
        PermissionError: a file of tensors that this user may not read.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                refuse_links(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                kind = "a link" if entry.is_symlink() else "no plain file"
                raise ValueError(
                    f"{entry.path} is {kind}, which a run's folder may not hold: put the file in its place"
                )
            elif entry.name.endswith(".safetensors") and not os.access(entry.path, os.R_OK):
                # Whoever opens it would be told that it is not there.
                raise PermissionError(
                    f"{entry.path} may not be read by this user: `chmod -R a+rX RUN` lets everybody read a run"
                )


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, where ``name`` was read from a file of the folder.

    Raises:
        ValueError: that leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        raise ValueError(f"{folder} names {name!r} as a folder of its own, and it is none")
    return folder / name


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Mark an artefact folder complete; call it after every other file is written.

    They are on disk before the mark is: a power cut leaves a folder unfinished, never one that only looks whole. Who
    may read the folder may read them, too: some libraries write files for their owner alone, whatever the umask.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*folder.rglob("*"), folder]:
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and (readers := folder.stat().st_mode & 0o044) & ~mode:
            path.chmod(stat.S_IMODE(mode) | readers)
        _on_disk(path)
    write_json(folder / MANIFEST, dict(manifest))


def _on_disk(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete artefact, or None when the folder is missing or unfinished."""
    path = folder / MANIFEST
    return dict(read_json(path)) if path.is_file() else None
