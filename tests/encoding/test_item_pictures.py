"""Items get one vector of their pictures, what is refused is counted, and a service prepares them ahead."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onesearch.common.artefact import write_json
from onesearch.encoding.pictures import item_pictures
from onesearch.encoding.pictures.item_pictures import ItemPictures
from onesearch.encoding.pictures.picture_reading import PictureReader
from onesearch.encoding.pictures.picture_settings import PictureLimits
from pictures import SVG, bomb, picture


class Middle:
    """A picture's vector is the colour in its middle, at length one."""

    dimension = 3

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        self.encoded += len(pictures)
        colors = [one.getpixel((one.width // 2, one.height // 2)) for one in pictures]
        return np.array([np.array(c) / np.linalg.norm(c) for c in colors], np.float32).reshape(-1, 3)


RED, GREEN, BLUE = np.eye(3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, color in (("r", "#f00"), ("g", "#0f0"), ("b", "#00f")):
        (tmp_path / f"{name}.png").write_bytes(picture(color))
    for name, data in (("svg", SVG), ("bomb", bomb()), ("cut", picture()[:50])):
        (tmp_path / f"{name}.png").write_bytes(data)
    return tmp_path


def made(root: Path, **more) -> tuple[ItemPictures, Middle]:
    encoder = Middle()
    return ItemPictures(PictureReader(PictureLimits(most_pixels=10**7), root), encoder, **more), encoder


IMAGES = [["r.png"], [], ["g.png", "b.png", "r.png"], ["svg.png", "b.png"], ["bomb.png"], ["cut.png", "none.png"], None]


def test_the_mean_of_an_items_first_pictures_those_that_can_be_read(root: Path):
    found = made(root, most=2)[0].vectors(IMAGES)
    nothing = np.zeros(3)
    expected = [RED, nothing, (GREEN + BLUE) / np.sqrt(2), BLUE, nothing, nothing, nothing]
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    assert found.there.tolist() == [True, False, True, True, False, False, False]
    assert found.outcomes == {"read": 4, "format": 1, "pixels": 1, "broken": 1, "missing": 1}
    assert [(one.item, one.source, one.reason) for one in found.refused] == [
        (3, "svg.png", "format"),
        (4, "bomb.png", "pixels"),
        (5, "cut.png", "broken"),
        (5, "none.png", "missing"),
    ]


def test_the_main_picture_is_the_first_that_can_be_read_and_no_other_is_encoded(root: Path):
    pictures, encoder = made(root, each="main")
    found = pictures.vectors(IMAGES)
    nothing = np.zeros(3)
    np.testing.assert_allclose(found.vectors, [RED, nothing, GREEN, BLUE, nothing, nothing, nothing], atol=1e-6)
    assert encoder.encoded == 3


def test_parts_are_what_all_are(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(item_pictures, "_ITEMS_AT_ONCE", 2)
    parts = list(made(root)[0].in_parts(IMAGES))
    whole = made(root)[0].vectors(IMAGES)
    assert [len(part.there) for part in parts] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), whole.vectors)
    assert [part.refused[0].item for part in parts[1:3]] == [1, 0], "places are those of the part"


def test_what_was_prepared_is_not_read_again_and_what_failed_gets_another_chance(root: Path):
    pictures, encoder = made(root)
    outcomes = pictures.prepare([["r.png"], ["svg.png"], [], ["r.png"], ["later.png"]])
    assert outcomes == {"read": 1, "format": 1, "missing": 1, "items_without": 2} and encoder.encoded == 1
    vectors, there = pictures.remembered([["r.png"], [], ["svg.png"], ["later.png"]])
    assert there.tolist() == [True, False, False, False] and encoder.encoded == 1
    np.testing.assert_allclose(vectors[0], RED, atol=1e-6)
    (root / "later.png").write_bytes(picture("#00f"))
    assert pictures.prepare([["r.png"], ["later.png"]]) == {"read": 1} and encoder.encoded == 2
    assert pictures.remembered([["later.png"], ["g.png"]])[1].all() and encoder.encoded == 3, "also unprepared ones"


def test_few_vectors_are_remembered(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(item_pictures, "_REMEMBERED", 2)
    pictures, encoder = made(root)
    pictures.prepare([["r.png"], ["g.png"], ["b.png"]])
    assert pictures.remembered([["g.png"], ["b.png"]])[1].all() and encoder.encoded == 3
    assert pictures.remembered([["r.png"], ["g.png"], ["b.png"]])[1].all(), "more than are kept"


def test_a_strangers_run_names_limits_and_neither_folders_nor_hosts(root: Path, tmp_path: Path):
    stage = tmp_path / "stage"
    limits = {"most_bytes": 10, "most_pixels": 10, "seconds": 1.0, "private_hosts": ["localhost"]}
    write_json(stage / "reading.json", {"limits": limits, "most": 1, "each": "main", "root": "/"})
    from onesearch.encoding.pictures.efficientnet_lite0 import EfficientNetLite0, EfficientNetPictures

    EfficientNetPictures(EfficientNetLite0(), 32).save(stage / "picture_encoder")
    loaded = ItemPictures.load(stage, root)
    outcomes = loaded.vectors([["r.png"], ["http://localhost:9/x"], ["/etc/passwd"]]).outcomes
    assert outcomes == {"bytes": 1, "address": 1, "path": 1}
    loaded.trust(["localhost:9"])
    assert loaded.vectors([["http://localhost:9/x"]]).outcomes == {"http": 1}, "asked, and nobody is there"
