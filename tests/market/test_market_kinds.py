"""Videos and live rooms of the market: what they show, who asks for them, and that products alone stay as they were."""

import hashlib

import numpy as np
import polars as pl
import pytest

from onesearch.data.dataset import Dataset
from onesearch.data.records import KIND_COLUMNS
from onesearch.market.make_market import make_market
from onesearch.market.market import Market
from onesearch.market.market_kinds import LIVE, SUFFIX, VIDEO
from onesearch.market.market_settings import MarketSettings
from onesearch.understanding.query_types import merchandise

SETTINGS = MarketSettings(items=400, users=80, days=20, page_views=2500, videos=0.2, live_rooms=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    make_market(SETTINGS, folder)
    return folder


def test_each_shows_one_to_five_products_of_one_leaf_and_speaks_of_them(folder):
    items = Dataset.load(folder).items
    assert dict(items["kind"].value_counts().iter_rows()) == {"product": 400, "video": 80, "live": 120}
    shown = items.filter(pl.col("kind") != "product")
    lengths = shown["linked"].list.len()
    assert lengths.min() == 1
    assert 2 <= lengths.max() <= 5
    category = dict(items.select("item_id", pl.col("category").list.join(">")).iter_rows())
    kind = dict(items.select("item_id", "kind").iter_rows())
    title = dict(items.select("item_id", "title").iter_rows())
    for row in shown.iter_rows(named=True):
        assert {category[one] for one in row["linked"]} == {category[row["item_id"]]}
        assert {kind[one] for one in row["linked"]} == {"product"}
        assert len(set(row["linked"])) == len(row["linked"])
        assert title[row["linked"][0]].split()[0] in title[row["item_id"]]
    assert shown["transcript"].null_count() == shown["host"].null_count() == 0
    assert shown["price"].null_count() == len(shown)
    live = items["kind"] == "live"
    assert ((items["start"].is_not_null()) == live).all()
    hours = (items["end"] - items["start"]).drop_nulls().dt.total_hours()
    assert hours.min() >= 23
    assert hours.max() <= 120


def test_transcripts_name_attributes_of_the_products(folder):
    items = Dataset.load(folder).items
    catalogue = Market.load(folder).truth.catalogue
    said = true = 0
    for row in items.filter(pl.col("kind") == "video").iter_rows(named=True):
        own = {
            catalogue.value_names[value]
            for one in row["linked"]
            for value in catalogue.values[int(one[1:])].tolist()
            if value >= 0
        }
        text = f" {row['transcript']} "
        named = [name for name in catalogue.value_names if f" {name} " in text]
        said += len(named)
        true += sum(name in own for name in named)
    assert 0.6 < true / said < 0.97  # noise too


def test_rooms_are_shown_and_clicked_while_they_are_on(folder):
    data = Dataset.load(folder)
    times = data.items.filter(pl.col("kind") == "live").select("item_id", "start", "end")
    for name in ("shown", "clicked"):
        seen = data.page_views.select("time", item_id=name).explode("item_id").join(times, on="item_id")
        assert len(seen) > 3
        assert (seen["start"] <= seen["time"]).all()
        assert (seen["time"] < seen["end"]).all()


def test_who_asks_for_a_kind_mostly_clicks_it_and_nobody_orders_one(folder):
    data = Dataset.load(folder)
    kind = dict(data.items.select("item_id", "kind").iter_rows())
    views = data.page_views.with_columns(asks=pl.col("query").str.ends_with(SUFFIX[VIDEO]))
    clicks = views.explode("clicked").drop_nulls("clicked")
    share = clicks.with_columns(video=pl.col("clicked").replace_strict(kind) == "video").group_by("asks")
    shares = dict(share.agg(pl.col("video").mean()).iter_rows())
    assert shares[True] > 0.5 > 0.2 > shares[False] > 0
    assert {kind[one] for one in data.page_views["ordered"].explode().drop_nulls()} == {"product"}
    rooms = data.page_views.filter(pl.col("query").str.ends_with(SUFFIX[LIVE]))["query"]
    assert len(rooms) > 5
    assert {merchandise(query) for query in rooms} == {"live"}


def test_the_truth_of_a_room_ends_with_it(folder):
    market = Market.load(folder)
    truth = market.truth
    room = int(np.flatnonzero(truth.kinds.kind == LIVE)[0])
    begins, ends = truth.catalogue.listed[room], truth.kinds.ends[room]
    at = np.array([begins - 1, begins, ends - 1, ends])
    assert truth.is_shown(np.full(4, room), at).tolist() == [False, True, True, False]
    # An item listed after the log is a product.
    assert truth.kinds.kind_of(np.array([len(truth.kinds.kind)])).tolist() == [0]
    assert truth.kinds.is_on(np.array([len(truth.kinds.kind)]), at[:1]).tolist() == [True]
    best = market.oracle(Dataset.load(folder).page_views[:20], 10)
    assert np.nanmin(market.evaluate(Dataset.load(folder).page_views[:20], best)["ehr@10"]) > 0


def test_products_alone_stay_as_they_were(tmp_path):
    """By a digest from before there were kinds."""
    data = make_market(MarketSettings(items=200, users=20, days=5, page_views=150, seed=3), tmp_path)
    assert not set(KIND_COLUMNS) & set(pl.read_parquet(data.folder / "items.parquet").columns)
    words = "\n".join([*data.items["title"], *data.page_views["query"], *data.page_views["clicked"].list.join(",")])
    assert hashlib.sha256(words.encode()).hexdigest()[:16] == "fc8b51c0d166ee7b"
    assert not list((tmp_path / "market").glob("kinds*"))


def test_kinds_and_pictures_do_not_go_together():
    with pytest.raises(ValueError, match="pictures are drawn of products alone"):
        MarketSettings(videos=0.1, pictures=1)
