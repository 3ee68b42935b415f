"""Pictures of a market: what is true of an item is seen, with noise, and some of it is seen alone."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from pydantic import ValidationError

from onesearch.data.dataset import Dataset
from onesearch.data.records import PICTURES_ARCHIVE
from onesearch.market.make_market import items_table, make_market
from onesearch.market.market import Market
from onesearch.market.market_catalogue import MarketCatalogue
from onesearch.market.market_pictures import _COLORS, NOISE, pattern
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_vocabulary import SLOTS
from onesearch.market.word_tables import read_words
from onesearch.market.world import World

SMALL = {"items": 300, "users": 30, "page_views": 200}
ITEMS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market")
    make_market(MarketSettings(**SMALL, pictures=2), path)
    return path


def opened(folder: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(folder / PICTURES_ARCHIVE) as archive:
        return {name: np.asarray(Image.open(BytesIO(archive.read(name)))) for name in archive.namelist()}


def test_every_item_names_its_pictures_and_they_are_there(folder: Path):
    images = Dataset.load(folder).items["images"].to_list()
    assert images[7] == ["pictures.zip/i7-0.png", "pictures.zip/i7-1.png"] and len(images) == ITEMS
    pictures = opened(folder)
    assert list(pictures) == [name.partition("/")[2] for some in images for name in some]
    assert {one.shape for one in pictures.values()} == {(96, 96, 3)}


def test_the_same_seed_draws_the_same_pictures_and_nothing_else_of_the_market_changes(folder: Path, tmp_path: Path):
    make_market(MarketSettings(**SMALL, pictures=2), tmp_path / "again")
    assert (tmp_path / "again" / PICTURES_ARCHIVE).read_bytes() == (folder / PICTURES_ARCHIVE).read_bytes()
    make_market(MarketSettings(**SMALL), tmp_path / "again")
    assert not (tmp_path / "again" / PICTURES_ARCHIVE).exists(), "an old archive is no part of a market without"
    plain, with_pictures = Dataset.load(tmp_path / "again"), Dataset.load(folder)
    assert plain.items["images"].list.len().sum() == 0
    assert plain.items.drop("images").equals(with_pictures.items.drop("images"))
    assert plain.page_views.equals(with_pictures.page_views)


def seen_color(picture: np.ndarray) -> np.ndarray:
    """The commonest colour of the middle."""
    middle = picture[30:66, 30:66].reshape(-1, 3)
    values, counts = np.unique(middle, axis=0, return_counts=True)
    return values[counts.argmax()].astype(float)


def test_colours_types_and_brands_can_be_seen(folder: Path):
    catalogue: MarketCatalogue = Market.load(folder).truth.catalogue
    pictures, names = opened(folder), list(_COLORS)
    palette = np.array(list(_COLORS.values()), float)
    # Colours that lie far from each other, where no pattern hides them.
    far = {"black", "red", "navy", "green", "pink", "brown", "yellow", "turquoise", "lavender"}
    of_item = [catalogue.value_names[value] for value in catalogue.values[:, SLOTS.index("Color")].tolist()]
    plain = catalogue.values[:, SLOTS.index("Pattern")] < 0
    right = []
    for item in [item for item in range(ITEMS) if plain[item] and of_item[item] in far]:
        found = names[int(np.square(palette - seen_color(pictures[f"i{item}-0.png"])).sum(1).argmin())]
        right.append(found == of_item[item])
    assert len(right) > 20 and 0.7 < np.mean(right) < 1.0, "shades differ, and some show another colour"
    # Outlines by type: two of a type lie closer to each other than two of any types, by where they are not white.
    inked = {item: (pictures[f"i{item}-0.png"].min(2) < 200)[20:].astype(float) for item in range(ITEMS)}
    of_type: dict[int, list[int]] = {}
    for item in range(ITEMS):
        of_type.setdefault(int(catalogue.types[item]), []).append(item)
    same = [np.abs(inked[some[0]] - inked[some[1]]).mean() for some in of_type.values() if len(some) > 1]
    other = [np.abs(inked[item] - inked[item + 1]).mean() for item in range(0, ITEMS - 1, 3)]
    assert np.mean(same) < 0.8 * np.mean(other)
    # Marks: the corner pixel has one colour for a brand.
    brand = catalogue.values[:, SLOTS.index("Brand")]
    corners = {}
    for item in range(ITEMS):
        corners.setdefault(int(brand[item]), set()).add(tuple(pictures[f"i{item}-0.png"][11, 85].tolist()))
    assert all(len(colors) == 1 for colors in corners.values()) and len(corners) > 20
    grounds = {tuple(pictures[f"i{item}-0.png"][95, 0].tolist()) for item in range(ITEMS)}
    assert (255, 255, 255) in grounds and len(grounds) < 30, "the first picture stands on white"
    assert len({tuple(pictures[f"i{item}-1.png"][95, 0].tolist()) for item in range(ITEMS)}) > 200


def test_every_pattern_of_the_words_is_drawn_and_solid_is_none():
    kinds = read_words("attributes")["Pattern"]["values"]
    names = [name for some in kinds.values() for name in some] if isinstance(kinds, dict) else kinds
    drawn = {name: pattern(name) for name in names}
    assert not drawn.pop("solid").any()
    assert all(0.02 < one.mean() < 0.8 for one in drawn.values()), {k: v.mean() for k, v in drawn.items()}
    assert len({one.tobytes() for one in drawn.values()}) == len(drawn)
    colors = read_words("attributes")["Color"]["values"]
    assert set(_COLORS) == {name for some in colors.values() for name in some}
    assert 0 < NOISE.other_color < 0.1


def test_a_share_of_colours_and_patterns_is_left_to_pictures():
    def stated(share: float) -> tuple[pl.DataFrame, list[str]]:
        table = items_table(World.build(MarketSettings(**SMALL, pictures=1, picture_only=share)))
        flat = table.select("item_id", "attributes").explode("attributes").drop_nulls().unnest("attributes")
        return flat, table["title"].to_list()

    none, titles = stated(0.0)
    half, fewer = stated(0.5)
    all_of_them, bare = stated(1.0)
    for kind in ("Color", "Pattern"):
        count = [len(one.filter(pl.col("type") == kind)) for one in (none, half, all_of_them)]
        assert count[2] == 0 and 0.35 * count[0] < count[1] < 0.65 * count[0]
    for one in (half, all_of_them):
        kept = ~pl.col("type").is_in(["Color", "Pattern"])
        assert one.filter(kept).equals(none.filter(kept))
    colors = {name.title() for name in _COLORS if " " not in name}
    said = [[i for i, title in enumerate(some) if colors & set(title.split())] for some in (titles, fewer, bare)]
    assert len(said[0]) > 1.5 * len(said[1]) > 0 and not said[2]
    # Title and structured attribute leave it out together.
    with_field = [set(one.filter(pl.col("type") == "Color")["item_id"]) for one in (none, half)]
    silent = {int(item_id[1:]) for item_id in with_field[0] - with_field[1]}
    assert len(silent) > 50 and not silent & set(said[1])


def test_what_pictures_alone_show_needs_pictures():
    with pytest.raises(ValidationError, match="set pictures, too"):
        MarketSettings(picture_only=0.5)
