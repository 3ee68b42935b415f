"""The catalogue while it changes, against one built anew from the same items."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from onesearch.data.records import Item, items_frame
from onesearch.index import vector_table
from onesearch.index.changed_index import ChangedIndex
from onesearch.index.item_filters import ItemFilters
from onesearch.index.sid_index import SidIndex
from onesearch.search import catalogue_snapshot
from onesearch.search.boosts import Boost
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.engine import SearchEngine
from onesearch.search.item_records import ItemFrame, ItemNumbers
from onesearch.search.results import SearchRequest
from small_engine import EVIDENCE, ITEMS, small_engine

ASKED = [
    SearchRequest("red tent", k=30),
    SearchRequest("blue lamp", "ann", k=30),
    SearchRequest("", "ann", k=30),
    SearchRequest("red", k=30, filters={"price": [0, 20]}),
    SearchRequest("tent", k=30, filters={"in_stock": True}),
]


def answers(engine: SearchEngine) -> list[list[tuple[str, float, tuple[int, ...]]]]:
    return [[(hit.item_id, round(hit.score, 4), hit.sid) for hit in engine.search_batch([asked])[0]] for asked in ASKED]


def candidates(hits: list[tuple[str, float, tuple[int, ...]]]) -> list[tuple[str, float, tuple[int, ...]]]:
    """The hits before those whose scores only count places."""
    counted = [i for i in range(1, len(hits)) if hits[i - 1][1] - hits[i][1] == pytest.approx(1, abs=2e-4)]
    return hits[: min(counted, default=len(hits))]


def assert_alike(found: list[list[tuple[str, float, tuple[int, ...]]]], before: list) -> None:
    """The same scores; which of equal scores of BM25 are candidates depends on when their texts came."""
    for now, then in zip(found, before, strict=True):
        assert [hit[1] for hit in now[:3]] == [hit[1] for hit in then[:3]]
        now, then = candidates(now), candidates(then)
        scores = {item_id: (score, sid) for item_id, score, sid in then}
        shared = [hit for hit in now if hit[0] in scores]
        assert all((score, sid) == scores[item_id] for item_id, score, sid in shared)
        assert len(shared) >= len(then) - 3


def rebuilt(engine: SearchEngine) -> SearchEngine:
    """An engine over the catalogue as it stands, whose tables and index are built anew."""
    old = engine.snapshot
    rows = np.array(sorted(old.number.values()), np.int64)
    sids, head_rows, popularity = (table.flat() for table in (old.sids, old.item_head_rows, old.popularity))
    index = SidIndex.build(
        sids.numpy()[rows], head_rows[torch.from_numpy(rows)], old.index.codebook_sizes, popularity.numpy()[rows], rows
    )
    items = items_frame([old.item(row) for row in range(len(old.records))])
    new = Snapshot.over(
        old.generator,
        ItemFrame(items),
        index,
        ItemFilters.build(items, index),
        type(old.builder)(old.builder.vocabulary, old.builder.config, sids.numpy(), head_rows),
        sids.numpy(),
        head_rows,
        popularity.numpy(),
        dict(old.number),
        None if old.lexical is None else old.lexical.merged(),
        old.click_features,
        old.click_features.item_traits(items),
        old.pairs,
    )
    other = engine.with_settings(engine.config, engine.weights)
    other.current.value = new.boosted(old.boosts)
    return other


def changed(item: Item, number: int, rng: np.random.Generator) -> Item:
    """Another price, stock, title, or nothing."""
    kind = int(rng.integers(4))
    if kind == 0:
        return replace(item, price=float(rng.integers(1, 60)))
    if kind == 1:
        return replace(item, in_stock=not item.in_stock)
    return replace(item, title=f"{item.title.split(' #')[0]} #{number}") if kind == 2 else item


def change(engine: SearchEngine, seen: dict[str, Item], number: int, rng: np.random.Generator) -> None:
    """Delete some items, send some again that are or were there, or send new ones."""
    ids = rng.permutation(sorted(seen))[: rng.integers(1, 4)].tolist()
    kind = int(rng.integers(3))
    if kind == 0:
        engine.delete(ids)
        return
    items = [changed(seen[one], number, rng) for one in ids]
    if kind == 1:
        items = [replace(items[0], item_id=f"new-{number}", title=f"{items[0].title} new"), *items[:1]]
    engine.upsert(items)
    seen |= {item.item_id: item for item in items}


def all_items(engine: SearchEngine) -> dict[str, Item]:
    return {item_id: engine.snapshot.item(row) for item_id, row in engine.snapshot.number.items()}


@pytest.mark.parametrize("model", [None, EVIDENCE], ids=["plain", "evidence"])
def test_sending_everything_again_changes_nothing(model):
    engine = small_engine(model=model)
    before, items = answers(engine), all_items(engine)
    engine.upsert(list(items.values()))
    assert answers(engine) == before
    for one in list(items.values())[:5]:
        engine.upsert([one])
    assert answers(engine) == before and len(engine.snapshot.records) == len(ITEMS)


def test_what_was_deleted_comes_back_as_it_was():
    engine = small_engine()
    before, items = answers(engine), all_items(engine)
    gone = engine.search("red tent", k=3)
    assert engine.delete([hit.item_id for hit in gone]) == 3
    assert not {hit.item_id for hit in gone} & {hit.item_id for hit in engine.search("red tent", k=30)}
    assert engine.item(gone[0].item_id) is None
    engine.upsert([items[hit.item_id] for hit in gone])
    assert_alike(answers(engine), before)


@pytest.mark.parametrize(
    "typed", ["creme brulee torch", "Crème Brûlée", "CREME BRULÉE", "cre\u0300me bru\u0302le\u0301e"]
)
def test_what_is_typed_without_accents_comes_first(typed):
    engine = small_engine()
    engine.upsert([Item("new", "Crème brûlée torch", ("Shop", "torch"))])
    assert engine.search(typed)[0].item_id == engine.search_lexical(typed)[0].item_id == "new"


def test_an_emptied_catalogue_answers_and_fills_again():
    engine = small_engine()
    before, items = answers(engine), all_items(engine)
    assert engine.delete(list(items)) == len(items) and len(engine) == 0
    assert answers(engine) == [[]] * len(ASKED) and engine.search_lexical("red tent") == []
    assert engine.filters_available().brands == ()
    engine.upsert(list(items.values())[:4])
    assert {hit.item_id for hit in engine.search("red tent", k=30)} == set(list(items)[:4])
    engine.upsert(list(items.values()))
    assert_alike(answers(engine), before)


def test_a_price_changes_what_says_the_price_and_nothing_else():
    engine = small_engine()
    item = engine.search("red tent", k=1)[0].item
    row = np.array([engine.snapshot.number[item.item_id]])
    before, sid, lexical = (
        engine.snapshot.item_head_rows.take(row)[0],
        engine.sid(item.item_id),
        engine.snapshot.lexical,
    )
    engine.upsert([replace(item, price=(item.price or 1) * 3)])
    after = engine.snapshot.item_head_rows.take(row)[0]
    names = engine.featurizer.head_row_projection.features
    moved = np.flatnonzero(before != after) - (len(before) - names)
    assert set(moved.tolist()) <= {3, 4} and 3 in moved  # price, and price in its category
    assert engine.sid(item.item_id) == sid and engine.snapshot.lexical is lexical
    assert engine.item(item.item_id).price == (item.price or 1) * 3
    found = engine.search("red tent", k=30, filters={"price": [item.price * 2.9, item.price * 3.1]})
    assert item.item_id in {hit.item_id for hit in found}
    engine.upsert([item])
    np.testing.assert_allclose(engine.snapshot.item_head_rows.take(row)[0], before, atol=1e-6)


def test_another_title_has_another_sid_and_keeps_the_clicks():
    engine = small_engine()
    item = engine.search("red tent", k=1)[0].item
    row = engine.snapshot.number[item.item_id]
    clicks = engine.snapshot.popularity.take(np.array([row]))
    engine.upsert([replace(item, title="steel hammer with a long handle")])
    assert engine.snapshot.number[item.item_id] == row
    assert engine.snapshot.popularity.take(np.array([row])) == clicks
    assert engine.search_lexical("hammer handle", k=1)[0].item_id == item.item_id


def test_an_item_sent_again_keeps_a_sid_that_its_text_would_not_have_and_a_new_text_has_its_own():
    """As where clicks have shaped the SIDs of the run's items."""
    engine = small_engine()
    item = engine.search("red tent", k=1)[0].item
    sid, quantizer = engine.sid(item.item_id), engine.featurizer.khqe
    other = replace(quantizer, layers=tuple(layer[::-1].copy() for layer in quantizer.layers))
    engine.current.take_over(engine.snapshot, replace(engine.featurizer, khqe=other))
    engine.upsert([replace(item, price=(item.price or 1) * 2)])
    assert engine.sid(item.item_id) == sid
    engine.delete([item.item_id])
    engine.upsert([item])
    assert engine.sid(item.item_id) == sid
    engine.upsert([replace(item, title="steel hammer with a long handle")])
    text = engine.featurizer.vectors(["steel hammer with a long handle"])
    assert engine.sid(item.item_id)[:1] == tuple(other.encode(text)[0, :1].tolist())


