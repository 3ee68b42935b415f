"""What tells a run that its files changed."""

import os
from pathlib import Path

import pytest

from onesearch.pipeline.preparation_stages import source_fingerprint
from onesearch.pipeline.run_settings import DataSettings

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
