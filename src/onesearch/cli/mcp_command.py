"""``onesearch mcp``: the shop's tools for agents, by the Model Context Protocol."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onesearch.cli.serve_command import host_names
from onesearch.cli.terminal import Measured, Model

if TYPE_CHECKING:
    from fastapi import FastAPI


def mcp(
    # What is searched: a run, loaded here, or a service that runs already.
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run, such as runs/demo.")] = None,
    url: Annotated[
        str | None, typer.Option(help="In the place of a run: address of a running `onesearch serve`.")
    ] = None,
    model: Model = None,
    measured: Measured = False,
    store: Annotated[
        str | None, typer.Option(help="Of RUN, as with `onesearch serve`: whose item changes and rules hold.")
    ] = None,
    # To whom it speaks.
    http: Annotated[
        bool, typer.Option("--http", help="Serve over HTTP at /mcp, and not over standard input and output.")
    ] = False,
    host: Annotated[str, typer.Option(help="With --http: address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --http: port to listen on.")] = 8010,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="With --http: name that callers may use in their Host header, repeatable; '*': any."),
    ] = None,
    # What it lets them do.
    user: Annotated[
        str | None, typer.Option(help="Shopper that the agent shops for, whose history counts; default: anonymous.")
    ] = None,
    admin: Annotated[
        bool,
        typer.Option(
            "--admin",
            help="Offer tools that change items and rules, too. They need ONESEARCH_ADMIN_TOKEN here and, over HTTP,"
            " in each request.",
        ),
    ] = False,
) -> None:
    """Offer a shop's search to agents: tools search, item, similar, filters, as a server of the Model Context Protocol.

    Tools that read change nothing, not even the log of searches. ONESEARCH_SEARCH_KEY is sent to a service that asks
    for it, and asked of callers over HTTP.

    For example:

      onesearch mcp runs/demo

      onesearch mcp --url http://127.0.0.1:8000 --http --port 8010
    """
    from onesearch.serving.access import SEARCH_VARIABLE, TOKEN_VARIABLE, Keys, environment_key
    from onesearch.serving.service_client import ServiceClient

    if (run is None) == (url is None):
        raise ValueError("give a run folder, or the address of a running service by --url, and not both")
    search_key, admin_key = environment_key(SEARCH_VARIABLE), environment_key(TOKEN_VARIABLE) if admin else None
    if admin and admin_key is None:
        raise ValueError(f"--admin needs the admin key: set {TOKEN_VARIABLE}")
    from onesearch.serving.mcp_server import ToolServer, serve_http, serve_stdio

    service: str | FastAPI
    service = url if url is not None else _application(run, store, admin_key, model and model.value, measured)  # type: ignore[arg-type]
    tools = ToolServer(ServiceClient(service, search_key, admin_key), Keys(search_key, None, admin_key), admin, user)
    if not http:
        asyncio.run(serve_stdio(tools))
        return
    typer.echo(f"Tools at http://{host}:{port}/mcp", err=True)
    serve_http(tools, host, port, host_names(host, allowed_host))


def _application(run: Path, store: str | None, admin_key: str | None, model: str | None, measured: bool) -> "FastAPI":
    """A run's service in this process, without its web page; what the store keeps is left to `onesearch serve`."""
    from onesearch.serving.run_app import ServedModel, load_app, use_cores
    from onesearch.serving.run_store import open_run_store
    from onesearch.serving.serving_settings import MOST_DAYS, ServingSettings

    memory = open_run_store(run, store, make=True)
    use_cores(1)
    config = ServingSettings(page=False, keep_days=MOST_DAYS)
    served = ServedModel(model=model, measured=measured)  # type: ignore[arg-type]
    loaded = load_app(run, memory, config, admin_key, served)
    if loaded.follower is not None:
        loaded.follower.start()
    typer.echo(f"{len(loaded.engine):,} items, {loaded.engine.version}", err=True)
    return loaded.app
