"""Videos, live rooms and articles in a shop's files."""

from datetime import UTC, datetime

import polars as pl
import pytest

from onesearch.data.dataset import Dataset
from onesearch.data.ingest.column_mapping import ColumnMapping
from onesearch.data.ingest.data_check import check, column_values
from onesearch.data.ingest.importer import import_mapping
from onesearch.data.ingest.kind_values import UNKNOWN_KIND
from onesearch.data.ingest.rejected_rows import REJECTED
from onesearch.data.records import ITEMS, KIND_COLUMNS, Item, items_frame

CSV = """id,name,what,said,who,shows,from,to
s1,Red shoe,,,,,,
v1,Shoes tried on,Clip,<b>red</b> and soft,Ann,v1|s1|s1|nowhere|s2,,
l1,Shoes live,LIVE,red ones,Ben,s2,2024-05-01T10:00Z,2024-05-01T12:00Z
l2,Ends first,live,,,,2024-05-01T12:00Z,2024-05-01T12:00Z
l3,Ends some day,live,,,,2024-05-01T12:00Z,some day
x1,A podcast,podcast,,,,,
s2,Blue shoe,product,,,,,
"""
COLUMNS = {
    "item_id": "id",
    "title": "name",
    "kind": "what",
    "transcript": "said",
    "host": "who",
    "linked": "shows",
    "start": "from",
    "end": "to",
}


def imported(folder, columns=COLUMNS, **more):
    folder.mkdir(exist_ok=True)
    (folder / "items.csv").write_text(CSV)
    table = {"file": "items.csv", "columns": columns, "separators": {"linked": "|"}, **more}
    mapping = ColumnMapping.model_validate({"source": "test", "folder": str(folder), "items": table})
    return import_mapping(mapping, folder / "out"), Dataset.load(folder / "out")


def test_kinds_come_with_their_fields_and_what_cannot_be_is_set_aside(tmp_path):
    summary, data = imported(tmp_path, kind_words={"clip": "video"})
    items = {item.item_id: item for item in map(data.item, range(len(data.items)))}
    assert items == {
        "s1": Item("s1", "Red shoe"),
        "s2": Item("s2", "Blue shoe"),
        "v1": Item("v1", "Shoes tried on", kind="video", transcript="red and soft", host="Ann", linked=("s1", "s2")),
        "l1": Item(
            "l1",
            "Shoes live",
            kind="live",
            transcript="red ones",
            host="Ben",
            linked=("s2",),
            start=datetime(2024, 5, 1, 10, tzinfo=UTC),
            end=datetime(2024, 5, 1, 12, tzinfo=UTC),
        ),
    }
    # Two of the same link are one, which is no mistake; a link to itself, and one to nowhere, are counted.
    assert summary.emptied["items"] == {"linked: to the item itself": 1}
    assert summary.dropped == {"items.linked": 1}
    join = summary.joins["items.linked -> items"]
    assert (join.total, join.found) == (4, 3)
    reasons = dict(pl.read_parquet(data.folder / REJECTED).select("id", "reason").iter_rows())
    assert reasons["l2"] == "end is not after start"
    assert reasons["l3"].startswith("end is not a time")
    assert reasons["x1"] == UNKNOWN_KIND
    assert {finding.grade for finding in check(data.folder)} <= {"ok", "note", "warning"}
    assert {one.column: one.empty for one in column_values(data.folder)}["items.host"] == 2


def test_a_catalogue_of_products_is_written_as_before_there_were_kinds(tmp_path):
    _, data = imported(tmp_path, {"item_id": "id", "title": "name"})
    assert not set(KIND_COLUMNS) & set(pl.read_parquet(data.folder / "items.parquet").columns)
    assert data.items.schema == ITEMS
    assert data.items["kind"].unique().to_list() == ["product"]
    assert data.item(0) == Item("s1", "Red shoe")
    assert not [finding for finding in check(data.folder) if finding.grade == "error"]
    again = Dataset.write(tmp_path / "again", data.items)
    assert set(pl.read_parquet(again.folder / "items.parquet").columns) == set(ITEMS) - set(KIND_COLUMNS)


@pytest.mark.parametrize("more", [{"kind": "video"}, {"host": "Ann"}, {"end": datetime(2024, 5, 1, tzinfo=UTC)}])
def test_one_item_of_another_kind_brings_the_columns(tmp_path, more):
    items = [Item("a", "A"), Item("b", "B", **more)]
    data = Dataset.write(tmp_path / "data", items_frame(items))
    assert [data.item(0), data.item(1)] == items
    assert set(pl.read_parquet(data.folder / "items.parquet").columns) == set(ITEMS)


def test_a_constant_kind_holds_where_nothing_is_said(tmp_path):
    _, data = imported(tmp_path, {"item_id": "id", "title": "name"}, constants={"kind": "article"})
    assert data.items["kind"].unique().to_list() == ["article"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kind": "podcast"}, "'podcast' is not one of product, video, live, article"),
        ({"start": datetime(2024, 5, 1, 12, tzinfo=UTC), "end": datetime(2024, 5, 1, 12)}, "before it starts"),
    ],
)
def test_a_record_that_cannot_be_is_refused(more, said):
    with pytest.raises(ValueError, match=said):
        Item("a", "A", **more)
