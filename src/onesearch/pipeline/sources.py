"""Outside data as a run's dataset."""

from pathlib import Path
from typing import Any

from onesearch.data.artefact import fingerprint
from onesearch.data.dataset import Dataset
from onesearch.pipeline.settings import DataSection


def import_source(data: DataSection, folder: Path) -> Dataset:
    """Import the mapping's or KuaiSearch's files into ``folder``."""
    raise NotImplementedError


def source_fingerprint(data: DataSection) -> Any:
    """What tells whether files outside the run changed: names, sizes and times of modification."""
    return fingerprint(str(data.folder))
