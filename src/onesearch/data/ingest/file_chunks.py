"""The files of a table, CSV, JSON lines or Parquet, as chunks of rows with the wanted columns."""

import csv
import fnmatch
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from onesearch.data.ingest.column_mapping import File
from onesearch.data.ingest.dictionary_texts import parquet_batches
from onesearch.data.ingest.file_opening import inner_name
from onesearch.data.ingest.nested_values import cell_values, plain_column, unreadable_type
from onesearch.data.ingest.record_parsing import parse_csv, parse_jsonl
from onesearch.data.ingest.rejected_rows import Rejects
from onesearch.data.ingest.text_blocks import Longs, Records, text_blocks

PARQUET_ROWS = 100_000
_ENDINGS: Final[dict[str, Literal["csv", "jsonl", "parquet"]]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file.

    Attributes:
        file: its name, with the folders below the mapping's that it is in.
        frame: the wanted columns as read; those that the rows do not have are null.
        rows: line in the file (the first is 1) or, for Parquet, row number, int64 [n].
        records: what the rows of a text file say.
        numbers: columns of texts -> which of their values are numbers in the file, Boolean [n].
        lost: (column, why) -> values of the file that no text or number could be made of.
        bare: columns of lists -> which of them are one text in the file, Boolean [n].
    """

    file: str
    frame: pl.DataFrame
    rows: Longs
    records: Records | None = None
    numbers: Mapping[str, pl.Series] = field(default_factory=dict)
    lost: Mapping[tuple[str, str], int] = field(default_factory=dict)
    bare: Mapping[str, pl.Series] = field(default_factory=dict)

    def texts(self, index: Longs) -> list[bytes | str]:
        """What the given rows say, for setting them aside."""
        if self.records is not None:
            return [self.records.text(i) for i in index.tolist()]
        return [json.dumps(self.frame.row(i, named=True), ensure_ascii=False, default=str) for i in index.tolist()]


def files_of(folder: Path, table: File) -> list[Path]:
    """The files that a table names.

    Raises:
        FileNotFoundError: no such file; the message lists what the folder has.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder (from `folder` of the mapping)")
    # A pattern finds files in folders below, too; a plain name is that file alone.
    if any(sign in table.file for sign in "*?["):
        found = sorted(path for path in folder.rglob("*") if fnmatch.fnmatch(str(path.relative_to(folder)), table.file))
    else:
        found = [path for path in [folder / table.file] if path.is_file()]
    if not found:
        # Most often a name is misspelt: show what there is.
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise FileNotFoundError(f"{folder / table.file}: no such file; the folder has {there}")
    return found


def read_chunks(
    folder: Path, table: File, name: str, columns: Sequence[str], rejects: Rejects, optional: Sequence[str] = ()
) -> Iterator[Chunk]:
    """The wanted columns of a table's files, chunk by chunk.

    Args:
        folder: where the files are.
        table: which they are, and how they are written.
        name: of the table, for ``rejects``.
        columns: the wanted ones; twice the same is once.
        rejects: gets the records that cannot be parsed.
        optional: more columns, which may be missing from JSON lines.

    A name with dots, ``brand.name``, that no column has is a key within an object: of JSON lines, of Parquet, or of CSV
    cells that hold JSON.

    Raises:
        ValueError: a wanted column that a file does not have, or one that holds objects.
    """
    wanted = list(dict.fromkeys(columns))
    # Files are read one after another; each may be written in its own format.
    for path in files_of(folder, table):
        style = _resolved(path, table)
        # Files of one name in several folders are told apart.
        label = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        if style.format == "parquet":
            yield from parquet_chunks(path, wanted, label)
        else:
            yield from text_chunks(path, style, name, wanted, rejects, optional, label)


def _resolved(path: Path, table: File) -> File:
    """The table's description with the format, and the separator of ``.tsv``, told by the file's ending."""
    name = inner_name(path)
    ending = Path(name).suffix.lower()
    if table.format != "auto":
        kind = table.format
    elif ending not in _ENDINGS:
        raise ValueError(f"{path}: cannot tell the format by the ending {ending!r}; say format: csv, jsonl or parquet")
    else:
        kind = _ENDINGS[ending]
    tabs = kind == "csv" and ".tsv" in Path(name).suffixes and table.separator == ","
    return table.model_copy(update={"format": kind, "separator": "\t" if tabs else table.separator})


def text_chunks(
    path: Path,
    style: File,
    table: str,
    columns: Sequence[str],
    rejects: Rejects,
    optional: Sequence[str] = (),
    label: str | None = None,
) -> Iterator[Chunk]:
    """The wanted columns of a CSV or JSON lines file; bad records are set aside as records of ``table``.

    ``label`` is the name of the file in chunks and among the rows set aside.

    Raises:
        ValueError: a CSV file without header or without a wanted column; JSON lines none of whose first ones has a
            wanted key; a line that never ends.
    """
    label = label or path.name
    blocks = (block for block in text_blocks(path, style, table, rejects, label) if len(block))
    yield from (_csv_chunks if style.format == "csv" else _jsonl_chunks)(
        path, style, blocks, table, columns, rejects, optional, label
    )


def _csv_chunks(
    path: Path,
    style: File,
    blocks: Iterator[Records],
    table: str,
    columns: Sequence[str],
    rejects: Rejects,
    optional: Sequence[str],
    label: str,
) -> Iterator[Chunk]:
    """CSV: the first record names the columns, the others have values."""
    first = next(blocks, None)
    if first is None:
        raise ValueError(f"{path}: empty, not even a header line")
    header = _header(first.text(0), path, style.separator)
    places = _places(path, header, [*columns, *optional])
    read, checked = list(dict.fromkeys(places.values())), False
    for block in itertools.chain([first.select(np.arange(len(first)) > 0)], blocks):
        if not len(block):
            continue
        raw, bad = parse_csv(block, style.separator, style.newlines_in_values, header, read)
        # Cells that hold an object give the values of its keys.
        values: list[pl.Series] = []
        numbers, bare = dict[str, pl.Series](), dict[str, pl.Series]()
        lost = Counter[tuple[str, str]]()
        for name, column in places.items():
            if name == column:
                values.append(raw[column].alias(name))
                continue
            cells = cell_values(raw[column], name, name[len(column) + 1 :], lost)
            # As of JSON lines: a key that none of the first objects has is misspelt.
            if not checked and cells.keys and not cells.there and name in columns:
                what = f"none of the first {len(raw):,} rows has the key"
                _complain(path, [name], [f"{column}.{key}" for key in cells.keys], what)
            values.append(cells.values)
            numbers[name] = cells.numbers
            if cells.bare is not None:
                bare[name] = cells.bare
        checked = True
        frame = pl.DataFrame(values)
        block = block.set_aside(bad, table, label, rejects)
        if len(frame):
            yield Chunk(label, frame, block.lines, block, numbers, lost, bare)


def _jsonl_chunks(
    path: Path,
    style: File,
    blocks: Iterator[Records],
    table: str,
    columns: Sequence[str],
    rejects: Rejects,
    optional: Sequence[str],
    label: str,
) -> Iterator[Chunk]:
    """JSON lines: every record is an object."""
    checked = False
    for block in blocks:
        if not checked and block.text(0).lstrip().startswith(b"["):
            raise ValueError(f"{path}: a JSON array; JSON lines have one object a line, e.g. by jq -c '.[]'")
        try:
            parsed = parse_jsonl(block, [*columns, *optional])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        # A key may be missing from a record; one that no record of the first block has is misspelt.
        if not checked and len(parsed.frame):
            missing = [name for name in columns if name in parsed.absent]
            _complain(path, missing, parsed.keys, f"none of the first {len(block):,} lines has the key")
            checked = True
        block = block.set_aside(parsed.bad, table, label, rejects)
        if len(parsed.frame):
            yield Chunk(label, parsed.frame, block.lines, block, parsed.numbers, bare=parsed.bare)


def parquet_chunks(path: Path, columns: Sequence[str], label: str | None = None) -> Iterator[Chunk]:
    """The wanted columns of a Parquet file, a hundred thousand rows at a time, or fewer if their texts are long.

    ``label`` is the name of the file in chunks.

    Raises:
        ValueError: it is no Parquet file, lacks a column or has one of a type that cannot be read, or unpacks to so
            much that it cannot be data.
    """
    try:
        file = pq.ParquetFile(path)
        places = _places(path, file.schema_arrow.names, columns)
        # Polars ends with a panic where it meets a type that it does not know.
        for name, column in places.items():
            if kind := unreadable_type(file.schema_arrow.field(column).type):
                raise ValueError(f"{path}: the column {name!r} has the type {kind}; write it as numbers or texts")
        first = 1
        for batch in parquet_batches(path, list(dict.fromkeys(places.values())), PARQUET_ROWS):
            raw = pl.DataFrame(pa.Table.from_batches([batch]))
            lost = Counter[tuple[str, str]]()
            try:
                frame = pl.DataFrame([plain_column(raw[column], name, lost) for name, column in places.items()])
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            yield Chunk(label or path.name, frame, np.arange(first, first + len(frame)), lost=lost)
            first += len(frame)
    except (pa.ArrowException, OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {str(error).partition(chr(10))[0]}") from error


def _header(record: bytes, path: Path, separator: str) -> list[str]:
    """The names of the columns.

    Raises:
        ValueError: a quote in the header line never closes.
    """
    try:
        names = next(csv.reader([record.decode()], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise ValueError(f"{path}: the header line is broken CSV: {error}; set separator or encoding") from error
    return [name.strip() for name in names]


def _places(path: Path, there: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """The column of the file that each wanted name is in: of its name or, before a dot, with objects that have it."""
    places: dict[str, str] = {}
    for name in wanted:
        # The longest column first: "a.b" of "a.b.c" before "a".
        parts = name.split(".")
        fits = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        found = next((column for column in fits if column in there), None)
        if found is not None:
            places[name] = found
    missing = [name for name in wanted if name not in places]
    hint = ""
    if len(there) == 1 and missing:
        sign = next((repr(sign) for sign in (";", "\t", "|", ",") if sign in there[0]), None)
        hint = f"; set separator: {sign}" if sign else ""
    _complain(path, missing, there, "no column", hint)
    twice = [name for name in places.values() if there.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} is there twice; rename one of them")
    return places


def _complain(path: Path, missing: Sequence[str], there: Sequence[str], what: str, hint: str = "") -> None:
    """Say which names are missing, and which there are."""
    if missing:
        known = ", ".join(map(repr, there)) or "nothing"
        raise ValueError(f"{path}: {what} {', '.join(map(repr, missing))}; it has {known}{hint}")
