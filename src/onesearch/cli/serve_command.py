"""``onesearch serve``: a finished run as an HTTP service with a web page."""

import os
import secrets
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onesearch.cli.producer_options import ProducerName, open_thoughts, producer_key
from onesearch.cli.terminal import Measured, Model
from onesearch.common.artefact import read_manifest, refuse_links
from onesearch.common.settings import validated

if TYPE_CHECKING:
    from fastapi import FastAPI

    from onesearch.serving.keyword_coverage import ThoughtSource
    from onesearch.serving.store import Store


class StockPolicy(StrEnum):
    """What becomes of items out of stock."""

    shown = "shown"
    demoted = "demoted"
    hidden = "hidden"


class AccessLog(StrEnum):
    """What is written about each request."""

    none = "none"
    requests = "requests"
    queries = "queries"


TOKEN_VARIABLE = "ONESEARCH_ADMIN_TOKEN"
SEARCH_VARIABLE, EVENTS_VARIABLE = "ONESEARCH_SEARCH_KEY", "ONESEARCH_EVENTS_KEY"


def serve(
    # Which run, at which address.
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, such as runs/demo.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name that callers may use in their Host header, repeatable; '*': any. Default: --host."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web page elsewhere that may call from a browser, as https://shop.example; repeatable."),
    ] = None,
    # Which of its models, and how hard it looks.
    width: Annotated[int | None, typer.Option(min=1, max=512, help="Beams per search; default: the run's.")] = None,
    model: Model = None,
    measured: Measured = False,
    # What the service keeps, and what it knows about queries.
    store: Annotated[
        str | None,
        typer.Option(
            help="Where events and item changes are kept: a file (default: RUN/serving.sqlite3), or"
            " redis://HOST:PORT/DB when several servers share them."
        ),
    ] = None,
    keep_days: Annotated[
        float, typer.Option(min=1, help="Days that searches and events are kept; item changes stay.")
    ] = 365,
    learn_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds after which new clicks move items up for everybody; 0: never.")
    ] = 20,
    half_life: Annotated[
        float, typer.Option(min=0.01, help="Days after which such a click counts half.", metavar="DAYS")
    ] = 14,
    thoughts: Annotated[
        str | None,
        typer.Option(
            help="Cache of thoughts, a SQLite file or redis://HOST:PORT/DB: queries that nobody has thought"
            " about are queued there for `onesearch understand --watch`. Searches never wait for it."
        ),
    ] = None,
    producer: Annotated[
        ProducerName, typer.Option(help="With --thoughts: whose thoughts count, as with `onesearch understand`.")
    ] = ProducerName.llm,
    # What a page shows.
    image_hosts: Annotated[
        list[str] | None,
        typer.Option(help="Server whose pictures the page shows, as https://img.shop.example; repeatable."),
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="ISO code, such as EUR, that the page writes prices in; default: plain numbers.")
    ] = None,
    out_of_stock: Annotated[
        StockPolicy,
        typer.Option(
            help="Items out of stock where a search has no such filter; demoted: to a twentieth of their odds."
        ),
    ] = StockPolicy.shown,
    # How searches share the machine.
    batch: Annotated[int, typer.Option(min=1, help="Searches answered by one model call at most.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Searches waiting at most; more get 503.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="Model calls at once.")] = 1,
    cores: Annotated[
        int,
        typer.Option(
            min=1,
            help="Cores of one model call: a search is many small operations, and"
            " more cores pay for large models only.",
        ),
    ] = 1,
    device: Annotated[
        str | None, typer.Option(help="Where the model runs, such as cpu or cuda:1; default: a GPU where there is one.")
    ] = None,
    api_only: Annotated[bool, typer.Option("--api-only", help="No web page, no lists of shoppers.")] = False,
    # What is written down.
    access_log: Annotated[
        AccessLog,
        typer.Option(help="JSON lines on standard output, one a request; queries: also what was searched by whom."),
    ] = AccessLog.none,
) -> None:
    """Serve a finished run: web page, API and its description at /docs.

    Changing the catalogue (POST /items) needs a token: the variable ONESEARCH_ADMIN_TOKEN, or one made at start and
    shown once on the terminal. With --api-only, ONESEARCH_SEARCH_KEY and ONESEARCH_EVENTS_KEY close searches and events
    in the same way.

    Example:  onesearch serve runs/demo --port 8080 --thoughts thoughts.sqlite3 --producer log-expert
    """
    import torch

    from onesearch.search.engine import SearchEngine
    from onesearch.search.run_parts import choose_model
    from onesearch.search.version_follower import VersionFollower
    from onesearch.serving.http_app import create_app
    from onesearch.serving.http_server import run_server
    from onesearch.serving.serving_settings import ServingSettings
    from onesearch.serving.starting_app import StartingApp

    # A store that cannot be opened is told at once, before the model is loaded.
    memory = open_run_store(run, store, make=True)
    torch.set_num_threads(cores)
    # Every product of a model gives up the interpreter for a moment, and would get it back only 5 ms later where
    # another thread is in the middle of Python of its own, such as the merge of a catalogue.
    sys.setswitchinterval(5e-4)
    token, thinker = admin_token(), thought_source(thoughts, producer)
    config = validated(
        ServingSettings,
        {
            "max_batch": batch,
            "max_queue": queue,
            "threads": threads,
            "page": not api_only,
            "image_hosts": image_hosts or (),
            "currency": currency,
            "allowed_hosts": host_names(host, allowed_host),
            "allowed_origins": allow_origin or (),
            "keep_days": keep_days,
            "learn_seconds": learn_seconds,
            "half_life_days": half_life,
            "examination": examination(run),
        },
        "onesearch serve",
    )
    keys = {"search_key": _given(SEARCH_VARIABLE), "events_key": _given(EVENTS_VARIABLE)}

    def load() -> "FastAPI":
        typer.echo(f"Loading {run} …", err=True)
        engine = SearchEngine.load(
            run, width=width, model=model.value if model else None, device=device, measured=measured
        )
        engine.out_of_stock = out_of_stock.value
        # V2 is what `onesearch update` goes on with: its new versions are taken over while the service runs.
        newest = not measured and choose_model(run, model.value if model else None) == "v2"
        follower = VersionFollower(run, engine) if newest else None
        app = create_app(engine, memory, config, token, thinker, [follower.problem] if follower else [], **keys)
        # An address to open: 0.0.0.0 means every interface, and IPv6 stands in brackets.
        shown = f"[{host}]" if ":" in host else host
        place = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else shown}:{port}/"
        page = place + ("docs" if api_only else "")
        typer.secho(f"{len(engine):,} items, {engine.version}. Open {page}", fg="green", err=True)
        if follower is not None:
            follower.start()
        return app

    # The port opens at once, and says so to whoever asks while the run is loaded.
    lines = None if access_log is AccessLog.none else sys.stdout
    run_server(StartingApp(load), host, port, config, lines, access_log is AccessLog.queries)


