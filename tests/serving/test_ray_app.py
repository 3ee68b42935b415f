"""The service as replicas of Ray Serve: what it is told, one store for all, what a replica answers; and Ray itself."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest
import yaml
from fastapi.testclient import TestClient
from serving_fakes import FakeEngine, catalogue

from onesearch.serving import ray_app
from onesearch.serving.ray_metrics import PublishedMetrics
from onesearch.serving.service import Service

ROOT = Path(__file__).parents[2]
BOOT = {"item_id": "new-1", "title": "Zebra unicorn boots", "price": 3.0}


class Deployment:
    """What `serve.deployment(**options)` makes."""

    def __init__(self, **options):
        self.options = options

    def __call__(self, replica):
        self.replica = replica
        return self

    def bind(self, *arguments):
        self.arguments = arguments
        return self


class Gauge:
    """Keeps what is set."""

    values: ClassVar[dict] = {}

    def __init__(self, name, description, tag_keys):
        assert name not in self.values, "one for each name"
        self.name, self.tag_keys, self.values[name] = name, set(tag_keys), {}

    def set(self, value, tags):
        assert set(tags) == self.tag_keys
        self.values[self.name][tuple(sorted(tags.items()))] = value


@pytest.fixture
def ray(monkeypatch):
    """Of Ray Serve what is asked before anything is deployed; a cluster of ``machines``, seen from ``here``."""
    made = SimpleNamespace(machines=["10.0.0.1"], here="10.0.0.1", gone="10.0.0.9")
    monkeypatch.setattr(Gauge, "values", {})
    made.serve = SimpleNamespace(
        deployment=Deployment, ingress=lambda: lambda replica: replica, metrics=SimpleNamespace(Gauge=Gauge)
    )
    made.util = SimpleNamespace(get_node_ip_address=lambda: made.here)
    made.joined, made.is_initialized = [], lambda: bool(made.joined)
    made.init = lambda namespace: made.joined.append(namespace)
    made.nodes = lambda: [{"NodeManagerAddress": one, "Alive": one != made.gone} for one in [*made.machines, made.gone]]
    for name, module in (("ray", made), ("ray.serve", made.serve), ("ray.util", made.util)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv(ray_app.STORE_VARIABLE, raising=False)
    return made


@pytest.fixture
def loaded(monkeypatch):
    """A run that need not be trained."""
    given = {}

    def load(run, **options):
        given.update(options, run=run)
        return FakeEngine(catalogue())

    monkeypatch.setattr("onesearch.search.engine.SearchEngine.load", load)
    return given


# -- what it is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "args of OneSearch: run: Field required"),
        ({"run": "runs/demo"}, "run: must be an absolute path, the same on every machine"),
        ({"run": "/r", "stor": "x"}, "unknown key 'stor' in ReplicaSettings; the nearest valid key is 'store'"),
        ({"run": "/r", "cores": 0}, "cores: Input should be greater than or equal to 1, got 0"),
        ({"run": "/r", "service": {"max_batch": 0}}, "service.max_batch: Input should be greater than"),
        ({"run": "/r", "admin_token": "t"}, "unknown key 'admin_token'"),
        ({"run": "/r", "store": "shop.db"}, "store shop.db: must be an absolute path"),
    ],
)
def test_wrong_arguments_are_told(ray, args, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ray_app.application(args)


def test_a_replica_asks_ray_for_its_cores_and_takes_as_many_requests_as_the_service(ray):
    args = {"run": "/r", "cores": 3, "service": {"threads": 2, "max_batch": 5, "max_queue": 7}}
    made = ray_app.application(args)
    assert made.options == {
        "name": "OneSearch",
        "max_ongoing_requests": 17,
        "ray_actor_options": {"num_cpus": 6},
    }
    scaling = {"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 8}
    assert ray_app.replicas(args, autoscaling_config=scaling).options["autoscaling_config"] == scaling
    settings, _ = made.arguments
    assert made.replica is ray_app.Replica and ray_app.ReplicaSettings.model_validate(settings).cores == 3
    json.dumps(settings)


def test_options_of_the_caller_come_first(ray):
    made = ray_app.replicas({"run": "/r"}, ray_actor_options={"num_cpus": 0.5}, num_replicas=2)
    assert made.options["ray_actor_options"] == {"num_cpus": 0.5} and made.options["num_replicas"] == 2


# -- one store ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "store",
    [
        None,
        "/data/store.sqlite3",
        "unix:///run/redis.sock",
        "redis://localhost/0",
        "redis://127.0.0.2:1/0",
        "redis:///0",
    ],
)
def test_a_store_of_one_machine_is_refused_where_there_are_several(ray, store):
    args = {"run": "/r", "store": store}
    assert ray_app.application(args).arguments[1] == "10.0.0.1" and ray.joined == ["serve"]
    ray.machines = ["10.0.0.2", "10.0.0.1", "10.0.0.1"]
    place = re.escape(store or "/r/serving.sqlite3")
    words = rf"store {place} is another one on each machine, and the cluster has 2 \(10.0.0.1, 10.0.0.2\).*redis://HOST"
    with pytest.raises(ValueError, match=words):
        ray_app.application(args)


@pytest.mark.parametrize("store", ["redis://redis:6379/0", "rediss://10.0.0.1:6379/0"])
def test_a_redis_serves_all_machines(ray, store, monkeypatch):
    ray.machines = ["10.0.0.2", "10.0.0.1"]
    assert ray_app.application({"run": "/r", "store": store}).arguments[1] is None
    monkeypatch.setenv(ray_app.STORE_VARIABLE, store)
    assert ray_app.application({"run": "/r"}).arguments[1] is None and not ray.joined


def test_a_machine_that_joined_later_has_no_store(ray, loaded, tmp_path, monkeypatch):
    settings, machine = ray_app.application({"run": str(tmp_path)}).arguments
    ray.here = "10.0.0.2"
    for asked in (machine, None):  # None: where it was deployed the environment named a Redis, here it does not
        with pytest.raises(ValueError, match=r"is another one on each machine, and the cluster has 2 \(10.0.0"):
            ray_app.Replica(settings, asked)
    assert not list(tmp_path.iterdir()) and not loaded


@pytest.mark.parametrize("store", ["redis://:s3cret@redis:6379/0", "redis://redis:6379/0?password=s3cret"])
def test_a_password_belongs_into_the_environment(ray, store, monkeypatch):
    with pytest.raises(ValueError, match="set the variable ONESEARCH_STORE") as refused:
        ray_app.application({"run": "/r", "store": store})
    assert "s3cret" not in str(refused.value)
    monkeypatch.setenv("ONESEARCH_STORE", store)
    settings, _ = ray_app.application({"run": "/r"}).arguments
    assert "s3cret" not in str(settings) and ray_app.store_place(ray_app.ReplicaSettings(**settings)) == store


# -- a replica ---------------------------------------------------------------------------------------------------------


def test_a_replica_serves_the_run_with_keys_of_the_environment(ray, loaded, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ONESEARCH_ADMIN_TOKEN", "t0ken")
    monkeypatch.setenv("ONESEARCH_SEARCH_KEY", "s3cret")
    args = {
        "run": str(tmp_path),
        "width": 32,
        "model": "v1",
        "out_of_stock": "hidden",
        "access_log": "requests",
        "service": {"page": False, "max_queue": 9},
    }
    replica = ray_app.Replica(*ray_app.application(args).arguments)
    assert loaded == {"run": tmp_path, "width": 32, "model": "v1", "device": None, "measured": False}
    assert replica._service.config.max_queue == 9 and replica._service.engine.out_of_stock == "hidden"
    with TestClient(replica.__serve_build_asgi_app__()) as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/search", json={"query": "lamp"}).status_code == 401
        answer = client.post("/search", json={"query": "lamp"}, headers={"Authorization": "Bearer s3cret"})
        assert answer.status_code == 200 and answer.json()["results"]
        changed = client.post("/items", json={"upsert": [BOOT]}, headers={"Authorization": "Bearer t0ken"})
        assert changed.status_code == 200 and (tmp_path / "serving.sqlite3").is_file()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["route"] for line in lines] == ["/readyz", "other", "/search", "/items"]
    assert "query" not in lines[2]


def test_without_a_token_changes_are_off_and_the_log_says_so(ray, loaded, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("ONESEARCH_ADMIN_TOKEN", raising=False)
    replica = ray_app.Replica(*ray_app.application({"run": str(tmp_path)}).arguments)
    with TestClient(replica.__serve_build_asgi_app__()) as client:
        assert client.post("/items", json={"upsert": [BOOT]}).status_code == 403
    assert "changes of items and rules are off: set ONESEARCH_ADMIN_TOKEN" in caplog.text


def test_a_replica_that_cannot_search_is_not_well(ray, loaded, tmp_path):
    replica = ray_app.Replica(*ray_app.application({"run": str(tmp_path)}).arguments)
    with pytest.raises(RuntimeError, match="answers no searches"):
        replica.check_health()  # its lifespan has not begun
    with TestClient(replica.__serve_build_asgi_app__()):
        replica.check_health()
        assert Gauge.values["onesearch_items"] == {(): 60}, "and is measured"
        replica._service.workers.by_method["onesearch"].close()
        with pytest.raises(RuntimeError, match="answers no searches"):
            replica.check_health()


def test_a_replica_that_cannot_be_measured_stays(ray, loaded, tmp_path, monkeypatch, caplog):
    replica = ray_app.Replica(*ray_app.application({"run": str(tmp_path)}).arguments)
    monkeypatch.setattr(Gauge, "set", lambda self, value, tags: 1 / 0)
    with TestClient(replica.__serve_build_asgi_app__()):
        replica.check_health()
    assert "measurements could not be given to Ray" in caplog.text


def test_published_versions_are_followed(ray, loaded, tmp_path, monkeypatch):
    follows = []
    monkeypatch.setattr(
        "onesearch.search.version_follower.VersionFollower.start", lambda self: follows.append(self.run)
    )
    monkeypatch.setattr("onesearch.search.run_parts.choose_model", lambda run, model: "v2")
    ray_app.Replica(*ray_app.application({"run": str(tmp_path)}).arguments)
    assert follows == [tmp_path]


def test_what_is_measured_is_given_to_ray_line_by_line(ray, engine, store):
    service = Service(engine, store)
    published = PublishedMetrics(service, Gauge)
    for status in (200, 200, 503):
        service.metrics.requests.labels("/search", "POST", status).inc()
        service.metrics.request_seconds.labels("/search").observe(0.015)
        published.publish()
    of = (("method", "POST"), ("route", "/search"))
    assert Gauge.values["onesearch_http_requests_total"] == {(*of, ("status", "200")): 2, (*of, ("status", "503")): 1}
    buckets = Gauge.values["onesearch_http_request_seconds_bucket"]
    assert buckets[("le", "0.01"), ("route", "/search")] == 0 and buckets[("le", "0.02"), ("route", "/search")] == 3
    assert Gauge.values["onesearch_items"] == {(): len(engine)} and "process_resident_memory_bytes" in Gauge.values
    assert not [name for name in Gauge.values if name.endswith("_created")]
    # Each name that Prometheus finds at `/metrics`, and no other.
    shown = {re.split("[{ ]", line)[0] for line in service.measurements().decode().splitlines() if line[0] != "#"}
    assert set(Gauge.values) == {name for name in shown if not name.endswith("_created")}


@pytest.mark.slow
def test_a_replica_searches_a_run(ray, tiny_run, tmp_path):
    args = {"run": str(tiny_run), "store": str(tmp_path / "store.sqlite3")}
    replica = ray_app.Replica(*ray_app.application(args).arguments)
    with TestClient(replica.__serve_build_asgi_app__()) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        found = client.post("/search", json={"query": "boots", "k": 5}).json()
        assert len(found["results"]) == 5 and found["version"].startswith("tiny/v2")
        replica.check_health()


# -- Ray ---------------------------------------------------------------------------------------------------------------


def ask(url, body=None, token=None):
    """The answer to a call, as text."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return answer.read().decode()


