"""Clicks since the log on a catalogue that changes."""

import math
from datetime import UTC, datetime

import polars as pl
import pytest

from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.records import Item
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.results import SearchRequest
from small_engine import small_engine

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def test_counts_survive_changes_of_the_catalogue_and_merges():
    engine = small_engine()
    rows = [(1, "fresh", item, NOW, 1.0, True) for item in ("red-tent-0", "new-one", "new-one", "not-here")]
    live = LiveClicks.from_clicks(pl.DataFrame(rows, schema=CLICKS, orient="row"), NOW)
    engine.upsert([Item("new-one", "a new tent")])
    merging = engine.snapshot.merged()
    engine.count(live)
    number = engine.snapshot.number
    before = engine.snapshot.popularity.flat()[number["red-tent-0"]]
    assert before == 3 and engine.snapshot.popularity.flat()[number["new-one"]] == 2
    engine.upsert([Item("new-one", "a new tent, cheaper"), Item("newer", "stove")])
    snapshot = engine.snapshot.onto(merging, [number["new-one"], engine.snapshot.number["newer"]])
    assert snapshot.popularity.take([number["red-tent-0"], number["new-one"], snapshot.number["newer"]]).tolist() == [
        3,
        2,
        0,
    ]
    facts = snapshot.click_features.query_facts(["Fresh"])
    assert snapshot.click_features.live.most_clicked(facts.live_rows, 3).tolist() == [[40, 0, -1]]


def test_clicks_raise_the_odds_of_an_item_whatever_the_fitted_weights_are():
    plain = small_engine()
    engine = plain.with_settings(plain.config, RankingWeights({"lexical_share": 2.0, "clicks": -5.0, "known": -1.0}))
    before = {hit.item_id: hit.score for hit in engine.search("green lamp", k=8)}
    clicks = pl.DataFrame(
        [(who, "green lamp", list(before)[7], NOW, 1.0, True) for who in range(3)], CLICKS, orient="row"
    )
    engine.count(LiveClicks.from_clicks(clicks, NOW))
    after = {hit.item_id: hit.score for hit in engine.search("green lamp", k=8)}
    assert after[list(before)[7]] == pytest.approx(before[list(before)[7]] + math.log(1 + 3), abs=1e-5)
    assert all(after[item] == pytest.approx(score, abs=1e-5) for item, score in list(before.items())[:7])
    # Also for an item that nothing else finds.
    far = pl.DataFrame([(1, "green lamp", "black-stove-1", NOW, 1.0, True)], CLICKS, orient="row")
    engine.count(LiveClicks.from_clicks(far, NOW))
    (asked,) = engine.search_batch([SearchRequest("Green  lamp", k=40, explain=True)])
    assert "clicked since" in next(hit.why.found_by for hit in asked if hit.item_id == "black-stove-1")
