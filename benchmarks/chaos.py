"""SIGKILL at random moments, a full disk, a clock set back, a Redis that comes back empty: is anything lost?

    python -m benchmarks.chaos runs/demo                                  # 25 kills at each place, and the rest
    python -m benchmarks.chaos runs/demo --kills 1 --only serving,redis   # some of it

Prints one JSON object; ``faults`` is what must be 0. The run, which needs V2 and its market, is copied; the training is
a small one of its own.

serving     events and item changes go to one of two servers on one SQLite store, which is killed again and again; what
            was not answered is sent again. ``lost``: acknowledged, and not in the store or not served by both.
            ``repeated``: in the store twice.
training    a run is killed and started again; in the end its files are those of a run that nobody killed.
update      rounds are killed; what is served can be read after each, and the last one is left to finish.
publishing  going forth and back between two versions is killed; one of the two is served.
disk        the store's file may not grow any more: what was answered is there, and it goes on once it may.
clock       it is set back by an hour: a later click is still the newest.
redis       it is killed and comes back empty: item changes answered afterwards are served, and `/healthz` says it.
"""

import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.http_client import ONESEARCH, Server
from benchmarks.same_behaviour import CONFIG
from onesearch.common.artefact import write_manifest
from onesearch.search.served_versions import Served, publish, published, roll_back

_CHANCE = random.Random(0)
# Runs the command with a clock that is an hour late.
_LATE = """
import datetime
from onesearch.serving import http_bodies, service, store_follower
from onesearch.cli import app
late = lambda: datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
http_bodies.now = service.now = store_follower.now = late
app()
"""


def main(
    run: Annotated[Path, typer.Argument(help="A finished run with V2, of the market.")],
    kills: Annotated[int, typer.Option(min=1, help="At each place.")] = 25,
    only: Annotated[str, typer.Option(help="Some of the places, with commas between.")] = "",
) -> None:
    """Try all places and print what came of them."""
    places: dict[str, Callable[[Path, Path, int], dict[str, Any]]] = {
        "serving": _serving,
        "training": _training,
        "update": _update,
        "publishing": _publishing,
        "disk": _disk,
        "clock": _clock,
        "redis": _redis,
    }
    found = {}
    for name in only.split(",") if only else places:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "run"
            shutil.copytree(run, copy, ignore=shutil.ignore_patterns("serving.sqlite3*", "versions"))
            found[name] = places[name](copy, Path(folder), kills)
            print(name, found[name], file=sys.stderr)
    faults = sum(value for one in found.values() for key, value in one.items() if key in FAULTS)
    print(json.dumps({"faults": faults, **found}))


FAULTS = ("lost", "repeated", "unfinished", "different", "unreadable", "unserved", "unnoticed", "disordered")


class Writer(threading.Thread):
    """Sends events and item changes without end, each again with the same content until it is answered."""

    def __init__(self, server: Server, items: list[str]) -> None:
        super().__init__(daemon=True)
        self._server, self._items = server, items
        self.events: list[str] = []  # ids of those that were answered
        self.changes: dict[str, str | None] = {}  # title by item; None: deleted
        self.stopping = threading.Event()

    def run(self) -> None:
        """Until it is told to stop."""
        for number in range(10**9):
            if self.stopping.is_set():
                return
            event = {"event_id": uuid.uuid4().hex, "user": f"u{number % 50}", "kind": "click"}
            if self._sent("/events", {**event, "item_id": self._items[number % len(self._items)]}):
                self.events.append(event["event_id"])
            if number % 5 == 0:
                self._change(f"new-{number % 40}", number)

    def _change(self, item_id: str, number: int) -> None:
        title = None if number % 3 == 0 else f"red boots {number}"
        body = {"delete": [item_id]} if title is None else {"upsert": [{"item_id": item_id, "title": title}]}
        if self._sent("/items", body):
            self.changes[item_id] = title

    def _sent(self, path: str, body: Any) -> bool:
        while self._server.call("POST", path, body)[0] != 200:
            if self.stopping.wait(0.05):
                return False
        return True


