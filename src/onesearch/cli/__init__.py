"""The command line: ``onesearch`` and its commands.

Every command lives in a file of its own and imports what it needs inside its functions, or its file is imported when it
is called, so that ``onesearch --help`` does not wait for torch. Errors that tell the user what to do are shown without
a traceback; ONESEARCH_DEBUG=1 shows it.
"""

import importlib.metadata
import os
from typing import Annotated

import typer

from onesearch.cli.abtest_command import abtest
from onesearch.cli.agents_command import agents
from onesearch.cli.batch_command import app as batch
from onesearch.cli.evaluate_command import evaluate
from onesearch.cli.mcp_command import mcp
from onesearch.cli.nightly_command import nightly
from onesearch.cli.plan_command import plan
from onesearch.cli.rules_command import app as rules
from onesearch.cli.run_command import run
from onesearch.cli.search_command import search
from onesearch.cli.serve_command import serve
from onesearch.cli.store_command import app as store
from onesearch.cli.suggest_command import suggest
from onesearch.cli.terminal import LazyGroup, start_logging
from onesearch.cli.understand_command import understand
from onesearch.cli.update_command import update

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "OneSearch: generative product search, from a catalogue and its logs to a served engine.\n\n"
        "A first engine in two commands, without any data of your own:\n\n"
        "* `onesearch run configs/demo.yaml` trains and measures it into `runs/demo`\n\n"
        "* `onesearch serve runs/demo` opens its web page on http://127.0.0.1:8000\n\n"
        "With your own data: `onesearch data import`, then `onesearch run` with a copy of `configs/demo.yaml`."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("onesearch"))
        raise typer.Exit


@app.callback()
def main(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Set up threads and logging for every command."""
    # Threads of torch and LightGBM that wait for each other shall spin for a moment and then sleep. Left alone they
    # spin on: where another program has a core, they take the turns of the one that computes.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # read when those libraries are loaded, by the commands
    start_logging(quiet)


# In the order of work, behind the groups that are imported when they are called: data, market.
app.command("understand")(understand)
app.command("plan")(plan)
app.command("run")(run)
app.command("update")(update)
app.command("nightly")(nightly)
app.command("evaluate")(evaluate)
app.command("abtest")(abtest)
app.command("agents")(agents)
app.command("search")(search)
app.command("suggest")(suggest)
app.command("serve")(serve)
app.command("mcp")(mcp)
app.add_typer(batch, name="batch")
app.add_typer(rules, name="rules")
app.add_typer(store, name="store")
