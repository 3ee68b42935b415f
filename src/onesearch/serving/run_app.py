"""A finished run as an ASGI application: its engine, its published versions, its store."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from onesearch.common.extras import from_extra
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
    *,
    thoughts: ThoughtSource | None = None,
    width: int | None = None,
    model: run_parts.Model | None = None,
    measured: bool = False,
    device: str | None = None,
    precision: DecodingPrecision = "float32",
    out_of_stock: OutOfStock = "shown",
) -> Loaded:
    """Load a run; keys for searches and events are those of the environment.

    Raises:
        FileNotFoundError, ValueError: the run is not finished, or cannot be read; a key is set beside the web page.
    """
    engine = SearchEngine.load(run, width=width, model=model, device=device, measured=measured)
    engine.use_precision(precision)
    engine.out_of_stock = out_of_stock
    engine.trust_picture_hosts([_host_and_port(origin) for origin in config.image_hosts])
    # V2 is what `onesearch update` goes on with: its new versions are taken over while the service runs.
    newest = not measured and run_parts.choose_model(run, model) == "v2"
    follower = VersionFollower(run, engine) if newest else None
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
