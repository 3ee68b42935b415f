import json
from datetime import UTC, datetime

import polars as pl
import pytest

from onesearch.data.dataset import Dataset
from onesearch.data.ingest.data_check import check
from onesearch.data.ingest.kuaisearch_source import import_kuaisearch
from onesearch.data.ingest.rejected_rows import REJECTED


def item(number, title, seller="shop", leaf="UNKNOWN", brand="无品牌"):
    return {
        "item_id": number,
        "item_title": title,
        "brand_id": 1,
        "brand_name": brand,
        "seller_id": 1,
        "seller_name": seller,
        "category_level1_name": "女装",
        "category_level2_name": "皮草",
        "category_level3_name": leaf,
    }


def view(user, session, query, shown, clicked, bought, time, **more):
    return {
        "user_id": user,
        "session_id": session,
        "impressed_item_ids": shown,
        "clicked_item_ids": clicked,
        "purchased_item_ids": bought,
        "time_index": time,
        "query": query,
        "split": "train",
        **more,
    }


TABLES = {
    "items": [item(1, "红鞋", leaf="鞋", brand="GUARCI"), item(2, "蓝鞋", "a"), item(3, "蓝鞋", "b"), item(1, "again")],
    "users": [
        {"user_id": 5, "gender": "F", "age_bucket": "24-30"},
        {"user_id": 4, "gender": "UNKNOWN", "age_bucket": "50+"},
    ],
    "recall": [
        view(5, 1, "鞋", [1, 2, 9], [1], [], 60),
        view(6, 2, "鞋", [9], [9], [], 70),
        view(7, 3, "", [3], [], [], 80, query_type="recommendation"),
    ],
    "rank": [
        {"user_id": 5, "session_id": 1, "target_item_id": 1, "target_item_price": 10.0},
        {"user_id": 5, "session_id": 1, "target_item_id": 1, "target_item_price": 12.0},
        {"user_id": 8, "session_id": 4, "target_item_id": 9, "target_item_price": 1.0},
    ],
    "relevance": [
        {"query": "鞋", "item_title": "蓝鞋", "seller_name": "b", "score": 3},
        {"query": "鞋", "item_title": "蓝鞋", "seller_name": "other", "score": 1},
        {"query": "帽", "item_title": "帽子", "seller_name": "b", "score": 2},
        {"query": "鞋", "item_title": "any", "seller_name": "b", "score": 0, "item_id": 1},
        {"query": "鞋", "item_title": "红鞋", "seller_name": "b", "score": 7},
    ],
}


@pytest.fixture
def folder(tmp_path):
    for name, rows in TABLES.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def test_all_tables(folder):
    summary = import_kuaisearch(folder, folder / "out")
    dataset = Dataset.load(folder / "out")
    first = dataset.item(0)
    assert (first.item_id, first.title, first.category) == ("1", "红鞋", ("女装", "皮草", "鞋"))
    assert (first.brand, first.price, first.seller) == ("GUARCI", 12.0, "shop")
    assert (dataset.item(1).category, dataset.item(1).brand, dataset.item(1).price) == (("女装", "皮草"), None, None)
    assert dataset.users.rows() == [("5", "F", "24-30"), ("4", None, "50+"), ("7", None, None)]
    views = dataset.page_views
    assert views["shown"].to_list() == [["1", "2"], ["3"]]
    assert views["time"][0] == datetime(2024, 1, 1, 0, 1, tzinfo=UTC)
    assert views["query"].to_list() == ["鞋", ""]
    assert views["query_type"].to_list() == [None, "recommendation"]
    assert dataset.judgments.rows() == [("鞋", "3", 3), ("鞋", "2", 1), ("鞋", "1", 0)]
    assert summary.rejected == {
        "items": {"duplicate item_id, the first one is kept": 1},
        "page_views": {"no known item left": 1},
        "judgments": {
            "item_title is not in the items": 1,
            "score is not 0, 1, 2 or 3, and the mapping has no levels": 1,
        },
    }
    joins = {name: (join.found, join.total) for name, join in summary.joins.items()}
    assert joins["page_views.shown -> items"] == (3, 5)
    assert joins["items with a price in rank"] == (1, 3)
    assert joins["distinct rank.target_item_id -> items"] == (1, 2)
    assert joins["distinct rank.session_id -> recall"] == (1, 2)
    assert joins["distinct rank.user_id -> users"] == (1, 2)
    assert joins["distinct recall.user_id -> users"] == (1, 3)
    assert joins["relevance.item_title -> items"] == (3, 4)
    assert joins["distinct relevance.query -> recall"] == (1, 2)
    assert not [finding for finding in check(folder / "out") if finding.grade == "error"]


def test_rank_and_relevance_may_be_missing(folder):
    (folder / "rank.jsonl").unlink()
    (folder / "relevance.jsonl").unlink()
    import_kuaisearch(folder, folder / "out")
    assert Dataset.load(folder / "out").counts["judgments"] == 0


def test_the_published_sample(shared_data, tmp_path):
    summary = import_kuaisearch(shared_data / "kuaisearch-demo", tmp_path)
    assert summary.rows["items"] == 200
    rows = {"page_views": 200, "judgments": 200}
    for table, n in rows.items():
        assert summary.rows[table] + sum(summary.rejected.get(table, {}).values()) == n
    assert summary.joins["page_views.shown -> items"].total == 25_430
    assert len(pl.read_parquet(tmp_path / REJECTED)) == summary.rejected_rows
    assert not [finding for finding in check(tmp_path) if finding.grade == "error"]
