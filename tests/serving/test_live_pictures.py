"""Pictures of changed items are read before the turn and counted; the run's own are given out, and nothing else."""

import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from onesearch.data.records import PICTURES_ARCHIVE, Item
from onesearch.serving.http_app import create_app
from onesearch.serving.live_catalogue import LiveCatalogue
from onesearch.serving.run_app import _host_and_port
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.serving_settings import ServingSettings
from pictures import SVG, picture


def test_pictures_are_prepared_outside_of_a_turn_and_their_outcomes_counted(engine, store, monkeypatch):
    metrics = Metrics()
    catalogue = LiveCatalogue(engine, store, metrics)
    turns, plain = [], engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda items: turns.append(catalogue._turns._changing) or plain(items))
    assert catalogue.change([Item("a", "lamp", images=("x.png", "y.png")), Item("b", "mug")], ["i1"]) == {}
    assert turns == [False] and engine.prepared == ["a", "b"]
    text = metrics.text().decode()
    assert (
        'onesearch_pictures_total{outcome="read"} 2.0' in text and "onesearch_items_without_picture_total 1.0" in text
    )


def test_pictures_that_cannot_be_prepared_keep_no_item_out(engine, store, caplog):
    catalogue = LiveCatalogue(engine, store, Metrics())
    assert catalogue.change([Item("a", "lamp", images=("fails",))], []) == {}
    assert "a" in engine.items and "the pictures of 1 item changes could not be read" in caplog.text


@pytest.fixture
def served(engine, store, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / PICTURES_ARCHIVE, "w") as archive:
        archive.writestr("i0-0.png", picture())
        archive.writestr("i0-1.png", picture(kind="JPEG"))
        archive.writestr("script.png", SVG)
        archive.writestr("page.html", "<script>alert(1)</script>")
        archive.writestr("../up.png", picture())
        archive.writestr("large.png", picture() + bytes(1 << 20))
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    (tmp_path / "beside.png").write_bytes(picture())
    with TestClient(create_app(engine, store, pictures=tmp_path / PICTURES_ARCHIVE)) as client:
        yield client


@pytest.mark.parametrize(("name", "kind"), [("i0-0.png", "image/png"), ("i0-1.png", "image/jpeg")])
def test_the_runs_own_pictures_are_given_out_as_what_they_are(served, name: str, kind: str):
    answer = served.get(f"/pictures/{name}")
    assert answer.status_code == 200 and answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    [
        "none.png",
        "script.png",
        "page.html",
        "large.png",
        "beside.png",
        "..%2Fbeside.png",
        "%2e%2e%2fup.png",
        "..%2Fup.png",
        "items.parquet",
        "..%2Fitems.parquet",
        "i0-0.png%00",
        "%2Fetc%2Fpasswd",
        "pictures.zip",
    ],
)
def test_nothing_else_is_given_out_as_a_picture(served, name: str):
    answer = served.get(f"/pictures/{name}")
    assert answer.status_code == 404 and b"PNG" not in answer.content and b"<script" not in answer.content


def test_a_run_without_pictures_and_a_service_without_page_have_no_such_route(engine, store, tmp_path, served):
    there = tmp_path / PICTURES_ARCHIVE
    for more in ({"pictures": tmp_path / "none.zip"}, {"pictures": there, "config": ServingSettings(page=False)}, {}):
        with TestClient(create_app(engine, store, **more)) as client:
            assert client.get("/pictures/i0-0.png").status_code == 404


def test_image_hosts_are_trusted_by_name_and_port():
    origins = ("https://img.shop.example", "http://img.shop.example", "http://[::1]:8080")
    assert [_host_and_port(one) for one in origins] == ["img.shop.example:443", "img.shop.example:80", "::1:8080"]