def _serving(run: Path, folder: Path, kills: int) -> dict[str, Any]:
    store = folder / "store.sqlite3"
    first, second = (Server(run, str(store), folder / f"{name}.log").start() for name in ("a", "b"))
    writer = Writer(first, _some_items(first))
    writer.start()
    try:
        for _ in range(kills):
            time.sleep(_CHANCE.uniform(0.2, 3.0))
            first.kill()
            first.start()
        time.sleep(1.0)
        writer.stopping.set()
        writer.join()
        time.sleep(3.0)  # the second server follows within a second
        unserved = sum(_wrong_items(server, writer.changes) for server in (first, second))
    finally:
        first.kill()
        second.kill()
    with sqlite3.connect(store) as raw:
        stored = Counter(event for (event,) in raw.execute("SELECT event_id FROM events"))
    return {
        "kills": kills,
        "events": len(writer.events),
        "item_changes": len(writer.changes),
        "lost": sum(event not in stored for event in writer.events) + unserved,
        "repeated": sum(count - 1 for count in stored.values()),
    }


def _some_items(server: Server) -> list[str]:
    return [hit["item_id"] for hit in server.call("POST", "/search", {"query": "", "k": 50})[1]["results"]]


def _wrong_items(server: Server, changes: dict[str, str | None]) -> int:
    served = {item_id: server.get(f"/items/{item_id}") for item_id in changes}
    return sum(
        (served[item_id] or {"item": {"title": None}})["item"]["title"] != changes[item_id] for item_id in changes
    )


def _training(run: Path, folder: Path, kills: int) -> dict[str, Any]:
    (folder / "tiny.yaml").write_text(CONFIG)
    command = [*ONESEARCH, "run", str(folder / "tiny.yaml"), "--out"]
    start = time.monotonic()
    _done([*command, str(folder / "whole")], folder)
    seconds = time.monotonic() - start
    # Each attempt gets on by about a part of the whole, so that kills meet all stages.
    for _ in range(kills):
        _killed([*command, str(folder / "killed")], folder, _CHANCE.uniform(0.2, max(1.0, 2 * seconds / kills)))
    finished = _done([*command, str(folder / "killed")], folder)
    whole, killed = (_contents(folder / name) for name in ("whole", "killed"))
    return {
        "kills": kills,
        "unfinished": int(not finished),
        "different": sum(killed.get(k) != v for k, v in whole.items()),
    }


def _contents(run: Path) -> dict[str, str]:
    """Hashes of a run's arrays and weights."""
    paths = [
        path for kind in ("*.safetensors", "*.npy") for path in sorted(run.rglob(kind)) if "checkpoint" not in str(path)
    ]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _update(run: Path, folder: Path, kills: int) -> dict[str, Any]:
    from onesearch.evaluation.evaluate import rank_all
    from onesearch.evaluation.market_laboratory import Laboratory
    from onesearch.pipeline.abtest_runs import open_arm

    laboratory, engine = Laboratory(run / "data", 900, newcomers=50), open_arm(str(run))
    laboratory.exposures(rank_all(engine, laboratory.requests(), 10)[0]).write_parquet(folder / "new.parquet")
    command = [
        *ONESEARCH,
        "update",
        str(run),
        "--events",
        str(folder / "new.parquet"),
        "--method",
        "dpo",
        "--steps",
        "5",
    ]
    start, unreadable = time.monotonic(), 0
    finished = _done(command, folder)
    seconds = time.monotonic() - start
    for _ in range(kills):
        _killed(command, folder, _CHANCE.uniform(0.2, seconds))
        try:
            open_arm(str(run)).search("boots")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this looks for
            unreadable += 1
            print(error, file=sys.stderr)
    return {"kills": kills, "unreadable": unreadable, "unfinished": int(not (finished and _done(command, folder)))}


