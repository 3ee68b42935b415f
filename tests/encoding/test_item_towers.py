"""Items of text and picture beside queries of text alone: by hand, saved, and trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from onesearch.encoding.click_pairs import Edges, Pairs
from onesearch.encoding.encoder_alignment import EncoderAlignmentSettings, align_encoder
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.held_out_vectors import held_out_vectors
from onesearch.encoding.pictures.item_towers import ConcatTower, ItemTower, PictureProjection, UnifiedTower
from onesearch.encoding.pictures.picture_space import PictureSpace
from onesearch.encoding.static_encoder import StaticEncoder, StaticSettings

STATIC = StaticSettings(dimension=16, min_word=1, min_pair=99)
TEXTS = ["red shoe", "blue lamp", "chair"]
THERE = np.array([True, False, True])
PICTURES = np.array([[4, 0, 4, 0], [9, 9, 9, 9], [1, 1, 0, 0]], np.float32)
SPACE = PictureSpace(np.array([1, 0, 4, 0], np.float32), np.eye(4, 2, dtype=np.float32))
REDUCED = np.array([[1, 0], [0, 0], [0, 1]], np.float32)


@pytest.fixture
def text() -> StaticEncoder:
    return StaticEncoder.build(TEXTS, STATIC)


def test_pictures_are_centred_turned_and_at_length_one_and_zero_where_there_is_none():
    np.testing.assert_allclose(SPACE.reduce(PICTURES, THERE), REDUCED, atol=1e-6)


def test_the_axes_are_those_in_which_the_catalogue_differs_most():
    rng = np.random.default_rng(0)
    vectors = np.zeros((200, 5), np.float32)
    vectors[:, 1], vectors[:, 3] = rng.normal(7, 3, 200), rng.normal(0, 1, 200)
    there = np.ones(200, bool)
    there[150:] = False
    vectors[150:] = 1000
    space = PictureSpace.fit(vectors, there, 4)
    assert space.dimension == 2, "in the others nothing differs"
    np.testing.assert_allclose(np.abs(space.axes[[1, 3]]), np.eye(2), atol=0.1)
    np.testing.assert_allclose(space.mean, vectors[:150].mean(0), atol=1e-4)
    assert PictureSpace.fit(vectors, there, 1).dimension == 1
    with pytest.raises(ValueError, match=r"1 of 200 items have a picture .* refused\.parquet"):
        PictureSpace.fit(vectors, np.arange(200) == 3, 4)


def test_a_large_catalogue_is_reduced_part_by_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("onesearch.encoding.pictures.picture_space._AT_ONCE", 2)
    np.testing.assert_allclose(SPACE.reduce(PICTURES, THERE), REDUCED, atol=1e-6)


def test_unified_adds_the_projected_picture_to_the_text(text: StaticEncoder, tmp_path: Path):
    weight = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    tower, plain = UnifiedTower(text, SPACE, weight), text.encode(TEXTS)
    summed = plain + REDUCED @ weight
    expected = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    found = tower.encode_items(TEXTS, PICTURES, THERE)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found[1], plain[1], atol=1e-6, err_msg="without a picture its text alone")
    np.testing.assert_array_equal(tower.encode(TEXTS), plain)
    assert tower.dimension == 16 and isinstance(tower, ItemTower) and not isinstance(text, ItemTower)
    tower.save(tmp_path)
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded, UnifiedTower)
    np.testing.assert_array_equal(loaded.encode_items(TEXTS, PICTURES, THERE), found)


def test_concat_puts_both_side_by_side_and_a_querys_cosine_is_that_of_the_texts(text: StaticEncoder, tmp_path: Path):
    tower, plain = ConcatTower(text, SPACE, 0.36), text.encode(TEXTS)
    found = tower.encode_items(TEXTS, PICTURES, THERE)
    assert tower.dimension == found.shape[1] == 16 + 2 + 1
    np.testing.assert_allclose(found[:, :16], 0.8 * plain, atol=1e-6)
    np.testing.assert_allclose(found[:, 16:], 0.6 * np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]), atol=1e-6)
    queries = tower.encode(["red shoe", "lamp"])
    assert not queries[:, 16:].any() and queries.shape == (2, 19)
    # With and without a picture alike: no item gains by having none.
    np.testing.assert_allclose(queries @ found.T, 0.8 * text.encode(["red shoe", "lamp"]) @ plain.T, atol=1e-6)
    tower.save(tmp_path)
    loaded = load_encoder(tmp_path)
    np.testing.assert_array_equal(loaded.encode_items(TEXTS, PICTURES, THERE), found)
    np.testing.assert_array_equal(loaded.encode(TEXTS), tower.encode(TEXTS))


class Rows:
    """A text trainer of fixed vectors that remembers its updates."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.rates = torch.tensor(vectors, dtype=torch.float32, requires_grad=True), []

    def embed(self, rows: np.ndarray) -> torch.Tensor:
        return self.vectors[torch.from_numpy(rows)]

    def update(self, rate: float) -> None:
        self.rates.append(rate)


