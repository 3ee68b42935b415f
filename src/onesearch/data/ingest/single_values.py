"""Columns that have one value a row: what stands in them in place of one, and what becomes of such rows."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

import polars as pl

from onesearch.data.ingest.text_values import OBJECT

A_LIST: Final = "a list where one value belongs"
AN_OBJECT: Final = "an object where one value belongs"
# (our name, what its column has in place of one value) -> the rows that have it, Boolean [n]
NoValues = dict[tuple[str, str], pl.Series]


def single_values(frame: pl.DataFrame, columns: Mapping[str, str | None]) -> tuple[pl.DataFrame, NoValues]:
    """The frame with one value a row in the given columns: of a list with one value that value, else null.

    An object that is written out as a text is no value either, but of a query, which is what somebody typed.

    Args:
        frame: rows of a file, [n].
        columns: our name -> column of the file.

    Returns:
        The frame, and where there was no single value.
    """
    values: dict[str, pl.Series] = {}
    wrong: NoValues = {}
    for ours, name in columns.items():
        if name is None:
            continue
        column = frame[name]
        # Lists: their only value.
        if isinstance(column.dtype, pl.List):
            lists = column.list.drop_nulls()
            several = (lists.list.len() > 1).fill_null(False)
            column = values[name] = lists.list.first().set(several, None).alias(name)
            if several.any():
                wrong[ours, A_LIST] = several
        # Texts: no objects.
        if column.dtype == pl.String and ours != "query":
            written = column.str.contains(OBJECT).fill_null(False)
            if written.any():
                values[name] = column.set(written, None)
                wrong[ours, AN_OBJECT] = written
    return frame.with_columns(values.values()), wrong


def refused_values(wrong: NoValues, needed: Collection[str]) -> dict[str, pl.Series]:
    """Reasons to set rows aside that have no single value in columns that a row cannot do without."""
    return {f"{what}: {name}": rows for (name, what), rows in wrong.items() if name in needed}


def emptied_values(wrong: NoValues, needed: Collection[str]) -> Counter[str]:
    """Those in the other columns, which count as values left empty; all levels of a category are one column."""
    counts = Counter[str]()
    for (name, what), rows in wrong.items():
        if name not in needed:
            counts[f"{name.partition(' ')[0]}: {what}"] += int(rows.sum())
    return counts
