"""Videos and live rooms among products: filters, what is on, and queries that ask for live rooms."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from onesearch.data.records import Item, items_frame
from onesearch.search import batch_search
from onesearch.search.confidence import Confidence
from onesearch.search.engine import SearchEngine
from onesearch.search.item_lines import ItemLines, save_item_lines
from onesearch.search.item_records import ItemFrame, ItemRecords
from onesearch.search.linking_items import LinkingItems
from onesearch.search.results import SearchRequest
from small_engine import small_engine

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIDEO = Item("video", "red tent set up", kind="video", host="Ann", linked=("black-chair-0", "black-chair-1"))
ROOMS = [
    Item("on", "red tent and lamp today", kind="live", host="Ben", start=NOON - HOUR, end=NOON + HOUR),
    Item("next", "red tent later", kind="live", start=NOON + HOUR, end=NOON + 2 * HOUR),
    Item("past", "red tent before", kind="live", end=NOON),
]


class Clock(datetime):
    """The service's clock, which stands at noon."""

    at = NOON

    @classmethod
    def now(cls, tz=None):
        return cls.at


@pytest.fixture
def engine(monkeypatch) -> SearchEngine:
    monkeypatch.setattr(batch_search, "datetime", Clock)
    monkeypatch.setattr(Clock, "at", NOON)
    found = small_engine()
    found.upsert([VIDEO, *ROOMS])
    return found


def ids(engine: SearchEngine, query: str, k: int = 50, **more) -> list[str]:
    return [hit.item_id for hit in engine.search_batch([SearchRequest(query, k=k, **more)])[0]]


def test_kinds_are_filtered_while_decoding_and_counted(engine):
    assert ids(engine, "red tent", filters={"kind": "video"}) == ["video"]
    assert set(ids(engine, "red tent", filters={"kind": ["video", "live"]})) == {"video", "on"}
    shown = ids(engine, "red tent", filters={"not": {"kind": ["video", "live"]}})
    assert len(shown) == 40 and not {"video", "on"} & set(shown)
    found = engine.search_batch([SearchRequest("", k=5, facets=["kind"], count=True)])[0]
    assert found.total == 42
    assert found.facets["kind"] == [("product", 40), ("live", 1), ("video", 1)]
    with pytest.raises(ValueError, match="filter 'kind' takes product, video, live, article, or a list"):
        engine.search("red tent", filters={"kind": "podcast"})


def test_a_room_is_shown_from_its_start_until_before_its_end(engine, monkeypatch):
    snapshot = engine.snapshot
    engine.confidence = Confidence((0.0, 1.0), 9.0)  # everything is relevant
    seen = {}
    for minutes in (-61, -60, -1, 0, 59, 60, 119, 120):
        monkeypatch.setattr(Clock, "at", NOON + timedelta(minutes=minutes))
        rooms = set(ids(engine, "red tent", filters={"kind": "live"}))
        found = engine.search_batch([SearchRequest("red tent", k=50, facets=["kind"], count=True)])[0]
        page = {hit.item_id for hit in found if hit.item.kind == "live"}
        assert page <= rooms
        assert dict(found.facets["kind"]).get("live", 0) == len(page)
        everything = engine.search_batch([SearchRequest("", k=50, count=True)])[0]
        assert everything.total == len(everything) == 41 + len(rooms)
        assert {hit.item_id for hit in engine.search_lexical("red tent", 50)} >= rooms
        assert {hit.item_id for hit in engine.similar("red-tent-0", 50) if hit.item.kind == "live"} == rooms
        seen[minutes] = rooms
    assert seen == {
        -61: {"past"},
        -60: {"past", "on"},
        -1: {"past", "on"},
        0: {"on"},
        59: {"on"},
        60: {"next"},
        119: {"next"},
        120: set(),
    }
    # The clock alone changes nothing of the catalogue.
    assert engine.snapshot is snapshot


