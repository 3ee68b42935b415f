"""A log small enough to know by heart, in which every leak between its parts would show."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from onesearch.common.artefact import write_manifest
from onesearch.data.dataset import Dataset
from onesearch.data.records import ITEMS, JUDGMENTS, PAGE_VIEWS, USERS
from onesearch.pipeline.preparation_stages import build_data
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import DataSettings
from onesearch.pipeline.stage_runner import StageContext

START = datetime(2025, 1, 1, tzinfo=UTC)
N_ITEMS, TRAIN, VALID, TEST = 12, 40, 10, 10


def page_view(number: int, query: str, clicked: list[int], user: int = 0, shown: list[int] | None = None) -> dict:
    """A page view in the hour of its number; items are given by number."""
    return {
        "page_view_id": f"p{number}",
        "user_id": f"u{user}",
        "time": START + timedelta(hours=number),
        "query": query,
        "shown": [f"i{item}" for item in (shown if shown is not None else clicked)],
        "clicked": [f"i{item}" for item in clicked],
        "ordered": [],
    }


def log() -> pl.DataFrame:
    """40 page views to train on, 10 to choose by, 10 to measure; each part has queries and items of its own.

    Training shows items 0 to 3 and clicks one of four shown; validation shows the same and clicks all; the test part
    shows them, and clicks item 11, which nobody clicked before.
    """
    rows = [page_view(n, f"train {n % 2}", [n % 4], n % 3, [0, 1, 2, 3]) for n in range(TRAIN)]
    rows += [page_view(TRAIN + n, "valid", [0, 1, 2, 3], n % 3) for n in range(VALID)]
    rows += [page_view(TRAIN + VALID + n, "test", [11], n % 3, [0, 1, 2, 3, 11]) for n in range(TEST)]
    return pl.DataFrame(rows, PAGE_VIEWS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its first stage."""
    folder = tmp_path_factory.mktemp("run")
    items: list[dict[str, Any]] = [
        {"item_id": f"i{n}", "title": f"thing {n}", "brand": "acme", "category": ["things", f"kind {n % 2}"]}
        for n in range(N_ITEMS)
    ]
    judged = [
        {"query": query, "item_id": f"i{item}", "level": level}
        for query in ("train 0", "valid", "test", "elsewhere")
        for item, level in ((0, 3), (5, 0))
    ]
    users = pl.DataFrame([{"user_id": f"u{n}"} for n in range(3)], USERS)
    given = folder / "given"
    Dataset.write(given, pl.DataFrame(items, ITEMS), users, log(), pl.DataFrame(judged, JUDGMENTS))
    stage = folder / "data"
    stage.mkdir()
    settings = DataSettings(folder=given, valid=VALID / 60, test=TEST / 60, split="time")
    write_manifest(stage, {"metrics": build_data(StageContext("data", stage, {}, 0), settings)})
    return folder


@pytest.fixture
def run_data(data: Path) -> RunData:
    return RunData(data)
