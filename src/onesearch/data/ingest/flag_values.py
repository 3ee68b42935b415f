"""Yes and no out of a file's columns."""

from typing import Final

import polars as pl

# Files that went through a table of floats say 1.0 for yes.
YES: Final = ("1", "1.0", "true", "t", "yes", "y")
NO: Final = ("0", "0.0", "false", "f", "no", "n")


def flag(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column as Boolean, written in any case; null for other words."""
    if frame.schema[name] == pl.Boolean:
        return pl.col(name)
    word = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
    return pl.when(word.is_in([*YES, *NO])).then(word.is_in(YES))