def test_in_training_the_texts_of_items_have_pictures_and_those_around_them_have_none():
    """Two queries, three items, three pseudo-queries."""
    text = Rows(np.array([[2, 0], [0, 2], [3, 0], [0, 3], [4, 0], [1, 1], [1, 1], [1, 1]]))
    projection = PictureProjection(REDUCED, 2, 0.1)
    trainer = projection.around(text, 2)
    rows = np.array([0, 1, 2, 3, 4, 5, 7])
    assert trainer.embed(rows).tolist()[:2] == [[2, 0], [0, 2]]
    assert trainer.embed(rows)[2].tolist() == [1, 0], "at length one, as W is zero"
    assert trainer.embed(rows)[3].tolist() == [0, 3], "an item without a picture as its text"
    trainer.embed(np.array([2, 3, 4, 5])).sum().backward()
    trainer.update(0.5)
    assert text.rates == [0.5]
    np.testing.assert_allclose(projection.weight, np.full((2, 2), -0.05), atol=1e-6, err_msg="Adam's first step")
    np.testing.assert_allclose(
        trainer.embed(np.array([2, 4, 5])).tolist(), [[0.95, -0.05], [0.95, -0.05], [1, 1]], atol=1e-6
    )
    trainer.update(1.0)
    np.testing.assert_allclose(projection.weight, np.full((2, 2), -0.05), atol=1e-6, err_msg="no gradient, no step")


def alike(colors: Sequence[str], each: int = 8) -> tuple[Pairs, np.ndarray]:
    """Items whose texts are all the same; queries name the colour that their pictures alone show."""
    items = ["plain shirt"] * (each * len(colors))
    left = np.repeat(np.arange(len(colors)), each)
    pairs = Pairs(
        [f"{color} shirt" for color in colors],
        items,
        Edges(left, np.arange(len(items)), np.ones(len(items), np.float32)),
    )
    pictures = np.eye(len(colors), dtype=np.float32)[left]
    return pairs, pictures - pictures.mean(0)


def test_the_tower_learns_what_pictures_alone_show():
    pairs, pictures = alike(("red", "blue", "green"))
    config = EncoderAlignmentSettings(batch_size=24, epochs=60, nested=(), pseudo_share=0, q2q=0, i2i=0)

    def fresh(seed: int = 0) -> StaticEncoder:
        return StaticEncoder.build([*pairs.items, *pairs.queries], STATIC, seed)

    projection = PictureProjection(pictures, 16, 0.05)
    aligned = align_encoder(fresh(), pairs, config, projection.around)
    space = PictureSpace(np.zeros(3, np.float32), np.eye(3, dtype=np.float32))
    tower = UnifiedTower(aligned, space, projection.weight)
    items = tower.encode_items(pairs.items, pictures, np.ones(24, bool))
    best = (tower.encode(pairs.queries) @ items.T).argsort(1)[:, -8:]
    assert [sorted(row) for row in (best // 8).tolist()] == [[0] * 8, [1] * 8, [2] * 8]
    # Folds train along with projections of their own.
    made = []

    def around():
        made.append(PictureProjection(pictures, 16, 0.05))
        return made[-1].around

    held = held_out_vectors(aligned, lambda fold: fresh(fold + 1), pairs, config.updated(epochs=5), 2, around)
    assert held.shape == (3, 16) and 1 <= len(made) <= 2 and any(one.weight.any() for one in made)
