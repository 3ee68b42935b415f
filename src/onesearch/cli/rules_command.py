"""``onesearch rules``: a shop's rules as a file, out of a store and into it, checked against the catalogue."""

import getpass
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onesearch.cli.terminal import FriendlyGroup
from onesearch.serving.run_store import open_run_store

if TYPE_CHECKING:
    import polars as pl

    from onesearch.search.rules import Rules
    from onesearch.serving.store import Store

app = typer.Typer(
    cls=FriendlyGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="What searches show first, never, more or less, and what queries mean: rules as a YAML file.",
)
Run = Annotated[Path, typer.Argument(help="Folder of a finished run, such as runs/demo.")]
Place = Annotated[
    str | None,
    typer.Option("--store", help="As with `onesearch serve`: a file (default: RUN/serving.sqlite3) or redis://."),
]
File = Annotated[Path, typer.Argument(help="YAML file with rules.", exists=True, dir_okay=False)]


@app.command("export")
def export_command(
    run: Run,
    store: Place = None,
    version: Annotated[int | None, typer.Option(min=1, help="An earlier version; default: the newest.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: the terminal.")] = None,
) -> None:
    """Write the rules of a store as YAML; nothing but a comment where there are none.

    Example:  onesearch rules export runs/demo --out rules.yaml
    """
    from onesearch.search.rules import write_rules
    from onesearch.serving.live_rules import stored_rules

    with read_from(run, store) as memory:
        found = None if memory is None else memory.rules(version)
    if found is None and version is not None:
        raise ValueError(f"the store has no version {version} of the rules")
    head = "# no rules were written yet\n"
    if found is not None:
        if (rules := stored_rules(found)) is None:
            raise ValueError(f"version {found.version} of the rules cannot be read: name an earlier one by --version")
        head = f"# version {found.version} by {found.who}, {found.time:%Y-%m-%d %H:%M} UTC\n{write_rules(rules)}"
    if out is None:
        typer.echo(head, nl=False)
    else:
        out.write_text(head, encoding="utf-8")


@app.command("import")
def import_command(
    run: Run,
    file: File,
    store: Place = None,
    who: Annotated[str | None, typer.Option(help="Who writes them; default: the user of this machine.")] = None,
) -> None:
    """Put the rules of a file in the place of all in a store; services on it have them within a second.

    The run's own store is made where there is none yet; one that --store names is not.
    Rules that name what the catalogue has not are refused, and nothing changes; what earlier rules named and has left
    the catalogue since is told, and no fault.

    Example:  onesearch rules import runs/demo rules.yaml --who ann
    """
    from onesearch.serving.http_bodies import now

    # A misspelt --store would be a new one that no service reads.
    with closing(open_run_store(run, store, make=store is None)) as memory:
        rules = checked(file, run, memory)
        version = memory.write_rules(rules.model_dump_json(exclude_defaults=True), who or getpass.getuser(), now())
    typer.echo(f"version {version}: {told(rules)}")


@app.command("check")
def check_command(run: Run, file: File, store: Place = None) -> None:
    """Check a file of rules against the catalogue: the run's items and the changes in the store.

    Example:  onesearch rules check runs/demo rules.yaml
    """
    with read_from(run, store) as memory:
        typer.echo(f"{file}: {told(checked(file, run, memory))}")


@contextmanager
def read_from(run: Path, store: str | None) -> Iterator["Store | None"]:
    """The store that a service of the run would use; None where the run has none yet, and none is named."""
    try:
        memory = open_run_store(run, store)
    except FileNotFoundError:
        if store is not None or not run.is_dir():
            raise
        yield None
        return
    with closing(memory):
        yield memory


def told(rules: "Rules") -> str:
    """How many rules there are of each kind."""
    counts = {kind: len(getattr(rules, kind)) for kind in type(rules).model_fields}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no rules"


def checked(file: Path, run: Path, store: "Store | None") -> "Rules":
    """The rules of a file that can work in the catalogue; what left it since earlier ones named it is told.

    Raises:
        ValueError: they cannot; one line for each rule that names what is not there.
    """
    from onesearch.common.text_file import read_text_file
    from onesearch.search.rule_names import unknown_names
    from onesearch.search.rules import read_rules
    from onesearch.serving.live_rules import RulesRefusedError, old_problems, rules_before

    rules = read_rules(read_text_file(file), str(file))
    items = catalogue(run, store)
    try:
        gone = old_problems(
            rules, lambda some: unknown_names(some, items), lambda: iter(()) if store is None else rules_before(store)
        )
    except RulesRefusedError as error:
        raise ValueError("\n".join(f"{file}: {problem}" for problem in error.problems.values())) from None
    for problem in gone.values():
        typer.echo(f"{file}: {problem} any more", err=True)
    return rules


def catalogue(run: Path, store: "Store | None") -> "pl.DataFrame":
    """The items of a run as the changes in a store left them; as the run has them without one."""
    import polars as pl

    from onesearch.data.dataset import Dataset
    from onesearch.data.records import items_frame
    from onesearch.search.run_parts import need
    from onesearch.serving.store import all_item_changes

    items = Dataset.load(need(run, "data")).items
    for changes in () if store is None else all_item_changes(store):
        changes = [change for change in changes if not change.problem]  # an item that cannot be read is as it was
        kept = items.filter(~pl.col("item_id").is_in([change.item_id for change in changes]))
        items = pl.concat([kept, items_frame([change.item for change in changes if change.item is not None])])
    return items