def host_names(host: str, given: Sequence[str] | None) -> tuple[str, ...]:
    """The names that a service listening on ``host`` answers to; none for any.

    A page elsewhere can lead a browser to this machine by a name of its own, but not change what it sends as ``Host``.
    """
    if given and "*" in given:
        return ()
    names = [name.strip("[]").lower() for name in given or ()]
    if host not in ("0.0.0.0", "::", ""):
        names.append(host.lower())
    elif not names:
        typer.echo("Any name in the Host header is answered: give yours by --allowed-host.", err=True)
        return ()
    return tuple(dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"]))


def examination(run: Path) -> tuple[float, ...]:
    """P(a result is looked at) by its rank, as the run's stage ``rewards`` found it; () where it found none."""
    from onesearch.training.click_rates import ClickRates

    rates = run / "rewards" / "click_rates"
    finished = read_manifest(run / "rewards") is not None and rates.is_dir()
    return tuple(ClickRates.load(rates).examination.tolist()) if finished else ()


def thought_source(place: str | None, producer: ProducerName) -> "ThoughtSource | None":
    """The cache of thoughts of a service, opened when it is first asked; None where there shall be none."""
    if place is None:
        return None
    from onesearch.serving.keyword_coverage import ThoughtSource

    name, version = producer_key(producer)
    typer.echo(f"Thoughts by {name}, version {version}, in {place.rpartition('@')[2]}.", err=True)
    return ThoughtSource(lambda: open_thoughts(place), name, version)


def open_run_store(run: Path, store: str | None, make: bool = False) -> "Store":
    """The store of a run's service: the file in its folder, unless another place is given.

    Args:
        run: its folder, which a stranger may have packed.
        store: as ``--store`` of `onesearch serve`.
        make: the file where there is none.

    Raises:
        FileNotFoundError: there is no such file, or the run's folder does not exist; it is not made here.
        ValueError: the run's folder holds a link.
        StoreError: as :func:`open_store`.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"no folder {run}; make it with 'onesearch run configs/demo.yaml'")
    refuse_links(run)  # a link in the store's place would be written through
    return open_store(store or str(run / "serving.sqlite3"), make)


def open_store(place: str, make: bool = False) -> "Store":
    """The store at a file or a ``redis://`` address.

    Raises:
        FileNotFoundError: there is no such file, and it is not to be made.
        StoreError: the store cannot be opened, or Redis is asked for but its client is not installed.
    """
    # An empty file would be made a store.
    if not make and "://" not in place and not (Path(place).is_file() and Path(place).stat().st_size):
        raise FileNotFoundError(f"no store {place}: name the one of `onesearch serve`")
    if place.startswith(("redis://", "rediss://", "unix://")):
        from onesearch.serving.redis_store import RedisStore

        return RedisStore(place)
    from onesearch.serving.sqlite_store import SqliteStore
    from onesearch.serving.store import StoreError

    try:
        return SqliteStore(Path(place))
    except StoreError as error:  # a run may lie where nothing can be written
        raise StoreError(f"{error}; --store names another place") from error


def admin_token() -> str | None:
    """The token of the environment, or a new one shown on the terminal; None when there is nobody to show it to."""
    if given := _given(TOKEN_VARIABLE):
        return given
    # A redirected stream ends up in a log file, where a token does not belong.
    if not sys.stderr.isatty():
        typer.echo(f"POST /items is off: set {TOKEN_VARIABLE} to switch it on.", err=True)
        return None
    token = secrets.token_urlsafe(24)
    typer.echo(f"Admin token for POST /items, shown only here: {token}", err=True)
    return token


def _given(variable: str) -> str | None:
    return os.environ.get(variable, "").strip() or None
