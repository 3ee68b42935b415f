"""The stage that reads pictures, and how the encoder stage joins them with texts."""

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from onesearch.common.artefact import read_json, write_manifest
from onesearch.data.dataset import Dataset
from onesearch.data.records import PICTURES_ARCHIVE, Item, items_frame
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.pictures.picture_encoder_loading import load_picture_encoder
from onesearch.encoding.pictures.picture_settings import PictureSettings
from onesearch.pipeline import picture_stage
from onesearch.pipeline.picture_stage import build_pictures
from onesearch.pipeline.preparation_stages import _dataset, build_data, build_encoder
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import DataSettings, EncoderSettings
from onesearch.pipeline.stage_runner import StageContext
from pictures import SVG, bomb, picture
from tiny_vision import make_tiny_vit

COLORS = ("red", "blue", "green", "orange")
THINGS = ("shirt", "lamp", "tent", "chair", "mug")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose ``data`` stage is finished: twenty items with a picture each, four with others or none."""
    folder = tmp_path_factory.mktemp("shop")
    given = folder / "given"
    given.mkdir()
    items = []
    for color in COLORS:
        for thing in THINGS:
            (given / f"{color}-{thing}.png").write_bytes(picture(color))
            items.append(Item(f"{color}-{thing}", f"{color} {thing}", images=(f"{color}-{thing}.png",)))
    (given / "svg.png").write_bytes(SVG)
    (given / "bomb.png").write_bytes(bomb())
    hostile = ("svg.png", "bomb.png", "../given/svg.png", "http://127.0.0.1:1/x.png")
    items += [Item("hostile", "grey shirt", images=hostile), Item("none", "grey lamp")]
    log = pl.DataFrame(
        {
            "page_view_id": [f"p{n}" for n in range(40)],
            "query": [f"{color} {thing}" for color in COLORS for thing in THINGS] * 2,
            "shown": [[f"{color}-{thing}"] for color in COLORS for thing in THINGS] * 2,
            "clicked": [[f"{color}-{thing}"] for color in COLORS for thing in THINGS] * 2,
        }
    )
    Dataset.write(given, items_frame(items), page_views=log)
    run = folder / "run"
    (run / "data").mkdir(parents=True)
    metrics = build_data(StageContext("data", run / "data", {}), DataSettings(folder=given, valid=0, test=0))
    write_manifest(run / "data", {"metrics": metrics})
    return folder


def settings(shop: Path, **more) -> PictureSettings:
    model = shop / "model"
    make_tiny_vit(model)
    return PictureSettings(kind="transformers", model=str(model), root=shop / "given", most=4, **more)


@pytest.fixture(scope="module")
def run(shop: Path) -> Path:
    """With ``pictures`` finished."""
    folder = shop / "run" / "pictures"
    folder.mkdir()
    context = StageContext("pictures", folder, {"data": shop / "run" / "data"})
    metrics = build_pictures(RunData(shop / "run"), context, settings(shop))
    write_manifest(folder, {"metrics": {key: int(value) for key, value in metrics.items() if key != "pictures"}})
    assert metrics["pictures"] == {"read": 20, "format": 1, "pixels": 1, "path": 1, "address": 1}
    assert metrics["items_with_picture"] == 20 and metrics["items"] == 22
    return shop / "run"


def test_every_item_has_a_row_and_what_is_refused_is_written_down(run: Path):
    folder = run / "pictures"
    vectors = np.load(folder / "item_pictures.npy", allow_pickle=False)
    there = np.load(folder / "has_picture.npy", allow_pickle=False)
    assert vectors.dtype == np.float32 and vectors.shape == (22, 16)
    assert there.tolist() == [True] * 20 + [False] * 2 and not vectors[20:].any()
    saved = load_picture_encoder(folder / "picture_encoder")
    from onesearch.encoding.pictures.picture_decoding import decode_picture

    again = saved.encode([decode_picture(picture(COLORS[2]), 10**6)])
    np.testing.assert_allclose(vectors[11:12], again, atol=1e-5, err_msg="each item's own")
    refused = pl.read_parquet(folder / "refused.parquet")
    assert refused["item_id"].to_list() == ["hostile"] * 4
    assert refused["reason"].to_list() == ["format", "pixels", "path", "address"]
    assert "first bytes" in refused["words"][0] and refused["source"][1] == "bomb.png"
    limits = read_json(folder / "reading.json")["limits"]
    assert limits == {"most_bytes": 10_000_000, "most_pixels": 25_000_000, "seconds": 10.0}, "no folder, no host"


def test_the_reader_hears_of_what_was_refused_and_few_are_written_down(shop: Path, run, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(picture_stage, "_MOST_REFUSED", 3)
    context = StageContext("pictures", tmp_path, {"data": run / "data"})
    with caplog.at_level(logging.WARNING, "onesearch"):
        build_pictures(RunData(run), context, settings(shop))
    assert "4 pictures were refused (1 address, 1 format, 1 path, 1 pixels)" in caplog.text
    assert len(pl.read_parquet(tmp_path / "refused.parquet")) == 3
    # Paths start from the run's data where no folder is named: nothing is there.
    found = build_pictures(RunData(run), context, settings(shop).updated(root=None))
    assert found["items_with_picture"] == 0 and found["pictures"]["missing"] == 22


ENCODER = {"static": {"dimension": 16, "min_word": 1, "min_pair": 9}, "align": {"epochs": 3, "batch_size": 16}}


def encoded(run: Path, folder: Path, **more) -> tuple[dict, Path]:
    folder.mkdir()
    context = StageContext("encoder", folder, {"data": run / "data", "pictures": run / "pictures"})
    return dict(build_encoder(RunData(run), context, EncoderSettings.model_validate({**ENCODER, **more}))), folder


def test_text_reads_no_picture_and_is_what_it_was(run: Path, tmp_path: Path):
    _, plain = encoded(run, tmp_path / "plain")
    _, other = encoded(run, tmp_path / "other", pictures={"dimension": 3})
    assert sorted(path.name for path in (plain / "encoder").iterdir()) == ["encoder.json", "encoder.safetensors"]
    for name in ("item_vectors.npy", "held_out_vectors.npy", "encoder/encoder.safetensors"):
        assert (plain / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("encoding", ["unified", "concat"])
def test_towers_encode_items_with_their_pictures_and_queries_by_their_texts(run: Path, tmp_path: Path, encoding: str):
    metrics, folder = encoded(run, tmp_path / "tower", encoding=encoding, pictures={"dimension": 3, "share": 0.36})
    _, plain = encoded(run, tmp_path / "plain")
    vectors = np.load(folder / "item_vectors.npy", allow_pickle=False)
    held = np.load(folder / "held_out_vectors.npy", allow_pickle=False)
    dimension = metrics["dimension"]
    assert vectors.shape == (22, dimension) and held.shape == (20, dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    loaded = load_encoder(folder / "encoder")
    pictures = np.load(run / "pictures" / "item_pictures.npy", allow_pickle=False)
    texts = RunData(run).dataset.items["title"].to_list()
    there = np.arange(22) < 20
    np.testing.assert_allclose(loaded.encode_items(texts, pictures, there), vectors, atol=1e-5)
    text_alone = loaded.encode_items(texts, pictures, np.zeros(22, bool))
    assert np.abs(text_alone[:20] - vectors[:20]).max() > 0.01
    np.testing.assert_allclose(text_alone[20:], vectors[20:], atol=1e-6)
    if encoding == "concat":  # the text's part is trained as without pictures
        before = np.load(plain / "item_vectors.npy", allow_pickle=False)
        assert dimension == 16 + 3 + 1
        np.testing.assert_allclose(vectors[:, :16], 0.8 * before, atol=1e-5)
        np.testing.assert_array_equal(held[:, :16], np.load(plain / "held_out_vectors.npy", allow_pickle=False))
        assert not held[:, 16:].any()
    else:
        assert dimension == 16 and loaded.weight.any()


def test_a_data_set_that_brings_its_pictures_keeps_them(tmp_path: Path):
    given, folder = tmp_path / "given", tmp_path / "data"
    Dataset.write(given, items_frame([Item("a", "red shirt")]))
    (given / PICTURES_ARCHIVE).write_bytes(b"archive")
    folder.mkdir()
    _dataset(DataSettings(folder=given), StageContext("data", folder, {}))
    assert (folder / PICTURES_ARCHIVE).read_bytes() == b"archive"
