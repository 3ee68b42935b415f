"""Numbers and prices out of a file's columns."""

import polars as pl


def number(name: str) -> pl.Expr:
    """A column as numbers, Float64; null where it holds none."""
    return pl.col(name).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)


def parse_prices(raw: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Prices of a column and what is wrong with them.

    Returns:
        ``price`` (Float64, null where missing or wrong) and ``problem`` (String, null where right or missing).
    """
    # Wrong is what says something and is no price: NaN and infinity are numbers to a parser, not to a shop.
    written = pl.col("raw").cast(pl.String).str.strip_chars()
    value = number("raw")
    right = value.is_finite() & (value >= 0)
    frame = pl.DataFrame({"raw": raw}).select(price=pl.when(right).then(value), present=written != "")
    problem = pl.when(pl.col("price").is_null() & pl.col("present")).then(pl.lit("not a number, or negative"))
    return frame["price"], frame.select(problem.alias("problem"))["problem"]
