"""Records of CSV and JSON lines to columns: a block at once where all is well, else record by record.

Each parser gives the wanted columns of the good records, and why the others are bad, by their number in the block.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from onesearch.data.ingest.nested_values import (
    EXACT,
    are_numbers,
    dig,
    has_object,
    json_column,
    object_complaint,
    parse_json,
    plain_column,
)
from onesearch.data.ingest.number_values import SIGN_BEFORE_THREE
from onesearch.data.ingest.text_blocks import LONGEST_RECORD, Records

Bad = dict[int, str]
# Python's own limit of 128 KiB is less than a page of description in HTML.
csv.field_size_limit(LONGEST_RECORD)


def parse_csv(
    block: Records, separator: str, newlines_in_values: bool, header: Sequence[str], columns: Sequence[str]
) -> tuple[pl.DataFrame, Bad]:
    """The wanted columns of CSV records as text, null where empty, and the bad records with their reasons."""
    # Columns are read by place, so that two columns of one name in the header do no harm.
    places = [header.index(name) for name in columns]
    whole = _csv_at_once(block, separator, newlines_in_values, len(header), places)
    if whole is not None:
        return whole.rename({f"c{place}": name for place, name in zip(places, columns, strict=True)}), {}
    # Something in the block is wrong: parse it again, record by record.
    bad: Bad = {}
    values: list[list[str]] = []
    for i in range(len(block)):
        rows = _rows(block, i, separator)
        if isinstance(rows, str):
            hint = '; write "" for a quote in a quoted value, not \\"' if rb"\"" in block.text(i) else ""
            bad[i] = f"broken CSV: {rows}{hint}"
            continue
        # Two rows where line ends stand in quotes that the mapping does not know of.
        if len(rows) != 1 or len(rows[0]) != len(header):
            found = len(rows[0]) if rows else 0
            bad[i] = f"wrong number of columns: {found} where the header has {len(header)}"
            continue
        values.append([rows[0][place] for place in places])
    frame = pl.DataFrame(values, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.with_columns(pl.all().replace("", None)), bad


def _csv_at_once(
    block: Records, separator: str, newlines_in_values: bool, width: int, places: Sequence[int]
) -> pl.DataFrame | None:
    """The columns at some places of records of a width, called ``c0``, ``c1`` ...; None if a record is bad."""
    # pyarrow reads on where a quoted value goes on behind its closing quote.
    if not _is_well_quoted(block, separator):
        return None
    # It counts what it skips but does not say which records these were.
    bad_rows = 0

    def skip(row: Any) -> str:
        nonlocal bad_rows
        bad_rows += 1
        return "skip"

    names = [f"c{place}" for place in places]
    try:
        # All of the block in one piece (block_size), every wanted column as text, an empty one as null.
        read: pa.Table = pyarrow.csv.read_csv(
            io.BytesIO(block.joined()),
            read_options=pyarrow.csv.ReadOptions(
                column_names=[f"c{i}" for i in range(width)], use_threads=False, block_size=2 * LONGEST_RECORD
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
    except pa.ArrowInvalid:
        return None
    # Of a quote that never closes pyarrow makes a value up to the end: that could be the last record's only.
    if bad_rows or len(read) != len(block) or isinstance(_rows(block, len(block) - 1, separator), str):
        return None
    return pl.DataFrame(read)


def _is_well_quoted(block: Records, separator: str) -> bool:
    """Whether no quoted value goes on behind its closing quote, as where a quote in it is escaped by a backslash."""
    data = np.frombuffer(block.data, np.uint8)[: block.ends[-1] + 1]
    quotes = np.flatnonzero(data == ord('"'))
    if not len(quotes):
        return True
    # Neighbours are one sign: what opens or closes a value has odd ones, a quote within a value even ones.
    first, last, odd = quotes, quotes, np.ones(len(quotes), bool)
    apart = quotes[1:] - quotes[:-1] > 1
    if not apart.all():
        parted = np.flatnonzero(apart)
        first, last = quotes[np.r_[0, parted + 1]], quotes[np.r_[parted, len(quotes) - 1]]
        odd = (last - first) % 2 == 0
    sides = np.zeros(256, bool)
    sides[[ord(separator), ord("\n"), ord("\r")]] = True
    # Before the first byte is the last one, a line end.
    begins, ends = sides[data[first - 1]], sides[data[last + 1]]
    # Those that open values and those that close them take turns. Where any do not, or could be either, their records
    # are tried: most have inches in a value without quotes.
    unusual = (begins == ends) == odd
    single = begins[odd]
    if not unusual.any() and (single[1:] != single[:-1]).all() and not (np.searchsorted(quotes, block.ends) % 2).any():
        return True
    single = np.flatnonzero(odd)
    same = np.flatnonzero(begins[single[1:]] == begins[single[:-1]])
    unusual[single[same]] = unusual[single[same + 1]] = True
    tried = np.flatnonzero((_within(first[unusual], block) > 0) | (_within(quotes, block) % 2 == 1)).tolist()
    reader = csv.reader((block.text(i).decode() for i in tried), delimiter=separator, strict=True)
    try:
        return sum(1 for _ in reader) == len(tried)
    except csv.Error:
        return False


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
        numbers: columns of texts -> which of their values are numbers in the file, Boolean [n].
        bare: columns of lists -> which of them are one text in the file, Boolean [n].
    """

    frame: pl.DataFrame
    bad: Bad
    absent: tuple[str, ...]
    keys: tuple[str, ...]
    numbers: Mapping[str, pl.Series] = field(default_factory=dict)
    bare: Mapping[str, pl.Series] = field(default_factory=dict)


