import gzip
import json
from datetime import UTC, datetime

import polars as pl
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
