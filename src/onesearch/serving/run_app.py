"""A finished run as an ASGI application: its engine, its published versions, its store."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from onesearch.common.extras import from_extra
from onesearch.common.processes import from_first, is_first, place
from onesearch.data.records import PICTURES_ARCHIVE
from onesearch.search import run_parts
from onesearch.search.decoding_precision import DecodingPrecision
from onesearch.search.distilled_queries import ServedDistilled
from onesearch.search.engine import SearchEngine
from onesearch.search.results import OutOfStock
from onesearch.search.version_follower import VersionFollower
from onesearch.serving.access import EVENTS_VARIABLE, SEARCH_VARIABLE, environment_key
from onesearch.serving.http_app import create_app
from onesearch.serving.keyword_coverage import ThoughtSource
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Store

with from_extra("serve"):
    from fastapi import FastAPI


class ServedModel(NamedTuple):
    """Which of a run's models is served, and how it searches."""

    width: int | None = None
    model: run_parts.Model | None = None
    measured: bool = False
    device: str | None = None
    precision: DecodingPrecision = "float32"
    out_of_stock: OutOfStock = "shown"


class Loaded(NamedTuple):
    """A run in memory.

    Attributes:
        app: answers once its lifespan has begun.
        engine: what it searches with.
        follower: takes published versions over once it is started; None where the run has none to come.
    """

    app: FastAPI
    engine: SearchEngine
    follower: VersionFollower | None


def load_app(
    run: Path,
    store: Store,
    config: ServingSettings,
    admin_token: str | None,
    served: ServedModel = ServedModel(),
    thoughts: ThoughtSource | None = None,
) -> Loaded:
    """Load a run; keys for searches and events are those of the environment.

    Raises:
        FileNotFoundError, ValueError: the run is not finished, or cannot be read; a key is set beside the web page.
    """
    engine = load_served(run, config, served)
    # V2 is what `onesearch update` goes on with: its new versions are taken over while the service runs.
    newest = not served.measured and run_parts.choose_model(run, served.model) == "v2"
    follower = VersionFollower(run, engine, tells_only=place()[1] > 1) if newest else None
    if thoughts is not None and newest:
        thoughts = replace(thoughts, distilled=ServedDistilled(run, engine))
    app = create_app(
        engine,
        store,
        config,
        admin_token,
        thoughts,
        [follower.problem] if follower else [],
        search_key=environment_key(SEARCH_VARIABLE),
        events_key=environment_key(EVENTS_VARIABLE),
        pictures=run / "data" / PICTURES_ARCHIVE,
    )
    return Loaded(app, engine, follower)


def load_served(run: Path, config: ServingSettings, served: ServedModel) -> SearchEngine:
    """The engine of a service; in a job of several processes this one's shard, which leads in the first of them.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_app`; or the run cannot be served in so many shards.
    """
    engine = SearchEngine.load(
        run, width=served.width, model=served.model, device=served.device, measured=served.measured
    )
    precision = served.precision
    if place()[1] > 1 and precision == "auto":  # measured by one for all
        measured = engine.use_precision(precision) if is_first() else None
        precision = from_first(str(measured).removeprefix("torch."))
    engine.use_precision(precision)
    engine.out_of_stock = served.out_of_stock
    engine.trust_picture_hosts([_host_and_port(origin) for origin in config.image_hosts])
    if place()[1] == 1:
        return engine
    # What serves one process whole is not loaded for it.
    from onesearch.serving.shard_calls import joined_shard

    return joined_shard(engine)


def answer_first(run: Path, config: ServingSettings, served: ServedModel, cores: int) -> None:
    """Have this process do its part of a service in shards, as long as the first process has one.

    Signals that end a job reach all of its processes: the first one finishes what is at work, for which it needs all.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_served`.
        RuntimeError: another process is gone.
    """
    from onesearch.serving.shard_calls import answer_calls

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    use_cores(cores)
    answer_calls(load_served(run, config, served))


def _host_and_port(origin: str) -> str:
    """``https://img.shop.example`` as downloads name it: ``img.shop.example:443``."""
    parts = urlsplit(origin)
    return f"{parts.hostname}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}"


def use_cores(cores: int) -> None:
    """Let each model call of this process compute on so many cores, and give the interpreter on in time."""
    import torch

    torch.set_num_threads(cores)
    # Every product of a model gives up the interpreter for a moment, and would get it back only 5 ms later where
    # another thread is in the middle of Python of its own, such as the merge of a catalogue.
    sys.setswitchinterval(5e-4)


def examination(run: Path) -> tuple[float, ...]:
    """P(a result is looked at) by its rank, as the run's stage ``rewards`` found it; () where it found none."""
    from onesearch.training.click_rates import examination_of

    return tuple(examination_of(run).tolist())
