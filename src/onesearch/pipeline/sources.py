"""Outside data as a run's dataset."""

import hashlib
from pathlib import Path
from typing import Any

from onesearch.data.artefact import read_json
from onesearch.data.dataset import DESCRIPTION, Dataset
from onesearch.data.importing import import_mapping
from onesearch.data.mapping import load_mapping
from onesearch.data.sources.kuaisearch import import_kuaisearch
from onesearch.pipeline.settings import DataSection


def import_source(data: DataSection, folder: Path) -> Dataset:
    """Import the files of the mapping, or those in the KuaiSearch schema, into ``folder``.

    Raises:
        FileNotFoundError, ValueError: a file or column is missing; the message says what and where.
    """
    if data.mapping is not None:
        import_mapping(load_mapping(data.mapping, data.root), folder)
    elif data.kuaisearch is not None:
        import_kuaisearch(data.kuaisearch, folder)
    else:
        raise ValueError("the data section names no files to import")
    return Dataset.load(folder)


def source_fingerprint(data: DataSection) -> Any:
    """What tells whether the files outside the run changed: their names and digests.

    Not their times: a copy or a fresh mount of the same files must not train everything anew.
    """
    if data.folder is not None:
        return read_json(data.folder / DESCRIPTION)["fingerprint"] if (data.folder / DESCRIPTION).is_file() else None
    if data.mapping is not None:
        folder = Path(load_mapping(data.mapping, data.root).folder)
        return [data.mapping.read_text(encoding="utf-8"), _listing(folder)]
    return _listing(data.kuaisearch) if data.kuaisearch is not None else None


def _listing(folder: Path) -> list[list[Any]]:
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return [[path.name, _digest(path)] for path in files]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
