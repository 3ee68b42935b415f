"""Large files as chunks of rows: CSV, JSON lines and Parquet, a few megabytes in memory at a time.

A text file is cut into blocks at line ends, and each block is parsed on its own. So a broken line costs its block a
slower second parse, line by line, and nothing else: the bad lines are set aside with line number and reason.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onesearch.data.ingest.rejected_rows import Rejects

Longs = NDArray[np.int64]
BLOCK = 8 << 20
LONGEST_RECORD = 64 << 20
PARQUET_ROWS = 100_000
_NEWLINE, _QUOTE = 10, 34


@dataclass(frozen=True)
class TextFormat:
    """How a text file is written; see ``mapping.File``."""

    kind: Literal["csv", "jsonl"]
    separator: str = ","
    encoding: str = "utf-8"
    newlines_in_values: bool = False


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file.

    Attributes:
        file: its name.
        frame: the wanted columns as read; those that the rows do not have are null.
        rows: line in the file (the first is 1) or, for Parquet, row number, int64 [n].
    """

    file: str
    frame: pl.DataFrame
    rows: Longs
    records: "_Records | None" = None

    def texts(self, index: Longs) -> list[bytes | str]:
        """What the given rows say, for setting them aside."""
        if self.records is not None:
            return [self.records.text(i) for i in index.tolist()]
        return [json.dumps(self.frame.row(i, named=True), ensure_ascii=False, default=str) for i in index.tolist()]


@dataclass(frozen=True)
class _Records:
    """Records of a block: record i is ``data[starts[i]:ends[i]]``, on line ``lines[i]``."""

    data: bytes
    starts: Longs
    ends: Longs
    lines: Longs

    def text(self, i: int) -> bytes:
        return self.data[self.starts[i] : self.ends[i]]

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, keep: NDArray[Any]) -> "_Records":
        return _Records(self.data, self.starts[keep], self.ends[keep], self.lines[keep])

    def joined(self) -> bytes:
        """The bytes of these records, one per line."""
        if len(self) and self.ends[-1] - self.starts[0] + 1 == int((self.ends - self.starts + 1).sum()):
            return self.data[self.starts[0] : self.ends[-1] + 1]
        return b"".join(self.text(i) + b"\n" for i in range(len(self)))


def read_text(path: Path, style: TextFormat, table: str, columns: Sequence[str], rejects: Rejects) -> Iterator[Chunk]:
    """The wanted columns of a CSV or JSON lines file; ``.gz`` files are unpacked on the way.

    Raises:
        ValueError: a CSV file without header or without a wanted column; a line that never ends.
    """
    header: list[str] | None = None
    with _opened(path) as stream:
        for block in _blocks(stream, path, style):
            block = _decoded(block, path, style, table, rejects)
            if style.kind == "csv" and header is None and len(block):
                header = _header(block.text(0), path, style, columns)
                block = block.select(np.arange(1, len(block)))
            block = block.select(_filled(block))
            if not len(block):
                continue
            if style.kind == "csv":
                assert header is not None
                frame, bad = _csv(block, style, header, columns)
            else:
                frame, bad = _jsonl(block, columns)
            if bad:
                index = np.fromiter(bad, np.int64, len(bad))
                rejects.add(
                    table,
                    path.name,
                    block.lines[index].tolist(),
                    list(bad.values()),
                    [block.text(i) for i in index.tolist()],
                )
                keep = np.ones(len(block), bool)
                keep[index] = False
                block = block.select(keep)
            if len(frame):
                yield Chunk(path.name, frame, block.lines, block)
    if style.kind == "csv" and header is None:
        raise ValueError(f"{path}: empty, not even a header line")


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    """The wanted columns of a Parquet file, a hundred thousand rows at a time."""
    file = pq.ParquetFile(path)
    check_columns(path, columns, file.schema_arrow.names)
    first = 1
    for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=list(columns)):
        frame = pl.DataFrame(pa.Table.from_batches([batch]))
        yield Chunk(path.name, frame, np.arange(first, first + len(frame)))
        first += len(frame)