def test_choices_follow_the_clock(engine, monkeypatch):
    engine.upsert([Item("shop", "tents", brand="Live Tents", kind="live", start=NOON + HOUR)])
    assert "Live Tents" not in dict(engine.filters_available().brands)
    monkeypatch.setattr(Clock, "at", NOON + HOUR)
    assert "Live Tents" in dict(engine.filters_available().brands)


def test_rooms_come_and_go_by_upsert(engine):
    engine.upsert([replace(ROOMS[1], start=NOON), replace(ROOMS[0], end=NOON)])
    assert ids(engine, "red tent", filters={"kind": "live"}) == ["next"]
    engine.delete(["next"])
    assert ids(engine, "red tent", filters={"kind": "live"}) == []
    # Also on a new base, and again above it.
    engine.current.value = engine.snapshot.onto(engine.snapshot.merged(), ())
    engine.upsert([ROOMS[0]])
    assert ids(engine, "red tent", filters={"kind": "live"}) == ["on"]


def test_a_query_for_live_rooms_gets_those_that_are_on_then_products(engine):
    engine.upsert([Item("too", "red tent as well", kind="live")])
    plain = ids(engine, "red tent")
    found = engine.search_batch([SearchRequest("red tent live room", k=10, explain=True)])[0]
    assert {hit.item_id for hit in found[:2]} == {"on", "too"}
    assert all(hit.item.kind != "live" for hit in found[2:])
    assert len(found) == 10
    assert [hit.why.intent for hit in found] == ["live", "live", *[None] * 8]
    assert "asks for: live" in str(found[0].why)
    # Pages go on where the one before ended.
    pages = [ids(engine, "red tent live room", 3, offset=offset) for offset in range(0, 9, 3)]
    assert [one for page in pages for one in page] == [hit.item_id for hit in found[:9]]
    # Whoever says what kind it wants gets that; and so does a query that asks for nothing.
    assert set(ids(engine, "red tent live room", filters={"kind": "product"})) == set(plain) - {"video", "on", "too"}
    assert plain[0] not in ("on", "too")


def test_a_query_for_live_rooms_while_none_is_on_gets_the_rest(engine, monkeypatch):
    monkeypatch.setattr(Clock, "at", NOON + 2 * HOUR)
    found = engine.search_batch([SearchRequest("red tent live room", k=50, explain=True)])[0]
    assert len(found) == 41
    assert {hit.why.intent for hit in found} == {None}
    # Nor in the filter that the search has.
    monkeypatch.setattr(Clock, "at", NOON)
    assert "on" not in ids(engine, "red tent live room", filters={"brand": "b1"})


def test_thoughts_of_the_log_say_which_queries_ask_for_live_rooms(engine):
    assert ids(engine, "who is on now")[0] != "on"
    engine.live_queries = frozenset({"who is on now"})
    assert ids(engine, "Who is on  now")[0] == "on"


def test_rooms_of_something_else_are_no_answer(engine):
    engine.upsert([Item("pans", "steel hammer with a long handle", kind="live")])
    assert set(ids(engine, "red tent live room", 2)) == {"on", "pans"}
    engine.confidence = Confidence((0.0, 1.0), 0.05)
    found = engine.search_batch([SearchRequest("red tent live room", k=5, count=True)])[0]
    assert [hit.item_id for hit in found].index("on") == 0
    assert found[1].item_id != "pans"


