"""One service over shards: it answers as one over the whole catalogue, and ends when a shard is gone."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from launch import start
from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.search.engine import SearchEngine
from onesearch.search.exploration import Exploration
from onesearch.search.results import SearchRequest
from onesearch.search.rules import Hide, Pin, Rules, When
from onesearch.search.shards import Shards
from onesearch.search.shopper_history import ShopperHistory
from onesearch.serving import shard_calls
from onesearch.serving.shard_calls import LeadingEngine, ShardsDifferError, joined_shard
from onesearch.serving.worker_threads import SaturatedError

TOKEN = {"Authorization": "Bearer t0ken"}
QUERIES = ("boots", "red lamp", "", "bots", "nothing of it")


@pytest.fixture(autouse=True)
def told(monkeypatch) -> list[Any]:
    """What the first process says, where it is the only one."""
    said: list[Any] = []

    def from_first(value: Any = None, group: Any = None) -> Any:
        said.append(json.loads(json.dumps(value)))
        return said[-1]

    monkeypatch.setattr(shard_calls, "from_first", from_first)
    return said


@pytest.fixture
def leading(tiny_run) -> Iterator[LeadingEngine]:
    engine = SearchEngine.load(tiny_run)
    leading = engine._over(LeadingEngine, engine.snapshot, engine.config, engine.weights)
    yield leading
    leading.close()


def test_every_call_means_the_same_when_it_was_told(leading, told, tiny_run):
    whole = SearchEngine.load(tiny_run)
    history = ShopperHistory(("a", "b"), ("q", ""), ("c",), ("last",), "F 24-30")
    filters = {"price": [None, 9.5], "category": [("Home", "Lamps"), "Sale"], "not": {"category": ("Home",)}}
    rules = Rules(pins=(Pin(name="p", items=("a",), when=When(query="lamp")),))
    request = SearchRequest(
        "red lamp", "u1", 7, filters, 8, history, 2, True, ["brand"], None, False, True, False,
        ["gold"], rules, Exploration(0.1, 2**64 - 1), "b",
    )  # fmt: skip
    heard: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchEngine, "search_batch", lambda self, requests: heard.extend(requests) or [])
        patch.setattr(SearchEngine, "search_lexical", lambda self, *asked: heard.append(asked[2]) or [])
        leading.search_batch([request])
        leading.search_lexical("lamp", filters=filters)
    assert heard == [request, filters]
    item = Item(
        "new", "silk lamp", ("Home", "Lamps"), "Übel", 9.5, {"Color": ("red",)}, images=("a.png",),
        listed_at=datetime(2024, 1, 1, tzinfo=UTC), in_stock=None, kind="live", linked=("a",),
    )  # fmt: skip
    upsert = shard_calls._CALLS["upsert"]
    assert upsert.validate_python(json.loads(json.dumps(upsert.dump_python(([item],), mode="json")))) == ([item],)

    def asked(engine: SearchEngine) -> list[Any]:
        some = engine.search("lamp", k=3)
        return [
            some,
            engine.search_lexical("red lamp", 5, {"price": [None, 50]}, ["gold"], rules=None),
            engine.similar(some[0].item_id, 4),
            engine.suggest("l", 4),
            engine.filters_available(),
            engine.delete([some[1].item_id, "unknown"]),
        ]

    assert asked(leading) == asked(whole)
    # Live clicks, to the last bit.
    ids = [hit.item_id for hit in whole.search("lamp", k=4)]
    pairs = np.array([0, 1, 1]), np.array([0, 1, 2]), np.array([0.1, 2, 1 / 3], np.float32)
    live = LiveClicks(["lamp", "red"], ids[:3], *pairs, np.array([0.1, 2, 1 / 3], np.float32))
    hide = Rules(hides=(Hide(name="h", column="item_id", values=(ids[3],)),))
    for engine in (whole, leading):
        engine.count(live)
        engine.follow_rules(hide)
        engine.upsert([item])
    assert leading.rules == hide and leading.search("lamp") == whole.search("lamp")
    assert leading.item("new") == item and len(leading) == len(whole) and leading.version == whole.version
    assert [one[0] for one in told if one[0] != "settle"].count("search_batch") == 3


def test_all_work_at_the_time_that_was_told(leading, told, monkeypatch):
    times = []
    monkeypatch.setattr(SearchEngine, "suggest", lambda self, text, k: times.append(self.clock()) or [])
    leading.suggest("l")
    assert times == [datetime.fromisoformat(told[-1][1])] and leading.clock() > times[0]
    # The time is that of a call's turn, also where another one is at work when it comes.
    begun = threading.Event()

    def slow(self: SearchEngine, text: str, k: int) -> list[Any]:
        begun.set()
        time.sleep(0.2)
        return times.append(self.clock()) or []

    monkeypatch.setattr(SearchEngine, "suggest", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(leading.suggest, "l")
        assert begun.wait(20)
        second = pool.submit(leading.suggest, "l")
        assert first.result() == second.result() == []
    assert times[-1] - times[-2] > timedelta(seconds=0.15)


def test_a_wrong_request_is_refused_and_the_next_one_answered(leading, told):
    reasons: list[Exception] = []
    leading.failed = reasons.append
    with pytest.raises(ValueError, match="colour"):
        leading.search("lamp", filters={"colour": "red"})
    with pytest.raises(KeyError):
        leading.similar("no such item")
    assert leading.search("lamp") and not reasons
    leading.close()
    leading.close()
    assert told.count(None) == 1
    with pytest.raises(RuntimeError, match="not together any more"):
        leading.search("lamp")


def test_what_fails_in_all_shards_fails_and_what_fails_in_some_ends_them(leading, monkeypatch):
    reasons: list[Exception] = []
    leading.failed = reasons.append

    def fails(self: SearchEngine, text: str, k: int) -> Any:
        raise OverflowError("too much")

    monkeypatch.setattr(SearchEngine, "suggest", fails)
    with pytest.raises(OverflowError):
        leading.suggest("l")
    assert leading.search("lamp") and not reasons
    monkeypatch.setattr(Shards, "count", 3)
    for failed in (1, 2):
        monkeypatch.setattr(Shards, "total", lambda self, number, failed=failed: failed)
        with pytest.raises(ShardsDifferError, match=f"suggest failed in {failed} of 3 shards"):
            shard_calls._together(leading, "suggest", datetime.now(UTC).isoformat(), ["l", 3])
    monkeypatch.setattr(SearchEngine, "suggest", lambda self, text, k: [])
    with pytest.raises(ShardsDifferError):
        leading.suggest("l")
    assert len(reasons) == 1


def test_after_a_broken_call_there_is_none(leading, told, monkeypatch):
    reasons: list[Exception] = []
    leading.failed = reasons.append
    broken = RuntimeError("Connection closed by peer")

    def gone(value: Any = None, group: Any = None) -> Any:
        told.append(value)
        raise broken

    monkeypatch.setattr(shard_calls, "from_first", gone)
    with pytest.raises(RuntimeError, match="Connection closed"):
        leading.suggest("l")
    with pytest.raises(RuntimeError, match="not together any more"):
        leading.search("lamp")
    leading.close()
    assert reasons == [broken] and told[-1][0] == "suggest", "there is nobody to tell that it ends"


def test_what_a_page_asks_beside_a_search_waits_for_its_turn_but_not_long(leading, monkeypatch):
    monkeypatch.setattr(shard_calls, "_SECONDS_IN_LINE", 0.01)
    begin = time.monotonic()
    with leading._turn:
        for ask in (lambda: leading.suggest("l"), leading.filters_available, lambda: leading.similar("i1")):
            with pytest.raises(SaturatedError, match="at work"):
                ask()
    assert time.monotonic() - begin < 3 and leading.filters_available().brands


def test_the_shards_meet_now_and_then(tiny_run, told, monkeypatch):
    monkeypatch.setattr(shard_calls, "_SECONDS_BETWEEN_CALLS", 0.01)
    engine = SearchEngine.load(tiny_run)
    leading = engine._over(LeadingEngine, engine.snapshot, engine.config, engine.weights)
    end = time.monotonic() + 20
    while len(told) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    leading.close()
    assert {one[0] for one in told[:-1]} == {"settle"} and told[-1] is None


def test_others_answer_until_the_last_call(tiny_run, monkeypatch):
    engine = SearchEngine.load(tiny_run)
    when = datetime(2024, 1, 1, tzinfo=UTC).isoformat()
    unknown = [{**json.loads(shard_calls._CALLS["upsert"].dump_json(([Item("new", "silk lamp")],)))[0][0]}]
    calls = iter([["similar", when, ["nobody", 3, None]], ["upsert", when, [unknown]], ["settle", when, []], None, 1])
    monkeypatch.setattr(shard_calls, "from_first", lambda group: next(calls))
    shard_calls.answer_calls(engine)
    assert engine.item("new") is not None and next(calls) == 1
    with pytest.raises(KeyError):
        shard_calls._perform(engine, "__init__", when, [])


def test_shards_that_differ_in_an_item_do_not_go_on(tiny_run, monkeypatch):
    engine = SearchEngine.load(tiny_run)
    when = datetime(2024, 1, 1, tzinfo=UTC).isoformat()
    items = [{"item_id": "new", "title": "silk lamp"}, {"item_id": "newer", "title": "silk boots"}]
    # One of them in both shards, the other one in neither.
    monkeypatch.setattr(Shards, "gathered", lambda self, value: torch.tensor([[True, False], [True, False]]))
    with pytest.raises(ShardsDifferError, match="'new' is in 2 shards"):
        shard_calls._together(engine, "upsert", when, [items])


def test_runs_with_pictures_are_served_whole(tiny_run):
    engine = SearchEngine.load(tiny_run)
    engine.featurizer = replace(engine.featurizer, pictures=object())
    with pytest.raises(ValueError, match="serve it as whole engines"):
        joined_shard(engine)


def test_processes_that_would_serve_something_else_each_are_refused(tiny_run, monkeypatch):
    engine = SearchEngine.load(tiny_run)
    engine.out_of_stock = "hidden"

    def beside(own: dict[str, Any]) -> list[dict[str, Any]]:
        own = json.loads(json.dumps(own))
        return [own, {**own, "out_of_stock": "shown", "version of the run": ["run/v2@0002", None]}]

    monkeypatch.setattr(shard_calls, "exchanged", beside)
    with pytest.raises(ValueError, match="differ in out_of_stock, version of the run: start all of them alike"):
        joined_shard(engine)


# -- processes --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def up(url: str, processes: list[subprocess.Popen]) -> None:
    end = time.monotonic() + 120
    while True:
        assert time.monotonic() < end and all(one.poll() is None for one in processes), [
            one.communicate()[0] for one in processes if one.poll() is not None
        ]
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)


def served(run: Path, folder: Path, count: int) -> tuple[str, list[subprocess.Popen]]:
    port = free_port()
    command = ["-m", "onesearch", "serve", str(run), "--port", str(port), "--store", str(folder / f"{count}.sqlite3")]
    command += ["--learn-seconds", "0", "--precision", "auto"]
    return f"http://127.0.0.1:{port}", start(command, count, ONESEARCH_ADMIN_TOKEN="t0ken")


def ended(processes: list[subprocess.Popen], seconds: float = 60) -> list[tuple[str, int]]:
    try:
        with ThreadPoolExecutor() as pool:
            return [
                (output, one.returncode)
                for output, one in zip(
                    pool.map(lambda one: one.communicate(timeout=seconds)[0], processes), processes, strict=True
                )
            ]
    finally:
        for one in processes:
            one.kill()


def asked(url: str, path: list[str]) -> list[Any]:
    """What a shop's page asks for, of which all but times and the name of the search."""
    found = []
    more = (
        {},
        {"user": "u1"},
        {"filters": {"category": {"path": path}}},
        {"facets": ["brand", "price"], "count": True},
        {"sort": "price", "offset": 3},
    )
    for query in QUERIES:
        for one in more:
            answer = httpx.post(f"{url}/search", json={"query": query, "k": 5, "record": False, **one}).json()
            hits = [(hit["item_id"], pytest.approx(hit["score"], abs=1e-4)) for hit in answer.pop("results")]
            found.append((hits, {key: answer[key] for key in ("corrected_query", "total", "facets", "confidence")}))
    for call in ("filters", "suggest?q=l"):
        found.append(httpx.get(f"{url}/{call}").json())
    return found


