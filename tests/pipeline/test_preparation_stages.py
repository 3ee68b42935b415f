"""What tells a run that its files changed, and how its log is split."""

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from onesearch.data.dataset import Dataset, table_path
from onesearch.data.records import Item, PageView, items_frame, page_views_frame
from onesearch.pipeline.preparation_stages import build_data, source_fingerprint
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import DataSettings
from onesearch.pipeline.stage_runner import Stage, execute

MAPPING = "source: shop\nfolder: shop\nitems: {file: items.csv, columns: {item_id: id, title: name}}\n"


@pytest.mark.parametrize("kind", ["mapping", "kuaisearch"])
def test_files_count_by_what_they_say_not_by_when_they_were_written(kind: str, tmp_path: Path):
    folder, mapping = tmp_path / "shop", tmp_path / "shop.yaml"
    folder.mkdir()
    mapping.write_text(MAPPING)
    items = folder / "items.csv"
    items.write_text("id,name\n1,boot\n")
    data = DataSettings.model_validate(
        {"mapping": mapping, "root": tmp_path} if kind == "mapping" else {"kuaisearch": folder}
    )
    before = source_fingerprint(data)
    os.utime(items, ns=(1, 1))
    assert source_fingerprint(data) == before
    items.write_text("id,name\n1,bowl\n")  # as many bytes
    changed = source_fingerprint(data)
    items.rename(folder / "things.csv")
    assert changed != before and source_fingerprint(data) not in (before, changed)
    if kind == "mapping":
        items.write_text("id,name\n1,boot\n")
        (folder / "things.csv").unlink()
        mapping.write_text(MAPPING + "# another\n")
        assert source_fingerprint(data) != before


def dataset(folder: Path) -> Path:
    """Six page views of one shopper, a click in each, whose given parts are the other way round than time's."""
    words = ["test", "test", "valid", "valid", "train", "train"]
    log = [
        PageView(str(n), f"q{n}", "ann", None, datetime(2024, 1, 1 + n, tzinfo=UTC), clicked=(f"i{n}",), split=word)
        for n, word in enumerate(words)
    ]
    Dataset.write(folder, items_frame(Item(f"i{n}", f"thing {n}") for n in range(6)), None, page_views_frame(log))
    return folder


@pytest.mark.parametrize(
    ("by", "parts"),
    [
        ("given", ["45", "23", "01"]),
        ("leave-one-out", ["0123", "4", "5"]),
        ("time", ["0123", "4", "5"]),
    ],
)
def test_a_run_takes_the_split_that_its_settings_name(by: str, parts: list[str], tmp_path: Path):
    data = DataSettings(folder=dataset(tmp_path / "shop"), split=by, valid=0.17, test=0.17)
    execute([Stage("data", (), {"data": data}, build_data)], tmp_path / "run", 0)
    split = RunData(tmp_path / "run").split
    assert split.by == by
    assert ["".join(part["page_view_id"]) for part in (split.train, split.valid, split.test)] == parts
    # What is counted is the training part, and nothing else.
    totals = RunData(tmp_path / "run").statistics.clicked
    assert [n for n, clicks in enumerate(totals) if clicks] == [int(name) for name in parts[0]]


def test_a_dataset_from_before_the_column_is_read_as_one_without_a_split(tmp_path: Path):
    folder = dataset(tmp_path / "shop")
    path = table_path(folder, "page_views")
    pl.read_parquet(path).drop("split").write_parquet(path)
    assert Dataset.load(folder).page_views["split"].to_list() == [None] * 6
    with pytest.raises(ValueError, match="6 of 6 page views say neither"):
        build = Stage("data", (), {"data": DataSettings(folder=folder, split="given")}, build_data)
        execute([build], tmp_path / "run", 0)
