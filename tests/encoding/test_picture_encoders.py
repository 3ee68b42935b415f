"""Vision models give unit vectors that tell pictures apart, and are found again where they were saved."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onesearch.common.artefact import read_json, write_json
from onesearch.common.extras import MissingExtraError
from onesearch.encoding.pictures import efficientnet_lite0
from onesearch.encoding.pictures.efficientnet_lite0 import EfficientNetPictures, _SameConv, checkpoint_weights
from onesearch.encoding.pictures.picture_encoder_loading import load_picture_encoder, open_picture_encoder
from onesearch.encoding.pictures.picture_settings import PictureSettings
from onesearch.encoding.pictures.vision_models import ClipPictures, TransformersPictures
from tiny_vision import make_tiny_clip, make_tiny_vit

COLORS = ("red", "blue", "green", "white")


def sheets(side: int = 64) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), color) for color in COLORS]


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetPictures:
    return EfficientNetPictures.open(size=224)


@pytest.mark.parametrize(
    ("package", "name", "expected"),
    [
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 652),  # ImageNet's "military uniform"
        ("sklearn", "datasets/images/china.jpg", 832),  # "stupa": a Chinese pavilion
    ],
)
def test_with_its_classifier_the_network_knows_photos(efficientnet, package: str, name: str, expected: int):
    """Weights read from their places in the file, padding and scaling are right: else the classes were noise."""
    with Image.open(str(files(package).joinpath(name))) as photo:
        features = torch.from_numpy(efficientnet.encode([photo.convert("RGB")]))
    weights = checkpoint_weights(efficientnet_lite0._installed())
    best = (features @ weights["_fc.weight"].T).topk(3).indices[0].tolist()
    assert expected in best


def test_the_faster_network_is_the_same(efficientnet):
    x = torch.linspace(-1, 1, 2 * 3 * 50 * 50).view(2, 3, 50, 50)
    with torch.inference_mode():
        torch.testing.assert_close(efficientnet._fused(x), efficientnet._network(x), atol=1e-3, rtol=1e-3)
    assert not [one for one in efficientnet._fused.modules() if isinstance(one, torch.nn.BatchNorm2d)]


def test_efficientnet_is_the_same_after_saving_and_in_any_batch(efficientnet, tmp_path: Path):
    small = EfficientNetPictures.open(size=96)
    pictures = [*sheets(30), Image.new("RGB", (300, 50), "red")]
    vectors = small.encode(pictures)
    assert vectors.shape == (5, small.dimension) == (5, 1280)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[:4] @ vectors[:4].T - np.eye(4)).max() < 0.99, "other pictures have other vectors"
    np.testing.assert_allclose(small.encode(pictures[3:]), vectors[3:], atol=1e-5)
    assert small.encode([]).shape == (0, 1280)
    small.save(tmp_path)
    loaded = load_picture_encoder(tmp_path)
    np.testing.assert_allclose(loaded.encode(pictures), vectors, atol=1e-6)
    assert abs(efficientnet.encode(pictures[:1]) - vectors[:1]).max() > 1e-3, "the size is that of the settings"


def test_only_the_known_checkpoint_is_read_and_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known = efficientnet_lite0._installed()
    other = tmp_path / "weights.pth"
    other.write_bytes(known.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"weights\.pth has the SHA-256 .* only the checkpoint with 5793"):
        EfficientNetPictures.open(other)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_picture_encoder(PictureSettings(model=str(tmp_path / "none.pth")))
    monkeypatch.setattr("pickle.Unpickler", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("unpickled"))
    assert len(checkpoint_weights(known)) == 247
    monkeypatch.setattr(efficientnet_lite0.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[pictures\]"):
        open_picture_encoder(PictureSettings())


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (8, 5, 1), (5, 1, 1)])
def test_padding_is_tensorflows(size: int, kernel: int, stride: int):
    """SAME: ceil(size / stride) places; what is odd of the padding comes after."""
    layer = _SameConv(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(layer.weight)
    x = torch.arange(float(size)).repeat(size, 1)[None, None]
    places = -(-size // stride)
    before = max((places - 1) * stride + kernel - size, 0) // 2
    windows = [range(at * stride - before, at * stride - before + kernel) for at in range(places)]
    across = [sum(i for i in window if 0 <= i < size) for window in windows]
    down = [sum(0 <= i < size for i in window) for window in windows]
    assert layer(x)[0, 0].tolist() == [[float(rows * columns) for columns in across] for rows in down]


@pytest.mark.parametrize("kind", ["transformers", "sentence-transformers"])
def test_models_of_libraries_open_by_path_and_save_themselves(kind: str, tmp_path: Path):
    make = make_tiny_vit if kind == "transformers" else make_tiny_clip
    settings = PictureSettings(kind=kind, model=str(make(tmp_path / "model")))
    encoder = open_picture_encoder(settings)
    vectors = encoder.encode(sheets())
    assert vectors.shape == (4, encoder.dimension) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors @ vectors.T - np.eye(4)).max() < 0.9999
    assert encoder.encode([]).shape == (0, encoder.dimension)
    encoder.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("*.bin"))
    loaded = load_picture_encoder(tmp_path / "saved")
    np.testing.assert_allclose(loaded.encode(sheets()), vectors, atol=1e-6)
    with pytest.raises(ValueError, match=r"needs pictures\.model"):
        PictureSettings(kind=kind)


def test_a_clip_of_transformers_is_asked_for_its_pictures(tmp_path: Path):
    path = make_tiny_clip(tmp_path / "clip")
    theirs, ours = ClipPictures.open(str(path)), TransformersPictures.open(str(path))
    np.testing.assert_allclose(ours.encode(sheets()), theirs.encode(sheets()), atol=1e-5)


def test_no_code_of_a_models_folder_is_run(tmp_path: Path):
    clip = make_tiny_clip(tmp_path / "clip")
    modules = read_json(clip / "modules.json")
    write_json(clip / "modules.json", [{**modules[0], "type": "evil.Module"}])
    with pytest.raises(ValueError, match="foreign code"):
        ClipPictures.open(str(clip))
    vit = make_tiny_vit(tmp_path / "vit")
    config = {**read_json(vit / "config.json"), "auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"}
    write_json(vit / "config.json", config)
    (vit / "evil.py").write_text("raise SystemExit('run')")
    with pytest.raises((ValueError, OSError)):
        TransformersPictures.open(str(vit))


def test_what_is_no_picture_encoder_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no picture encoder"):
        load_picture_encoder(tmp_path)
    write_json(tmp_path / "picture_encoder.json", {"kind": "other"})
    with pytest.raises(ValueError, match="unknown kind 'other'"):
        load_picture_encoder(tmp_path)
