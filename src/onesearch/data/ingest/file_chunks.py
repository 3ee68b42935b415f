"""The files of a table, CSV, JSON lines or Parquet, as chunks of rows with the wanted columns."""

import csv
import fnmatch
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from onesearch.data.ingest.column_mapping import File
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
        file: its name.
        frame: the wanted columns as read; those that the rows do not have are null.
        rows: line in the file (the first is 1) or, for Parquet, row number, int64 [n].
        records: what the rows of a text file say.
    """

    file: str
    frame: pl.DataFrame
    rows: Longs
    records: Records | None = None

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

    Raises:
        ValueError: a wanted column that a file does not have.
    """
    wanted = list(dict.fromkeys(columns))
    # Files are read one after another; each may be written in its own format.
    for path in files_of(folder, table):
        style = _resolved(path, table)
        if style.format == "parquet":
            yield from parquet_chunks(path, wanted)
            continue
        for number, chunk in enumerate(text_chunks(path, style, name, [*wanted, *optional], rejects)):
            if number == 0 and style.format == "jsonl":
                _check_keys(path, chunk.frame, wanted)
            yield chunk


def _resolved(path: Path, table: File) -> File:
    """The table's description with the format, and the separator of ``.tsv``, told by the file's ending."""
    if table.format != "auto":
        kind = table.format
    else:
        ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        if ending.lower() not in _ENDINGS:
            raise ValueError(
                f"{path}: cannot tell the format by the ending {ending!r}; say format: csv, jsonl or parquet"
            )
        kind = _ENDINGS[ending.lower()]
    tabs = kind == "csv" and ".tsv" in path.suffixes and table.separator == ","
    return table.model_copy(update={"format": kind, "separator": "\t" if tabs else table.separator})


def text_chunks(path: Path, style: File, table: str, columns: Sequence[str], rejects: Rejects) -> Iterator[Chunk]:
    """The wanted columns of a CSV or JSON lines file; bad records are set aside as records of ``table``.

    Raises:
        ValueError: a CSV file without header or without a wanted column; a line that never ends.
    """
    header: list[str] | None = None
    for block in text_blocks(path, style, table, rejects):
        # The first record of a CSV file names the columns.
        if style.format == "csv" and header is None and len(block):
            header = _header(block.text(0), path, style.separator, columns)
            block = block.select(np.arange(len(block)) > 0)
        if not len(block):
            continue
        if header is not None:
            frame, bad = parse_csv(block, style.separator, style.newlines_in_values, header, columns)
        else:
            frame, bad = parse_jsonl(block, columns)
        # What stays of the block, record by record, is what the frame's rows say.
        block = block.set_aside(bad, table, path.name, rejects)
        if len(frame):
            yield Chunk(path.name, frame, block.lines, block)
    if style.format == "csv" and header is None:
        raise ValueError(f"{path}: empty, not even a header line")


def parquet_chunks(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    """The wanted columns of a Parquet file, a hundred thousand rows at a time."""
    file = pq.ParquetFile(path)
    _check_columns(path, columns, file.schema_arrow.names)
    first = 1
    for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=list(columns)):
        frame = pl.DataFrame(pa.Table.from_batches([batch]))
        yield Chunk(path.name, frame, np.arange(first, first + len(frame)))
        first += len(frame)


def _header(record: bytes, path: Path, separator: str, columns: Sequence[str]) -> list[str]:
    names = [name.strip() for name in next(csv.reader([record.decode().rstrip("\r\n")], delimiter=separator))]
    _check_columns(path, columns, names)
    return names


def _check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, there))}")


def _check_keys(path: Path, frame: pl.DataFrame, wanted: Sequence[str]) -> None:
    """JSON records need not have every key; one that no record of the first chunk has is misspelt."""
    empty = [name for name in wanted if frame[name].null_count() == len(frame)]
    # In a short chunk a key may be missing by chance.
    if len(empty) == len(wanted) or (empty and len(frame) >= 1000):
        raise ValueError(f"{path}: none of the first {len(frame):,} lines has the key {', '.join(map(repr, empty))}")
