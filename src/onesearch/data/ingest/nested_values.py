"""Values within objects: keys of JSON and of Parquet structs by a name with dots, such as ``brand.name``."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from onesearch.data.records import TEXTS


def plain_column(column: pl.Series, name: str) -> pl.Series:
    """A column as it can be read: texts, numbers, flags, times, or lists of texts, numbers and flags.

    ``name`` may go on behind the column's own name with keys of its objects; objects within lists give lists. Types
    that only some formats have become texts (bytes, categories) or numbers (decimals).

    Raises:
        ValueError: it holds objects, and the name says none of their keys; or lists of lists.
    """
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
        return _decoded(column).alias(name)
    readable = _readable(inner)
    return column.cast(pl.List(readable) if listed else readable, strict=False).alias(name)


def _decoded(column: pl.Series) -> pl.Series:
    """Bytes as texts; null where they are none."""

    def text(value: Any) -> Any:
        if value is None or isinstance(value, list):
            return value and [text(part) for part in value]
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None

    kind = TEXTS if column.dtype.is_nested() else pl.String()
    return pl.Series([text(value) for value in column.to_list()], dtype=kind)


def _readable(kind: Any) -> Any:
    if kind == pl.Decimal:
        return pl.Float64() if kind.scale else pl.String()
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


def cell_value(column: pl.Series, name: str, path: str) -> pl.Series:
    """What CSV cells that hold a JSON object say under a key (a path of keys, with dots); null in other cells."""
    found = [None if cell is None else dig(_parsed(cell), path.split(".")) for cell in column.to_list()]
    return json_column(name, found)


def _parsed(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return None


def dig(value: Any, path: Sequence[str]) -> Any:
    """The value under a path of keys; None if there is none. Of a list of objects, a list."""
    for place, key in enumerate(path):
        if isinstance(value, list):
            found = [dig(element, path[place:]) for element in value]
            return [element for element in found if element is not None]
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def json_column(name: str, values: Sequence[Any]) -> pl.Series:
    """Values of JSON as texts, or as lists of texts if any of them is a list."""
    if any(isinstance(value, list) for value in values):
        lists = [None if v is None else [_json_text(x) for x in (v if isinstance(v, list) else [v])] for v in values]
        return pl.Series(name, lists, dtype=TEXTS)
    return pl.Series(name, [_json_text(value) for value in values], dtype=pl.String)


def _json_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
