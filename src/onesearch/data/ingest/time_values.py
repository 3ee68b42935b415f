"""Times of any unit to UTC, with a word on what is wrong when they cannot be right."""

import re
from datetime import UTC, datetime
from typing import Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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
        format: strftime pattern of "text"; without one, ISO 8601 in its usual forms ("2024-05-01T10:00Z", "20240501",
            "2024-05-01 10:00:00.5 UTC").
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

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"unknown time zone {value!r}; say for example Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.format is not None and self.unit != "text":
            raise ValueError(f"format: {self.format!r} goes with unit: text, not with unit: {self.unit}")
        if self.format is not None:
            self._check_zone_of(self.format)
        if self.earliest >= self.latest:
            raise ValueError(f"earliest must be before latest, got {self.earliest} and {self.latest}")
        return self

    def _check_zone_of(self, pattern: str) -> None:
        """Refuse a format whose times have a zone that would be read over: they would be hours off."""
        if "%Z" in _directives(pattern):
            raise ValueError(
                f"format: {pattern!r}: %Z, a zone's letters, says nothing that can be relied on; where all times have "
                'the same letters, write these in the place of %Z and set zone, such as "America/New_York"; '
                "a zone in numbers, such as +02:00, is %:z"
            )
        # Letters that stand in the format itself.
        letters = re.search(r"(?<![A-Za-z])(Z|[A-Z]{3,5})\s*$", _DIRECTIVE.sub("0", pattern))
        if letters is None or has_zone(pattern):
            return
        if letters[1] in _UTC_LETTERS and self.zone not in _UTC_ZONES:
            raise ValueError(f"format: {pattern!r} ends in {letters[1]}, which is UTC, but zone is {self.zone!r}")
        if letters[1] not in _UTC_LETTERS and "zone" not in self.model_fields_set:
            raise ValueError(f'format: {pattern!r} ends in {letters[1]}; set zone to what that is, as "Europe/Berlin"')


# What begins with "%" in a format: a sign, perhaps with one for how it is filled up, or several as of "%:z".
_DIRECTIVE: Final = re.compile(r"%(?:%|#z|:{1,3}z|\.?[369]?f|[-_0]?[A-Za-z+])")
_UTC_LETTERS: Final = ("Z", "UTC", "GMT")
_UTC_ZONES: Final = ("UTC", "GMT", "UCT", "Zulu", "Universal", "Greenwich", "Etc/UTC", "Etc/GMT", "Etc/UCT", "Etc/Zulu")


def _directives(pattern: str) -> list[str]:
    return _DIRECTIVE.findall(pattern)


def has_zone(pattern: str) -> bool:
    """Whether times of a format say their own zone, as those with %z do, or are moments, as seconds since 1970 are."""
    return any(sign in ("%+", "%s") or sign.endswith("z") for sign in _directives(pattern))


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
        number = pl.col("raw").cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
        text = raw.cast(pl.String).str.strip_chars()
        time = (
            pl.lit(_from_texts(text, wanted))
            if wanted.unit == "text"
            else _from_number(number, wanted.unit, wanted.origin)
        )
    frame = frame.select("raw", time=time, number=number)
    # Read, but in a year that cannot be: most often a wrong unit.
    inside = pl.col("time").dt.year().is_between(wanted.earliest, wanted.latest, closed="left")
    # A blank text says nothing, as null does.
    present = pl.col("raw").cast(pl.String).str.strip_chars().fill_null("") != ""
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


# ISO 8601 as files have it: date; time to the hour, minute, second or fraction; zone.
_ISO: Final = (
    r"^(\d{4})(?:[-/.](\d{1,2})(?:[-/.](\d{1,2}))?)?"
    r"(?:[Tt ]\s*(\d{1,2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9}))?)?)?"
    r"\s*([Zz]|UTC|GMT)?([+-]\d{1,2}(?::?\d{2})?)?)?$"
)
# Dates without signs between their parts: alone, before a time, and with one in 14 digits.
_PLAIN_DATES: Final = (
    (r"^(\d{4})(\d{2})(\d{2})$", "${1}-${2}-${3}"),
    (r"^(\d{4})(\d{2})(\d{2})[Tt ](\d)", "${1}-${2}-${3}T${4}"),
    (r"^(\d{4})(\d{2})(\d{2})(\d{6})([^\d].*)?$", "${1}-${2}-${3}T${4}${5}"),
)


def _from_texts(texts: pl.Series, wanted: TimeFormat) -> pl.Series:
    """Written dates as UTC, [n]: by the mapping's pattern, else as ISO 8601."""
    text = pl.col("text")

    def read(pattern: str, zoned: bool) -> pl.Expr:
        # A pattern with a zone says its own; polars then gives UTC at once.
        time = text.str.to_datetime(pattern, time_unit="us", strict=False)
        return time.cast(TIME) if zoned else _zoned(time, wanted.zone, False)

    frame = pl.DataFrame({"text": texts})
    if wanted.format is not None:
        return frame.select(time=read(wanted.format, has_zone(wanted.format)))["time"]
    # The two usual forms are read ten times as fast as all; each reader gets what the one before could not read.
    usual = [read("%Y-%m-%d %H:%M:%S%.f", False), read("%Y-%m-%dT%H:%M:%S%.f%#z", True)]
    times = pl.repeat(None, len(texts), dtype=TIME, eager=True)
    for reader in (*usual, _iso(text, wanted.zone)):
        rest = (times.is_null() & (texts != "")).fill_null(False)
        if not rest.any():
            break
        times = times.scatter(rest.arg_true(), frame.filter(rest).select(time=reader)["time"])
    return times


def _iso(text: pl.Expr, zone: str) -> pl.Expr:
    """Any form of ISO 8601 as UTC."""
    for pattern, signs in _PLAIN_DATES:
        text = text.str.replace(pattern, signs)
    # What is left out is the first month, day or moment of what is there.
    year, month, day, hour, minute, second, fraction, utc, offset = (text.str.extract(_ISO, n) for n in range(1, 10))
    parts = [part.fill_null(first).str.zfill(2) for part, first in ((month, "1"), (day, "1"), (hour, "0"))]
    parts += [part.fill_null(none) for part, none in ((minute, "00"), (second, "00"), (fraction, "0"))]
    written = pl.format("{}-{}-{} {}:{}:{}.{}", year, *parts)
    time = written.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    # A zone of its own: hours and perhaps minutes east of UTC.
    digits = offset.str.replace(":", "").str.slice(1)
    hours = digits.str.slice(0, 2).str.to_integer(strict=False)
    minutes = digits.str.slice(2).str.to_integer(strict=False).fill_null(0)
    east: pl.Expr = pl.when((hours < 24) & (minutes < 60)).then(60 * hours + minutes)
    east = pl.when(offset.str.starts_with("-")).then(-east).otherwise(east)
    own = (time - pl.duration(minutes=pl.when(offset.is_null()).then(0).otherwise(east))).dt.replace_time_zone("UTC")
    return pl.when(utc.is_null() & offset.is_null()).then(_zoned(time, zone, False)).otherwise(own)


def _zoned(time: pl.Expr, zone: str, has_zone: bool) -> pl.Expr:
    """A time as UTC, taken for one of ``zone`` if it has none of its own."""
    if has_zone:
        return time.cast(TIME)
    # An hour that happens twice is the first of the two; one that the clock leaves out is no time.
    local = time.cast(pl.Datetime("us")).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")
