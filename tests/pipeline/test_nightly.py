"""A night: the shop's files against what is served, events since the last round, a step that fails alone."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from onesearch.common.artefact import write_manifest
from onesearch.data.ingest.column_mapping import ColumnMapping
from onesearch.data.ingest.importer import import_mapping
from onesearch.data.records import Item
from onesearch.pipeline import nightly as nights
from onesearch.pipeline.nightly import FOLDER, LOG, Round, bring_in_items, nightly
from onesearch.pipeline.update_round import TooFewError
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import Event, Search

HEADER = "id,name,price\n"
ROWS = [f"i{number},Red boots {number},{number}.5\n" for number in range(20)]


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, SqliteStore, ColumnMapping, Path]:
    """A run that knows the first 20 items, its store, the mapping of the shop's file, and that file."""
    file = tmp_path / "items.csv"
    file.write_text(HEADER + "".join(ROWS))
    items = {"file": "items.csv", "columns": {"item_id": "id", "title": "name", "price": "price"}}
    mapping = ColumnMapping.model_validate({"source": "shop", "folder": str(tmp_path), "items": items})
    import_mapping(mapping, tmp_path / "run" / "data")
    write_manifest(tmp_path / "run" / "data", {"fingerprint": "x"})
    return tmp_path / "run", SqliteStore(tmp_path / "store.sqlite3"), mapping, file


def changed(store: SqliteStore) -> dict[str, Item | None]:
    return {change.item_id: change.item for change in store.item_changes(0)}


def test_items_that_the_store_cannot_read_are_written_again_or_deleted(shop):
    """`i1` would be unchanged, `i2` is changed, `new` and `gone` are in the store alone."""
    run, store, mapping, file = shop
    bring_in_items(run, store, mapping, 0.1)
    store.change_items([Item(name, "x") for name in ("i1", "i2", "new", "gone")], [])
    with store._db.write("damage them") as db:
        db.execute("UPDATE items SET body = '{'")
    file.write_text(HEADER + "".join([*ROWS[:2], *ROWS[3:]]) + "i2,Red boots 2,99\nnew,Blue boots,5\n")
    found = bring_in_items(run, store, mapping, 0.1)
    assert (found["new"], found["changed"], found["deleted"]) == (1, 2, 1)
    by_id = changed(store)
    assert by_id["i1"].title == "Red boots 1" and by_id["i2"].price == 99 and by_id["new"].title == "Blue boots"
    assert by_id["gone"] is None and all(not change.problem for change in store.item_changes(0))


def test_what_differs_from_the_served_catalogue_is_written_and_nothing_else(shop):
    run, store, mapping, file = shop
    assert bring_in_items(run, store, mapping, 0.1) == {
        "items": 20,
        "new": 0,
        "changed": 0,
        "deleted": 0,
        "kept": 0,
        "set_aside": 0,
        "emptied": {},
        "suspicious": {},
    }
    assert changed(store) == {}
    file.write_text(HEADER + "".join(ROWS[2:]) + "i1,Red boots 1,99\ni1,again,3\n,,\nnew,Blue boots,5\n")
    found = bring_in_items(run, store, mapping, 0.1)
    counts = {"items": 20, "new": 1, "changed": 1, "deleted": 1, "kept": 0, "set_aside": 2}
    assert found == counts | {"emptied": {}, "suspicious": {}}
    by_id = changed(store)
    assert set(by_id) == {"i0", "i1", "new"} and by_id["i0"] is None
    assert by_id["i1"].price == 99 and by_id["new"].title == "Blue boots"
    # The second night compares with the run and the store; an item that comes back is new.
    revision = store.state().revision
    again = bring_in_items(run, store, mapping, 0.1)
    assert (again["new"], again["changed"], again["deleted"]) == (0, 0, 0) and store.state().revision == revision
    file.write_text(HEADER + "".join(ROWS) + "new,Blue boots,5\n")
    assert bring_in_items(run, store, mapping, 0.1)["new"] == 1 and changed(store)["i0"].title == "Red boots 0"


def test_files_that_lack_too_much_change_nothing(shop):
    run, store, mapping, file = shop
    file.write_text(HEADER + "".join(ROWS[:17]) + "new,Blue boots,5\n")
    with pytest.raises(ValueError, match=r"3 of 20 items .* more than the share 0\.1 .*nothing was changed"):
        bring_in_items(run, store, mapping, 0.1)
    with pytest.raises(ValueError, match="more than the share nan"):
        bring_in_items(run, store, mapping, float("nan"))
    assert changed(store) == {}
    assert bring_in_items(run, store, mapping, 0.15)["deleted"] == 3


def test_an_item_whose_row_could_not_be_read_is_not_deleted(shop, caplog):
    """`i0` lost its title; `i1` is in no row; the id of `i2` is gone, or its whole row is broken."""
    run, store, mapping, file = shop
    rest = "".join(ROWS[3:])
    file.write_text(HEADER + rest + ROWS[2] + "i0,,5\n")
    found = bring_in_items(run, store, mapping, 0.2)
    assert (found["deleted"], found["kept"], found["set_aside"]) == (1, 1, 1)
    assert changed(store) == {"i1": None}
    assert "1 items that the files lack stay as they are served, such as 'i0'" in caplog.text
    for broken in (",Red boots 2,5\n", 'i2,"Red boots 2,5\n', "i2,Red boots,2,5\n"):
        file.write_text(HEADER + rest + "i0,,5\n" + broken)
        found = bring_in_items(run, store, mapping, 0.2)
        assert (found["deleted"], found["kept"], found["set_aside"]) == (0, 2, 2), broken
        assert changed(store) == {"i1": None}, "one row without an id may have been any item's"
    file.write_text(HEADER + rest)
    found = bring_in_items(run, store, mapping, 0.2)
    assert (found["deleted"], found["kept"]) == (2, 0) and changed(store) == dict.fromkeys(["i1", "i0", "i2"])


