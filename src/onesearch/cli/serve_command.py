"""``onesearch serve``: a finished run as an HTTP service with a web page."""

import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onesearch.cli.producer_options import ProducerName, open_thoughts, producer_key
from onesearch.cli.terminal import Measured, Model
from onesearch.common import rank
from onesearch.common.settings import validated
from onesearch.serving.access import TOKEN_VARIABLE, environment_key
from onesearch.serving.run_store import open_run_store

if TYPE_CHECKING:
    from fastapi import FastAPI

    from onesearch.search.engine import SearchEngine
    from onesearch.serving.keyword_coverage import ThoughtSource
    from onesearch.serving.run_app import ServedModel


class StockPolicy(StrEnum):
    """What becomes of items out of stock."""

    shown = "shown"
    demoted = "demoted"
    hidden = "hidden"


class Precision(StrEnum):
    """In which arithmetic the model decodes."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    auto = "auto"


class AccessLog(StrEnum):
    """What is written about each request."""

    none = "none"
    requests = "requests"
    queries = "queries"


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
    precision: Annotated[
        Precision,
        typer.Option(help="What the model decodes in. auto: large models in bfloat16 where that is faster here."),
    ] = Precision.float32,
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
    explore: Annotated[
        float,
        typer.Option(
            min=0, max=0.5, help="Share of a page's places that are drawn by their odds, so that new items are met."
        ),
    ] = 0.0,
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
    """Serve a finished run: web page, API and its description at /docs; with --api-only at /openapi.json.

    Changing items and rules, and deleting shoppers, needs a token: the variable ONESEARCH_ADMIN_TOKEN, or one made at
    start and shown once on the terminal. With --api-only, ONESEARCH_SEARCH_KEY and ONESEARCH_EVENTS_KEY close searches
    and events in the same way.

    Started as several processes (torchrun --nproc-per-node 2 -m onesearch serve RUN) each of them has a part of the
    items; the first one answers.

    Example:  onesearch serve runs/demo --port 8080 --thoughts thoughts.sqlite3 --producer log-expert
    """
    from onesearch.serving.http_server import run_server
    from onesearch.serving.serving_settings import ServingSettings
    from onesearch.serving.starting_app import StartingApp

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
            "explore": explore,
        },
        "onesearch serve",
    )

    def served() -> "ServedModel":
        from onesearch.serving.run_app import ServedModel

        return ServedModel(
            width=width,
            model=model.value if model else None,
            measured=measured,
            device=device,
            precision=precision.value,
            out_of_stock=out_of_stock.value,
        )

    # The others of several processes keep no store and open no port.
    if rank.rank():
        from onesearch.serving.run_app import answer_first

        with in_job():
            answer_first(run, config, served(), cores)
        return
    with in_job():
        # A store that cannot be opened is told at once, before the model is loaded.
        memory = open_run_store(run, store, make=True)
        token, thinker = admin_token(), thought_source(thoughts, producer)

        def load() -> "FastAPI":
            typer.echo(f"Loading {run} …", err=True)
            # The libraries of models take seconds to import, in which the port is open already.
            from onesearch.serving.run_app import examination, load_app, use_cores

            use_cores(cores)
            examined = config.updated(examination=examination(run))
            app, engine, follower = load_app(run, memory, examined, token, served(), thinker)
            # An address to open: 0.0.0.0 means every interface, and IPv6 stands in brackets.
            shown = f"[{host}]" if ":" in host else host
            place = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else shown}:{port}/"
            page = place + ("openapi.json" if api_only else "")
            typer.secho(f"{len(engine):,} items, {engine.version}. Open {page}", fg="green", err=True)
            if follower is not None:
                follower.start()
            if rank.world() > 1:
                engine.failed = starting.fail  # type: ignore[attr-defined]
            engines.append(engine)
            return app

        # The port opens at once, and says so to whoever asks while the run is loaded.
        lines = None if access_log is AccessLog.none else sys.stdout
        engines: list[SearchEngine] = []
        starting = StartingApp(load)
        if rank.world() > 1:  # the server ends by this signal in good order, then sends it on to whom it had before
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        run_server(starting, host, port, config, lines, access_log is AccessLog.queries)
        # A service that is stopped in good order has closed its engine, one in a hurry has not. One that was not even
        # loaded cannot tell the others, who notice that it is gone.
        for engine in engines:
            engine.close()
        if rank.world() > 1 and not engines:
            raise typer.Exit(1)


def in_job() -> AbstractContextManager[Any]:
    """The job of several processes that this one belongs to; nothing where it is the only one."""
    if rank.world() == 1:
        return nullcontext()
    from onesearch.common.processes import joined

    return joined()


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


def thought_source(place: str | None, producer: ProducerName) -> "ThoughtSource | None":
    """The cache of thoughts of a service, opened when it is first asked; None where there shall be none."""
    if place is None:
        return None
    from onesearch.serving.keyword_coverage import ThoughtSource

    name, version = producer_key(producer)
    typer.echo(f"Thoughts by {name}, version {version}, in {place.rpartition('@')[2]}.", err=True)
    return ThoughtSource(lambda: open_thoughts(place), name, version)


def admin_token() -> str | None:
    """The token of the environment, or a new one shown on the terminal; None when there is nobody to show it to."""
    if given := environment_key(TOKEN_VARIABLE):
        return given
    # A redirected stream ends up in a log file, where a token does not belong.
    if not sys.stderr.isatty():
        typer.echo(f"Changes of items and rules are off: set {TOKEN_VARIABLE} to switch them on.", err=True)
        return None
    token = secrets.token_urlsafe(24)
    typer.echo(f"Admin token, shown only here: {token}", err=True)
    return token
