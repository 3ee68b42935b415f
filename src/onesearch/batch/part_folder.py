"""The folder that a table's new parts go to: ``started.json`` says of what work, ``manifest.json`` that it is complete.

A part is written beside its place and takes its name when it is whole: a name that is there is a part that is done.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from onesearch.batch.table_parts import Part
from onesearch.common.artefact import MANIFEST, read_json, refuse_links, write_json, write_manifest

STARTED: Final = "started.json"
_UNFINISHED: Final = ".part-*.tmp"
_OWN: Final = (STARTED, MANIFEST, ".lock")


def part_path(folder: Path, part: Part) -> Path:
    """Where a part's output lies."""
    return folder / f"{part.name}.parquet"


def write_part(folder: Path, part: Part, table: pa.Table) -> None:
    """Write a part's output, whole or not at all, also when the machine fails."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{part.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file, compression="zstd", compression_level=1)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files that only their owner can read
        Path(name).replace(part_path(folder, part))
    finally:
        Path(name).unlink(missing_ok=True)


def content_of(files: Sequence[Path]) -> dict[str, list[Any]]:
    """Size and digest of each file by name. All bytes count: a vector may change where no size or footer does."""
    out = {}
    for path in files:
        with path.open("rb") as file:
            out[path.name] = [path.stat().st_size, hashlib.file_digest(file, "blake2b").hexdigest()[:32]]
    return out


def begin(folder: Path, work: Mapping[str, Any]) -> None:
    """Make the folder ready for parts of some ``work``, new or to go on with; what was half-written goes.

    Raises:
        ValueError: it holds parts of other work, or other files; the message says what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    path = folder / STARTED
    if path.is_file():
        if differing := _differences(read_json(path), work):
            raise ValueError(
                f"{folder} holds parts of other work, which differs in {', '.join(differing)}; name another folder, or"
                " remove this one"
            )
    elif strange := sorted(one.name for one in folder.iterdir() if one.name not in _OWN):
        raise ValueError(f"{folder} holds other files ({', '.join(strange[:3])}): name a new or empty folder")
    for half in folder.glob(_UNFINISHED):
        half.unlink(missing_ok=True)
    write_json(path, dict(work))


def missing_parts(folder: Path, parts: Sequence[Part]) -> list[Part]:
    """Those that have no readable output yet."""
    return [part for part in parts if not _readable(part_path(folder, part))]


def finish(folder: Path, work: Mapping[str, Any], parts: Sequence[Part]) -> None:
    """Mark the folder complete: everything is on disk before the mark is."""
    names = {part_path(folder, part).name: part.rows for part in parts}
    write_manifest(folder, {"work": dict(work), "parts": names})


def unfinished(folder: Path) -> None:
    """Take the mark away before a part is done again."""
    (folder / MANIFEST).unlink(missing_ok=True)


def _readable(path: Path) -> bool:
    """Whether there is a Parquet file with its footer, which is written last."""
    try:
        pq.read_metadata(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return True


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], of: str = "") -> list[str]:
    """Names of the values that differ, those of inner ones behind the name of the outer one."""
    found = []
    for key in sorted({*before, *now}):
        then, value = before.get(key), now.get(key)
        if isinstance(then, dict) and isinstance(value, dict):
            found += _differences(then, value, f"{of}{key}: ")
        elif then != value:
            found.append(f"{of}{key}")
    return found
