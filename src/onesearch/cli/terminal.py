"""What commands share: friendly errors, logging, tables and JSON on the terminal."""

import importlib
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from onesearch.common.extras import MissingExtraError
from onesearch.common.rank import rank

# Control characters, those that turn the direction of writing, and line ends of other kinds.
_UNSEEN = ("Cc", "Cf", "Zl", "Zp")
# Raised by our own code with a message that says what was wrong, where, and what to do.
_EXPECTED = (ValueError, OSError, RuntimeError, ArithmeticError, LookupError, MissingExtraError)


class ModelName(StrEnum):
    """Which model of a run."""

    v1 = "v1"
    v2 = "v2"


class Span(StrEnum):
    """What a line of a table over time stands for."""

    hour = "hour"
    day = "day"

    @property
    def seconds(self) -> int:
        """Its length."""
        return 3600 if self is Span.hour else 86_400

    def text(self, start: datetime) -> str:
        """One of them, by its beginning."""
        return start.strftime("%Y-%m-%d %H:00" if self is Span.hour else "%Y-%m-%d")


Model = Annotated[
    ModelName | None, typer.Option("--model", help="Model; default: v2 where the run has one.", show_default=False)
]
Measured = Annotated[
    bool,
    typer.Option(
        "--measured", help="The engine that the report measured, not what was learnt since (the final one, updates)."
    ),
]

# Groups imported only when they are called: name → (module with an ``app``, line in the help).
_LAZY = {
    "data": ("onesearch.cli.data_command", "Bring your catalogue and search log in, and check them."),
    "events": ("onesearch.cli.events_command", "What a service recorded: page views to learn from, coverage by day."),
    "market": ("onesearch.cli.market_command", "Make a simulated marketplace: demo data whose truth is known."),
}


class FriendlyGroup(TyperGroup):
    """Shows expected errors as their message with exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever read our output has had enough; click ends quietly
        except _EXPECTED as error:
            # click's Exit and Abort are RuntimeErrors too, and click's own business.
            own = type(error).__module__.partition(".")[0]
            if os.environ.get("ONESEARCH_DEBUG") or own in ("click", "typer"):
                raise
            plain = isinstance(error, MissingExtraError) or type(error) in (ValueError, FileNotFoundError)
            name = "" if plain else f"{type(error).__name__}: "
            message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            typer.secho(f"error: {name}{harmless(message)}", fg="red", err=True)
            for note in getattr(error, "__notes__", []):
                typer.echo(f"  {harmless(note)}", err=True)
            typer.echo("  (ONESEARCH_DEBUG=1 shows the traceback)", err=True)
            raise typer.Exit(1) from error


class LazyGroup(FriendlyGroup):
    """Imports some groups only when they are called."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """The lazy groups first: that is the order of work."""
        return [*_LAZY, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command; while help is listed, a stand-in for a lazy group."""
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        module, line = _LAZY[cmd_name]
        # Help needs the line alone; a completion or a call needs the group itself.
        if self._listing:
            return TyperGroup(name=cmd_name, help=line)
        group = typer.main.get_group(importlib.import_module(module).app)
        group.name = cmd_name
        return group

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Help without importing the lazy groups."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def start_logging(quiet: bool = False) -> None:
    """Send the package's log to the terminal: coloured on one, plain lines with a clock elsewhere.

    Of several processes of a job the first one speaks for all.
    """
    logger = logging.getLogger("onesearch")
    logger.setLevel(logging.WARNING if quiet or rank() > 0 else logging.INFO)
    if logger.handlers:
        return  # a second command in the same process
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        console = Console(stderr=True)
        handler: logging.Handler = RichHandler(console=console, show_path=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_harmless_line)
    logger.addHandler(handler)
    logger.propagate = False


def harmless(text: str) -> str:
    r"""A text that may quote what a stranger wrote: it moves no cursor and colours nothing on a terminal.

    >>> harmless("a\x1b[31m\tb")
    'a\\x1b[31m\tb'
    """
    return "".join(
        repr(sign)[1:-1] if unicodedata.category(sign) in _UNSEEN and sign not in "\n\t" else sign for sign in text
    )


def _harmless_line(record: logging.LogRecord) -> bool:
    """Lets every record pass, its message made :func:`harmless`, and further lines set off from those of others."""
    record.msg, record.args = harmless(record.getMessage()).replace("\n", "\n  "), ()
    return True


def show_json(value: Any) -> None:
    """One JSON document on standard output, and nothing else."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> None:
    """A table on standard output; columns named in ``right`` are aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    # Away from a terminal rich would take 80 columns and fold what a script wants to read.
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False)
    console.print(title, style="italic", soft_wrap=True)
    console.print(table)


def short(metrics: Mapping[str, Any], limit: int = 4) -> str:
    """The first few plain figures of a stage on one line."""
    figures = [(name, value) for name, value in metrics.items() if isinstance(value, (int, float))]
    shown = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures]
    return ", ".join(shown[:limit]) + (" …" if len(shown) > limit else "")
