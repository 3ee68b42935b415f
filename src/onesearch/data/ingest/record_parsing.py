"""Records of CSV and JSON lines to columns: a block at once where all is well, else record by record.

Each parser gives the wanted columns of the good records, and why the others are bad, by their number in the block.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.csv

from onesearch.data.ingest.nested_values import dig, has_object, json_column, object_complaint, plain_column
from onesearch.data.ingest.text_blocks import LONGEST_RECORD, Records

Bad = dict[int, str]
# Python's own limit of 128 KiB is less than a page of description in HTML.
csv.field_size_limit(LONGEST_RECORD)


def parse_csv(
    block: Records, separator: str, newlines_in_values: bool, header: Sequence[str], columns: Sequence[str]
) -> tuple[pl.DataFrame, Bad]:
    """The wanted columns of CSV records as text, null where empty, and the bad records with their reasons."""
    # pyarrow counts what it skips but does not say which records these were.
    bad_rows = 0

    def skip(row: Any) -> str:
        nonlocal bad_rows
        bad_rows += 1
        return "skip"

    # Columns are read by place, so that two columns of one name in the header do no harm.
    places = [header.index(name) for name in columns]
    names = [f"c{place}" for place in places]
    try:
        # All of the block in one piece (block_size), every wanted column as text, an empty one as null.
        read: pa.Table = pyarrow.csv.read_csv(
            io.BytesIO(block.joined()),
            read_options=pyarrow.csv.ReadOptions(
                column_names=[f"c{i}" for i in range(len(header))], use_threads=False, block_size=2 * LONGEST_RECORD
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=separator, newlines_in_values=newlines_in_values, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=names,
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                null_values=[""],
            ),
        )
        # Of a quote that never closes pyarrow makes a value up to the end: that could be the last record's only.
        if not bad_rows and len(read) == len(block) and not isinstance(_rows(block, len(block) - 1, separator), str):
            return pl.DataFrame(read).rename(dict(zip(names, columns, strict=True))), {}
    except pa.ArrowInvalid:
        pass
    # Something in the block is wrong: parse it again, record by record.
    bad: Bad = {}
    values: list[list[str]] = []
    for i in range(len(block)):
        rows = _rows(block, i, separator)
        if isinstance(rows, str):
            bad[i] = f"broken CSV: {rows}"
            continue
        # Two rows where line ends stand in quotes that the mapping does not know of.
        if len(rows) != 1 or len(rows[0]) != len(header):
            found = len(rows[0]) if rows else 0
            bad[i] = f"wrong number of columns: {found} where the header has {len(header)}"
            continue
        values.append([rows[0][place] for place in places])
    frame = pl.DataFrame(values, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.with_columns(pl.all().replace("", None)), bad


def _rows(block: Records, i: int, separator: str) -> list[list[str]] | str:
    """The rows of values that a record is, one if it is well formed; or what is wrong with it."""
    text = io.StringIO(block.text(i).decode(), newline="")
    try:
        return list(csv.reader(text, delimiter=separator, strict=True))
    except csv.Error as error:
        return str(error)


@dataclass(frozen=True)
class Parsed:
    """JSON records as columns.

    Attributes:
        frame: the wanted keys of the good records, [n]; null where a record has none.
        bad: the other records, with their reasons.
        absent: wanted keys that no record has.
        keys: the keys that there are.
    """

    frame: pl.DataFrame
    bad: Bad
    absent: tuple[str, ...]
    keys: tuple[str, ...]


def parse_jsonl(block: Records, columns: Sequence[str]) -> Parsed:
    """The wanted keys of JSON records; ``brand.name`` is a key of the object under another one.

    Raises:
        ValueError: a wanted key holds objects wherever it has a value.
    """
    # Polars reads a lone surrogate as the character 0.
    if _LONE_SURROGATE.search(block.data):
        return _jsonl_by_record(block, columns)
    # The types of a key are those of the whole block; nested values stay as they are.
    try:
        frame = pl.read_ndjson(block.joined(), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return _jsonl_by_record(block, columns)
    if len(frame) != len(block):  # something was read as more or fewer records than there are lines
        return _jsonl_by_record(block, columns)
    found: dict[str, pl.Series] = {}
    for name in columns:
        source = name if name in frame.columns else name.partition(".")[0]
        if source not in frame.columns:
            continue
        column = frame[source]
        # A text may be what polars made of an object or a list where other records have texts.
        if column.dtype == pl.String and column.str.contains(r"^\s*[\[{]").any():
            return _jsonl_by_record(block, columns)
        if column.dtype.is_nested() or name != source:
            try:
                column = plain_column(column, name)
            except ValueError:
                return _jsonl_by_record(block, columns)
        found[name] = column.alias(name)
    absent = tuple(name for name in columns if name not in found)
    nothing = pl.repeat(None, len(frame), dtype=pl.String, eager=True)
    return Parsed(
        pl.DataFrame([found.get(name, nothing.alias(name)) for name in columns]), {}, absent, tuple(frame.columns)
    )


# A first half without a second one, or the other way round, written as JSON writes them.
_LONE_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def _jsonl_by_record(block: Records, columns: Sequence[str]) -> Parsed:
    """One by one: also where the same key holds numbers in one record and texts in another."""
    bad: Bad = {}
    rows: list[list[Any]] = []
    keys: dict[str, None] = {}
    objects, filled = Counter[str](), Counter[str]()
    complaints: dict[str, str] = {}
    seen = set[str]()
    for i in range(len(block)):
        try:
            record = json.loads(block.text(i))
        except (ValueError, RecursionError) as error:
            bad[i] = f"broken JSON: {error}"
            continue
        if not isinstance(record, dict):
            bad[i] = f"not a JSON object: {type(record).__name__}"
            continue
        keys |= dict.fromkeys(record)
        # A key of the record's own goes before a path through its objects.
        values = [record[name] if name in record else dig(record, name.split(".")) for name in columns]
        seen.update(name for name, value in zip(columns, values, strict=True) if name in record or value is not None)
        if not _encodes(values):
            bad[i] = "lone surrogate: half a character, which no text can hold"
            continue
        for name, value in zip(columns, values, strict=True):
            filled[name] += value not in (None, [], "")
            if has_object(value):
                objects[name] += 1
                bad[i] = complaints[name] = object_complaint(name, value)
        if i not in bad:
            rows.append(values)
    # A key that never holds anything else is a mistake of the mapping, not of these records.
    for name, count in objects.items():
        if count == filled[name]:
            raise ValueError(complaints[name])
    frame = pl.DataFrame([json_column(name, [row[place] for row in rows]) for place, name in enumerate(columns)])
    return Parsed(frame, bad, tuple(name for name in columns if name not in seen), tuple(keys))


def _encodes(values: list[Any]) -> bool:
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
