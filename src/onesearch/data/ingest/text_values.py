"""Texts, ids, lists of texts and attributes out of a file's columns, as expressions over a chunk of its rows."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from onesearch.data.ingest.nested_values import has_object, parse_json
from onesearch.data.records import ATTRIBUTES, TEXTS


def text(name: str | None, ignore: Sequence[str] = ()) -> pl.Expr:
    """A column as trimmed text; null when empty, when one of ``ignore``, or without a column."""
    if name is None:
        return pl.lit(None, pl.String)
    # A comparison with null is null, and `when` takes that for no.
    stripped = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when((stripped != "") & ~stripped.is_in(ignore)).then(stripped)


def identifier(frame: pl.DataFrame, name: str | None) -> pl.Expr:
    """As :func:`text`; columns of floats and decimals hold whole numbers, as pandas and databases write integers."""
    if name is not None and (frame.schema[name].is_float() or frame.schema[name].is_decimal()):
        return _id_text(pl.col(name), frame.schema[name])
    return text(name)


def _id_text(value: pl.Expr, kind: Any) -> pl.Expr:
    """Whole numbers without ".0"; a fraction is not cut off, or two ids would be one. NaN and infinities are none."""
    if kind.is_float():
        whole = value.cast(pl.Int64, strict=False)
        said = pl.when(whole == value).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))
        return pl.when(value.is_finite()).then(said)
    if kind.is_decimal():
        # By their digits: floats hold whole numbers up to sixteen digits only.
        digits = value.cast(pl.String)
        short = digits.str.strip_chars_end("0").str.strip_suffix(".")
        return pl.when(digits.str.contains(".", literal=True)).then(short).otherwise(digits)
    return value.cast(pl.String)


# A list as a text: JSON's, Python's, or bare; its values in quotes or without.
_LIST: Final = r"(?s)^\s*\[.*\]\s*$"
_VALUES: Final = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,\[\]'"][^,\[\]]*)""")
# An object as a text: JSON's or Python's.
OBJECT: Final = r"""(?s)^\s*\{\s*(?:(?:"[^"]*"|'[^']*')\s*:.*)?\}\s*$"""
_OBJECTS: Final = re.compile(r"^\s*\[(?:.*,)?\s*\{\s*['\"]", re.DOTALL)


def texts(frame: pl.DataFrame, name: str | None, separator: str | None, ignore: Sequence[str] = ()) -> pl.Expr:
    """A column as a list of trimmed texts, those that are empty or in ``ignore`` left out.

    A list is taken as it is, and so is a text that is a list written out (``["a", "b"]``); of an object written out
    nothing is taken; another text is cut at the separator or, without one, is a list of one.
    """
    if name is None:
        return pl.lit([], TEXTS)
    # The parts, one list a row; then all of them trimmed and picked at once.
    kind = frame.schema[name]
    if isinstance(kind, pl.List):
        # Ids in lists are floats for the same reason as in columns.
        parts = pl.col(name).list.eval(_id_text(pl.element(), kind.inner))
    else:
        column = pl.col(name).cast(pl.String)
        cut = pl.concat_list(column) if separator is None else column.str.split(separator)
        listed = column.map_batches(_written_lists, return_dtype=TEXTS)
        empty = pl.lit([], TEXTS)
        parts = pl.when(column.str.contains(_LIST)).then(listed)
        parts = parts.when(column.str.contains(OBJECT)).then(empty).otherwise(cut)
    trimmed = pl.element().str.strip_chars()
    return parts.list.eval(trimmed.filter((trimmed != "") & ~trimmed.is_in(ignore))).fill_null([])


def cut_texts(frame: pl.DataFrame, bare: Mapping[str, pl.Series], separators: Mapping[str, str | None]) -> pl.DataFrame:
    """The frame whose columns of lists have the values of what is one text in the file, as :func:`texts` reads texts.

    Args:
        frame: rows of a file, [n].
        bare: columns of lists -> which of them are one text, Boolean [n].
        separators: columns that are read as lists -> what their texts are cut at.
    """
    for name in separators.keys() & bare.keys():
        if isinstance(frame.schema[name], pl.List):
            lone = bare_texts(frame, name, bare)
            cut = lone.to_frame().select(texts(lone.to_frame(), name, separators[name]))[name]
            frame = frame.with_columns(frame[name].zip_with(~bare[name], cut.cast(frame.schema[name])).alias(name))
    return frame


def bare_texts(frame: pl.DataFrame, name: str, bare: Mapping[str, pl.Series]) -> pl.Series:
    """What is one text in a column: null where the file has a list."""
    column = frame[name]
    if not isinstance(column.dtype, pl.List):
        return column
    if name not in bare:
        return pl.Series(name, [None] * len(column), dtype=pl.String)
    return column.list.first().cast(pl.String).set(~bare[name], None).alias(name)


def _written_lists(column: pl.Series) -> pl.Series:
    """The values of the texts of a column that are lists written out; null for the others."""
    found: list[list[str] | None] = [None] * len(column)
    for row in column.str.contains(_LIST).fill_null(False).arg_true().to_list():
        found[row] = _written_list(column[row])
    return pl.Series(column.name, found, dtype=TEXTS)


def _written_list(text: str) -> list[str]:
    """The values of a list written out.

    >>> _written_list("['a', 'b c']"), _written_list('["a", 7]'), _written_list("[7, 8]"), _written_list("[7 8]")
    (['a', 'b c'], ['a', '7'], ['7', '8'], ['7 8'])
    """
    try:
        values = parse_json(text)
    except (ValueError, RecursionError):
        # Python's way of writing objects: their keys are no values.
        if _OBJECTS.search(text):
            return []
        # A quote or backslash of the text's own has a backslash before it.
        found = (single or double or bare for single, double, bare in _VALUES.findall(text))
        return [re.sub(r"\\(.)", r"\1", value) for value in found]
    flat = [value for value in values if value is not None and not isinstance(value, list | dict)]
    return [value if isinstance(value, str) else json.dumps(value) for value in flat]


def lost_in_lists(column: pl.Series) -> int:
    """How many of a column's texts are objects, or lists that hold objects or lists, written out; they are left out."""
    if column.dtype != pl.String:
        return 0
    objects = int(column.str.contains(OBJECT).sum())
    rows = column.filter(column.str.contains(_LIST) & column.str.contains(r"(?s)\[.*[\[{]"))
    return objects + sum(_holds_more_than_values(text) for text in rows.to_list())


def _holds_more_than_values(text: str) -> bool:
    try:
        return has_object(parse_json(text))
    except (ValueError, RecursionError):
        return _OBJECTS.search(text) is not None


def attributes(
    frame: pl.DataFrame, columns: Sequence[tuple[str, str, str | None]], ignore: Sequence[str] = ()
) -> pl.Expr:
    """Attribute columns, each (attribute type, column, separator), as one list of (type, value) pairs a row."""
    if not columns:
        return pl.lit([], ATTRIBUTES)
    pairs = [
        texts(frame, name, separator, ignore).list.eval(
            pl.struct(pl.lit(kind).alias("type"), pl.element().alias("value"))
        )
        for kind, name, separator in columns
    ]
    return pl.concat_list(pairs)