def test_a_video_is_drawn_to_its_products():
    """Those of the catalogue and those that come with it; other links alone change its vector, too."""
    engine = small_engine()
    engine.featurizer = replace(engine.featurizer, linked=0.999)
    engine.current._featurizer = engine.featurizer
    new = Item("new-boots", "black boots new")
    engine.upsert([VIDEO, new, Item("clip", "red tent", kind="video", linked=("nowhere", "new-boots"))])

    def of(*items: Item) -> np.ndarray:
        """The head row of the mean of some items' vectors."""
        vectors = engine.featurizer.vectors([f"{one.title} {one.brand or ''}".strip() for one in items])
        return engine.featurizer.head_row_projection.project_queries(vectors.mean(0, keepdims=True))[0]

    def row(item_id: str) -> np.ndarray:
        snapshot = engine.snapshot
        found = snapshot.item_head_rows.take(np.array([snapshot.number[item_id]]))[0]
        return np.where(np.arange(len(found)) < len(found) - engine.featurizer.head_row_projection.features, found, 0)

    chairs, lamp = [engine.item(f"black-chair-{i}") for i in range(2)], engine.item("blue-lamp-0")
    np.testing.assert_allclose(row("video"), of(*chairs), atol=0.01)
    np.testing.assert_allclose(row("clip"), of(new), atol=0.01)
    engine.upsert([replace(VIDEO, linked=("blue-lamp-0",))])
    np.testing.assert_allclose(row("video"), of(lamp), atol=0.01)
    sid = engine.featurizer.khqe.encode(engine.featurizer.vectors([f"{lamp.title} {lamp.brand}"]))[0]
    assert engine.sid("video")[:2] == tuple(sid[:2].tolist())
    # It moves with its products: with one that changes, and with one that comes after it.
    stove, chair = replace(lamp, title="green stove"), Item("nowhere", "black chair")
    before = row("clip")
    engine.upsert([stove])
    np.testing.assert_allclose(row("video"), of(stove), atol=0.01)
    np.testing.assert_array_equal(row("clip"), before)
    engine.upsert([chair])
    np.testing.assert_allclose(row("clip"), of(new, chair), atol=0.01)
    # Also above a base that was begun before; and not what is gone, or shows something else by now.
    merged = engine.snapshot.merged()
    engine.current._merging = changed = set()
    engine.upsert([lamp])
    assert changed == {engine.snapshot.number[one] for one in ("blue-lamp-0", "video")}
    engine.current.value = engine.snapshot.onto(merged, changed)
    np.testing.assert_allclose(row("video"), of(lamp), atol=0.01)
    engine.upsert([replace(VIDEO, linked=("nowhere",))])
    engine.delete(["clip"])
    engine.upsert([stove, replace(new, title="red tent")])
    np.testing.assert_allclose(row("video"), of(chair), atol=0.01)
    assert engine.item("clip") is None


def test_links_of_a_run_are_known_however_its_items_are_stored(tmp_path):
    items = items_frame([Item("a", "red tent"), Item("v", "video", kind="video", linked=("a", "b")), Item("b", "lamp")])
    read = []
    for number, (some, found) in enumerate(((items, [("v", ["a", "b"])]), (items.head(1), []), (items.head(0), []))):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_item_lines(some, folder)
        lines = ItemLines.load(folder, len(some), lambda some=some: read.append(len(some)) or some)
        assert lines.links.rows() == ItemFrame(some).links.rows() == found
    assert read == [3], "the table is read where items may link to others"
    linking = LinkingItems(
        ItemRecords.over(ItemFrame(items)).with_items(np.array([3]), [Item("w", "w", linked=("b",))])
    )
    assert linking.to([Item("b", "")]) == ["v", "w"] and linking.to([Item("a", ""), Item("v", "")]) == []
    linking.note([Item("x", "x", linked=("a",))])
    assert linking.to([Item("a", "")]) == ["v", "x"]


def test_a_video_that_moved_keeps_its_place_when_counts_are_taken_over():
    engine, other = small_engine(), small_engine()
    for one in (engine, other):
        one.featurizer = replace(one.featurizer, linked=0.999)
        one.current._featurizer = one.featurizer
    engine.upsert([VIDEO])
    before = engine.sid("video"), engine.snapshot.item_head_rows.take(np.array([engine.snapshot.number["video"]]))
    engine.upsert([replace(engine.item(f"black-chair-{i}"), title="green stove") for i in range(2)])
    moved = engine.snapshot.item_head_rows.take(np.array([engine.snapshot.number["video"]]))
    assert np.abs(moved - before[1]).max() > 0.05
    engine.take_over(other)
    now = engine.snapshot.item_head_rows.take(np.array([engine.snapshot.number["video"]]))
    np.testing.assert_allclose(now, moved, atol=1e-6)
