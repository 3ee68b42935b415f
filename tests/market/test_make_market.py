import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from onesearch.data.dataset import Dataset
from onesearch.data.split import split
from onesearch.market.kuaisearch_export import export_kuaisearch
from onesearch.market.make_market import make_market
from onesearch.market.market import Market
from onesearch.market.market_settings import MarketSettings
from onesearch.market.word_tables import read_words

SMALL = MarketSettings(items=400, users=60, page_views=600)


def test_the_same_seed_makes_the_same_market_and_another_seed_another(tmp_path):
    first = make_market(SMALL, tmp_path / "a").fingerprint
    assert make_market(SMALL, tmp_path / "b").fingerprint == first
    assert make_market(SMALL.updated(seed=1), tmp_path / "c").fingerprint != first


def test_making_again_replaces_a_market(tmp_path):
    make_market(SMALL, tmp_path)
    dataset = make_market(SMALL.updated(page_views=300), tmp_path)
    assert dataset.counts["page_views"] == 300
    assert len(Market.load(tmp_path).visits) == 300


def test_tables_join_and_times_are_in_order(dataset: Dataset):
    views = dataset.page_views
    for column in ("shown", "clicked", "ordered"):
        flat = views[column].explode().drop_nulls()
        assert flat.is_in(dataset.items["item_id"].implode()).all()
    assert views["user_id"].is_in(dataset.users["user_id"].implode()).all()
    assert views["time"].is_sorted()
    inside = views.select(
        clicked=pl.col("clicked").list.set_difference("shown").list.len().sum(),
        ordered=pl.col("ordered").list.set_difference("clicked").list.len().sum(),
        doubled=(pl.col("shown").list.len() - pl.col("shown").list.n_unique()).sum(),
    )
    assert inside.row(0) == (0, 0, 0)
    length = views["shown"].list.len()
    assert length.min() >= 1
    assert length.max() == 20
    assert length.mean() > 16  # a rare product type does not fill a page
    sessions = views.group_by("session_id").agg(pl.col("user_id").n_unique())
    assert sessions["user_id"].max() == 1


def test_nothing_is_shown_before_it_is_listed(dataset: Dataset):
    flat = dataset.page_views.select("time", "shown").explode("shown")
    joined = flat.join(dataset.items.select("item_id", "listed_at"), left_on="shown", right_on="item_id")
    assert (joined["listed_at"] <= joined["time"]).all()
    assert (dataset.items["listed_at"] > dataset.page_views["time"].min()).mean() > 0.1  # there are cold items


def test_no_need_word_stands_in_a_title(dataset: Dataset, market: Market):
    titles = set(" ".join(dataset.items["title"].to_list()).lower().replace("-", " ").split())
    assert not titles & {*market.needs.topics, *market.needs.traits}
    needs = read_words("needs")
    assert not titles & {*needs["topics"], *(word for theme in needs["themes"].values() for word in theme["traits"])}


def test_published_figures_hold(larger: Path):
    """Tolerances are those of docs/concepts.md."""
    figures = json.loads((larger / "market" / "manifest.json").read_text())["figures"]
    assert 0.28 <= figures["complex_share"] <= 0.38
    assert 2.0 <= figures["words_per_plain_query"] <= 3.0
    assert 5.0 <= figures["words_per_complex_query"] <= 9.0
    assert 0.8 <= figures["clicks_per_page_view"] <= 2.9
    assert 0.4 <= figures["page_views_with_click"] <= 0.75
    assert figures["page_views_with_click_complex"] < figures["page_views_with_click"]
    assert 0.15 <= figures["orders_per_click"] <= 0.32
    ctr = figures["ctr_by_rank"]
    assert 1.2 <= ctr[0] / ctr[1] <= 2.0
    assert ctr[0] / ctr[9] > 2.5
    assert 0.3 <= figures["clicks_on_top_tenth_of_items"] <= 0.75


