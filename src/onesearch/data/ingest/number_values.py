"""Numbers and prices out of a file's columns."""

from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

Decimal = Literal[".", ","]


def number(name: str) -> pl.Expr:
    """A column as numbers, Float64; null where it holds none."""
    return pl.col(name).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)


@dataclass(frozen=True)
class Prices:
    """Prices of a column, [n] each.

    Attributes:
        price: Float64; null where missing or wrong.
        problem: what is wrong, String; null where right or missing.
        ambiguous: "1.050": whether the sign parts thousands, only the mapping could say.
    """

    price: pl.Series
    problem: pl.Series
    ambiguous: pl.Series


# A number that could mean two prices if it were a text.
SIGN_BEFORE_THREE: Final = r"^[1-9]\d{0,2}[.,]\d{3}$"
# What may stand on one side of a price: a currency's sign, its code in capitals, or its usual word. Signs of a
# hundredth or thousandth (cent, pfennig, mill) are none: the amount would be a hundred times too high.
_CODE: Final = (
    r"[\p{Sc}--¢₰₥]|[A-Z]{3}|[A-Z]{1,2}\$|(?i:eur|usd|gbp|chf|euros?|dollars?|kr|zł|zl|pln|rs|inr|руб|р|лв|kč|kc|ft|lei|tl|元|円|圆|원|"
    r"cny|rmb|jpy|sek|nok|dkk|грн)\.?"
)
# Digits in groups of three or without groups, and what parts them; a comma and a dash ("12,-") mean no cents.
_NUMBER: Final = r"[0-9][0-9.,' ]*"
_WRITTEN: Final = rf"^(?:{_CODE})?\s*([+-]?)\s*(?:{_CODE})?\s*({_NUMBER}?)(?:[.,][-–—]{{1,2}})?\s*(?:{_CODE})?$"


def parse_prices(raw: pl.Series, decimal: Decimal | None = None, numbers: pl.Series | None = None) -> Prices:
    """Prices of a column: numbers, or texts with a currency and with signs that part thousands.

    Of two kinds of signs the last one is the decimal sign ("1.299,00", "1,299.00"). A single one before other than
    three digits is, too ("9,99", "24.90"). One before exactly three ("1.050") is what ``decimal`` says; without it
    a point is the decimal sign, a comma parts thousands, and the value is marked ambiguous.

    Args:
        raw: the column, [n].
        decimal: the sign before the cents.
        numbers: which values of a column of texts are numbers in the file, Boolean [n]: there a point is that sign.
    """
    text = raw.cast(pl.String).str.strip_chars()
    # What is plain needs no second look, which takes ten times as long.
    plain = pl.repeat(True, len(raw), dtype=pl.Boolean, eager=True)
    if not raw.dtype.is_numeric():
        plain = text.str.contains(r"^(?:\d+(?:\.\d{1,2})?)?$").fill_null(True)
        plain = plain if numbers is None else plain | numbers
    value = (raw if raw.dtype.is_numeric() else text.set(~plain, None)).cast(pl.Float64, strict=False)
    ambiguous = pl.repeat(False, len(raw), dtype=pl.Boolean, eager=True)
    if not plain.all():
        read = _written_prices(text.filter(~plain), decimal)
        rows = (~plain).arg_true()
        value, ambiguous = value.scatter(rows, read["value"]), ambiguous.scatter(rows, read["ambiguous"])
    # NaN and infinity are numbers to a parser, not to a shop.
    frame = pl.DataFrame({"value": value, "present": (text != "").fill_null(False)})
    right = pl.col("value").is_finite() & (pl.col("value") >= 0)
    frame = frame.with_columns(price=pl.when(right).then("value"))
    problem = pl.when(pl.col("price").is_null() & pl.col("present")).then(pl.lit("not a number, or negative"))
    return Prices(frame["price"], frame.select(problem.alias("problem"))["problem"], ambiguous)


def _written_prices(texts: pl.Series, decimal: Decimal | None) -> pl.DataFrame:
    """``value`` (Float64, null where the text is no price) and ``ambiguous`` of texts [n]."""
    # Compatibility forms: wide digits, unbroken blanks. "’" parts thousands in Switzerland, "−" is a minus.
    text = pl.col("text").str.normalize("NFKC").str.strip_chars()
    text = text.str.replace_all("[’`´]", "'").str.replace_all("[\u2212\u2010\u2011]", "-")
    written = pl.DataFrame({"text": texts}).select(
        power=text.str.extract(r"^([+-]?\d+(?:\.\d+)?[eE][+-]?\d+)$", 1),
        sign=text.str.extract(_WRITTEN, 1),
        digits=text.str.extract(_WRITTEN, 2).str.strip_chars(),
    )
    frame = written.select("power", "sign", _without_groups("digits", decimal)).unnest("read")
    value = pl.coalesce(pl.col("power"), pl.col("sign") + pl.col("read_digits")).cast(pl.Float64, strict=False)
    return frame.select(value=value, ambiguous=pl.col("ambiguous").fill_null(False))


def _without_groups(name: str, decimal: Decimal | None) -> pl.Expr:
    """Digits as Python writes numbers, and whether their form is ambiguous, as a struct ``read``."""
    digits = pl.col(name)
    # Blanks and apostrophes part thousands only.
    grouped = digits.str.contains(r"^\d{1,3}(?:[ ']\d{3})+(?:[.,]\d*)?$")
    plain = pl.when(grouped).then(digits.str.replace_all("[ ']", "")).otherwise(digits)
    # Which of the forms it has (lakhs, "1,00,000", too); a form that no shop writes ("1,2,3") has none.
    cents_after_comma = plain.str.contains(r"^(?:\d+|\d{1,3}(?:\.\d{3})+),\d*$")
    cents_after_point = plain.str.contains(r"^(?:\d+|\d{1,3}(?:,\d{2,3})*,\d{3})\.\d*$")
    one_sign = plain.str.contains(SIGN_BEFORE_THREE) & ~grouped
    comma = pl.when(one_sign).then(plain.str.contains(",") & (decimal == ",")).otherwise(cents_after_comma)
    point = pl.when(one_sign).then(plain.str.contains(r"\.") & (decimal != ",")).otherwise(cents_after_point)
    whole = plain.str.contains(r"^(?:\d+|\d{1,3}(?:\.\d{3})+|\d{1,3}(?:,\d{2,3})*,\d{3})$")
    read = (
        pl.when(comma)
        .then(plain.str.replace_all(r"\.", "").str.replace(",", "."))
        .when(point)
        .then(plain.str.replace_all(",", ""))
        .when(whole)
        .then(plain.str.replace_all("[.,]", ""))
    )
    ambiguous = one_sign if decimal is None else pl.lit(False)
    return pl.struct(read_digits=read, ambiguous=ambiguous).alias("read")
