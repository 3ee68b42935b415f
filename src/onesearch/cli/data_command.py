"""``onesearch data``: bring data in, and check it."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onesearch.data.ingest.column_mapping import load_mapping
from onesearch.data.ingest.data_check import check
from onesearch.data.ingest.import_summary import ImportSummary
from onesearch.data.ingest.importer import import_mapping
from onesearch.data.ingest.kuaisearch_source import import_kuaisearch
from onesearch.data.ingest.rejected_rows import REJECTED

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Bring your catalogue and search log in, and check them.",
)

_IMPORT_EPILOG = """
**Examples**

Your own files, described by a mapping (docs/your-own-data.md explains how to write one):

`onesearch data import my-shop.yaml --out data/my-shop`

A shipped mapping; --data-root is the folder that holds `homedepot/`:

`onesearch data import configs/mappings/homedepot.yaml --data-root ~/datasets --out data/homedepot`

A folder with KuaiSearch's five JSONL files:

`onesearch data import --kuaisearch ~/datasets/KuaiSearch --out data/kuaisearch`

Rows that cannot be used are set aside in `rejected.parquet` beside the tables, with file, row and reason.
"""

_CHECK_EPILOG = """
**Examples**

`onesearch data check data/my-shop`

The exit code is 1 when there is an error, so scripts can rely on it; notes do not count.
"""


@app.command("import", epilog=_IMPORT_EPILOG)
def import_command(
    mapping: Annotated[
        Path | None, typer.Argument(help="YAML file that says which file and column holds what.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the data set.")] = Path("data"),
    data_root: Annotated[
        Path | None, typer.Option(help="Stands for ${ONESEARCH_DATA} in the mapping's folder.", show_default=False)
    ] = None,
    kuaisearch: Annotated[
        Path | None, typer.Option(help="Folder with items, users, recall, rank, relevance.jsonl.", show_default=False)
    ] = None,
) -> None:
    """Turn CSV, JSON lines or Parquet files into a data set."""
    console = Console()
    if (mapping is None) == (kuaisearch is None):
        raise typer.BadParameter("give either a mapping file or --kuaisearch FOLDER")
    try:
        if kuaisearch is not None:
            summary = import_kuaisearch(kuaisearch, out)
        else:
            assert mapping is not None
            summary = import_mapping(load_mapping(mapping, data_root), out)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'mapping'}: {e['msg']}" for e in error.errors()]
        _fail(console, f"{mapping} is not a valid mapping", *lines)
    except (ValueError, OSError) as error:
        _fail(console, str(error))
    show_summary(console, summary, out)


@app.command("check", epilog=_CHECK_EPILOG)
def check_command(
    folder: Annotated[Path, typer.Argument(help="Folder of a data set.", show_default=False)],
) -> None:
    """Check a data set: schema, ids, references between the tables, times."""
    console = Console()
    try:
        findings = check(folder)
    except (ValueError, OSError) as error:
        _fail(console, str(error))
    table = Table()
    for name in ("", "what", "result"):
        table.add_column(name)
    style = {"ok": "[green]ok[/]", "note": "[cyan]note[/]", "error": "[bold red]error[/]"}
    for finding in findings:
        table.add_row(style[finding.grade], escape(finding.what), escape(finding.detail))
    console.print(f"[bold]Check of {escape(str(folder))}[/]")
    console.print(table)
    errors = sum(finding.grade == "error" for finding in findings)
    console.print(f"{errors} errors" if errors else "no errors")
    if errors:
        raise typer.Exit(1)


def show_summary(console: Console, summary: ImportSummary, out: Path) -> None:
    """Print what an import did."""
    console.print(f"[bold]Imported {escape(summary.source)} to {escape(str(out))}[/]")
    table = Table()
    table.add_column("table")
    table.add_column("rows", justify="right")
    table.add_column("set aside", justify="right")
    for name in dict.fromkeys([*summary.rows, *summary.rejected]):
        aside = sum(summary.rejected.get(name, {}).values())
        table.add_row(name, f"{summary.rows.get(name, 0):,}", f"{aside:,}" if aside else "-")
    console.print(table)
    _counts(
        console,
        f"Set aside (all in {REJECTED})",
        {f"{name}: {reason}": count for name, reasons in summary.rejected.items() for reason, count in reasons.items()},
    )
    _counts(
        console,
        "Values left empty",
        {f"{name}.{reason}": count for name, counts in summary.emptied.items() for reason, count in counts.items()},
    )
    _counts(console, "Unknown item ids dropped", dict(summary.dropped))
    _counts(console, "Records made for ids without one", dict(summary.created))
    if any(join.total for join in summary.joins.values()):
        console.print("[bold]How the tables join[/]")
        joins = Table()
        for name, justify in (("reference", "left"), ("all", "right"), ("found", "right"), ("share", "right")):
            joins.add_column(name, justify="right" if justify == "right" else "left")
        for name, join in summary.joins.items():
            if join.total:
                joins.add_row(escape(name), f"{join.total:,}", f"{join.found:,}", f"{join.share:.1%}")
        console.print(joins)
    for note in summary.notes:
        console.print(f"note: {escape(note)}")
    console.print(f"{summary.seconds:.1f} s; next: onesearch data check {escape(str(out))}", highlight=False)


def _counts(console: Console, title: str, counts: dict[str, int]) -> None:
    counts = {name: count for name, count in counts.items() if count}
    if not counts:
        return
    console.print(f"[bold]{title}[/]")
    table = Table()
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(escape(name), f"{count:,}")
    console.print(table)


def _fail(console: Console, *lines: str) -> NoReturn:
    for number, line in enumerate(lines):
        console.print(f"[bold red]error:[/] {escape(line)}" if number == 0 else f"  {escape(line)}", soft_wrap=True)
    raise typer.Exit(1)