def run_changes(engine: SearchEngine, steps: int, every: int, seed: int) -> None:
    rng, seen = np.random.default_rng(seed), all_items(engine)
    for number in range(steps):
        change(engine, seen, number, rng)
        if number % every == every - 1:
            assert answers(engine) == answers(rebuilt(engine)), number


@pytest.mark.parametrize("model", [None, EVIDENCE], ids=["plain", "evidence"])
def test_random_changes_answer_as_a_catalogue_built_anew(model, monkeypatch):
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 10**9)
    run_changes(small_engine(model=model), 24, 6, seed=1)


def test_changes_go_on_when_the_table_of_vectors_is_full(monkeypatch):
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 10**9)
    monkeypatch.setattr(vector_table, "_SPARE_LEAST", 8)
    monkeypatch.setattr(vector_table, "_SPARE_SHARE", 10**9)
    engine = small_engine()
    bases = {engine.snapshot.index.base.numbering}
    rng, seen = np.random.default_rng(5), all_items(engine)
    for number in range(16):
        change(engine, seen, number, rng)
        bases.add(engine.snapshot.index.base.numbering)
        if number % 4 == 3:
            assert answers(engine) == answers(rebuilt(engine)), number
    assert len(bases) > 2


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_thousand_changes_answer_as_a_catalogue_built_anew(monkeypatch):
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 64)
    monkeypatch.setattr(catalogue_snapshot, "_CHANGED_SHARE", 10**9)
    run_changes(small_engine(), 10_000, 500, seed=2)


