"""``onesearch store``: copies of what the service remembers."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from onesearch.serving.run_store import open_store

app = typer.Typer(no_args_is_help=True, help="Back up and restore what the service remembers.")

StorePlace = Annotated[
    str, typer.Argument(help="The store, as with --store of `onesearch serve RUN`: a file, or redis://HOST:PORT/DB.")
]


@app.command("backup")
def backup_command(
    store: StorePlace, to: Annotated[Path, typer.Argument(help="The new file to write, whole or not at all.")]
) -> None:
    """Copy the store to a file: events, searches and item changes. The service goes on meanwhile.

    Example:  onesearch store backup runs/demo/serving.sqlite3 backups/today.sqlite3
    """
    with closing(open_store(store)) as kept:
        to.parent.mkdir(parents=True, exist_ok=True)
        kept.backup(to)
    typer.echo(f"{to}: {to.stat().st_size:,} bytes")


@app.command("restore")
def restore_command(
    backup: Annotated[Path, typer.Argument(help="A file of `onesearch store backup`, also an older version's.")],
    store: StorePlace,
) -> None:
    """Put a backup in the place of all that a store holds. Services on it notice within a second.

    Example:  onesearch store restore backups/monday.sqlite3 runs/demo/serving.sqlite3
    """
    if not backup.is_file():
        raise FileNotFoundError(f"no file {backup}")
    if "://" in store or Path(store).exists():
        with closing(open_store(store)) as kept:
            kept.restore(backup)
    else:
        _make(Path(store), backup)
    typer.echo(f"{store.rpartition('@')[2]} holds what {backup} held")


def _make(file: Path, backup: Path) -> None:
    """A new store of a backup, whole or not at all."""
    from onesearch.serving.sqlite_store import SqliteStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        made = Path(folder) / file.name
        with closing(SqliteStore(made)) as kept:
            kept.restore(backup)
        if file.exists():
            raise FileExistsError(f"{file} was made by somebody else meanwhile; it stays as it is: try again")
        made.rename(file)
