"""Records of CSV and JSON lines to columns: a block at once where all is well, else record by record.

Each parser gives the wanted columns of the good records, and why the others are bad, by their number in the block.
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv

from onesearch.data.ingest.text_blocks import LONGEST_RECORD, Records

Bad = dict[int, str]


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
        if not bad_rows and len(read) == len(block):
            return pl.DataFrame(read).rename(dict(zip(names, columns, strict=True))), {}
    except pa.ArrowInvalid:
        pass
    # Something in the block is wrong: parse it again, record by record.
    bad: Bad = {}
    values: list[list[str]] = []
    for i in range(len(block)):
        text = io.StringIO(block.text(i).decode(), newline="")
        try:
            rows = list(csv.reader(text, delimiter=separator, strict=True))
        except csv.Error as error:
            bad[i] = f"broken CSV: {error}"
            continue
        # Two rows where line ends stand in quotes that the mapping does not know of.
        if len(rows) != 1 or len(rows[0]) != len(header):
            found = len(rows[0]) if rows else 0
            bad[i] = f"wrong number of columns: {found} where the header has {len(header)}"
            continue
        values.append([rows[0][place] for place in places])
    frame = pl.DataFrame(values, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.with_columns(pl.all().replace("", None)), bad


def parse_jsonl(block: Records, columns: Sequence[str]) -> tuple[pl.DataFrame, Bad]:
    """The wanted keys of JSON records, null where one is not there, and the bad records with their reasons."""
    # The types of a key are those of the whole block; nested values stay as they are.
    try:
        frame = pl.read_ndjson(block.joined(), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return _jsonl_by_record(block, columns)
    if len(frame) != len(block):  # something was read as more or fewer records than there are lines
        return _jsonl_by_record(block, columns)
    missing = [pl.lit(None, pl.String).alias(name) for name in columns if name not in frame.columns]
    return frame.with_columns(missing).select(columns), {}


def _jsonl_by_record(block: Records, columns: Sequence[str]) -> tuple[pl.DataFrame, Bad]:
    """One by one: also where the same key holds numbers in one record and texts in another."""
    bad: Bad = {}
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
    return pl.DataFrame([_json_column(name, [row.get(name) for row in rows]) for name in columns]), bad


def _json_column(name: str, values: list[Any]) -> pl.Series:
    """Values of a key as texts, or as lists of texts if any of them is a list."""
    if any(isinstance(value, list) for value in values):
        lists = [None if v is None else [_json_text(x) for x in (v if isinstance(v, list) else [v])] for v in values]
        return pl.Series(name, lists, dtype=pl.List(pl.String))
    return pl.Series(name, [_json_text(value) for value in values], dtype=pl.String)


def _json_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
