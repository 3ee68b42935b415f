"""The text of an item that searchers and encoders read: chosen columns, without saying the same twice."""

from collections.abc import Sequence
from typing import Final

import polars as pl

FIELDS: Final = ("title", "brand", "category", "attributes", "seller")


def item_texts(items: pl.DataFrame, fields: Sequence[str] = ("title", "brand")) -> list[str]:
    """One text per item out of the given columns; a value that the text holds already is not repeated.

    ``category`` is the path, ``attributes`` all attribute values.

    Raises:
        ValueError: a field is not a text column of the item table.
    """
    unknown = [field for field in fields if field not in FIELDS]
    if unknown:
        raise ValueError(f"unknown item text field {unknown[0]!r}; choose from {', '.join(FIELDS)}")
    values = {
        "title": pl.concat_list(pl.col("title").fill_null("")),
        "brand": pl.concat_list(pl.col("brand").fill_null("")),
        "seller": pl.concat_list(pl.col("seller").fill_null("")),
        "category": pl.col("category"),
        "attributes": pl.col("attributes").list.eval(pl.element().struct.field("value")),
    }
    columns = [items.select(values[field]).to_series().to_list() for field in fields]
    return [_joined([value for part in parts for value in part or ()]) for parts in zip(*columns, strict=True)]


def _joined(values: Sequence[str | None]) -> str:
    text = folded = ""
    for value in values:
        if value and f" {value.casefold()} " not in f" {folded} ":
            text = f"{text} {value}" if text else value
            folded = text.casefold()
    return text