def check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise a ValueError that names columns which a file does not have, and those that it has."""
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, there))}")


def _opened(path: Path) -> BinaryIO:
    return io.BufferedReader(gzip.GzipFile(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _blocks(stream: BinaryIO, path: Path, style: TextFormat) -> Iterator[_Records]:
    quoted = style.kind == "csv" and style.newlines_in_values
    rest, line = b"", 1
    while True:
        piece = stream.read(BLOCK)
        data = rest + piece
        if line == 1 and data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        if not piece:
            if data:
                yield _cut(data + b"\n", line, False)
            return
        block = _cut(data, line, quoted)
        if not len(block):
            if len(data) > LONGEST_RECORD and not quoted:
                raise ValueError(
                    f"{path}: line {line} is longer than {LONGEST_RECORD >> 20} MiB; is this {style.kind}?"
                )
            if len(data) > LONGEST_RECORD:
                block = _cut(data, line, False)  # a quote that never closes: cut at line ends, broken lines fall out
        if len(block):
            used = int(block.ends[-1]) + 1
            yield block
            line += data.count(b"\n", 0, used)
            rest = data[used:]
        else:
            rest = data


def _cut(data: bytes, line: int, quoted: bool) -> _Records:
    """Cut at line ends; ``quoted`` only at those outside quotes (an even number of quotes before)."""
    array = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(array == _NEWLINE)
    ends = newlines
    if quoted:
        odd = np.cumsum(array == _QUOTE, dtype=np.uint8)[newlines] & 1
        ends = newlines[odd == 0]
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    return _Records(data, starts, ends, line + np.searchsorted(newlines, starts))


def _decoded(block: _Records, path: Path, style: TextFormat, table: str, rejects: Rejects) -> _Records:
    """The block as UTF-8; records that are not in the file's encoding are set aside."""
    try:
        text = block.joined().decode(style.encoding)
    except UnicodeDecodeError:
        bad: dict[int, str] = {}
        for i in range(len(block)):
            try:
                block.text(i).decode(style.encoding)
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                bad[i] = f"not valid {style.encoding}: byte 0x{byte:02x} at position {error.start + 1}"
        rejects.add(table, path.name, block.lines[list(bad)].tolist(), list(bad.values()), [block.text(i) for i in bad])
        keep = np.ones(len(block), bool)
        keep[list(bad)] = False
        block = block.select(keep)
        text = block.joined().decode(style.encoding)
    if style.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "ascii"):
        return block
    data = text.encode()
    quoted = style.kind == "csv" and style.newlines_in_values
    again = _cut(data, 1, quoted)
    return _Records(data, again.starts, again.ends, block.lines)


def _filled(block: _Records) -> NDArray[np.bool_]:
    """False for empty lines."""
    lengths = block.ends - block.starts
    short = np.flatnonzero(lengths <= 1)
    keep = np.ones(len(block), bool)
    for i in short.tolist():
        keep[i] = bool(block.text(i).strip())
    return keep


def _header(record: bytes, path: Path, style: TextFormat, columns: Sequence[str]) -> list[str]:
    names = next(csv.reader([record.decode().rstrip("\r\n")], delimiter=style.separator))
    names = [name.strip() for name in names]
    check_columns(path, columns, names)
    return names


def _csv(
    block: _Records, style: TextFormat, header: list[str], columns: Sequence[str]
) -> tuple[pl.DataFrame, dict[int, str]]:
    """The wanted columns as text, and the bad records with their reasons."""
    bad_rows = 0

    def skip(row: Any) -> str:
        nonlocal bad_rows
        bad_rows += 1
        return "skip"

    # Columns are read by place, so that two columns of one name in the header do no harm.
    places = [f"c{header.index(name)}" for name in columns]
    try:
        read: pa.Table = pyarrow.csv.read_csv(
            io.BytesIO(block.joined()),
            read_options=pyarrow.csv.ReadOptions(
                column_names=[f"c{i}" for i in range(len(header))], use_threads=False, block_size=2 * LONGEST_RECORD
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=style.separator, newlines_in_values=style.newlines_in_values, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(places, pa.string()),
                include_columns=places,
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                null_values=[""],
            ),
        )
        if not bad_rows and len(read) == len(block):
            return pl.DataFrame(read).rename(dict(zip(places, columns, strict=True))), {}
    except pa.ArrowInvalid:
        pass
    return _csv_by_line(block, style, header, columns)


def _csv_by_line(
    block: _Records, style: TextFormat, header: list[str], columns: Sequence[str]
) -> tuple[pl.DataFrame, dict[int, str]]:
    bad: dict[int, str] = {}
    values: list[list[str]] = []
    places = [header.index(name) for name in columns]
    for i in range(len(block)):
        text = block.text(i).decode()
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=style.separator, strict=True))
        except csv.Error as error:
            bad[i] = f"broken CSV: {error}"
            continue
        if len(rows) != 1 or len(rows[0]) != len(header):
            found = len(rows[0]) if rows else 0
            bad[i] = f"wrong number of columns: {found} where the header has {len(header)}"
            continue
        values.append([rows[0][place] for place in places])
    frame = pl.DataFrame(values, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.with_columns(pl.all().replace("", None)), bad


def _jsonl(block: _Records, columns: Sequence[str]) -> tuple[pl.DataFrame, dict[int, str]]:
    try:
        frame = pl.read_ndjson(block.joined(), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return _jsonl_by_line(block, columns)
    if len(frame) != len(block):
        return _jsonl_by_line(block, columns)
    missing = [pl.lit(None, pl.String).alias(name) for name in columns if name not in frame.columns]
    return frame.with_columns(missing).select(columns), {}


def _jsonl_by_line(block: _Records, columns: Sequence[str]) -> tuple[pl.DataFrame, dict[int, str]]:
    """Line by line: also where the same key holds numbers in one row and texts in another."""
    bad: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    for i in range(len(block)):
        try:
            value = json.loads(block.text(i))
        except (ValueError, RecursionError) as error:
            bad[i] = f"broken JSON: {error}"
            continue
        if isinstance(value, dict):
            rows.append(value)
        else:
            bad[i] = f"not a JSON object: {type(value).__name__}"
    return pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in columns]), bad


def _column(name: str, values: list[Any]) -> pl.Series:
    if any(isinstance(value, list) for value in values):
        lists = [None if v is None else [_text(x) for x in (v if isinstance(v, list) else [v])] for v in values]
        return pl.Series(name, lists, dtype=pl.List(pl.String))
    return pl.Series(name, [_text(value) for value in values], dtype=pl.String)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
