"""Times of any unit to UTC, with a word on what is wrong when they cannot be right."""

from datetime import UTC, datetime
from typing import Literal, Self

import polars as pl
from pydantic import field_validator, model_validator

from onesearch.common.settings import Settings
from onesearch.data.records import TIME

Unit = Literal["text", "s", "ms", "us", "ns"]
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# Microseconds per unit.
_TO_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}


class TimeFormat(Settings):
    """How a file writes times.

    Attributes:
        unit: "text" for dates written out, else the unit of a number.
        format: strftime pattern of "text"; without one, ISO 8601 with or without fractions and zone.
        zone: of texts without their own.
        origin: the moment that the number 0 stands for.
        earliest, latest: years outside of which a time is taken for an error, in [earliest, latest).
    """

    unit: Unit = "text"
    format: str | None = None
    zone: str = "UTC"
    origin: datetime = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    earliest: int = 1995
    latest: int = 2100

    @field_validator("origin")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.format is not None and self.unit != "text":
            raise ValueError(f"format: {self.format!r} goes with unit: text, not with unit: {self.unit}")
        if self.earliest >= self.latest:
            raise ValueError(f"earliest must be before latest, got {self.earliest} and {self.latest}")
        return self


def parse_times(raw: pl.Series, wanted: TimeFormat) -> tuple[pl.Series, pl.Series]:
    """Times of a column and what is wrong with them.

    Returns:
        ``time`` (Datetime us UTC, null where missing or wrong) and ``problem`` (String, null where right or missing).
    """
    # The time, if the values can be read as one, and the number, if they are numbers.
    frame = pl.DataFrame({"raw": raw})
    if raw.dtype.is_temporal():
        time = _zoned(
            pl.col("raw"), wanted.zone, isinstance(raw.dtype, pl.Datetime) and raw.dtype.time_zone is not None
        )
        number = pl.lit(None, pl.Float64)
    else:
        number = pl.col("raw").cast(pl.Float64, strict=False)
        time = (
            _from_text(pl.col("raw").cast(pl.String), wanted)
            if wanted.unit == "text"
            else _from_number(number, wanted.unit, wanted.origin)
        )
    frame = frame.select("raw", time=time, number=number)
    # Read, but in a year that cannot be: most often a wrong unit.
    inside = pl.col("time").dt.year().is_between(wanted.earliest, wanted.latest, closed="left")
    present = pl.col("raw").is_not_null()
    frame = frame.with_columns(wrong=present & ~inside.fill_null(False))
    problem = pl.when("wrong").then(_explanation(wanted)) if frame["wrong"].any() else pl.lit(None, pl.String)
    frame = frame.select(pl.when(~pl.col("wrong")).then("time").alias("time"), problem.alias("problem"))
    return frame["time"], frame["problem"]


def _explanation(wanted: TimeFormat) -> pl.Expr:
    """What is wrong with a time: the unit, if another one would make it right, else the year or all of it."""
    shown = pl.col("raw").cast(pl.String)
    # Try each other unit: the first that puts the number into a possible year is most likely the right one.
    said = []
    for unit, name in _NAMES.items():
        if unit == wanted.unit:
            continue
        year = _from_number(pl.col("number"), unit, wanted.origin).dt.year()
        fits = year.is_between(wanted.earliest, wanted.latest, closed="left").fill_null(False)
        hint = f"wrong time unit, looks like {name} but the mapping says unit {wanted.unit}: "
        said.append(pl.when(fits).then(pl.lit(hint) + shown))
    readable = pl.col("time").is_not_null() | pl.col("number").is_not_null()
    outside = pl.lit(f"time not within {wanted.earliest} to {wanted.latest}: ") + shown
    return pl.coalesce(*said, pl.when(readable).then(outside).otherwise(pl.lit("time not readable: ") + shown))


def _from_number(number: pl.Expr, unit: str, origin: datetime) -> pl.Expr:
    microseconds = number * _TO_US[unit] + origin.timestamp() * 1e6
    # Far outside int64 and the calendar nothing can be a time; beyond it polars itself would fail.
    possible = microseconds.is_between(-6e16, 2.5e17)
    return pl.when(possible).then(microseconds).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


# Written dates without a zone, tried in this order.
_NAIVE = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d")


def _from_text(text: pl.Expr, wanted: TimeFormat) -> pl.Expr:
    """Written dates as UTC: by the mapping's pattern, else by the first of the usual ones that fits."""
    if wanted.format is not None:
        # A pattern with a zone says its own; polars then gives UTC at once.
        if "%z" in wanted.format or "%#z" in wanted.format:
            return text.str.to_datetime(wanted.format, time_unit="us", strict=False).cast(TIME)
        return _zoned(text.str.to_datetime(wanted.format, time_unit="us", strict=False), wanted.zone, False)
    # Without a zone of its own a text matches one of the naive patterns only, with one only the others.
    zoned = text.str.replace(r"[Zz]$", "+00:00")
    with_zone = [
        zoned.str.to_datetime(p, time_unit="us", strict=False).cast(TIME)
        for p in ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z")
    ]
    naive = pl.coalesce(text.str.to_datetime(pattern, time_unit="us", strict=False) for pattern in _NAIVE)
    return pl.coalesce(_zoned(naive, wanted.zone, False), *with_zone)


def _zoned(time: pl.Expr, zone: str, has_zone: bool) -> pl.Expr:
    """A time as UTC, taken for one of ``zone`` if it has none of its own."""
    if has_zone:
        return time.cast(TIME)
    # An hour that happens twice is the first of the two; one that the clock leaves out is no time.
    local = time.cast(pl.Datetime("us")).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")
