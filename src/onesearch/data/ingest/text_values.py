"""Texts, ids, lists of texts and attributes out of a file's columns, as expressions over a chunk of its rows."""

from collections.abc import Sequence

import polars as pl

from onesearch.data.records import ATTRIBUTES, TEXTS


def text(name: str | None, ignore: Sequence[str] = ()) -> pl.Expr:
    """A column as trimmed text; null when empty, when one of ``ignore``, or without a column."""
    if name is None:
        return pl.lit(None, pl.String)
    # A comparison with null is null, and `when` takes that for no.
    stripped = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when((stripped != "") & ~stripped.is_in(ignore)).then(stripped)


def identifier(frame: pl.DataFrame, name: str | None) -> pl.Expr:
    """As :func:`text`; float columns hold whole numbers, as pandas writes integers beside missing values."""
    if name is not None and frame.schema[name].is_float():
        return pl.col(name).cast(pl.Int64, strict=False).cast(pl.String)
    return text(name)


def texts(frame: pl.DataFrame, name: str | None, separator: str | None, ignore: Sequence[str] = ()) -> pl.Expr:
    """A column as a list of trimmed texts, those that are empty or in ``ignore`` left out.

    A list is taken as it is, a text is cut at the separator or, without one, is a list of one.
    """
    if name is None:
        return pl.lit([], TEXTS)
    # The parts, one list a row; then all of them trimmed and picked at once.
    kind = frame.schema[name]
    if isinstance(kind, pl.List):
        value = pl.element()  # ids in lists are floats for the same reason as in columns
        parts = pl.col(name).list.eval(value.cast(pl.Int64, strict=False) if kind.inner == pl.Float64 else value)
    else:
        column = pl.col(name).cast(pl.String)
        parts = pl.concat_list(column) if separator is None else column.str.split(separator)
    trimmed = pl.element().cast(pl.String).str.strip_chars()
    return parts.list.eval(trimmed.filter((trimmed != "") & ~trimmed.is_in(ignore))).fill_null([])


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
