"""Engines with a part of the items each answer as one with all of them: threads that meet stand for processes."""

import gc
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from launch import launch
from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.records import Item
from onesearch.model.model_settings import ModelSettings
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.confidence import Confidence
from onesearch.search.engine import SearchEngine
from onesearch.search.results import SearchRequest
from onesearch.search.rules import BoostRule, Hide, Pin, Rules, When
from onesearch.search.shards import ProcessShards, Shards, best_of_all, kept_of_all, shard_of_codes, side_by_side
from onesearch.search.shopper_history import FixedHistories, ShopperHistory
from small_engine import EVIDENCE, small_engine

TESTS = Path(__file__).parents[1]
NOW = datetime(2024, 1, 1, tzinfo=UTC)
QUERIES = ("red tent", "azure", "lamp", "boots late", "", "redtent", "nothing of it", "red-lamp-1", "gren tent")
FILTERS = (None, {"brand": "b1"}, {"price": [None, 12]}, {"category": "lamp"})


class Meeting:
    """Where threads exchange what they have."""

    def __init__(self, count: int) -> None:
        self.barrier, self.brought = threading.Barrier(count, timeout=20), [torch.zeros(0)] * count

    def shards(self) -> list["ThreadShards"]:
        return [ThreadShards(self, number) for number in range(len(self.brought))]


class ThreadShards(Shards):
    def __init__(self, meeting: Meeting, number: int) -> None:
        super().__init__()
        self.meeting, self.number, self.count = meeting, number, len(meeting.brought)

    def gathered(self, value: torch.Tensor) -> torch.Tensor:
        self.meeting.brought[self.number] = value
        self.meeting.barrier.wait()
        brought = list(self.meeting.brought)
        self.meeting.barrier.wait()
        assert len({(one.shape, one.dtype) for one in brought}) == 1
        self.exchanges += 1
        return torch.stack(brought)


