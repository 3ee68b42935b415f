"""What a service recorded, as page views to learn from."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.dataset import Dataset
from onesearch.data.records import items_frame
from onesearch.pipeline.update_round import _read
from onesearch.serving.click_learner import ClickLearner
from onesearch.serving.recorded_page_views import recorded_page_views
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Event, Search

T0 = datetime(2024, 5, 1, 12, tzinfo=UTC)


def at(minute: int) -> datetime:
    return T0 + timedelta(minutes=minute)


def fill(store) -> None:
    store.record_search(Search("s1", "ann", "Red shoe", at(0), ("i0", "i1", "i2")))
    store.record_search(Search("s2", None, "", at(1), ("i5",)))
    store.record(Event("e1", "ann", "i1", "click", "Red shoe", at(2), "s1"))
    store.record(Event("e2", "ann", "i1", "click", "Red shoe", at(3), "s1"))
    store.record(Event("e3", "ann", "i2", "order", "Red shoe", at(4), "s1"))
    store.record(Event("e4", "ann", "i8", "click", "lamp", at(5), "s1"))  # found elsewhere
    store.record(Event("e5", "ann", "i9", "order", "Lamp", at(6)))
    store.record(Event("e6", None, "i3", "click", "lamp", at(7), "nobody recorded this"))
    store.record(Event("e7", None, "i3", "click", "lamp", at(8)))


def test_places_on_later_or_sorted_pages_are_no_ranks(store):
    for name, first in (("s1", 0), ("s2", 20), ("s3", None)):
        store.record_search(Search(name, "ann", "shoe", at(0), ("i1", "i2"), first_rank=first))
        store.record(Event(f"e{name}", "ann", "i2", "click", "shoe", at(1), name))
    found = recorded_page_views(store)
    assert found["shown"].to_list() == [["i1", "i2"], [], []] and found["clicked"].to_list() == [["i2"]] * 3


def test_searches_with_their_events_then_events_of_no_search(store):
    fill(store)
    found = recorded_page_views(store).drop("session_id", "query_type", "split").rows()
    assert found == [
        ("s1", "ann", at(0), "Red shoe", ["i0", "i1", "i2"], ["i1", "i2"], ["i2"]),
        ("s2", None, at(1), "", ["i5"], [], []),
        ("event:3:ann:e5", "ann", at(6), "Lamp", [], ["i9", "i8"], ["i9"]),
        ("event:0::e7", None, at(8), "lamp", [], ["i3"], []),
        ("event:0::e6", None, at(7), "lamp", [], ["i3"], []),
    ]
    assert len(recorded_page_views(store, at(2))) == 4, "searches before are left out, their events stay"


def test_a_rebuild_counts_what_the_service_counted(engine, store):
    """With neither decay nor ranks, of shoppers who click once a day."""
    rng = np.random.default_rng(0)
    for number in range(60):
        query, shown = f"query {rng.integers(4)}", tuple(f"i{i}" for i in rng.choice(60, 5, replace=False))
        store.record_search(Search(f"s{number}", f"u{number}", query, at(number), shown))
        for item in rng.choice(shown, rng.integers(3), replace=False):
            kind = "order" if number % 7 == 0 else "click"
            store.record(Event(f"e{item}", f"u{number}", str(item), kind, query, at(number), f"s{number}"))
    config = ServingSettings(half_life_days=1e9, keep_days=1e5, learn_shoppers=1)
    assert ClickLearner(engine, store, config).learn() > 30
    live = engine.counted[-1]
    items = items_frame(engine.items.values())
    counts = ClickStatistics.from_page_views(recorded_page_views(store), items)
    rows = np.array([items["item_id"].to_list().index(item) for item in live.item_ids])
    assert counts.queries == sorted(live.queries) and len(counts.counts) == len(live.counts)
    own = counts.pair_counts(counts.query_numbers(live.queries)[live.query], rows[live.item][:, None])
    assert own[:, 0] == pytest.approx(live.counts, rel=1e-4)
    assert counts.clicked[rows] == pytest.approx(live.clicked, rel=1e-4)


def test_what_is_exported_is_what_an_update_reads(engine, store, tmp_path):
    fill(store)
    out = tmp_path / "folder" / "new.parquet"
    result = CliRunner().invoke(app, ["events", "export", str(store.path), str(out)])
    assert result.exit_code == 0, result.output
    assert "5 page views, 4 with a click, 2 with an order" in result.output
    data = Dataset.write(tmp_path / "data", items_frame(engine.items.values()))
    found, aside = _read(out, data)
    assert aside == 0 and sorted(found["page_view_id"]) == sorted(recorded_page_views(store)["page_view_id"])
    # As a part of a data set, too.
    whole = Dataset.write(tmp_path / "whole", data.items, page_views=pl.concat([data.page_views, pl.read_parquet(out)]))
    assert whole.page_views.equals(pl.read_parquet(out))
    none = CliRunner().invoke(app, ["events", "export", str(store.path), str(out), "--days", "1"])
    assert none.exit_code == 0 and "0 page views" in none.output
    for days in ("1e300", "nan", "inf", "100001"):
        wrong = CliRunner().invoke(app, ["events", "export", str(store.path), str(out), "--days", days])
        assert wrong.exit_code == 2 and "Invalid value for '--days'" in wrong.output, wrong.output
    far = CliRunner().invoke(app, ["events", "export", str(store.path), str(out), "--days", "100000"])
    assert far.exit_code == 0 and "5 page views" in far.output, far.output
    missing = CliRunner().invoke(app, ["events", "export", str(tmp_path / "no.sqlite3"), str(out)])
    assert missing.exit_code == 1 and "no store" in missing.output