def eventually(what: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):  # also an answer that is no success
            if what():
                return
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} seconds")


def replica_processes(job):
    """The processes of the replicas that are loaded, or being loaded."""
    found = []
    for process in psutil.Process(job.pid).children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::ServeReplica:onesearch:OneSearch"):
                found.append(process)
    return found


@pytest.fixture
def cluster(request, tmp_path):
    """Ray Serve in a process of its own, with two replicas over one SQLite store, by our YAML as far as that goes."""
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed (extra `ray-serve`)")
    shutil.copytree(request.getfixturevalue("tiny_run"), tmp_path / "run")
    config = yaml.safe_load((ROOT / "deploy" / "ray-serve.yaml").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    (app,) = config["applications"]
    app["args"] |= {"run": str(tmp_path / "run"), "store": str(tmp_path / "store.sqlite3")}
    app["deployments"][0] |= {"ray_actor_options": {"num_cpus": 0.1}, "health_check_period_s": 1}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    # Ray's own command, which ends all of it at a signal.
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        "ONESEARCH_ADMIN_TOKEN": "t0ken",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "ray.serve.scripts", "run", "--address", "local", str(tmp_path / "serve.yaml")]
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield SimpleNamespace(job=job, url=f"http://127.0.0.1:{port}", log=tmp_path / "log")
    finally:
        inner = psutil.Process(job.pid).children(recursive=True) if job.poll() is None else []
        job.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            job.wait(60)
        for process in [job, *inner]:
            with suppress(psutil.Error, ProcessLookupError):
                process.kill()


