"""Items that come in with pictures, where the engine's vectors know of pictures."""

from dataclasses import replace

import numpy as np
import pytest

from onesearch.data.records import Item
from onesearch.encoding.pictures.item_towers import UnifiedTower
from onesearch.encoding.pictures.picture_space import PictureSpace
from onesearch.search.engine import SearchEngine
from small_engine import small_engine

SIGHTS = {("left.png",): [1, 0], ("right.png",): [0, 1]}


class Pictures:
    """Knows two pictures; nothing else can be read."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, ...]]] = []

    def prepare(self, images) -> dict[str, int]:
        return {"read": sum(tuple(some) in SIGHTS for some in images)}

    def remembered(self, images) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append([tuple(some) for some in images])
        vectors = np.array([SIGHTS.get(tuple(some), [0, 0]) for some in images], np.float32).reshape(-1, 2)
        return vectors, vectors.any(1)


@pytest.fixture
def engine() -> SearchEngine:
    made = small_engine()
    space = PictureSpace(np.zeros(2, np.float32), np.eye(2, dtype=np.float32))
    weight = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    tower = UnifiedTower(made.featurizer.encoder, space, weight)
    featurizer = replace(made.featurizer, encoder=tower, pictures=Pictures())
    made.featurizer = made.current._featurizer = featurizer
    return made


def text_part(engine: SearchEngine, item_id: str) -> np.ndarray:
    """What an item's head row has of its vector."""
    row = engine.snapshot.item_head_rows.take(np.array([engine.snapshot.number[item_id]]))[0]
    return row[: len(row) - engine.featurizer.head_row_projection.features]


def test_pictures_make_vectors_and_another_one_another(engine: SearchEngine):
    item = Item("a", "red tent")
    assert engine.prepare([replace(item, images=("left.png",)), item]) == {"read": 1}
    engine.upsert([item, replace(item, item_id="b", images=("left.png",)), replace(item, item_id="c", images=("x",))])
    alone, left, unread = (text_part(engine, item_id) for item_id in "abc")
    np.testing.assert_allclose(unread, alone, atol=1e-6)
    assert np.abs(left - alone).max() > 0.05
    # The same pictures again are not looked at; others are, of a text that stays.
    asked = engine.featurizer.pictures.asked
    engine.upsert([replace(item, item_id="b", images=("left.png",), price=3.0)])
    assert len(asked) == 1 and (text_part(engine, "b") == left).all()
    engine.upsert([replace(item, item_id="b", images=("right.png",))])
    assert asked[1:] == [[("right.png",)]] and np.abs(text_part(engine, "b") - left).max() > 0.05
    engine.upsert([replace(item, item_id="b")])
    np.testing.assert_allclose(text_part(engine, "b"), alone, atol=1e-6)


def test_an_engine_that_takes_another_over_reads_pictures_as_before(engine: SearchEngine):
    before = engine.featurizer.pictures
    engine.take_over(small_engine())
    assert engine.featurizer.pictures is before and engine.current._featurizer is engine.featurizer


def test_without_pictures_in_its_vectors_an_engine_reads_none():
    engine = small_engine()
    assert engine.prepare([Item("a", "red tent", images=("left.png",))]) == {}