def parse_jsonl(block: Records, columns: Sequence[str]) -> Parsed:
    """The wanted keys of JSON records; ``brand.name`` is a key of the object under another one.

    Raises:
        ValueError: a wanted key holds objects wherever it has a value.
    """
    # Polars reads a lone surrogate as the character 0, and its time and memory grow with keys nobody asked for.
    if _LONE_SURROGATE.search(block.data) or _is_costly(block):
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
        key = name if name == source else name.rpartition(".")[2]
        if _loses_digits(column) or _mixes_prices(column, block, key):
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


# Records of more objects and lists within each other, or of more keys, are read one by one.
_MOST_DEPTH: Final = 50
_MOST_KEYS: Final = 1000
# A table of all keys of a block may have so many cells beyond those that a look at some of its records shows.
_MOST_CELLS: Final = 100_000_000
_LOOKED_AT: Final = 512
_JSON_TEXT: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"')


def _is_costly(block: Records) -> bool:
    """Whether all keys of all records in one table are too much: nested too deep, or ever new ones."""
    data = np.frombuffer(block.data, np.uint8)[: block.ends[-1]]
    # Brackets and braces differ in one bit; an opening one begins one level at most.
    opened, colons = np.flatnonzero((data | 0x20) == ord("{")), np.flatnonzero(data == ord(":"))
    if (_within(colons, block) > _MOST_KEYS).any():
        return True
    deep = np.flatnonzero(_within(opened, block) > _MOST_DEPTH)
    return any(_depth(block.text(i)) > _MOST_DEPTH for i in deep.tolist()) or _has_ever_new_keys(block)


def _within(places: NDArray[np.int64], block: Records) -> NDArray[np.int64]:
    """How many of the ascending places in the data each record has, int64 [n]."""
    return np.asarray(np.searchsorted(places, block.ends) - np.searchsorted(places, block.starts), np.int64)


def _depth(record: bytes) -> int:
    """How many objects and lists are within each other at most."""
    signs = np.frombuffer(_JSON_TEXT.sub(b"", record), np.uint8) | 0x20
    return int(np.cumsum((signs == ord("{")).astype(np.int64) - (signs == ord("}")), dtype=np.int64).max(initial=0))


def _has_ever_new_keys(block: Records) -> bool:
    """Whether keys grow with the records, as where ids are keys: each would be a column of its own."""
    places = np.unique(np.linspace(0, len(block) - 1, min(_LOOKED_AT, len(block))).astype(np.int64)).tolist()
    keys: set[tuple[Any, ...]] = set()
    known = 0
    for number, i in enumerate(places):
        # What the first half has is usual; how much the second half adds tells of the rest.
        if number == len(places) // 2:
            known = len(keys)
        try:
            keys.update(_paths(json.loads(block.text(i)), ()))
        except (ValueError, RecursionError):
            continue  # broken ones are found when all are read
    more = (len(keys) - known) / max(1, len(places) - len(places) // 2) * len(block)
    return more * len(block) > _MOST_CELLS


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The keys of a value, each with those that it lies under."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            if isinstance(inner, dict | list):
                yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list):
                yield from _paths(inner, path)


def _loses_digits(column: pl.Series) -> bool:
    """Whether floats stand for whole numbers that they cannot hold: one fraction makes all numbers of a key floats."""
    numbers = column.explode() if isinstance(column.dtype, pl.List) else column
    largest: Any = numbers.abs().max() if numbers.dtype.is_float() else None
    return largest is not None and largest >= EXACT


def _mixes_prices(column: pl.Series, block: Records, key: str) -> bool:
    """Whether a key has numbers beside texts, and one of them could mean two prices if it were a text."""
    texts = column.explode() if isinstance(column.dtype, pl.List) else column
    if texts.dtype != pl.String or not texts.str.contains(SIGN_BEFORE_THREE).any():
        return False
    written = b"|".join(re.escape(json.dumps(key, ensure_ascii=ascii_only).encode()) for ascii_only in (True, False))
    return re.search(rb"(?:%b)\s*:\s*(?:\[\s*)?-?[0-9]" % written, block.data) is not None


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
            record = parse_json(block.text(i))
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
        for name, value in zip(columns, values, strict=True):
            filled[name] += value not in (None, [], "")
            if has_object(value):
                objects[name] += 1
                bad[i] = complaints[name] = object_complaint(name, value)
        if i not in bad and not _encodes(values):
            bad[i] = "lone surrogate: half a character, which no text can hold"
        if i not in bad:
            rows.append(values)
    # A key that never holds anything else is a mistake of the mapping, not of these records.
    for name, count in objects.items():
        if count == filled[name]:
            raise ValueError(complaints[name])
    read = {name: [row[place] for row in rows] for place, name in enumerate(columns)}
    made = {name: json_column(name, values) for name, values in read.items()}
    frame = pl.DataFrame([column for column, _ in made.values()])
    numbers = {name: are_numbers(values) for name, values in read.items()}
    bare = {name: texts for name, (_, texts) in made.items() if texts is not None}
    return Parsed(frame, bad, tuple(name for name in columns if name not in seen), tuple(keys), numbers, bare)


def _encodes(values: list[Any]) -> bool:
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
