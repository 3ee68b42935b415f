"""Values within objects: keys of JSON and of Parquet structs by a name with dots, such as ``brand.name``."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple

import polars as pl
import pyarrow as pa

from onesearch.data.records import TEXTS

# (column, why) -> values that are in the file and that no text or number could be made of.
Lost = Counter[tuple[str, str]]
_CALENDAR: Final = (date(1, 1, 2), date(9999, 12, 30))  # a day less on both sides, for any zone
_SECOND: Final = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def plain_column(column: pl.Series, name: str, lost: Lost | None = None) -> pl.Series:
    """A column as it can be read: texts, numbers, flags, times, or lists of texts, numbers and flags.

    ``name`` may go on behind the column's own name with keys of its objects; objects within lists give lists. Types
    that only some formats have become texts (bytes, categories); decimals keep their digits. NaN is no value.

    Args:
        column: as it is in the file, [n].
        name: of the wanted values.
        lost: gets the number of values that cannot be read, which become null.

    Raises:
        ValueError: it holds objects, and the name says none of their keys; or lists of lists; or what is no value.
    """
    lost = Lost() if lost is None else lost
    path = name[len(column.name) + 1 :].split(".") if name != column.name else []
    for key in path:
        column = _within(column, key, name)
    kind = column.dtype
    listed = isinstance(kind, pl.List | pl.Array)
    inner: Any = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
    if isinstance(inner, pl.Struct):
        keys = [field.name for field in inner.fields]
        raise ValueError(_object(name, keys))
    if isinstance(inner, pl.List | pl.Array):
        raise ValueError(f"the column {name!r} holds lists of lists; map a column of values or of lists")
    if inner == pl.Binary:
        return _decoded(column, name, lost).alias(name)
    # Before any cast, which of a moment outside the calendar ends the process with a panic.
    if listed and (keep := _possible(pl.element(), inner)) is not None:
        kept = column.cast(pl.List(inner)).list.eval(pl.element().filter(keep))
    elif not listed and (keep := _possible(pl.col(column.name), inner)) is not None:
        kept = column.to_frame().select(pl.when(keep).then(pl.col(column.name))).to_series()
    else:
        kept = column
    if inner.is_temporal():
        lost[name, "outside the calendar"] += _values(column) - _values(kept)
    readable = _readable(inner)
    try:
        return kept.cast(pl.List(readable) if listed else readable, strict=False).alias(name)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"the column {name!r} holds {inner}; write it as texts or numbers") from error


def _possible(value: pl.Expr, kind: Any) -> pl.Expr | None:
    """Where values are any: within the calendar, no NaN; None for types whose values all are."""
    if kind.is_float():
        return ~value.is_nan()
    first, last = ((day - date(1970, 1, 1)).days for day in _CALENDAR)
    if isinstance(kind, pl.Datetime):
        # 292 years are all that nanoseconds can hold.
        scale = 86_400 * _SECOND[kind.time_unit]
        first, last = max(first * scale, -(2**63)), min(last * scale, 2**63 - 1)
    return value.to_physical().is_between(first, last) if isinstance(kind, pl.Date | pl.Datetime) else None


def _values(column: pl.Series) -> int:
    """How many values a column, or its lists, have."""
    flat = column.explode() if column.dtype.is_nested() else column
    return len(flat) - flat.null_count()


def unreadable_type(kind: Any) -> str | None:
    """The Arrow type within a type that polars cannot take over; None where it can take all."""
    if pa.types.is_decimal256(kind) or pa.types.is_union(kind) or pa.types.is_interval(kind):
        return str(kind)
    inner = (kind.field(number).type for number in range(kind.num_fields))
    return next((found for part in inner if (found := unreadable_type(part))), None)


def _decoded(column: pl.Series, name: str, lost: Lost) -> pl.Series:
    """Bytes as texts; null where they are none."""

    def text(value: Any) -> Any:
        if value is None or isinstance(value, list):
            return value and [text(part) for part in value]
        try:
            return value.decode()
        except UnicodeDecodeError:
            lost[name, "bytes that are not UTF-8"] += 1
            return None

    kind = TEXTS if column.dtype.is_nested() else pl.String()
    return pl.Series([text(value) for value in column.to_list()], dtype=kind)


def _readable(kind: Any) -> Any:
    if kind == pl.Decimal:
        return kind if kind.scale else pl.String()
    if kind.is_numeric() or kind in (pl.Boolean, pl.Date) or isinstance(kind, pl.Datetime):
        return kind
    return pl.String()


def _within(column: pl.Series, key: str, name: str) -> pl.Series:
    """The values of a key of a column's objects."""
    kind = column.dtype
    listed = isinstance(kind, pl.List)
    inner: Any = kind.inner if isinstance(kind, pl.List) else kind
    keys = [field.name for field in inner.fields] if isinstance(inner, pl.Struct) else []
    if key not in keys:
        there = f"has the keys {', '.join(map(repr, keys))}" if keys else "holds no objects"
        raise ValueError(f"no {name!r}: {column.name!r} {there}")
    return column.list.eval(pl.element().struct.field(key)) if listed else column.struct.field(key)