def wait_for_merge(engine: SearchEngine) -> None:
    for _ in range(1000):
        if not engine.current.merging:
            return
        time.sleep(0.01)
    raise AssertionError("the merge did not end")


def test_changes_during_a_merge_stand_on_the_new_base(monkeypatch):
    engine, rng = small_engine(), np.random.default_rng(3)
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 6)
    monkeypatch.setattr(catalogue_snapshot, "_CHANGED_SHARE", 10**9)
    begun, go_on = threading.Event(), threading.Event()
    merged = Snapshot.merged

    def slow(snapshot: Snapshot):
        begun.set()
        assert go_on.wait(20)
        return merged(snapshot)

    monkeypatch.setattr(Snapshot, "merged", slow)
    seen, base = all_items(engine), engine.snapshot.index
    number = 0
    while not begun.is_set():
        change(engine, seen, number, rng)
        number += 1
        time.sleep(0.01)
        assert number < 100
    before = engine.snapshot
    for _ in range(6):
        change(engine, seen, number, rng)
        number += 1
    held = answers(engine)
    go_on.set()
    wait_for_merge(engine)
    index = engine.snapshot.index
    assert isinstance(index, ChangedIndex) and index.base is not base and index.base is not before.index.base
    assert answers(engine) == held == answers(rebuilt(engine))
    assert engine.snapshot.index.changes < before.index.changes + 40


def test_what_changes_again_and_again_takes_no_more_room(monkeypatch):
    engine = small_engine()
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 8)
    monkeypatch.setattr(catalogue_snapshot, "_CHANGED_SHARE", 10**9)
    item = engine.search("red tent", k=1)[0].item
    for number in range(60):
        engine.upsert([replace(item, price=float(number))])
        wait_for_merge(engine)
    snapshot = engine.snapshot
    assert snapshot.sids.used <= 8 and len(snapshot.records.later) <= 8 and len(snapshot.sids.tail.data) < 1000
    assert engine.item(item.item_id).price == 59.0 and answers(engine) == answers(rebuilt(engine))
    engine.current.value = snapshot.boosted((Boost(name="tents", column="category", values=("tent",), times=4.0),))
    engine.upsert([replace(item, category=("Shop", "lamp"))])
    boost = engine.snapshot.boost
    assert boost is not None and boost.take(np.array([engine.snapshot.number[item.item_id]])).item() == 0
    assert answers(engine) == answers(rebuilt(engine))


