"""The engine follows the store's item changes: all of them, in order, and a bad one stops no other."""

import pytest
from serving_fakes import FakeEngine

from onesearch.data.records import Item
from onesearch.serving.live_catalogue import LiveCatalogue
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.store import StoreError


@pytest.fixture
def engine():
    return FakeEngine()


def changed(metrics, kind):
    return metrics.changes.labels(kind)._value.get()


def test_the_answer_names_only_the_callers_own_problems(engine, store):
    catalogue = LiveCatalogue(engine, store, Metrics())
    engine.refuse_titles = {"poison"}
    assert list(catalogue.change([Item("bad", "poison"), Item("a", "lamp")], [])) == ["bad"]
    assert catalogue.change([Item("b", "mug")], []) == {} and set(engine.items) == {"a", "b"}
    assert "1 could not be indexed, such as 'bad'" in catalogue.problems()[0]
    assert catalogue.change([Item("bad", "shoe")], []) == {} and catalogue.problems() == []


def test_changes_are_applied_once_and_in_order(engine, store):
    store.change_items([Item("a", "lamp"), Item("b", "mug")], [])
    store.change_items([Item("c", "shoe")], ["a"])
    metrics = Metrics()
    catalogue = LiveCatalogue(engine, store, metrics)
    assert "not applied yet" in catalogue.problems()[0]
    assert catalogue.follow() == 3 and set(engine.items) == {"b", "c"}, "of `a` only the newest state is left"
    assert catalogue.follow() == 0 and catalogue.problems() == []
    assert (changed(metrics, "upsert"), changed(metrics, "delete")) == (2, 1)


def test_pages_of_changes_are_read_to_the_end_and_a_failure_loses_none(engine, store, monkeypatch):
    store.change_items([Item(f"i{n}", "lamp") for n in range(7)], [])
    plain, pages = store.item_changes, []

    def paged(after, limit=3):
        pages.append(after)
        if len(pages) == 2:
            raise StoreError("disk on fire")
        return plain(after, 3)

    monkeypatch.setattr(store, "item_changes", paged)
    catalogue = LiveCatalogue(engine, store, Metrics())
    with pytest.raises(StoreError):
        catalogue.follow()
    assert len(engine.items) == 3, "what was applied stays"
    assert catalogue.follow() == 4 and len(engine.items) == 7
    assert pages == [0, 3, 3, 6, 7]
