"""Clicks since the log on a catalogue that changes."""

from datetime import UTC, datetime

import polars as pl

from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.records import Item
from small_engine import small_engine

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def test_counts_survive_changes_of_the_catalogue_and_merges():
    engine = small_engine()
    rows = [("fresh", item, NOW, 1.0, True) for item in ("red-tent-0", "new-one", "new-one", "not-here")]
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
    assert snapshot.click_features.statistics.most_clicked(facts.click_rows, 3).tolist() == [[40, 0, -1]]