class CellValues(NamedTuple):
    """What CSV cells say under a key of their objects.

    ``values`` texts, or lists of texts and ``bare`` which of them are a text in the file; ``numbers`` which are numbers
    in the file; ``there`` whether any cell has the key, and ``keys`` those that the cells' objects have.
    """

    values: pl.Series
    bare: pl.Series | None
    numbers: pl.Series
    there: bool
    keys: tuple[str, ...]


def cell_values(column: pl.Series, name: str, path: str, lost: Lost) -> CellValues:
    """What CSV cells that hold a JSON object say under a key (a path of keys, with dots); null in other cells.

    ``lost`` gets the number of cells that hold something else.
    """
    found: list[Any] = []
    there, keys = False, dict[str, None]()
    for cell in column.to_list():
        parsed = None if cell is None or not cell.strip() else _parsed(cell)
        value = dig(parsed, path.split("."))
        for one in parsed if isinstance(parsed, list) else [parsed]:
            keys |= dict.fromkeys(one if isinstance(one, dict) else ())
        there = there or value not in (None, []) or _has_key(parsed, path.split("."))
        if not (parsed is None or isinstance(parsed, dict | list)):
            lost[name, "a cell that holds no JSON object"] += 1
        elif has_object(value):
            lost[name, "an object, or a list of lists"] += 1
            value = None
        found.append(value)
    return CellValues(*json_column(name, found), are_numbers(found), there, tuple(keys))


def _has_key(value: Any, path: Sequence[str]) -> bool:
    """Whether objects have a path of keys, also where nothing stands under it."""
    holders = dig(value, path[:-1]) if path[:-1] else value
    some = holders if isinstance(holders, list) else [holders]
    return any(isinstance(one, dict) and path[-1] in one for one in some)


def _parsed(cell: str) -> Any:
    """A cell as JSON; the text itself where it is none."""
    try:
        return parse_json(cell)
    except (ValueError, RecursionError):
        return cell


def parse_json(text: str | bytes) -> Any:
    """JSON whose numbers are texts as they are written, :class:`JsonNumber`.

    Raises:
        ValueError, RecursionError: it is none.
    """
    return json.loads(text, parse_int=JsonNumber, parse_float=JsonNumber.from_fraction, parse_constant=_constant)


def _constant(word: str) -> "JsonNumber | None":
    """What Python writes of floats that JSON does not know: NaN is how pandas writes that there is none."""
    return None if word == "NaN" else JsonNumber(word)


def dig(value: Any, path: Sequence[str]) -> Any:
    """The value under a path of keys; None if there is none. Of a list of objects, a list."""
    for place, key in enumerate(path):
        if isinstance(value, list):
            # A list within a list is no value whatever it holds; it may be nested deeper than Python's calls can be.
            found = [element if isinstance(element, list) else dig(element, path[place:]) for element in value]
            return [element for element in found if element is not None]
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


class JsonNumber(str):
    """A number of JSON as a text: whole ones in all their digits, which floats do not have, and told from texts."""

    __slots__ = ()

    @classmethod
    def from_fraction(cls, written: str) -> "JsonNumber":
        """A number with a fraction or an exponent: 3.0 is 3, one that a float cannot hold stays as written."""
        number = float(written)
        if not abs(number) < EXACT:
            return cls(written)
        return cls(int(number) if number.is_integer() else repr(number))


# From here on floats leave out whole numbers.
EXACT: Final = 2.0**53


def json_column(name: str, values: Sequence[Any]) -> tuple[pl.Series, pl.Series | None]:
    """Values of JSON as texts, or as lists of texts if any of them is a list; then also which are one text, in a list.

    What a text beside lists means, a list written out or a value, is for its reader to tell.
    """
    if not any(isinstance(value, list) for value in values):
        return pl.Series(name, [_json_text(value) for value in values], dtype=pl.String), None
    lists = [None if v is None else [_json_text(x) for x in (v if isinstance(v, list) else [v])] for v in values]
    bare = pl.Series([isinstance(value, str) for value in values], dtype=pl.Boolean)
    return pl.Series(name, lists, dtype=TEXTS), bare if bare.any() else None


def _json_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def are_numbers(values: Sequence[Any]) -> pl.Series:
    """Which values of JSON are a number, or a list of one, Boolean [n]."""
    ones = (value[0] if isinstance(value, list) and len(value) == 1 else value for value in values)
    return pl.Series([isinstance(value, JsonNumber) for value in ones], dtype=pl.Boolean)


def has_object(value: Any) -> bool:
    """Whether a value of JSON is an object or holds one, or is a list of lists: nothing that a column could hold."""
    if isinstance(value, list):
        return any(isinstance(element, dict | list) for element in value)
    return isinstance(value, dict)


def _object(name: str, keys: Sequence[str]) -> str:
    return f"the column {name!r} holds objects; map one of their keys: {', '.join(f'{name}.{key}' for key in keys)}"


def object_complaint(name: str, value: Any) -> str:
    """What is wrong with a value that :func:`has_object`."""
    keys = value if isinstance(value, dict) else next((v for v in value if isinstance(v, dict)), None)
    if keys is None:
        return f"the column {name!r} holds lists of lists; map a column of values or of lists"
    return _object(name, list(keys))