@pytest.mark.slow
@pytest.mark.long
def test_replicas_share_a_store_and_a_killed_one_comes_back(cluster):
    """An item that one replica was given is found through both, also by one that starts later."""
    url = cluster.url

    def found():
        answer = json.loads(ask(f"{url}/search", {"query": BOOT["title"], "k": 1}))
        return answer["results"][0]["item"]["item_id"] == BOOT["item_id"]

    def searching():
        """The replicas that answer, by when they started: how many items each has, and how often it was searched."""
        replicas = {}
        for _ in range(10):
            text = ask(f"{url}/metrics")
            one = {
                name: float(value.group(1)) if (value := re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)) else 0.0
                for name in ("process_start_time_seconds", "onesearch_items", "onesearch_search_batch_size_sum")
            }
            replicas[one["process_start_time_seconds"]] = one["onesearch_items"], one["onesearch_search_batch_size_sum"]
        return replicas

    # Both are there; one of them gets an item.
    try:
        eventually(lambda: ask(f"{url}/readyz") != "" and len(searching()) == 2)
    except AssertionError:
        raise AssertionError(cluster.log.read_text()[-5000:]) from None
    before = searching()
    items = {number for number, _ in before.values()}
    assert len(items) == 1
    ask(f"{url}/items", {"upsert": [BOOT]}, "t0ken")
    # Both have it within a second or two, and whichever is asked finds it.
    eventually(lambda: {number for number, _ in searching().values()} == {items.copy().pop() + 1}, 20)
    assert all(found() for _ in range(30))
    assert all(searched >= 1 for _, searched in searching().values()), "each was searched"

    # One is killed: calls that it was answering fail, and that is all that may.
    victim = replica_processes(cluster.job)[0]
    victim.kill()
    eventually(lambda: len(new := searching()) == 2 and new.keys() != before.keys())
    assert victim.pid not in [process.pid for process in replica_processes(cluster.job)]
    assert all(found() for _ in range(30))
    after = searching()
    assert len(after) == 2 and {number for number, _ in after.values()} == {items.pop() + 1}
    assert all(searched >= 1 for _, searched in after.values())

    assert "t0ken" not in cluster.log.read_text()