def test_a_merge_that_fails_leaves_the_catalogue_as_it_is(monkeypatch, caplog):
    engine, rng = small_engine(), np.random.default_rng(4)
    monkeypatch.setattr(catalogue_snapshot, "_MOST_CHANGES", 1)
    monkeypatch.setattr(catalogue_snapshot, "_CHANGED_SHARE", 10**9)
    monkeypatch.setattr(Snapshot, "merged", lambda _: 1 / 0)
    change(engine, all_items(engine), 0, rng)
    wait_for_merge(engine)
    assert "could not be merged" in caplog.text and answers(engine) == answers(rebuilt(engine))


@pytest.mark.parametrize("filters", [None, {"category": "tent"}, {"price": [10, 11]}])
def test_a_page_is_as_long_as_was_asked_for_where_so_many_items_match(filters):
    engine = small_engine()
    matching = len(ITEMS) if filters is None else engine.snapshot.filters.mask(filters).count
    assert matching >= 5
    for k in (3, matching, 100):
        for query in ("red tent", "", "qwertyzxcv"):
            hits = engine.search(query, k=k, filters=filters)
            assert len({hit.item_id for hit in hits}) == len(hits) == min(k, matching)
    engine.upsert([Item(f"same-{number}", "green bottle", ("Bottles",)) for number in range(60)])
    assert len(engine.search("green bottle", k=60, filters={"category": "Bottles"})) == 60


@pytest.mark.parametrize("query", ["red tent", "", "qwertyzxcv", "black-stove-1"])
@pytest.mark.parametrize("filters", [None, {"category": "tent"}])
def test_pages_repeat_and_miss_nothing(query, filters):
    engine = small_engine()
    engine.upsert([Item(f"more-{number}", f"red tent {number % 7}", ("tent",)) for number in range(90)])
    matching = len(engine) if filters is None else engine.snapshot.filters.mask(filters).count
    whole = engine.search(query, k=matching + 5, filters=filters)
    assert len({hit.item_id for hit in whole}) == len(whole) == matching
    assert [hit.score for hit in whole] == sorted((hit.score for hit in whole), reverse=True)
    pages = [engine.search(query, k=10, filters=filters, offset=offset) for offset in range(0, matching + 20, 10)]
    assert [hit.item_id for page in pages for hit in page] == [hit.item_id for hit in whole]
    assert pages[-1] == []
    # Searches of several pages in one batch are those pages.
    batch = engine.search_batch([SearchRequest(query, k=k, offset=o, filters=filters) for k, o in ((3, 0), (7, 20))])
    assert batch == [whole[:3], whole[20:27]]


def test_an_item_is_found_by_its_id():
    engine = small_engine()
    assert engine.search("black-stove-1", k=3)[0].item_id == "black-stove-1"
    hits = engine.search("BLACK-stove-1 ", k=3)
    assert hits[0].item_id == "black-stove-1" and hits[0].score > hits[1].score and len(hits) == 3
    assert "black-stove-1" not in {hit.item_id for hit in engine.search("black-stove-1", filters={"category": "tent"})}


def test_columns_of_records_are_those_of_the_flat_table():
    engine = small_engine()
    engine.upsert([replace(engine.item("red-tent-0"), brand="Other"), Item("new-one", "blue lamp", brand="Brand")])
    records = engine.snapshot.records
    assert records.later, "nothing changed"
    assert records.columns("brand", "title").equals(records.flat().base.frame.select("brand", "title"))
    assert records.columns("brand")["brand"][-1] == "Brand" and "Other" in records.columns("brand")["brand"]


def test_item_numbers_are_a_mapping_of_what_is_there():
    numbers = ItemNumbers({"a": 0, "b": 1}).with_items({"c": 2, "a": 0}).without(["a", "c"])
    assert dict(numbers) == {"b": 1} and len(numbers) == 1 and "a" not in numbers
    assert numbers.row_of("c") == 2 and numbers.row_of("a") == 0 and numbers.row_of("d") is None
    with pytest.raises(KeyError):
        numbers["c"]
    assert dict(numbers.with_items({"c": 2})) == {"b": 1, "c": 2}
    assert numbers.rows().tolist() == [1] and numbers.with_items({"a": 0}).rows().tolist() == [0, 1]
    with pytest.raises(RuntimeError, match="do not follow"):
        ItemNumbers({"a": 0}).with_items({"b": 2}).flat()
    flat = numbers.flat()
    assert dict(flat) == {"b": 1} and [flat.row_of(one) for one in "abcd"] == [0, 1, 2, None]
