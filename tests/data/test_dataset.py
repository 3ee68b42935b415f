from datetime import UTC, datetime

import polars as pl
import pytest

from onesearch.data.dataset import Dataset
from onesearch.data.records import (
    SCHEMAS,
    Item,
    Judgment,
    PageView,
    User,
    conform,
    item_from_row,
    items_frame,
    judgments_frame,
    page_views_frame,
    users_frame,
)

ITEMS = [
    Item(
        "a",
        "Red shoe",
        ("Clothing", "Shoes"),
        "Acme",
        9.5,
        {"Color": ("red", "dark red"), "Brand": ("Acme",)},
        "shop",
        ("x.jpg",),
        datetime(2024, 5, 1, tzinfo=UTC),
        False,
    ),
    Item("b", "Boot"),
]
PAGE_VIEW = PageView("1", "shoe", "u", "s", datetime(2024, 5, 2, tzinfo=UTC), ("a", "b"), ("b", "gone"), ("b",), "head")


def written(folder):
    return Dataset.write(
        folder,
        items_frame(ITEMS),
        users_frame([User("u", "F", "24-30")]),
        page_views_frame([PAGE_VIEW]),
        judgments_frame([Judgment("shoe", "a", 3)]),
        source="test",
    )


def test_columns_of_the_items_are_read_without_the_table(tmp_path):
    written(tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    # The kind is stored in catalogues of more than products alone.
    assert dataset.item_columns("kind", "item_id").rows() == [("product", "a"), ("product", "b")]
    assert dataset.item_columns("kind").height == 2 and "items" not in vars(dataset)
    whole = dataset.item_columns()
    assert "items" not in vars(dataset) and whole.equals(dataset.items)
    assert dataset.item_columns("title").equals(dataset.items.select("title"))
    assert dataset.item_columns().equals(dataset.items)


def test_ids_that_two_items_have_are_named_with_their_file(tmp_path):
    written(tmp_path / "data")
    items = pl.read_parquet(tmp_path / "data" / "items.parquet")
    pl.concat([items, items.head(1)]).write_parquet(tmp_path / "data" / "items.parquet")
    with pytest.raises(ValueError, match=r"items\.parquet: item_id: 'a' comes twice.*import the data again"):
        _ = Dataset.load(tmp_path / "data").item_rows


def test_what_is_written_is_read(tmp_path):
    written(tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    assert [dataset.item(row) for row in range(2)] == ITEMS
    assert dataset.item_rows == {"a": 0, "b": 1}
    assert dataset.counts == {"items": 2, "users": 1, "page_views": 1, "judgments": 1}
    assert dataset.source == "test"
    for name, schema in SCHEMAS.items():
        assert getattr(dataset, name).schema == schema
    assert dataset.scan_page_views().collect().equals(dataset.page_views)
    assert dataset.page_views["clicked"].to_list() == [["b", "gone"]]
    assert dataset.rows_of(pl.Series(["b", None, "zz", "a"])).to_list() == [1, -1, -1, 0]
    rows = dataset.ragged(pl.Series([["b", "zz", "a"], None, []], dtype=pl.List(pl.String)))
    assert [rows[i].tolist() for i in range(3)] == [[1, 0], [], []]


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    other = Dataset.write(tmp_path / "other", items_frame(ITEMS[:1]))
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert len(other.judgments) == 0


def test_an_unfinished_folder_is_no_dataset(tmp_path):
    dataset = written(tmp_path)
    (dataset.folder / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match="onesearch data import"):
        Dataset.load(tmp_path)


def test_wrong_columns_and_attribute_types_are_named(tmp_path):
    with pytest.raises(ValueError, match="no column 'colour'"):
        Dataset.write(tmp_path, pl.DataFrame({"item_id": ["a"], "colour": ["red"]}))
    with pytest.raises(ValueError, match="attribute type 'Colour'; the nearest valid one is 'Color'"):
        Item("a", "t", attributes={"Colour": ("red",)})
    with pytest.raises(ValueError, match="level 4"):
        Judgment("q", "a", 4)


def test_writing_again_is_unfinished_until_the_end(tmp_path):
    written(tmp_path)
    with pytest.raises(ValueError, match="no column 'colour'"):
        Dataset.write(tmp_path, pl.DataFrame({"item_id": ["a"], "colour": ["red"]}))
    with pytest.raises(FileNotFoundError, match="not a complete dataset"):
        Dataset.load(tmp_path)


def test_what_is_missing_means_none_and_in_stock(tmp_path):
    table = conform("items", pl.DataFrame({"title": ["t"], "item_id": ["1"]}))
    assert table.schema == SCHEMAS["items"]
    assert table["in_stock"].to_list() == [True] and table["category"].to_list() == [[]] and table["brand"][0] is None
    assert item_from_row({**table.row(0, named=True), "in_stock": None}) == Item("1", "t", in_stock=None)
    with pytest.raises(ValueError, match="does not have the expected type"):
        conform("items", pl.DataFrame({"item_id": ["1"], "price": ["cheap"]}))
