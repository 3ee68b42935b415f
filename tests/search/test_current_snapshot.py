"""An engine whose log was counted again is taken over by one that runs, whatever changed there meanwhile."""

import threading
from datetime import UTC, datetime

import polars as pl
import pytest

from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.records import Item
from onesearch.model.model_settings import ModelSettings
from onesearch.search import catalogue_snapshot
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.engine import SearchEngine
from onesearch.search.rules import Hide, Rules
from small_engine import small_engine

NOW = datetime(2024, 1, 1, tzinfo=UTC)
QUERIES = ("red tent", "azure", "lamp", "boots late", "")


def answers(engine: SearchEngine) -> list[list[tuple[str, float]]]:
    return [[(hit.item_id, round(hit.score, 9)) for hit in engine.search(query, k=60)] for query in QUERIES]


def change(engine: SearchEngine) -> None:
    engine.upsert([Item("red-tent-0", "azure tent"), Item("new", "red tent, new"), Item("short", "red lamp")])
    engine.delete(["blue-lamp-0", "short", "unknown"])
    engine.delete(["red-boots-1"])
    engine.upsert([Item("red-boots-1", "red boots again")])


def recounted() -> SearchEngine:
    other = small_engine()
    other.name, other.counts, other.logged_until = "small@0001", "versions/0001/renewed", NOW
    statistics = other.snapshot.click_features.statistics
    other.current.value = other.snapshot.counting(
        LiveClicks.from_clicks(
            pl.DataFrame([(1, statistics.queries[0], "red-tent-1", NOW, 1.0, True)] * 9, CLICKS, orient="row"), NOW
        )
    )
    return other


def test_items_clicks_and_rules_stay_while_counts_change():
    engine, other, twin = small_engine(), recounted(), recounted()
    before = answers(engine)
    rules = Rules(hides=(Hide(name="h", column="item_id", values=("red-chair-0",)),))
    clicks = pl.DataFrame([(1, "lamp", "new", NOW, 1.0, True)], CLICKS, orient="row")
    for one in (engine, twin):
        change(one)
        one.count(LiveClicks.from_clicks(clicks, NOW))
        one.follow_rules(rules)
    engine.take_over(other)
    assert answers(engine) == answers(twin) != before
    assert (engine.name, engine.counts, engine.logged_until) == ("small@0001", "versions/0001/renewed", NOW)
    assert engine.featurizer is other.featurizer and len(engine) == 40 - 1 + 1
    live = engine.snapshot.click_features.live
    assert live is not None and live.clicked[engine.snapshot.number["new"]] == 1
    # What comes afterwards stands on the new state.
    for one in (engine, twin):
        one.upsert([Item("later", "azure lamp")])
    assert answers(engine) == answers(twin)


def test_what_changes_while_an_engine_is_taken_over_is_not_lost(monkeypatch):
    engine, twin, done = small_engine(), recounted(), []
    again = engine.current._with_items_of

    def meanwhile(source, item_ids, snapshot, featurizer):
        if not done:
            done.append(engine.upsert([Item("late", "boots late"), Item("new", "azure tent, newer")]))
            engine.delete(["red-tent-0", "green-stove-1"])
        return again(source, item_ids, snapshot, featurizer)

    change(engine)
    change(twin)
    twin.upsert([Item("late", "boots late"), Item("new", "azure tent, newer")])
    twin.delete(["red-tent-0", "green-stove-1"])
    monkeypatch.setattr(engine.current, "_with_items_of", meanwhile)
    engine.take_over(recounted())
    assert answers(engine) == answers(twin) and engine.item("late") and engine.item("green-stove-1") is None


def test_a_merge_of_the_old_state_is_dropped(monkeypatch, caplog):
    engine, twin = small_engine(), recounted()
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 1)
    monkeypatch.setattr(catalogue_snapshot, "_CHANGED_SHARE", 10**9)
    begun, go_on, ended, merged = threading.Event(), threading.Event(), threading.Event(), Snapshot.merged

    def slow(snapshot: Snapshot):
        begun.set()
        assert go_on.wait(20)
        ended.set()
        return merged(snapshot)

    change(twin)
    monkeypatch.setattr(Snapshot, "merged", slow)
    change(engine)
    assert begun.wait(20) and engine.current.merging
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 10**9)
    engine.take_over(recounted())
    held = engine.snapshot
    go_on.set()
    assert ended.wait(20)
    for thread in threading.enumerate():
        if thread.name == "merge":
            thread.join(20)
    assert engine.snapshot is held and not engine.current.merging and answers(engine) == answers(twin)
    assert [record for record in caplog.records if record.name == "onesearch"] == [], "nor was it tried"


def test_a_model_of_another_form_is_refused():
    engine = small_engine()
    other = small_engine(model=ModelSettings(prompt={"item_tokens": "row"}))
    with pytest.raises(ValueError, match="another catalogue or prompt"):
        engine.take_over(other)
