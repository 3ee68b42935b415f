"""The service as an application of Ray Serve: replicas, each a whole engine, over one store.

Ray's YAML names it by ``import_path: onesearch.serving.ray_app:application`` and gives :class:`ReplicaSettings` as its
``args``. How many replicas there are, and when there shall be more, is Ray's ``autoscaling_config``.

Replicas know nothing of each other. What reaches one of them, such as a change of items, is written to the store, and
all follow that: with stores of their own each would answer something else.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field

from onesearch.common.extras import from_extra
from onesearch.common.settings import Settings, validated
from onesearch.serving.access import TOKEN_VARIABLE, environment_key
from onesearch.serving.run_store import open_run_store
from onesearch.serving.serving_settings import ServingSettings

if TYPE_CHECKING:
    from onesearch.serving.request_log import RequestLog
    from onesearch.serving.service import Service

log = logging.getLogger("onesearch.serving")
STORE_VARIABLE = "ONESEARCH_STORE"
DEPLOYMENT = "OneSearch"
"""The name by which Ray's YAML speaks of the replicas."""
_LOOPBACK = ("localhost", "::1", "")


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path, the same on every machine: replicas start in folders of their own")
    return path


class ReplicaSettings(Settings):
    """What each replica serves, and how. No keys and tokens: Ray writes all of it into its log."""

    run: Annotated[Path, AfterValidator(_absolute)] = Field(description="folder of a finished run")
    store: str | None = Field(
        default=None,
        description="redis://HOST:PORT/DB, or a file where the cluster is one machine; null: that of the variable"
        f" {STORE_VARIABLE}, or else RUN/serving.sqlite3",
    )
    width: int | None = Field(default=None, ge=1, le=512, description="beams per search; null: the run's")
    model: Literal["v1", "v2"] | None = Field(default=None, description="null: the newest that the run has")
    measured: bool = Field(default=False, description="the engine that the report measured, not the final one")
    device: str | None = Field(default=None, description="such as cpu or cuda; null: a GPU where there is one")
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32", description="what the model decodes in"
    )
    out_of_stock: Literal["shown", "demoted", "hidden"] = Field(default="shown", description="items out of stock")
    cores: int = Field(default=1, ge=1, description="of one model call; a replica asks Ray for them")
    access_log: Literal["none", "requests", "queries"] = Field(
        default="none", description="JSON lines on standard output; queries: also what was searched by whom"
    )
    service: ServingSettings = Field(default=ServingSettings(), description="the service's other settings")


def application(args: dict[str, Any]) -> Any:
    """What Ray Serve deploys, as its YAML asks for it: ``args`` are those of :class:`ReplicaSettings`.

    Raises:
        As :func:`replicas`.
    """
    return replicas(args)


def replicas(args: Mapping[str, Any], **options: Any) -> Any:
    """The same in Python::

        serve.run(replicas({"run": "/runs/demo"}, autoscaling_config={"min_replicas": 2, "max_replicas": 8}))

    Args:
        args: as :class:`ReplicaSettings` has them.
        options: of Ray's deployment, such as ``num_replicas`` or ``autoscaling_config``.

    Returns:
        An application of Ray Serve; nothing is loaded before it is deployed.

    Raises:
        MissingExtraError: Ray Serve is not installed.
        ValueError: a wrong argument; a password in the store's address; a store that is not the same for all.
    """
    with from_extra("ray-serve"):
        import ray
        from ray import serve
    settings = validated(ReplicaSettings, dict(args), "args of OneSearch")
    # One store: its machine is the only one, or all machines reach it.
    machine = None
    if on_one_machine(place := store_place(settings)):
        if not ray.is_initialized():  # in Python `serve.run` would be the first to join the cluster, and is like this
            ray.init(namespace="serve")
        machine = only_machine(place, [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]])
    # As many requests as the service takes on; more wait at Ray's proxy, and for more replicas.
    c = settings.service
    defaults = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": c.max_queue + c.threads * c.max_batch,
        "ray_actor_options": {"num_cpus": settings.cores * c.threads},
    }
    deployment = serve.deployment(**{**defaults, **options})(serve.ingress()(Replica))
    return deployment.bind(settings.model_dump(mode="json"), machine)