def test_a_service_of_two_processes_answers_as_one(tiny_run, tmp_path):
    whole, alone = served(tiny_run, tmp_path, 1)
    parts, both = served(tiny_run, tmp_path, 2)
    try:
        for url, processes in ((whole, alone), (parts, both)):
            up(url, processes)
        path = list(SearchEngine.load(tiny_run).search("lamp")[0].item.category[:2])
        found = asked(parts, path)
        assert found == asked(whole, path) and any(hits for hits, _ in found[2:22:5])
        # What comes in and goes reaches all shards; what is wrong is refused, and searches go on.
        new = [{"item_id": f"new{i}", "title": f"velvet {word}"} for i, word in enumerate(("lamp", "boots"))]
        for url in (whole, parts):
            gone = httpx.post(f"{url}/search", json={"query": "lamp", "k": 1}).json()["results"][0]["item_id"]
            changed = httpx.post(f"{url}/items", json={"upsert": new, "delete": [gone]}, headers=TOKEN)
            assert changed.status_code == 200, changed.text
            found = httpx.post(f"{url}/search", json={"query": "velvet lamp", "k": 3}).json()["results"]
            assert found[0]["item_id"] == "new0"
        refused = httpx.post(f"{parts}/search", json={"query": "lamp", "explain": True})
        assert refused.status_code == 422 and "whole catalogue" in refused.text
        agents = [httpx.post(f"{url}/agent/search", json={"query": "lamp", "k": 4}).json() for url in (whole, parts)]
        assert [one["item_id"] for one in agents[0]["items"]] == [one["item_id"] for one in agents[1]["items"]]
        assert agents[0]["items"][0]["reasons"] and not agents[1]["items"][0]["reasons"]
        draft = {"rules": "", "search": {"query": "lamp", "explain": True}}
        assert httpx.post(f"{parts}/rules/preview", json=draft, headers=TOKEN).status_code == 200
        assert asked(parts, path) == asked(whole, path)
        # A signal to all, as launchers send it: they end in good order.
        for one in both:
            one.send_signal(signal.SIGTERM)
        for output, code in ended(both):
            assert code == 0 and "Traceback" not in output, output
    finally:
        for one in (*alone, *both):
            one.kill()


@pytest.mark.long
def test_a_service_ends_when_a_shard_is_gone(tiny_run, tmp_path):
    url, processes = served(tiny_run, tmp_path, 2)
    up(url, processes)
    processes[1].kill()
    (output, code), _ = ended(processes)
    assert code not in (0, None) and "the shards have lost each other" in output
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/livez")


def test_who_cannot_load_ends_for_all(tmp_path):
    command = ["-m", "onesearch", "serve", str(tmp_path / "none"), "--port", str(free_port())]
    for output, code in ended(start(command, 2, ONESEARCH_STORE="")):
        assert code not in (0, None) and "none; make it with" in output, output
