"""Which searches of a service explore, with which draws, and what is kept of them."""

from datetime import datetime

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from serving_fakes import FakeEngine, catalogue

from onesearch.serving import service as service_module
from onesearch.serving.http_app import create_app
from onesearch.serving.recorded_page_views import recorded_page_views
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore


class Exploring(FakeEngine):
    """Says that the second result of a page was drawn, where a request explores."""

    def search_batch(self, requests):
        pages = super().search_batch(requests)
        for request, page in zip(requests, pages, strict=True):
            if request.exploration is not None:
                page.explored = tuple(hit.item_id for hit in page[1:2])
        return pages


@pytest.fixture
def engine():
    return Exploring(catalogue())


@pytest.fixture
def exploring(engine, tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite3")
    with TestClient(create_app(engine, store, ServingSettings(explore=0.1))) as client:
        yield client


def asked(client, engine, **body):
    assert client.post("/search", json={"query": "lamp", **body}).status_code == 200
    return engine.requests[-1].exploration


def test_a_shoppers_draws_are_the_same_all_day_on_every_page_of_a_query(exploring, engine, monkeypatch):
    one = asked(exploring, engine, user="ann")
    assert one.share == 0.1 and 0 <= one.seed < 2**64
    assert (
        asked(exploring, engine, user="ann", offset=10) == one == asked(exploring, engine, user="ann", query=" LAMP ")
    )
    others = [
        asked(exploring, engine, user="bob"),
        asked(exploring, engine, user="ann", query="mug"),
        asked(exploring, engine),
        asked(exploring, engine),
    ]
    today = service_module.now()
    tomorrow = datetime.fromtimestamp(today.timestamp() + 86_400, today.tzinfo)
    monkeypatch.setattr(service_module, "now", lambda: tomorrow)
    others.append(asked(exploring, engine, user="ann"))
    assert len({one.seed, *(other.seed for other in others)}) == 6


def test_what_is_not_recorded_or_has_another_order_is_not_explored(exploring, engine):
    assert asked(exploring, engine, record=False) is None and asked(exploring, engine, sort="price") is None
    assert asked(exploring, engine, offset=10) is None, "of nobody's draws only the first page has some"
    before = len(engine.requests)
    exploring.post("/search", json={"query": "lamp", "method": "bm25"})
    assert len(engine.requests) == before
    assert asked(exploring, engine) is not None


def test_what_was_drawn_is_kept_with_the_search_and_counted(exploring, engine, tmp_path):
    ids = [hit["item_id"] for hit in exploring.post("/search", json={"query": "lamp"}).json()["results"]]
    exploring.post("/search", json={"query": "lamp", "record": False})
    families = text_string_to_metric_families(exploring.get("/metrics").text)
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["onesearch_results_explored_total"] == 1
    store = SqliteStore(tmp_path / "store.sqlite3")
    (kept,) = store.searches()[0]
    assert kept.explored == (ids[1],) and list(kept.shown) == ids
    assert recorded_page_views(store)["shown"].to_list() == [ids], "to train on it is a page like others"
    store.close()


def test_a_service_explores_nothing_unless_it_is_asked_to(client, engine, store):
    assert asked(client, engine, user="ann") is None
    assert store.searches()[0][0].explored == ()


def test_more_than_half_of_a_page_is_refused():
    with pytest.raises(ValueError, match=r"explore\n.*less than or equal to 0.5"):
        ServingSettings(explore=0.6)