def test_broken_json_lines_delete_nothing(tmp_path):
    file = tmp_path / "items.jsonl"
    good = [json.dumps({"id": f"i{number}", "name": "Boots"}) + "\n" for number in range(20)]
    file.write_text("".join(good))
    items = {"file": "items.jsonl", "columns": {"item_id": "id", "title": "name"}}
    mapping = ColumnMapping.model_validate({"source": "shop", "folder": str(tmp_path), "items": items})
    import_mapping(mapping, tmp_path / "run" / "data")
    write_manifest(tmp_path / "run" / "data", {"fingerprint": "x"})
    store = SqliteStore(tmp_path / "store.sqlite3")
    file.write_text("".join(good[:18]) + good[18][:-3] + "\n")
    found = bring_in_items(tmp_path / "run", store, mapping, 0.1)
    assert (found["deleted"], found["kept"], found["set_aside"]) == (0, 2, 1) and changed(store) == {}


def test_prices_that_could_not_be_read_are_told(shop):
    run, store, mapping, file = shop
    file.write_text(HEADER + "".join(ROWS[4:]) + "".join(f"i{n},Red boots {n},on request\n" for n in range(4)))
    found = bring_in_items(run, store, mapping, 0.1)
    assert found["changed"] == 4 and found["emptied"] == {"price: not a number, or negative": 4}, found


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / FOLDER / LOG).read_text().splitlines()]


def visit(store: SqliteStore, number: int, time: datetime) -> None:
    store.record_search(Search(f"s{number}", "u", "boots", time, ("i1", "i2")))
    store.record(Event(f"e{number}", "u", "i2", "click", "boots", time, f"s{number}"))


def test_each_step_stands_for_itself_and_leaves_a_line(shop, monkeypatch):
    run, store, mapping, file = shop
    visit(store, 0, datetime.now(UTC) - timedelta(hours=3))
    seen = []

    def few(run, events, *_):
        seen.append(pl.read_parquet(events)["page_view_id"].to_list())
        raise TooFewError("1 of 1 new page views have a click")

    monkeypatch.setattr(nights, "update", few)
    file.write_text("nothing\n")
    steps = list(nightly(run, store, mapping, Round()))
    assert [(step.name, step.outcome) for step in steps] == [
        ("items", "failed"),
        ("events", "done"),
        ("update", "left out"),
    ]
    assert "items.csv" in steps[0].found["reason"] and "kept for a later night" in steps[2].found["reason"]
    assert steps[1].found == {"since": None, "page_views": 1, "clicked": 1}
    told = lines(run)
    assert [line["step"] for line in told] == ["items", "events", "update"]
    assert told[2]["outcome"] == "left out" and len({line["night"] for line in told}) == 1

    # What was too few is read again, until a round was done; a line that was cut off hides nothing.
    class Made:
        def __init__(self) -> None:
            self.version = "versions/0001"

    def enough(run, events, method, steps, overrides, thoughts, epochs):
        seen.append(pl.read_parquet(events)["page_view_id"].to_list())
        assert (method, steps, epochs, thoughts) == ("dpo", 3, None, 7)
        return Made()

    monkeypatch.setattr(nights, "update", enough)
    asked = []
    rounds = Round("dpo", 3, None, thoughts=lambda queries: asked.append(queries) or 7)
    steps = list(nightly(run, store, None, rounds))
    assert [step.outcome for step in steps] == ["left out", "done", "done"]
    assert steps[2].found == {"version": "versions/0001"} and seen == [["s0"], ["s0"]] and asked == [["boots"]]
    with (run / FOLDER / LOG).open("a") as file:
        file.write('{"night": "2026')
    visit(store, 1, datetime.now(UTC) + timedelta(seconds=5))
    monkeypatch.setattr(nights, "update", few)
    *_, last = nightly(run, store, None, Round())
    assert seen[-1] == ["s1"] and last.outcome == "left out"


def test_events_that_cannot_be_read_leave_the_update_out(shop, monkeypatch):
    run, store, _, _ = shop
    store.close()
    monkeypatch.setattr(nights, "update", lambda *_: pytest.fail("called"))
    *_, events, update = nightly(run, store, None, Round())
    assert (events.outcome, update.outcome) == ("failed", "left out") and "could not be read" in update.found["reason"]


def test_a_night_does_not_follow_a_link_in_the_place_of_its_folder(shop, tmp_path):
    run, store, _, _ = shop
    (tmp_path / "elsewhere").mkdir()
    (run / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{FOLDER} is a link"):
        list(nightly(run, store, None, Round()))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_a_step_says_itself_stands_in_the_log_without_a_traceback(shop, monkeypatch, caplog):
    run, store, mapping, file = shop
    monkeypatch.setattr(nights, "update", lambda *_: 1 / 0)
    file.write_text("nothing\n")
    list(nightly(run, store, mapping, Round()))
    told = {record.getMessage().split()[3]: record for record in caplog.records}
    assert told["items"].exc_info is None and "items.csv" in told["items"].getMessage()
    assert told["update"].exc_info is not None, "a fault of ours has one"