def test_titles_are_more_ambiguous_in_some_departments(dataset: Dataset, market: Market):
    """An ambiguous department states less and contradicts itself more."""
    catalogue = market.truth.catalogue
    names = np.array([*catalogue.value_names, "-"])
    material = pl.Series(names[catalogue.values[:, 0]])
    titles = dataset.items["title"].str.to_lowercase()
    states = pl.DataFrame({"title": titles, "material": material}).select(
        pl.col("title").str.contains(pl.col("material"), literal=True)
    )["title"]
    department = dataset.items["category"].list.first()
    ambiguous = department.is_in(["Apparel", "Shoes & Bags", "Beauty", "Hardware"])
    assert states.filter(ambiguous).mean() < states.filter(~ambiguous).mean() - 0.08


def test_most_complex_test_queries_are_new_with_need_words_seen_8_to_64_times(larger: Path):
    dataset, market = Dataset.load(larger), Market.load(larger)
    parts = split(dataset.page_views, valid=0.0667, test=0.1333, by="time", seed=0)
    test = parts.test.filter(pl.col("query_type") != "plain")
    seen = test["query"].is_in(parts.train["query"].unique().implode())
    assert seen.mean() < 0.15
    truth, needs = market.truth, market.needs
    n_values = len(truth.catalogue.value_names)

    def words(views: pl.DataFrame) -> np.ndarray:
        rows = market.visits.query[market.page_view_rows(views)]
        traits = truth.queries.predicates[rows] - n_values
        traits = np.where(traits >= 0, traits + len(needs.topics), -1)
        return np.concatenate([truth.queries.topic[rows][:, None], traits], 1)

    train = words(parts.train)
    counts = np.bincount(train[train >= 0], minlength=len(needs.topics) + len(needs.traits))
    used = words(test)
    rarest = np.where(used >= 0, counts[used], 1 << 30).min(1)
    assert np.mean((rarest >= 8) & (rarest <= 64)) > 0.55
    assert np.mean(rarest < 8) > 0.02
    assert np.mean(rarest > 64) > 0.02


def test_the_kuaisearch_export_joins_completely(folder: Path, dataset: Dataset, tmp_path: Path):
    export_kuaisearch(folder, tmp_path)
    tables = {
        name: pl.read_ndjson(tmp_path / f"{name}.jsonl", infer_schema_length=None)
        for name in ("items", "users", "recall", "rank", "relevance")
    }
    items, recall, rank = tables["items"], tables["recall"], tables["rank"]
    assert items["item_id"].dtype.is_integer()
    for column in ("impressed_item_ids", "clicked_item_ids", "purchased_item_ids"):
        assert recall[column].explode().drop_nulls().is_in(items["item_id"].implode()).all()
    assert recall["user_id"].is_in(tables["users"]["user_id"].implode()).all()
    assert recall["split"].unique(maintain_order=True).to_list() == ["train", "valid", "test"]
    assert rank["target_item_id"].is_in(items["item_id"].implode()).all()
    assert set(tables["relevance"]["score"].unique()) <= {0, 1, 2, 3}
    assert tables["relevance"]["item_title"].null_count() == 0
    # Histories in rank hold only what the user clicked before.
    last = rank[-1]
    user, when = last["user_id"][0], last["time_index"][0]
    before = recall.filter((pl.col("user_id") == user) & (pl.col("time_index") < when))
    expected = before["clicked_item_ids"].explode().drop_nulls().to_list()[-20:]
    assert sorted(last["recently_clicked_item_ids"][0].to_list()) == sorted(expected)
    clicks = last["user_statistical_features"][0]["user_click_cnt_30d_hist"]
    recent = before.filter(pl.col("time_index") >= when - 30 * 86_400)["clicked_item_ids"].explode().drop_nulls()
    assert math.isclose(clicks, len(recent))


def test_asking_for_the_truth_of_something_else_is_an_error(market: Market, tmp_path):
    with pytest.raises(KeyError, match="never searched"):
        market.relevance(["no such query ever"], np.zeros(1, np.int64))
    with pytest.raises(KeyError, match="not of the market"):
        market.page_view_rows(["p99999999"])
    with pytest.raises(FileNotFoundError, match="market make"):
        Market.load(tmp_path)
