"""Boosts and a day's clicks before the tiny run's market; the figures mean nothing."""

from collections import Counter
from pathlib import Path

import pytest
from benchmarks.market_pages import served

from benchmarks import shop_boosts, shop_day
from onesearch.search.engine import SearchEngine
from onesearch.serving.sqlite_store import SqliteStore


def test_a_boosted_group_is_shown_more(tiny_run: Path, engine: SearchEngine):
    found = shop_boosts.measure(engine.with_settings(engine.config, engine.weights), tiny_run / "data", 60, 10, (1, 50))
    share = [found[f"times {one}"]["their share of first pages"] for one in (1, 50)]
    assert share[0] < share[1] and found["page views"] == 60
    lift = found["times 50"]["their places over times 1"]["lift"]
    assert lift == pytest.approx(share[1] / share[0] - 1, abs=0.05)
    assert engine.snapshot.rules is None


def test_two_days_share_no_meeting_and_no_moment(tiny_run: Path):
    first, second, shares = shop_day.two_days(tiny_run / "data", 600, 2)
    days = [set(day.page_views["time"].dt.date().to_list()) for day in (first, second)]
    assert max(days[0]) < min(days[1]) and len(days[0]) == 1
    meets = [
        set(zip(*(day.page_views[name].to_list() for name in ("user_id", "query")), strict=True))
        for day in (first, second)
    ]
    assert not meets[0] & meets[1] and 10 < len(second.visits) < 300 and 0 < shares[1] < shares[0] < 1
    shoppers = Counter(query for _, query in meets[0])
    assert min(shoppers.values()) >= 2 and {query for _, query in meets[1]} <= set(shoppers)
    texts = [first.truth.queries.texts[number] for number in first.visits.query]
    assert texts == first.page_views["query"].to_list()


def test_a_day_is_recorded_and_learnt_from(tiny_run: Path, engine: SearchEngine, tmp_path: Path):
    day, *_ = shop_day.two_days(tiny_run / "data", 600, 2)
    pages = served(engine, day.page_views)
    alone = engine.search(day.page_views["query"][0], day.page_views["user_id"][0])
    assert [f"i{item}" for item in pages[0]] == [hit.item_id for hit in alone]
    store = SqliteStore(tmp_path / "store")
    found = shop_day.record(store, day, pages)
    events, searches = store.events()[0], store.searches()[0]
    kinds = [event.kind for event in events]
    assert (kinds.count("click"), kinds.count("order")) == (found["clicks of day 1"], found["orders of day 1"])
    shown = {search.search_id: search.shown for search in searches}
    assert len(searches) == len(day.visits) and all(event.item_id in shown[event.search_id or ""] for event in events)
    store.close()

    found = shop_day.measure(tiny_run, engine, 600, 2)
    assert found["queries that have counts"] <= found["pairs of query and item that have counts"]
    assert {"click HR@10", "orders", "cold items: clicks"} <= set(found["queries of two shoppers"])
    assert engine.snapshot.click_features.live is None
