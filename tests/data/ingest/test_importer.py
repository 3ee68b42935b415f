import gzip
import json
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onesearch.data.dataset import Dataset
from onesearch.data.ingest.column_mapping import ColumnMapping, load_mapping
from onesearch.data.ingest.data_check import check
from onesearch.data.ingest.importer import import_mapping
from onesearch.data.ingest.page_view_grouping import Grouping
from onesearch.data.ingest.rejected_rows import REJECTED
from onesearch.data.ingest.table_source import UNFIT_ID
from onesearch.data.records import ATTRIBUTES, PageView, page_views_frame

ITEMS_CSV = b"""id,name,path,brand,price,color,pictures,listed,stock
1,Red shoe,Clothing > Shoes,Acme,9.50,red/dark red,a.jpg|b.jpg,2024-01-01,yes
2,Boot,Clothing > Shoes,n/a,cheap,,,,no
1,Red shoe again,,,,,,,
3,,Clothing,,,,,,
,no id,,,,,,,
4,caf\xe9,,,,,,,
5,Sock,Clothing,Acme,-3,blue,,1717000000,1
"""
ITEMS = {
    "file": "items.csv",
    "columns": {
        "item_id": "id",
        "title": "name",
        "category": "path",
        "brand": "brand",
        "price": "price",
        "images": "pictures",
        "listed_at": "listed",
        "in_stock": "stock",
    },
    "attributes": {"Color": {"column": "color", "separator": "/"}, "Brand": "brand"},
    "separators": {"category": ">", "images": "|"},
    "constants": {"seller": "our shop"},
    "ignore": ["n/a"],
}
VIEWS = {
    "file": "views.jsonl",
    "columns": {
        "query": "q",
        "user_id": "u",
        "session_id": "s",
        "time": "t",
        "shown": "shown",
        "clicked": "clicked",
        "ordered": "ordered",
        "page_view_id": "id",
        "query_type": "kind",
    },
    "time": {"unit": "ms"},
}
T0 = 1_717_000_000_000
SOME = {"u": "ann", "s": 7, "clicked": [], "ordered": [], "kind": "a"}
ROWS = [
    {**SOME, "id": 1, "q": "shoe", "t": T0, "shown": [1, 2, 99], "clicked": [1]},
    {**SOME, "id": 2, "q": "shoe", "t": T0 // 1000, "shown": [1], "u": "bob"},
    {**SOME, "id": 3, "q": "boot", "t": T0 + 1, "shown": [98], "clicked": [99], "ordered": [99], "u": None},
    {**SOME, "id": 1, "q": "sock", "t": T0 + 2, "shown": [5]},
    {**SOME, "id": 4, "q": " ", "t": T0 + 3, "shown": [5]},
    {**SOME, "id": 5, "q": "sock", "t": None, "shown": [5]},
    {
        **SOME,
        "id": 6,
        "q": "sock",
        "t": T0 + 4,
        "shown": [5, 2],
        "clicked": [5, 2],
        "ordered": [5],
        "u": "eve",
        "s": 9,
        "kind": None,
    },
    {**SOME, "id": 7, "q": "none", "t": T0 + 5, "shown": [], "u": "eve"},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "items.csv").write_bytes(ITEMS_CSV)
    (tmp_path / "users.csv").write_text("user,sex,age\nann,F,24-30\nann,M,0\n")
    lines = [json.dumps(row) for row in ROWS]
    lines.insert(3, '{"id": 3, "q": ')
    (tmp_path / "views.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "judged.csv").write_text("q,id,score\nshoe,1,2.9\nshoe,1,1\nshoe,99,3\nboot,2,x\nsock,5,1.0\n")
    return tmp_path


def run(folder, **more):
    mapping = {
        "source": "test",
        "folder": str(folder),
        "items": ITEMS,
        "page_views": VIEWS,
        "users": {"file": "users.csv", "columns": {"user_id": "user", "gender": "sex", "age_band": "age"}},
        "judgments": {
            "file": "judged.csv",
            "columns": {"query": "q", "item_id": "id", "score": "score"},
            "levels": [1.5, 2, 2.5],
        },
    }
    summary = import_mapping(ColumnMapping.model_validate({**mapping, **more}), folder / "out")
    return summary, Dataset.load(folder / "out")


def aside(folder, table):
    frame = pl.read_parquet(folder / "out" / REJECTED).filter(table=table)
    return {(row, reason.split(": ")[0]) for row, reason in frame.select("row", "reason").rows()}


def test_items(folder):
    summary, dataset = run(folder)
    shoe, boot, sock = (dataset.item(row) for row in range(3))
    assert (shoe.item_id, shoe.category, shoe.brand, shoe.price) == ("1", ("Clothing", "Shoes"), "Acme", 9.5)
    assert shoe.attributes == {"Color": ("red", "dark red"), "Brand": ("Acme",)}
    assert (shoe.images, shoe.seller, shoe.in_stock) == (("a.jpg", "b.jpg"), "our shop", True)
    assert shoe.listed_at == datetime(2024, 1, 1, tzinfo=UTC)
    assert (boot.brand, boot.price, boot.attributes, boot.in_stock) == (None, None, {}, False)
    assert (sock.price, sock.listed_at) == (None, None)
    assert aside(folder, "items") == {
        (4, "duplicate item_id, the first one is kept"),
        (5, "no title"),
        (6, "no item id"),
        (7, "not valid utf-8"),
    }
    assert summary.emptied["items"] == {
        "price: not a number, or negative": 2,
        "listed_at: wrong time unit, looks like seconds but the mapping says unit text": 1,
    }
    assert len(dataset.items) == 3 and dataset.items.schema["attributes"] == ATTRIBUTES


def test_page_views(folder):
    summary, dataset = run(folder)
    views = dataset.page_views
    assert views["page_view_id"].to_list() == ["1", "6"]
    assert views["shown"].to_list() == [["1", "2"], ["5", "2"]]
    assert views["clicked"].to_list() == [["1"], ["5", "2"]]
    assert views["ordered"].to_list() == [[], ["5"]]
    assert views["time"][0] == datetime.fromtimestamp(T0 / 1000, UTC)
    assert views["session_id"].to_list() == ["7", "9"]
    assert views["query_type"].to_list() == ["a", None]
    assert aside(folder, "page_views") == {
        (2, "wrong time unit, looks like seconds but the mapping says unit ms"),
        (3, "no known item left"),
        (4, "broken JSON"),
        (5, "duplicate page_view_id"),
        (6, "no query"),
        (7, "no time"),
        (9, "no item at all"),
    }
    assert summary.dropped == {"page_views.shown": 2, "page_views.clicked": 1, "page_views.ordered": 1}
    assert dataset.users["user_id"].to_list() == ["ann", "eve"]
    assert summary.created == {"users": 1}
    assert summary.joins["page_views.user_id -> users"].found == 1


def test_the_part_that_a_page_view_belongs_to_is_a_column(folder):
    words = ["train", " Valid ", "dev", "", "TEST"]
    lines = [json.dumps({"q": f"shoe {n}", "clicked": [1], "part": word}) for n, word in enumerate(words)]
    (folder / "views.jsonl").write_text("\n".join(lines) + "\n")
    views = {"file": "views.jsonl", "columns": {"query": "q", "clicked": "clicked", "split": "part"}}
    _, dataset = run(folder, page_views=views)
    assert dataset.page_views.select("query", "split").rows() == [
        ("shoe 0", "train"),
        ("shoe 1", "valid"),
        ("shoe 4", "test"),
    ]
    assert aside(folder, "page_views") == {
        (3, "split is not train, valid or test"),
        (4, "split is not train, valid or test"),
    }
    # Without such a column nothing is refused.
    del views["columns"]["split"]
    assert run(folder, page_views=views)[1].page_views["split"].to_list() == [None] * 5


def test_grouped_page_views_keep_their_part(folder):
    (folder / "parts.csv").write_text("v,q,sku,part\nx,shoe,1,valid\nx,shoe,2,valid\ny,sock,5,test\n")
    columns = {"page_view_id": "v", "query": "q", "item_id": "sku", "split": "part"}
    table = {"file": "parts.csv", "rows": "clicks", "group_by": ["v", "part"], "columns": columns}
    assert run(folder, page_views=table)[1].page_views["split"].to_list() == ["valid", "test"]


def test_judgments(folder):
    summary, dataset = run(folder)
    assert dataset.judgments.rows() == [("shoe", "1", 3), ("sock", "5", 0)]
    assert summary.rejected["judgments"] == {
        "duplicate query and item_id, the first one is kept": 1,
        "item_id is not in the items": 1,
        "score is not a number": 1,
    }


def test_every_row_is_accounted_for(folder):
    summary, dataset = run(folder)
    read = {"items": 7, "users": 2, "page_views": len(ROWS) + 1, "judgments": 5}
    for table, n in read.items():
        made = summary.created[table]
        assert dataset.counts[table] - made + sum(summary.rejected[table].values()) == n
    rejected = pl.read_parquet(folder / "out" / REJECTED)
    assert len(rejected) == summary.rejected_rows
    text = rejected.filter(table="page_views", row=2)["text"][0]
    assert json.loads(text) == ROWS[1]
    assert dataset.description["import"]["rejected"] == summary.rejected


def test_unknown_items_become_items(folder):
    summary, dataset = run(folder, unknown_items="create")
    made = dataset.items.filter(pl.col("item_id").is_in(["98", "99"]))
    assert made["title"].to_list() == made["item_id"].to_list()
    assert (len(made), summary.created["items"], summary.dropped.total()) == (2, 2, 0)
    assert dataset.page_views["shown"].to_list()[0] == ["1", "2", "99"]
    assert ("shoe", "99", 3) in dataset.judgments.rows()
    assert not [finding for finding in check(folder / "out") if finding.grade == "error"]


def test_ids_that_the_service_cannot_be_asked_about_are_set_aside(tmp_path):
    """In the items, and where items are made of the ids in page views and judgments."""
    longest, wrong = "x" * 200, ["nl\nid", "bell\x07", "next\x85line", "x" * 201]
    rows = [{"id": name, "t": "boot"} for name in ["1", longest, *wrong]]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    new = ["new", "y" * 201, "new\r1"]
    view = {"q": "boot", "shown": [longest, *wrong, *new], "clicked": [wrong[0]]}
    (tmp_path / "views.jsonl").write_text(json.dumps(view))
    judged = [{"q": "boot", "id": name, "score": 1} for name in ["1", "judged", *wrong, *new]]
    (tmp_path / "judged.jsonl").write_text("\n".join(map(json.dumps, judged)))
    mapping = {
        "source": "test",
        "folder": str(tmp_path),
        "items": {"file": "items.jsonl", "columns": {"item_id": "id", "title": "t"}},
        "page_views": {"file": "views.jsonl", "columns": {"query": "q", "shown": "shown", "clicked": "clicked"}},
        "judgments": {"file": "judged.jsonl", "columns": {"query": "q", "item_id": "id", "score": "score"}},
    }
    for unknown in ("drop", "create"):
        given = ColumnMapping.model_validate({**mapping, "unknown_items": unknown})
        summary = import_mapping(given, tmp_path / unknown)
        dataset, made = Dataset.load(tmp_path / unknown), ["new"] * (unknown == "create")
        assert dataset.items["item_id"].to_list() == ["1", longest, *made, *["judged"] * len(made)]
        assert (
            dataset.page_views["shown"].to_list() == [[longest, *made]] and dataset.page_views["clicked"][0].is_empty()
        )
        assert summary.rejected["items"] == {UNFIT_ID: 4}
        assert dataset.judgments["item_id"].to_list() == ["1", *["judged"] * len(made), *made]
        assert not made or summary.rejected["judgments"] == {UNFIT_ID: 6}
    ids = pl.read_parquet(tmp_path / "drop" / REJECTED).filter(table="items")["id"].to_list()
    assert ids == wrong, "an item that is served under such an id is known by it"


def test_an_import_of_the_same_files_is_the_same(folder):
    assert run(folder)[1].fingerprint == run(folder)[1].fingerprint


CLICKS = """who,sku,q,at,asked
a,1,shoe,2024-05-01 10:00:05,10:00
b,2,boot,2024-05-01 10:01:00,10:01
a,5,shoe,2024-05-01 10:00:09,10:00
a,1,shoe,2024-05-01 10:00:02,10:00
a,1,shoe,2024-05-01 11:00:00,11:00
b,77,boot,2024-05-01 10:02:00,10:01
"""


def clicks(folder, **more):
    (folder / "clicks.csv").write_text(CLICKS)
    columns = {"user_id": "who", "item_id": "sku", "query": "q", "time": "at"}
    return run(folder, page_views={"file": "clicks.csv", "rows": "clicks", "columns": columns, **more})


def test_one_row_per_click(folder):
    _, dataset = clicks(folder)
    assert dataset.page_views["clicked"].to_list() == [["1"], ["2"], ["5"], ["1"], ["1"]]
    assert dataset.page_views["page_view_id"].to_list() == ["2", "3", "4", "5", "6"]
    assert aside(folder, "page_views") == {(7, "no known item left")}


@pytest.mark.parametrize("in_memory", [100, 1])
def test_clicks_grouped_to_page_views(folder, monkeypatch, in_memory):
    monkeypatch.setattr(Grouping.__init__, "__defaults__", (in_memory,))
    _, dataset = clicks(folder, group_by=["who", "q", "asked"])
    views = dataset.page_views.sort("time")
    assert views["clicked"].to_list() == [["1", "5"], ["2"], ["1"]]
    assert views["time"][0] == datetime(2024, 5, 1, 10, 0, 2, tzinfo=UTC)
    assert views["shown"].to_list() == [[], [], []]
    assert not list((folder / "out").glob(".grouping*"))


def test_one_row_per_shown_item(folder):
    (folder / "shown.csv").write_text("v,q,sku,click,buy\nx,shoe,1,0,0\nx,shoe,2,1,1\ny,sock,5,false,0\n")
    columns = {"page_view_id": "v", "query": "q", "item_id": "sku", "clicked": "click", "ordered": "buy"}
    _, dataset = run(folder, page_views={"file": "shown.csv", "rows": "items", "group_by": ["v"], "columns": columns})
    assert dataset.page_views.select("page_view_id", "shown", "clicked", "ordered").rows() == [
        ("x", ["1", "2"], ["2"], ["2"]),
        ("y", ["5"], [], []),
    ]


def test_page_views_from_judgments(folder):
    _, dataset = run(folder, page_views={"from": "judgments", "clicked_at": 2.5})
    assert dataset.page_views.select("query", "shown", "clicked").rows() == [
        ("shoe", ["1"], ["1"]),
        ("sock", ["5"], []),
    ]
    assert dataset.page_views["time"].null_count() == 2


def test_parquet_and_several_files(folder):
    for n in range(2):
        pl.DataFrame({"id": [10 * n, 10 * n + 1], "t": ["x", "y"], "p": [1.0, None]}).write_parquet(
            folder / f"part-{n}.parquet"
        )
    items = {"file": "part-*.parquet", "columns": {"item_id": "id", "title": "t", "price": "p"}}
    for n in range(2):
        (folder / f"log-{n}.csv").write_text("q,c\nx,10 11\n")
    views = {"file": "log-*.csv", "columns": {"query": "q", "clicked": "c"}, "separators": {"clicked": " "}}
    _, dataset = run(folder, items=items, page_views=views, judgments=None)
    assert dataset.items["item_id"].to_list() == ["0", "1", "10", "11"]
    assert dataset.page_views["clicked"].to_list() == [["10", "11"], ["10", "11"]]
    assert dataset.page_views["page_view_id"].n_unique() == 2


def test_files_that_are_not_there(folder):
    with pytest.raises(FileNotFoundError, match=r"item\.csv: no such file; the folder has items\.csv"):
        run(folder, items={**ITEMS, "file": "item.csv"})
    (folder / "items.csv").write_text("id,name\n,shoe\n")
    with pytest.raises(ValueError, match="no item could be imported"):
        run(folder, items={"file": "items.csv", "columns": {"item_id": "id", "title": "name"}})
    with pytest.raises(FileNotFoundError, match="not a complete dataset"):
        Dataset.load(folder / "out")


def test_home_depot(shared_data, repository, tmp_path):
    summary = import_mapping(load_mapping(repository / "configs/mappings/homedepot.yaml", shared_data), tmp_path)
    dataset = Dataset.load(tmp_path)
    assert summary.rejected == {}
    assert dataset.counts["items"] == 54_667
    assert dataset.counts["judgments"] == 63_287
    assert dataset.page_views["query"].n_unique() == len(dataset.page_views) == 10_087
    # clicked = rating of at least 2.33 = level 2 or 3
    assert dataset.page_views["clicked"].list.len().sum() == (dataset.judgments["level"] >= 2).sum()


def test_best_buy(shared_data, repository, tmp_path):
    summary = import_mapping(load_mapping(repository / "configs/mappings/bestbuy.yaml", shared_data), tmp_path)
    dataset = Dataset.load(tmp_path)
    assert summary.rejected == {}
    assert dataset.page_views["clicked"].list.len().sum() == 36_010
    assert summary.created["items"] == 13 and dataset.counts["items"] == 450
    assert dataset.page_views["time"].is_sorted()
    assert not [finding for finding in check(tmp_path) if finding.grade == "error"]


def test_rows_of_a_group_are_chained_without_repetitions(folder):
    grouping = Grouping(folder)
    rows = page_views_frame(
        [
            PageView("1", "shoe", "ann", shown=("a", "b"), clicked=("b",), time=datetime(2024, 5, 1, 10, tzinfo=UTC)),
            PageView("2", "boot", shown=("a",)),
            PageView("3", "other", "bob", shown=("b", "c"), time=datetime(2024, 5, 1, 9, tzinfo=UTC)),
        ]
    ).with_columns(group=pl.Series([7, 8, 7], dtype=pl.UInt64))
    grouping.add(rows)
    (found,) = grouping.page_views()
    assert found.select("page_view_id", "query", "user_id", "shown", "clicked").rows() == [
        ("1", "shoe", "ann", ["a", "b", "c"], ["b"]),
        ("2", "boot", None, ["a"], []),
    ]
    assert found["time"].to_list() == [datetime(2024, 5, 1, 9, tzinfo=UTC), None]


def test_only_rows_that_are_taken_count(folder):
    """A row that is set aside neither takes an id nor counts among the references."""
    (folder / "items.csv").write_text("id,name\n1,\n1,shoe\n2,boot\n")
    rows = [
        {"id": "a", "q": "", "shown": [1, 99]},
        {"id": "a", "q": "shoe", "shown": [1, 2]},
        {"id": "a", "q": "boot", "shown": [2]},
    ]
    (folder / "views.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"query": "q", "page_view_id": "id", "shown": "shown"}
    summary, dataset = run(
        folder,
        items={"file": "items.csv", "columns": {"item_id": "id", "title": "name"}},
        page_views={"file": "views.jsonl", "columns": columns},
    )
    assert dataset.items.select("item_id", "title").rows() == [("1", "shoe"), ("2", "boot")]
    assert dataset.page_views["query"].to_list() == ["shoe"]
    assert (summary.joins["page_views.shown -> items"].total, summary.joins["page_views.shown -> items"].found) == (
        3,
        3,
    )
    assert summary.dropped.total() == 0


def test_category_columns_and_what_all_items_share(folder):
    (folder / "items.csv").write_bytes(ITEMS_CSV + b"6,Hat,,,,,,,perhaps\n")
    items = {
        "file": "items.csv",
        "columns": {"item_id": "id", "title": "name", "category": ["path", "brand"], "in_stock": "stock"},
        "constants": {"in_stock": False, "brand": "house"},
        "ignore": ["n/a"],
    }
    _, dataset = run(folder, items=items, page_views=None, judgments=None)
    assert dataset.items["category"].to_list() == [
        ["Clothing > Shoes", "Acme"],
        ["Clothing > Shoes"],
        ["Clothing", "Acme"],
        [],
    ]
    assert dataset.items["in_stock"].to_list() == [True, False, True, None]
    assert dataset.items["brand"].to_list() == ["house"] * 4


def test_a_score_at_the_bound_has_the_level(folder):
    (folder / "judged.csv").write_text("q,id,score\na,1,1.49\nb,1,1.5\nc,1,2\nd,1,2.5\n")
    assert run(folder)[1].judgments["level"].to_list() == [0, 1, 2, 3]


def test_a_score_that_is_no_number_is_set_aside_whatever_the_levels(folder):
    (folder / "judged.csv").write_text("q,id,score\nshoe,1,nan\nshoe,2,inf\nshoe,5,-inf\nsock,5,3\n,5,1\n")
    summary, dataset = run(folder)
    assert dataset.judgments.rows() == [("sock", "5", 3)]
    # the most frequent reason first
    assert list(summary.rejected["judgments"].items()) == [("score is not a number", 3), ("no query", 1)]


def test_tabs_of_packed_files(folder):
    (folder / "items.tsv.gz").write_bytes(gzip.compress(b"id\tname\n1\tshoe, red\n"))
    items = {"file": "items.tsv.gz", "columns": {"item_id": "id", "title": "name"}}
    assert run(folder, items=items, page_views=None, judgments=None)[1].items["title"].to_list() == ["shoe, red"]


SHOP = """sku,name,kind,maker,cost,there,text,size
1,Tent &amp; Poles,Outdoor > Tents,Fjord,"1.050",ja,<p>Two <b>persons</b></p>,L/XL
2,Stove,Outdoor > Stoves,Fjord,"€ 49,90",vielleicht,,
3,Cup,Kitchen,None,"12,00",,,S
,,,,,,,
1,,,,"1.049",nein,,M
"""


def shop_items(**more):
    columns = {
        "item_id": "sku",
        "title": "name",
        "category": "kind",
        "brand": "maker",
        "price": "cost",
        "in_stock": "there",
        "description": "text",
    }
    attributes = {"Size": {"column": "size", "separator": "/"}}
    return {"file": "shop.csv", "columns": columns, "attributes": attributes, **more}


def test_what_is_done_to_every_value_is_counted(folder):
    (folder / "shop.csv").write_text(SHOP)
    summary, dataset = run(folder, items=shop_items(), page_views=None, judgments=None, users=None)
    tent, stove, cup = (dataset.item(row) for row in range(3))
    assert (tent.title, tent.description, tent.category) == ("Tent & Poles", "Two persons", ("Outdoor", "Tents"))
    assert (tent.attributes, tent.price, stove.price) == ({"Size": ("L", "XL")}, 1.05, 49.9)
    assert (tent.in_stock, stove.in_stock, cup.in_stock) == (True, None, None)
    assert summary.emptied["items"] == {"in_stock: not a known word, see stock_words": 1}
    assert summary.repaired["items"] == {
        "title: HTML or invisible characters": 1,
        "description: HTML or invisible characters": 1,
    }
    assert summary.suspicious["items"] == {"price: could mean two amounts, set decimal": 2}
    assert aside(folder, "items") == {(5, "no item id"), (6, "variant without a title, of")}
    reasons = pl.read_parquet(folder / "out" / REJECTED)["reason"].to_list()
    assert "variant without a title, of: 1" in reasons
    assert dataset.description["import"]["suspicious"] == {"items": dict(summary.suspicious["items"])}
    # The mapping knows better.
    more = {"decimal": ",", "stock_words": {"vielleicht": False}, "constants": {"in_stock": True}, "ignore": ["None"]}
    summary, dataset = run(folder, items=shop_items(**more), page_views=None, judgments=None, users=None)
    assert dataset.items["price"].to_list() == [1050, 49.9, 12]
    assert dataset.items["in_stock"].to_list() == [True, False, True] and dataset.items["brand"][2] is None
    assert not summary.emptied["items"] and not summary.suspicious["items"]


def test_ids_are_not_cleaned_where_titles_are(folder):
    (folder / "shop.csv").write_text("name\nTea &amp; Co\n")
    (folder / "log.csv").write_text("q,c\ntea,Tea &amp; Co\n")
    items = {"file": "shop.csv", "columns": {"item_id": "name", "title": "name"}}
    views = {"file": "log.csv", "columns": {"query": "q", "clicked": "c"}}
    _, dataset = run(folder, items=items, page_views=views, judgments=None, users=None)
    assert dataset.items.select("item_id", "title").rows() == [("Tea &amp; Co", "Tea & Co")]
    assert dataset.page_views["clicked"].to_list() == [["Tea &amp; Co"]]


def test_flags_of_clicks_that_are_no_known_words_are_counted(folder):
    (folder / "shown.csv").write_text("v,q,sku,click\nx,shoe,1,maybe\nx,shoe,2,ja\ny,sock,5,2\n")
    columns = {"page_view_id": "v", "query": "q", "item_id": "sku", "clicked": "click"}
    views = {"file": "shown.csv", "rows": "items", "group_by": ["v"], "columns": columns}
    summary, dataset = run(folder, page_views=views)
    assert dataset.page_views["clicked"].to_list() == [["2"], ["5"]]
    assert summary.emptied["page_views"] == {"clicked: not a known word": 1}


def import_lines(folder, items, views=None, **more):
    """An import of JSON lines: items with id, t and further columns as they are called; and page views."""
    names = dict.fromkeys(name for row in items for name in row if name not in ("id", "t"))
    (folder / "i.jsonl").write_text("\n".join(map(json.dumps, items)))
    table = {"file": "i.jsonl", "columns": {"item_id": "id", "title": "t"} | {name: name for name in names}}
    mapping = {"source": "x", "folder": str(folder), "items": table | more.pop("style", {})}
    if views is not None:
        (folder / "v.jsonl").write_text("\n".join(map(json.dumps, views)))
        mapping["page_views"] = {"file": "v.jsonl", **more.pop("page_views")}
    summary = import_mapping(ColumnMapping.model_validate({**mapping, **more}), folder / "out")
    return summary, Dataset.load(folder / "out")


def test_a_list_in_a_column_of_one_value_costs_its_row_or_its_cell(tmp_path):
    items = [
        {"id": "1", "t": "chair", "brand": "A", "price": 3, "in_stock": "yes", "listed_at": "2024-01-01"},
        {"id": ["2"], "t": ["table"], "brand": ["B"], "price": [4.5], "in_stock": ["no"], "listed_at": []},
        {"id": ["3", "4"], "t": "lamp"},
        {"id": "5", "t": ["sofa", "couch"]},
        {"id": "6", "t": "bed", "brand": ["A", "B"], "price": [1, 2], "in_stock": ["a", "b"], "listed_at": ["x", "y"]},
    ]
    summary, dataset = import_lines(tmp_path, items)
    first, second, last = (dataset.item(row) for row in range(3))
    assert (first.brand, first.price, first.in_stock) == ("A", 3, True) and first.listed_at is not None
    assert (second.item_id, second.title, second.brand, second.price, second.in_stock) == (
        "2",
        "table",
        "B",
        4.5,
        False,
    )
    assert (last.item_id, last.brand, last.price, last.in_stock, last.listed_at) == ("6", None, None, None, None)
    assert summary.rejected == {"items": {"a list where one value belongs": 2}}
    reasons = pl.read_parquet(tmp_path / "out" / REJECTED)["reason"].to_list()
    assert reasons == [f"a list where one value belongs: {name}" for name in ("item_id", "title")]
    names = ("price", "brand", "listed_at", "in_stock")
    assert summary.emptied["items"] == {f"{name}: a list where one value belongs": 1 for name in names}


def test_a_column_may_hold_a_value_for_the_brand_and_lists_for_an_attribute(tmp_path):
    items = [{"id": "1", "t": "x", "brand": "A"}, {"id": "2", "t": "y", "brand": ["B", "C"]}]
    _, dataset = import_lines(tmp_path, items, style={"attributes": {"Brand": "brand"}})
    assert [dataset.item(row).attributes for row in range(2)] == [{"Brand": ("A",)}, {"Brand": ("B", "C")}]
    assert [dataset.item(row).brand for row in range(2)] == ["A", None]


def test_lists_in_page_views_cost_their_row(tmp_path):
    columns = {"query": "q", "item_id": "i", "user_id": "u", "ordered": "o", "query_type": "k"}
    good = {"q": "chair", "i": "1", "u": "ann", "o": "no", "s": "s1", "k": "text"}
    wrong = [{**good, name: ["a", "b"]} for name in ("q", "i", "u", "o", "s")]
    views = [good, *wrong, {**good, "k": ["a", "b"], "s": "s2"}]
    summary, dataset = import_lines(
        tmp_path,
        [{"id": "1", "t": "x"}],
        views,
        page_views={"rows": "clicks", "columns": columns, "group_by": ["s", "q"]},
    )
    assert len(dataset.page_views) == 2
    assert summary.rejected == {"page_views": {"a list where one value belongs": 5}}
    assert summary.emptied["page_views"] == {"query_type: a list where one value belongs": 1}
    assert aside(tmp_path, "page_views") == {(row, "a list where one value belongs") for row in range(2, 7)}


def test_a_json_number_is_a_price_as_it_stands_beside_prices_as_texts(tmp_path):
    items = [{"id": "1", "t": "x", "price": 54.321}, {"id": "2", "t": "y", "price": "2.499,00"}]
    _, dataset = import_lines(tmp_path, items, style={"decimal": ","})
    assert [dataset.item(row).price for row in range(2)] == [54.321, 2499]


def test_large_ids_beside_a_fraction_are_items_of_their_own(tmp_path):
    large = 2**60
    items = [{"id": n, "t": str(n)} for n in (large, large + 1, 2.0)]
    views = [{"q": "x", "c": [large + 1, 2.0]}]
    mapping = {"columns": {"query": "q", "clicked": "c"}}
    summary, dataset = import_lines(tmp_path, items, views, page_views=mapping)
    assert dataset.items["item_id"].to_list() == [str(large), str(large + 1), "2"]
    assert dataset.page_views["clicked"].to_list() == [[str(large + 1), "2"]] and summary.rejected_rows == 0


def test_rows_with_an_empty_group_stay_page_views_of_their_own(tmp_path):
    def row(item, user, **more):
        return {"q": "mug", "i": item, "u": user, **more}

    views = [
        row("1", "ann"),
        row("1", "bob", s=" "),
        row("1", "cem", s="s1"),
        row("2", "cem", s="s1"),
        row("1", None, s="s2"),
        row("2", None, s="s2"),
        {"q": "", "i": "1", "u": "dee", "s": "s3"},
        {"q": None, "i": "2", "u": "dee", "s": "s3"},
    ]
    columns = {"query": "q", "item_id": "i", "user_id": "u"}
    mapping = {"rows": "clicks", "columns": columns, "group_by": ["s", "u", "q"], "empty_query": "keep"}
    items = [{"id": "1", "t": "x"}, {"id": "2", "t": "y"}]
    summary, dataset = import_lines(tmp_path, items, views, page_views=mapping)
    # A shopper without account and a page view without query are told apart by the other columns.
    found = sorted(
        zip(dataset.page_views["user_id"].fill_null("-"), map(len, dataset.page_views["clicked"]), strict=True)
    )
    assert found == [("-", 2), ("ann", 1), ("bob", 1), ("cem", 2), ("dee", 2)]
    assert summary.suspicious["page_views"] == {"group_by: an empty cell, the row is a page view of its own": 2}
    # Where nothing but the shopper tells page views apart, one without account is anyone.
    (tmp_path / "out").rename(tmp_path / "before")
    _, dataset = import_lines(tmp_path, items, views, page_views={**mapping, "group_by": ["u", "q"]})
    assert len(dataset.page_views) == 6


def test_page_views_of_files_of_one_name_have_ids_of_their_own(tmp_path):
    for folder in ("2024", "2025"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "log.csv").write_text("q,c\nmug,1\nmug,1\n")
    (tmp_path / "i.csv").write_text("id,t\n1,x\n")
    views = {"file": "*/log.csv", "columns": {"query": "q", "clicked": "c"}}
    items = {"file": "i.csv", "columns": {"item_id": "id", "title": "t"}}
    mapping = {"source": "x", "folder": str(tmp_path), "items": items, "page_views": views}
    import_mapping(ColumnMapping.model_validate(mapping), tmp_path / "out")
    assert [finding for finding in check(tmp_path / "out") if finding.grade == "error"] == []
    assert Dataset.load(tmp_path / "out").page_views["page_view_id"].n_unique() == 4


def test_what_no_text_can_be_made_of_is_counted_by_our_names(tmp_path):
    times = pa.array([10**18, 1_700_000_000_000_000], pa.int64()).view(pa.timestamp("us"))
    table = {"id": ["1", "2"], "t": ["x", "y"], "b": [b"\xff", b"Acme"], "c": ['[["A", "B"]]', "A > B"], "w": times}
    pq.write_table(pa.table(table), tmp_path / "i.parquet")
    columns = {"item_id": "id", "title": "t", "brand": "b", "category": "c", "listed_at": "w"}
    mapping = {"source": "x", "folder": str(tmp_path), "items": {"file": "i.parquet", "columns": columns}}
    summary = import_mapping(ColumnMapping.model_validate(mapping), tmp_path / "out")
    assert summary.rows["items"] == 2
    assert summary.emptied["items"] == {
        "brand: bytes that are not UTF-8": 1,
        "listed_at: outside the calendar": 1,
        "category: objects, or a list of objects or lists": 1,
    }


def test_nan_is_nobody(tmp_path):
    """pandas writes a missing number as NaN: these shoppers are not one shopper called NaN."""
    pl.DataFrame({"q": ["x"] * 3, "i": [1.0] * 3, "u": [float("nan"), float("nan"), 7.0]}).write_parquet(
        tmp_path / "v.parquet"
    )
    (tmp_path / "i.jsonl").write_text('{"id": 1, "t": "x"}')
    views = {"file": "v.parquet", "rows": "clicks", "columns": {"query": "q", "item_id": "i", "user_id": "u"}}
    items = {"file": "i.jsonl", "columns": {"item_id": "id", "title": "t"}}
    mapping = {"source": "x", "folder": str(tmp_path), "items": items, "page_views": views}
    import_mapping(ColumnMapping.model_validate(mapping), tmp_path / "out")
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.page_views["user_id"].to_list() == [None, None, "7"]
    assert dataset.users["user_id"].to_list() == ["7"]


def test_a_text_beside_lists_is_read_as_without_them(tmp_path):
    """A record means the same whatever its neighbours are."""
    items = {
        "columns": {"item_id": "id", "title": "t", "category": "c", "images": "p", "brand": "b"},
        "attributes": {"Color": {"column": "k", "separator": "/"}},
        "separators": {"images": "|"},
    }
    lone = {"id": "1", "t": "x", "c": '["A", "B"]', "p": "a.jpg|b.jpg", "k": "red/blue", "b": "[New]"}
    lists = {"id": "2", "t": "y", "c": ["A > C"], "p": ["c|d.jpg"], "k": ["red", "green"], "b": ["Acme"]}
    views = [{"q": "x", "s": "1 2", "c": '["1"]'}, {"q": "x", "s": ["1", "2"], "c": ["2"]}]
    mapping = {"columns": {"query": "q", "shown": "s", "clicked": "c"}, "separators": {"shown": " "}}
    found = {}
    for name, rows in {"beside": [lone, lists], "alone": [lone]}.items():
        (tmp_path / name).mkdir()
        summary, dataset = import_lines(tmp_path / name, rows, views, style=items, page_views=mapping)
        found[name] = dataset.items.row(0, named=True)
        assert summary.emptied["items"] == {} and (name == "alone" or not summary.dropped)
    assert found["alone"] == found["beside"]
    assert found["alone"]["category"] == ["A", "B"] and found["alone"]["images"] == ["a.jpg", "b.jpg"]
    assert [one["value"] for one in found["alone"]["attributes"]] == ["red", "blue"]
    assert found["alone"]["brand"] == "[New]"
    dataset = Dataset.load(tmp_path / "beside" / "out")
    assert dataset.items.row(1, named=True)["images"] == ["c|d.jpg"], "a list is taken as it is"
    assert dataset.page_views["shown"].to_list() == [["1", "2"]] * 2
    assert dataset.page_views["clicked"].to_list() == [["1"], ["2"]]


@pytest.mark.parametrize("written", ['{"name": "Acme"}', "{'name': 'Acme', 'n': 1}", ' { "a" : {} } ', "{}"])
def test_an_object_written_as_a_text_is_no_value(tmp_path, written):
    items = [
        {"id": "1", "t": "x", "b": written, "k": "red", "c": "A"},
        {"id": "2", "t": written, "b": "{New}", "k": written, "c": "B"},
        {"id": "3", "t": "{a: b}", "b": '{"a"}', "k": ["x"], "c": written},
    ]
    mapping = {
        "columns": {"item_id": "id", "title": "t", "brand": "b", "category": "c"},
        "attributes": {"Color": {"column": "k"}},
    }
    views = [{"q": written, "c": ["1"]}]
    log = {"columns": {"query": "q", "clicked": "c"}}
    summary, dataset = import_lines(tmp_path, items, views, style=mapping, page_views=log)
    assert dataset.items["title"].to_list() == ["x", "{a: b}"]
    assert dataset.items["brand"].to_list() == [None, '{"a"}'] and dataset.items["category"].to_list() == [["A"], []]
    assert summary.emptied["items"] == {
        "brand: an object where one value belongs": 1,
        "attributes: objects, or a list of objects or lists": 1,
        "category: objects, or a list of objects or lists": 1,
    }
    (reason,) = pl.read_parquet(tmp_path / "out" / REJECTED)["reason"]
    assert reason == "an object where one value belongs: title"
    assert dataset.page_views["query"].to_list() == [written.strip()], "a query is what somebody typed"