def store_place(settings: ReplicaSettings) -> str:
    """Where the store is: as the settings say, or the environment, or a file in the run's folder.

    Raises:
        ValueError: a password within the settings, which is not repeated; a file without an absolute path.
    """
    if (given := settings.store) is not None and _has_password(given):
        raise ValueError(
            "args of OneSearch: store: a password there is in Ray's log by now: change it, leave `store` out, and set"
            f" the variable {STORE_VARIABLE} where Ray is started"
        )
    place = given or environment_key(STORE_VARIABLE) or str(settings.run / "serving.sqlite3")
    if "://" not in place:
        try:
            _absolute(Path(place))
        except ValueError as error:
            raise ValueError(f"store {place}: {error}") from None
    return place


def on_one_machine(place: str) -> bool:
    """Whether a store's address means another store on each machine: a file, a socket, a Redis of its own."""
    address = urlsplit(place)
    host = address.hostname or ""
    return address.scheme not in ("redis", "rediss") or host in _LOOPBACK or host.startswith("127.")


def _has_password(place: str) -> bool:
    address = urlsplit(place)
    return address.password is not None or "password" in parse_qs(address.query)


def only_machine(place: str, machines: Sequence[str]) -> str:
    """The address of the only machine, which has the store.

    Raises:
        ValueError: there are more.
    """
    found = sorted(set(machines))
    if len(found) > 1:
        raise ValueError(
            f"store {place} is another one on each machine, and the cluster has {len(found)} ({', '.join(found)}):"
            " items, rules and clicks of one replica would not reach those elsewhere. Name a Redis that all machines"
            f" reach, as `store` in the args (redis://HOST:PORT/DB) or in the variable {STORE_VARIABLE}"
        )
    return found[0]


def replica_app(settings: ReplicaSettings) -> "tuple[RequestLog, Service]":
    """The application of one replica, loaded, and the service within; tokens and keys are those of the environment.

    Raises:
        FileNotFoundError, ValueError, StoreError: run or store cannot be opened.
    """
    from onesearch.serving.request_log import RequestLog
    from onesearch.serving.run_app import ServedModel, examination, load_app, use_cores

    store = open_run_store(settings.run, store_place(settings), make=True)
    use_cores(settings.cores)
    config, token = settings.service, environment_key(TOKEN_VARIABLE)
    if not config.examination:
        config = config.updated(examination=examination(settings.run))
    if token is None:
        log.warning("changes of items and rules are off: set %s where Ray is started", TOKEN_VARIABLE)
    # Engine and routes; versions that are published later are followed.
    s = settings
    served = ServedModel(s.width, s.model, s.measured, s.device, s.precision, s.out_of_stock)
    app, _, follower = load_app(settings.run, store, config, token, served)
    if follower is not None:
        follower.start()
    lines = None if settings.access_log == "none" else sys.stdout
    return RequestLog(app, lines, settings.access_log == "queries"), app.state.service


class Replica:
    """One engine behind the HTTP interface; Ray makes as many as there is work for::

        made       the run is loaded, which may take minutes; Ray sends nothing before, as `/readyz` would have it
        at work    Ray asks `check_health`, and puts another in the place of one that fails it or does not answer
        stopped    Ray sends nothing new and waits for what is at work; then threads end and the store is closed

    Args:
        settings: of :class:`ReplicaSettings`, as JSON.
        machine: address of the only one that has the store; None where all reach it.

    Raises:
        FileNotFoundError, ValueError, StoreError: run or store cannot be opened, or not on this machine. Ray tries
            again, then shows the message as the deployment's.
    """

    def __init__(self, settings: dict[str, Any], machine: str | None = None) -> None:
        with from_extra("ray-serve"):
            from ray import util
            from ray.serve import metrics
        from onesearch.serving.ray_metrics import PublishedMetrics

        read = ReplicaSettings.model_validate(settings)
        # Machines may join the cluster later, and have other variables.
        if on_one_machine(place := store_place(read)) and (here := util.get_node_ip_address()) != machine:
            only_machine(place, [here, machine or "that where it was deployed"])
        self._application, self._service = replica_app(read)
        self._published = PublishedMetrics(self._service, metrics.Gauge)

    def __serve_build_asgi_app__(self) -> "RequestLog":
        """What Ray sends requests to; it runs the lifespan, too."""
        return self._application

    def check_health(self) -> None:
        """As `/readyz`; Ray asks every few seconds, and so often gets the measurements.

        Raises:
            RuntimeError: searches are not answered.
        """
        if not self._service.working:
            raise RuntimeError("a search worker has died: this replica answers no searches")
        try:
            self._published.publish()
        except Exception:  # no reason to put another replica in its place
            log.exception("measurements could not be given to Ray")
