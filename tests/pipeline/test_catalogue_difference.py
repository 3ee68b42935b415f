"""What files have otherwise than a served catalogue."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from onesearch.data.records import Item, items_frame
from onesearch.pipeline.catalogue_difference import difference
from onesearch.serving.sqlite_store import SqliteStore

LISTED = datetime(2026, 1, 2, 3, tzinfo=UTC)
SHOE = Item("shoe", "Red shoe", ("Shoes",), "Acme", 20.0, {"Color": ("red",), "Size": ("40", "41")}, listed_at=LISTED)


def table(*items: Item) -> pl.DataFrame:
    return items_frame(items)


@pytest.fixture
def store(tmp_path):
    opened = SqliteStore(tmp_path / "store.sqlite3")
    yield opened
    opened.close()


def test_rows_of_the_files_by_what_became_of_them(store):
    served = table(SHOE, Item("lamp", "Lamp"), Item("cup", "Cup"), Item("hat", "Hat"))
    store.change_items([Item("sofa", "Sofa"), Item("cup", "Blue cup")], ["hat"])
    files = table(Item("hat", "Hat"), Item("cup", "Cup"), SHOE, Item("pen", "Pen"), Item("sofa", "Sofa"))
    found = difference(served, store, files)
    assert (found.items, found.new, found.changed, found.gone) == (4, [0, 3], [1], ["lamp"])


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Red shoes"},
        {"category": ("Shoes", "Red")},
        {"brand": None},
        {"price": 20.5},
        {"price": None},
        {"attributes": {"Color": ("red",)}},
        {"attributes": {"Color": ("red",), "Size": ("41", "40")}},
        {"seller": "s"},
        {"images": ("a.png",)},
        {"listed_at": LISTED + timedelta(seconds=1)},
        {"in_stock": None},
        {"description": "soft"},
    ],
)
def test_every_field_counts(store, change):
    other = Item(**{**vars(SHOE), **change})
    assert difference(table(SHOE), store, table(other)).changed == [0]
    store.change_items([other], ())
    assert difference(table(SHOE), store, table(other)).changed == []
    assert difference(table(SHOE), store, table(SHOE)).changed == [0]


def test_equal_items_that_are_written_otherwise_do_not_differ(store):
    """As a shop sent it over HTTP: attributes in another order, a whole price, a time in its own zone."""
    attributes = {"Size": ("40", "41"), "Color": ("red",)}
    there = LISTED.astimezone(timezone(timedelta(hours=2)))
    store.change_items([Item(**{**vars(SHOE), "attributes": attributes, "price": 20, "listed_at": there})], ())
    assert difference(table(), store, table(SHOE)).changed == []