def _publishing(run: Path, folder: Path, kills: int) -> dict[str, Any]:
    for number in (1, 2):
        write_manifest(run / "versions" / f"000{number}", {"fingerprint": number})
    publish(run, "versions/0001", Served.now(run))
    unreadable = 0
    for _ in range(kills):
        child = multiprocessing.get_context("fork").Process(target=_back_and_forth, args=(run,))
        child.start()
        time.sleep(_CHANCE.uniform(0.01, 0.2))
        child.kill()
        child.join()
        if published(run) == "versions/0002":
            roll_back(run)
        unreadable += published(run) != "versions/0001"
    return {"kills": kills, "unreadable": unreadable}


def _back_and_forth(run: Path) -> None:
    while True:
        publish(run, "versions/0002", Served.now(run))
        roll_back(run)


def _disk(run: Path, folder: Path, kills: int) -> dict[str, Any]:
    store = folder / "store.sqlite3"
    server = Server(run, str(store), folder / "serve.log").start()
    assert server.process is not None
    try:
        items, answered, refused, said = _some_items(server), [], 0, ""
        # No file of the process may grow beyond what the store's log has now.
        limit = Path(f"{store}-wal").stat().st_size + (64 << 10)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for number in range(2000):
            event = {"event_id": f"e{number}", "user": "u", "kind": "click", "item_id": items[number % len(items)]}
            status, _ = server.call("POST", "/events", {**event, "query": "x" * 200})
            refused += status == 503
            answered += [event["event_id"]] if status == 200 else []
            if refused > 5:
                said = server.get("/healthz")["status"]
                break
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        again = server.call(
            "POST", "/events", {"event_id": "again", "user": "u", "kind": "click", "item_id": items[0]}
        )[0]
    finally:
        server.kill()
    with sqlite3.connect(store) as raw:
        stored = {event for (event,) in raw.execute("SELECT event_id FROM events")}
    lost = len({*answered, "again"} - stored)
    return {"events": len(answered), "lost": lost, "unnoticed": int(said != "degraded" or again != 200)}


def _clock(run: Path, folder: Path, kills: int) -> dict[str, Any]:
    store, newest = str(folder / "store.sqlite3"), []
    items: list[str] = []
    for at, program in enumerate((ONESEARCH, [sys.executable, "-c", _LATE])):
        server = Server(run, store, folder / "serve.log", program=program).start()
        try:
            items = items or _some_items(server)
            event = {"event_id": f"e{at}", "user": "somebody", "kind": "click", "item_id": items[at]}
            server.call("POST", "/events", event)
            newest.append(server.get("/shoppers/somebody/history")["clicked"][0]["item_id"])
        finally:
            server.kill()
    return {"disordered": int(newest != items[:2])}


def _redis(run: Path, folder: Path, kills: int) -> dict[str, Any]:
    program = shutil.which("redis-server")
    if program is None:
        return {"left_out": "no redis-server"}
    socket = folder / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", ""]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    server = Server(run, f"unix://{socket}", folder / "serve.log").start()
    unserved = unnoticed = 0
    try:
        gone = _some_items(server)[0]
        for number in range(kills):
            server.call("POST", "/items", {"upsert": [{"item_id": "old", "title": "red boots"}], "delete": [gone]})
            redis.kill()
            redis.wait()
            time.sleep(_CHANCE.uniform(0.0, 2.0))
            redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            body = {"upsert": [{"item_id": f"new-{number}", "title": "blue boots"}]}
            while server.call("POST", "/items", body)[0] != 200:
                time.sleep(0.05)
            # What was answered is served; what the store lost is as the run has it.
            unserved += server.get(f"/items/new-{number}") is None
            unserved += server.get("/items/old") is not None or server.get(f"/items/{gone}") is None
            unnoticed += not any("went back" in reason for reason in server.get("/healthz")["reasons"])
    finally:
        server.kill()
        redis.kill()
    return {"kills": kills, "unserved": unserved, "unnoticed": unnoticed}


def _done(command: list[str], folder: Path) -> bool:
    with (folder / "commands.log").open("ab") as log:
        return subprocess.run(command, stdout=log, stderr=log, env=dict(os.environ)).returncode == 0


def _killed(command: list[str], folder: Path, seconds: float) -> None:
    with (folder / "commands.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    typer.run(main)