def together(shards: Sequence[Any], work: Callable[[Any], Any]) -> list[Any]:
    """What each shard makes of the same work, at the same time."""
    with ThreadPoolExecutor(len(shards)) as pool:
        jobs = [pool.submit(work, one) for one in shards]
    failed = [error for job in jobs if (error := job.exception()) is not None]
    # One that fails leaves the others waiting; the first reason is no broken meeting.
    for error in sorted(failed, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [job.result() for job in jobs]


def change(engine: SearchEngine, parts: Sequence[SearchEngine], how: Callable[[SearchEngine], Any]) -> None:
    """The same change of the whole, and of all shards at the same time."""
    how(engine)
    together(parts, how)


def sharded(engine: SearchEngine, count: int) -> list[SearchEngine]:
    return [engine.shard(one) for one in Meeting(count).shards()]


def answers(engine: SearchEngine, k: int = 10) -> list[list[tuple[str, float]]]:
    asked = [
        SearchRequest(query, user, k, filters) for query in QUERIES for user in (None, "ann") for filters in FILTERS
    ]
    return [[(hit.item_id, hit.score) for hit in page] for page in engine.search_batch(asked)]


def assert_same(found: Sequence[Any], expected: Sequence[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert [item for item, _ in one] == [item for item, _ in other]
        assert [score for _, score in one] == pytest.approx([score for _, score in other], abs=1e-4)


def assert_all_answer_as(engine: SearchEngine, parts: Sequence[SearchEngine], k: int = 10) -> None:
    expected = answers(engine, k)
    for found in together(parts, lambda part: answers(part, k)):
        assert_same(found, expected)


@pytest.mark.parametrize("model", [ModelSettings(), EVIDENCE], ids=["plain", "evidence"])
@pytest.mark.parametrize("count", [2, 3])
def test_shards_answer_as_the_whole(model: ModelSettings, count: int):
    engine = small_engine(model=model)
    engine.histories = FixedHistories({"ann": ShopperHistory(("blue-lamp-0", "red-tent-0"), ("", "red"))})
    parts = sharded(engine, count)
    sizes = [len(part.snapshot.index) for part in parts]
    assert sum(sizes) == len(engine) and min(sizes) > 0 and all(len(part) == len(engine) for part in parts)
    for k in (3, 60):
        assert_all_answer_as(engine, parts, k)
    page = engine.search("red tent", "ann", 7, FILTERS[1])
    for found in together(parts, lambda part: part.search("red tent", "ann", 7, FILTERS[1])):
        assert_same([[(hit.item_id, hit.score) for hit in found]], [[(hit.item_id, hit.score) for hit in page]])


def test_shards_change_as_the_whole():
    """Items come, go and move to another shard with another text; merges, live clicks and rules reach all."""
    engine = small_engine(model=EVIDENCE)
    parts = sharded(engine, 3)

    def changed(one: SearchEngine) -> None:
        one.upsert([Item("red-tent-0", "green stove"), Item("new", "velvet tent", brand="b0"), Item("s", "red boots")])
        one.delete(["blue-lamp-0", "s", "unknown"])
        one.upsert([Item("black-chair-1", "red tent", price=1.0)])
        clicks = pl.DataFrame([(1, "lamp", "new", NOW, 1.0, True)] * 3, CLICKS, orient="row")
        one.count(LiveClicks.from_clicks(clicks, NOW))
        hide = Hide(name="h", column="item_id", values=("red-chair-0",))
        pinned = ("green-stove-1", "red-lamp-1", "red-chair-0", "blue-lamp-0")
        pin = Pin(name="p", items=pinned, when=When(query="lamp"))
        one.follow_rules(Rules(hides=(hide,), pins=(pin,)))

    change(engine, parts, changed)
    moved = engine.snapshot.number["red-tent-0"]
    assert sum(part.snapshot.index.position_of(torch.tensor([moved]))[0] >= 0 for part in parts) == 1
    assert_all_answer_as(engine, parts)
    assert [hit.item_id for hit in engine.search("lamp")][:2] == ["green-stove-1", "red-lamp-1"]
    # Completions and corrections follow the catalogue.
    for ask in (lambda one: one.suggest("velv", 9), lambda one: one.search("velvt tent").corrected_query):
        assert together(parts, ask) == [ask(engine)] * 3 and ask(engine)

    # The same on new bases, and when what changes meanwhile stands on top of them.
    def rebased(one: SearchEngine) -> None:
        before = one.snapshot
        one.upsert([Item("late", "velvet lamp")])
        one.current.value = one.snapshot.onto(before.merged(), [one.snapshot.number["late"]])

    change(engine, parts, rebased)
    assert_all_answer_as(engine, parts)
    # A shard may lose all its items, and get some again.
    rows = engine.snapshot.number
    mine = parts[1].snapshot.index.position_of(torch.tensor(list(rows.values()))) >= 0
    gone = [item_id for item_id, is_mine in zip(rows, mine.tolist(), strict=True) if is_mine]
    texts = [engine.item(item_id) for item_id in gone]
    change(engine, parts, lambda one: one.delete(gone))
    assert not len(parts[1].snapshot.index) and len(parts[1]) == len(engine) > 0
    assert_all_answer_as(engine, parts)
    change(engine, parts, lambda one: one.upsert(texts))
    assert len(parts[1].snapshot.index) == len(gone)
    assert_all_answer_as(engine, parts)


def test_shards_take_over_other_counts():
    engine = small_engine(model=EVIDENCE)
    parts = sharded(engine, 2)

    def recounted() -> SearchEngine:
        other = small_engine(model=EVIDENCE)
        clicks = pl.DataFrame([(1, "lamp", "red-tent-1", NOW, 1.0, True)] * 9, CLICKS, orient="row")
        other.current.value = other.snapshot.counting(LiveClicks.from_clicks(clicks, NOW))
        return other

    def taken_over(one: SearchEngine) -> None:
        one.upsert([Item("new", "velvet lamp"), Item("red-lamp-0", "green stove")])
        one.delete(["blue-lamp-0"])
        one.take_over(others.pop())

    others = [recounted() for _ in range(3)]
    change(engine, parts, taken_over)
    assert sum(len(part.snapshot.index) for part in parts) == len(engine)
    assert_all_answer_as(engine, parts)


def test_a_shard_keeps_nothing_of_the_whole_index():
    engine = small_engine(model=EVIDENCE)
    engine.search("gren tent")
    part = engine.shard(Shards())
    whole = [weakref.ref(one) for one in (engine.snapshot.index, engine.snapshot.lexical, engine.snapshot.filters)]
    part.search("gren tent")
    del engine
    gc.collect()
    assert [one() for one in whole] == [None] * 3 and part.search("red tent")


def test_shards_begin_a_merge_together_and_end_it_when_all_are_ready(monkeypatch):
    engine = small_engine(model=EVIDENCE)
    parts = sharded(engine, 2)
    gates, fails = [threading.Event(), threading.Event()], [False, False]
    merged = Snapshot.merged

    def gated(snapshot: Snapshot) -> Any:
        number = snapshot.shards.number
        assert gates[number].wait(20)
        if fails[number]:
            raise MemoryError("no room")
        return merged(snapshot)

    monkeypatch.setattr(Snapshot, "merged", gated)
    # One shard alone finds a merge worth its while.
    monkeypatch.setattr(Snapshot, "wants_merge", property(lambda one: one.shards.number == 1))

    change(engine, parts, lambda one: one.upsert([Item("new", "velvet lamp")]))
    assert all(part.current.merging for part in parts)
    change(engine, parts, lambda one: one.upsert([Item("newer", "velvet tent"), Item("red-tent-0", "azure stove")]))
    before = [part.snapshot for part in parts]
    gates[0].set()
    _until(lambda: parts[0].current._made is not None)
    together(parts, lambda one: one.current.settle())
    assert [part.snapshot for part in parts] == before, "the other is not ready"
    gates[1].set()
    _until(lambda: parts[1].current._made is not None)
    together(parts, lambda one: one.current.settle())
    assert not any(part.current.merging for part in parts)
    assert all(part.snapshot is not old for part, old in zip(parts, before, strict=True))
    assert_all_answer_as(engine, parts)
    # One that cannot: the others drop theirs, and the next change begins anew.
    fails[1] = True
    change(engine, parts, lambda one: one.delete(["newer"]))
    _until(lambda: parts[0].current._made is not None and parts[1].current._gave_up)
    before = [part.snapshot for part in parts]
    together(parts, lambda one: one.current.settle())
    assert [part.snapshot for part in parts] == before and not any(part.current.merging for part in parts)
    fails[1] = False
    change(engine, parts, lambda one: one.delete(["new"]))
    assert all(part.current.merging for part in parts)
    _until(lambda: all(part.current._made is not None for part in parts))
    made = [part.current._made for part in parts]
    change(engine, parts, lambda one: one.upsert([Item("last", "lamp")]))
    assert all(part.current._made is not old for part, old in zip(parts, made, strict=True)), "in place with the change"
    assert_all_answer_as(engine, parts)


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_else_a_page_asks_for():
    engine = small_engine(model=EVIDENCE)
    parts = sharded(engine, 2)
    for ask in (
        lambda one: [(hit.item_id, hit.score) for hit in one.similar("red-tent-0", 7)],
        lambda one: [(hit.item_id, hit.score) for hit in one.similar("red-tent-0", 7, {"brand": "b1"})],
        lambda one: [(hit.item_id, hit.score) for hit in one.search_lexical("red lamp", 7)],
        lambda one: [(hit.item_id, hit.score) for hit in one.search_lexical("red lamp", 7, {"brand": "b1"})],
    ):
        for found in together(parts, ask):
            assert_same([found], [ask(engine)])
    for found in together(parts, lambda one: one.suggest("r", 20)):
        assert found == engine.suggest("r", 20)
    for found in together(parts, lambda one: one.search("gren tent")):
        assert found.corrected_query == engine.search("gren tent").corrected_query == "green tent"
    # Which word was meant depends on how many texts of all shards have it beside its neighbour.
    lamps = [Item(f"silk{i}", "silk lamp") for i in range(3)] + [Item("sill", "sill lamp")]
    others = [Item(f"sill{i}", f"sill {thing}") for i, thing in enumerate(("tent", "boots", "chair", "stove") * 2)]
    change(engine, parts, lambda one: one.upsert([*lamps, *others]))
    for found in together(parts, lambda one: one.search("silx lamp")):
        assert found.corrected_query == engine.search("silx lamp").corrected_query == "silk lamp"
    with pytest.raises(ValueError, match="ask an engine with the whole catalogue"):
        parts[0].search_batch([SearchRequest("lamp", explain=True)])


def varied(number: int) -> Item:
    """One of many items that have every column of a filter, spelt in several ways, or lack it."""
    return Item(
        f"new-{number}",
        f"{('red tent', 'blue lamp', 'velvet boots')[number % 3]} {number}",
        ("Shop", f"shelf {number % 4}"),
        brand=("Acme", "ACME", "Übel", None)[number % 4],
        price=None if number % 7 == 0 else float(number % 11),
        attributes={
            "Color": (("Red", "red", "grün")[number % 3],),
            "Size": (("40", "41"), ("xl", "XL"), ())[number % 3],
        },
        listed_at=None if number % 5 == 0 else NOW + timedelta(hours=(number * 7) % 30),
        in_stock=number % 4 != 0,
    )


def test_shards_count_and_sort_as_the_whole():
    engine = small_engine(model=EVIDENCE)
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    parts = sharded(engine, 3)
    clicks = pl.DataFrame([(1, "lamp", "new-4", NOW, 1.0, True)] * 3, CLICKS, orient="row")

    def changed(one: SearchEngine) -> None:
        one.upsert([varied(number) for number in range(40)])
        one.delete(["new-3", "red-tent-0"])
        one.count(LiveClicks.from_clicks(clicks, NOW))
        pin = Pin(name="p", items=("new-8", "blue-lamp-0"), when=When(query="lamp"))
        boosts = (
            BoostRule(name="b", column="brand", values=("Acme", "b1"), times=3.0),
            BoostRule(name="c", column="category", values=("shelf 2",), times=2.0, when=When(query="red tent")),
        )
        one.follow_rules(Rules(pins=(pin,), boosts=boosts))

    change(engine, parts, changed)
    facets = ("category", "brand", "price", "in_stock", "attributes.Color", "attributes.Size", "kind")
    filters = (None, {"brand": "acme"}, {"price": [None, 4]}, {"category": "shelf 1"}, {"brand": "nobody"})

    def told(one: SearchEngine) -> list[Any]:
        asked = [
            SearchRequest(query, k=4, offset=offset, filters=where, sort=sort, facets=facets)
            for query in ("lamp", "red tent", "", "azure", "new-5")
            for where in filters
            for sort, offset in ((None, 0), (None, 60), ("price", 0), ("-price", 8), ("newest", 0), ("popularity", 4))
        ]
        pages = one.search_batch(asked)
        return [([hit.item_id for hit in page], page.total, page.relevant, page.facets) for page in pages]

    expected = told(engine)
    assert any(total > relevant > 0 for _, total, relevant, _ in expected)
    for found in together(parts, told):
        assert found == expected
    for found in together(parts, lambda one: one.filters_available()):
        assert found == engine.filters_available()


def test_codes_are_shared_out():
    counts = np.array([5, 0, 9, 3, 3, 1])
    owner = shard_of_codes(counts, 3)
    assert [int(counts[owner == shard].sum()) for shard in range(3)] == [9, 6, 6]
    with pytest.raises(ValueError, match="6 shards, but the items have 5 first codes"):
        shard_of_codes(counts, 6)
    with pytest.raises(ValueError, match="a shard already"):
        small_engine().shard(Meeting(2).shards()[0]).shard(Meeting(2).shards()[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.data())
def test_the_best_of_all_shards_are_those_of_one_list(count: int, width: int, data: st.DataObject):
    scores = st.lists(st.integers(0, 4).map(float), max_size=width)
    lists = [sorted(data.draw(scores), reverse=True) for _ in range(count)]
    keys = iter(data.draw(st.permutations(range(count * width))))
    orders = [sorted(zip([-one for one in of_shard], keys, strict=False)) for of_shard in lists]
    expected = sorted(pair for order in orders for pair in order)[:width]

    def kept(shards: Shards) -> list[tuple[float, int]]:
        own = orders[shards.number]
        some = torch.tensor([[-score for score, _ in own]])
        order = torch.tensor([[key for _, key in own]])
        (which,) = kept_of_all(shards, some, width, lambda: order.long()).tolist()
        best, rows = best_of_all(shards, width, some, order.long(), by_row=True)
        found = [(-score, row) for score, row in zip(best[0].tolist(), rows[0].tolist(), strict=True) if row >= 0]
        assert found == expected
        (beside,) = side_by_side(shards, [some.numpy()], [-1])
        assert sorted(beside[0][beside[0] >= 0].tolist()) == sorted(one for other in lists for one in other)
        return [pair for pair, is_kept in zip(own, which, strict=True) if is_kept]

    found = together(Meeting(count).shards(), kept)
    assert sorted(pair for of_shard in found for pair in of_shard) == expected


PROCESS = """
import json, sys
from onesearch.common.processes import joined
from onesearch.search.shards import ProcessShards
from small_engine import EVIDENCE, small_engine
from test_shards import answers

with joined() as job:
    shards = ProcessShards()
    found = answers(small_engine(model=EVIDENCE).shard(shards))
    told = {"answers": found, "exchanges": shards.exchanges, "received": shards.received}
    with open(f"{sys.argv[1]}/{job.rank}.json", "w") as file:
        json.dump(told, file)
"""


def test_processes_answer_as_the_whole(tmp_path):
    """Two processes over gloo, each of which starts from the same engine."""
    (tmp_path / "search.py").write_text(PROCESS)
    path = os.pathsep.join([str(TESTS / "search"), str(TESTS), os.environ.get("PYTHONPATH", "")])
    for output, code in launch([str(tmp_path / "search.py"), str(tmp_path)], 2, PYTHONPATH=path):
        assert code == 0, output
    expected = answers(small_engine(model=EVIDENCE))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["exchanges"] > len(expected) and found["received"] > found["exchanges"]
        assert_same(found["answers"], expected)
    with pytest.raises(RuntimeError, match="processes of a job"):
        ProcessShards()
