"""``onesearch data``: bring data in, and check it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli.terminal import show_table
from onesearch.data.ingest.column_mapping import load_mapping
from onesearch.data.ingest.data_check import check, column_values, verdict
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

The exit code is 1 when there is an error, so scripts can rely on it; warnings and notes do not count.
"""


@app.command("import", epilog=_IMPORT_EPILOG)
def import_command(
    # What is read: a mapping's files, or KuaiSearch's.
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
    if mapping is not None and kuaisearch is None:
        summary = import_mapping(load_mapping(mapping, data_root), out)
    elif kuaisearch is not None and mapping is None:
        summary = import_kuaisearch(kuaisearch, out)
    else:
        raise typer.BadParameter("give either a mapping file or --kuaisearch FOLDER")
    show_summary(summary, out)


@app.command("check", epilog=_CHECK_EPILOG)
def check_command(
    folder: Annotated[Path, typer.Argument(help="Folder of a data set.", show_default=False)],
) -> None:
    """Check a data set: values of each column, schema, ids, references between the tables, times; and a verdict."""
    findings = check(folder)
    broken = any(finding.grade == "error" and finding.what.endswith(": schema") for finding in findings)
    if not broken:
        _show_columns(folder)
    rows = [(finding.grade, finding.what, finding.detail) for finding in findings]
    show_table(f"Check of {folder}", ("", "what", "result"), rows)
    errors, warnings = (sum(finding.grade == grade for finding in findings) for grade in ("error", "warning"))
    typer.echo(f"{errors or 'no'} errors, {warnings or 'no'} warnings")
    typer.echo(f"verdict: {verdict(findings)}")
    if errors:
        raise typer.Exit(1)


def _show_columns(folder: Path) -> None:
    """How many values each column has, and what the import did to them."""

    def share(count: int, of: int) -> str:
        return f"{count:,} ({count / of:.1%})" if count else "-"

    columns = ("column", "rows", "empty", "left empty", "repaired", "doubtful")
    rows = [
        (
            values.column,
            f"{values.rows:,}",
            *(share(n, values.rows) for n in (values.empty, values.emptied, values.repaired, values.suspicious)),
        )
        for values in column_values(folder)
    ]
    show_table(f"Values of {folder}", columns, rows, columns[1:])


def show_summary(summary: ImportSummary, out: Path) -> None:
    """Print what an import did."""
    # Each table: what came in, and what did not.
    aside = {name: sum(reasons.values()) for name, reasons in summary.rejected.items()}
    rows = [
        (name, f"{summary.rows.get(name, 0):,}", f"{aside[name]:,}" if aside.get(name) else "-")
        for name in dict.fromkeys([*summary.rows, *summary.rejected])
    ]
    show_table(f"Imported {summary.source} to {out}", ("table", "rows", "set aside"), rows, ("rows", "set aside"))
    # Why, and what was changed in the rest.
    _show_counts(f"Set aside (all in {REJECTED})", summary.rejected, ": ")
    _show_counts("Values left empty", summary.emptied, ".")
    _show_counts("Values repaired", summary.repaired, ".")
    _show_counts("Values that may mean something else", summary.suspicious, ".")
    _show_counts("Unknown item ids dropped", {"": summary.dropped})
    _show_counts("Records made for ids without one", {"": summary.created})
    joins = [
        (name, f"{join.total:,}", f"{join.found:,}", f"{join.share:.1%}")
        for name, join in summary.joins.items()
        if join.total
    ]
    if joins:
        columns = ("reference", "all", "found", "share")
        show_table("How the tables join", columns, joins, columns[1:])
    for note in summary.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{summary.seconds:.1f} s; next: onesearch data check {out}")


def _show_counts(title: str, counts: Mapping[str, Mapping[str, int]], between: str = "") -> None:
    """Counts by group and name that are not 0, as one table; none if there are none."""
    rows = [
        (f"{group}{between}{name}", f"{count:,}")
        for group, named in counts.items()
        for name, count in named.items()
        if count
    ]
    if rows:
        show_table(title, ("what", "count"), rows, ("count",))
