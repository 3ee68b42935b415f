"""``onesearch suggest``: what a shopper may go on to type."""

from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli.terminal import Measured, Model, show_json, show_table


def suggest(
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")],
    text: Annotated[str, typer.Argument(help="What is typed so far; '' gives what is searched for most.")],
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="Number of completions.")] = 8,
    model: Model = None,
    measured: Measured = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Complete what a shopper types: queries that led to clicks, categories, titles.

    For example:

      onesearch suggest runs/demo "water"
    """
    from onesearch.search.engine import load_engine

    found = load_engine(run, model.value if model else None, measured=measured).suggest(text, k)
    if as_json:
        show_json([suggestion._asdict() for suggestion in found])
    else:
        show_table(f"“{text}”: {len(found)} completions", ("text", "kind", "item"), found)
