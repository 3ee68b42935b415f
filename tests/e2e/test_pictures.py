"""A small market whose colours pictures alone show, from data to a search, with items that come in while it runs."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from onesearch import SearchEngine
from onesearch.batch.item_jobs import encode_job
from onesearch.common.artefact import read_manifest
from onesearch.data.records import Item
from onesearch.pipeline import run_config
from onesearch.search.run_parts import RunParts
from pictures import SVG, bomb
from tiny_run import TINY
from tiny_vision import make_tiny_vit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["unified", pytest.param("concat", marks=pytest.mark.long)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config = {
        **TINY,
        "data": {"market": {**TINY["data"]["market"], "pictures": 2, "picture_only": 0.5}},
        "pictures": {"kind": "transformers", "model": str(make_tiny_vit(folder / "vit"))},
        "encoder": {**TINY["encoder"], "encoding": request.param, "pictures": {"dimension": 8}},
        "understanding": {"producer": "none"},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    run_config(folder / "tiny.yaml", folder / "run", until="engine")
    return folder / "run"


def test_the_run_has_pictures_and_is_searched(run: Path):
    made = read_manifest(run / "pictures")["metrics"]
    assert made["items_with_picture"] == 400 and made["pictures"] == {"read": 800}
    engine = SearchEngine.load(run)
    assert len(engine.search("red boots", k=5)) == 5


def test_an_item_that_comes_in_is_where_the_catalogues_with_its_picture_are(run: Path):
    engine, parts = SearchEngine.load(run), RunParts(run)
    items = parts.dataset.items
    vectors = engine.featurizer.item_vectors(items[:30])
    np.testing.assert_allclose(vectors, parts.item_vectors[:30], atol=1e-4)
    # Without its picture an item has another vector; what is hostile counts as none.
    known = engine.item("i3")
    outcomes = engine.prepare([replace(known, item_id="new", images=("../../x", "http://127.0.0.1:1/a", "none.png"))])
    assert outcomes == {"path": 1, "address": 1, "items_without": 1}
    engine.upsert([replace(known, item_id="same"), replace(known, item_id="new", images=("svg.png", "bomb.png"))])
    assert engine.sid("same") == tuple(parts.khqe.encode(vectors[3:4])[0].tolist())
    rows = engine.snapshot.item_head_rows.take(np.array([engine.snapshot.number[i] for i in ("i3", "same", "new")]))
    text = rows.shape[1] - engine.featurizer.head_row_projection.features
    np.testing.assert_allclose(rows[1, :text], rows[0, :text], atol=1e-4)
    assert np.abs(rows[2, :text] - rows[0, :text]).max() > 1e-3


def test_another_picture_of_a_known_item_changes_its_vector(run: Path):
    engine = SearchEngine.load(run)
    known, other = engine.item("i3"), engine.item("i4")

    def row() -> np.ndarray:
        return engine.snapshot.item_head_rows.take(np.array([engine.snapshot.number["i3"]]))[0]

    before = row()
    engine.upsert([replace(known, seller="another")])
    np.testing.assert_array_equal(row(), before)
    engine.upsert([replace(known, images=other.images)])
    assert np.abs(row() - before).max() > 1e-3


def test_hostile_files_beside_the_runs_own_are_refused(run: Path, tmp_path: Path):
    with zipfile.ZipFile(run / "data" / "more.zip", "w") as archive:
        archive.writestr("svg.png", SVG)
        archive.writestr("bomb.png", bomb())
    engine = SearchEngine.load(run)
    images = ("more.zip/svg.png",), ("more.zip/bomb.png",)
    outcomes = engine.prepare([Item(f"x{n}", "shirt", images=one) for n, one in enumerate(images)])
    (run / "data" / "more.zip").unlink()
    assert outcomes == {"format": 1, "pixels": 1, "items_without": 2}


def test_tables_are_encoded_with_their_pictures(run: Path, tmp_path: Path):
    job, items = encode_job(run), RunParts(run).dataset.items[:200]
    assert "images" in job.columns
    encode = job.make(**job.arguments)
    found = encode(items.select("item_id", "title", "brand", "images").to_arrow())
    vectors = np.stack(found["vector"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(vectors, RunParts(run).item_vectors[:200], atol=1e-4)
    bare = items.select("item_id", "title", "brand", pl.lit([], pl.List(pl.String)).alias("images"))
    assert np.abs(np.stack(encode(bare.to_arrow())["vector"].to_numpy(zero_copy_only=False)) - vectors).max() > 1e-3
    with pytest.raises(ValueError, match="images"):
        encode(bare.drop("images").to_arrow())
