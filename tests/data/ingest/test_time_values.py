from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.data.logs import quick

from onesearch.data.ingest.time_values import TimeFormat, parse_times

MOMENT = datetime(2011, 8, 11, 3, 59, 4, 270000, tzinfo=UTC)


def parsed(values, **wanted):
    time, problem = parse_times(pl.Series(values), TimeFormat(**wanted))
    return time.to_list(), problem.to_list()


@pytest.mark.parametrize(
    "text",
    [
        "2011-08-11 03:59:04.27",
        "2011-08-11T03:59:04.270Z",
        "2011-08-11T05:59:04.27+02:00",
        "2011-08-11 03:59:04.2700",
    ],
)
def test_written_out(text):
    assert parsed([text]) == ([MOMENT], [None])


def test_zone_and_format():
    assert parsed(["11/08/2011 05:59:04"], format="%d/%m/%Y %H:%M:%S", zone="Europe/Berlin")[0] == [
        MOMENT.replace(microsecond=0)
    ]
    assert parsed(["2011-08-11"])[0] == [datetime(2011, 8, 11, tzinfo=UTC)]


@quick
@given(st.datetimes(datetime(1995, 1, 2), datetime(2099, 12, 30), timezones=st.just(UTC)))
def test_numbers_of_each_unit(moment):
    for unit, per_second in (("s", 1), ("ms", 10**3), ("us", 10**6)):
        number = int(moment.timestamp() * per_second)
        (time,), (problem,) = parsed([str(number)], unit=unit)
        assert problem is None
        assert abs((time - moment).total_seconds()) <= 1.1 / per_second


def test_the_wrong_unit_is_recognised():
    seconds = int(MOMENT.timestamp())
    times, problems = parsed([seconds, seconds * 1000, None, -5], unit="s")
    assert times == [MOMENT.replace(microsecond=0), None, None, None]
    assert problems[0] is None and problems[2] is None
    assert problems[1].startswith("wrong time unit, looks like milliseconds but the mapping says unit s")
    assert problems[3] == "time not within 1995 to 2100: -5"
    assert parsed([seconds], unit="ms")[1][0].startswith("wrong time unit, looks like seconds")
    assert parsed([str(seconds)])[1][0].startswith("wrong time unit, looks like seconds but the mapping says unit text")
    assert parsed([str(seconds * 10**6)], unit="ns")[1][0].startswith("wrong time unit, looks like microseconds")


def test_unreadable_and_implausible():
    assert parsed(["yesterday"])[1] == ["time not readable: yesterday"]
    assert parsed(["1066-10-14"])[1] == ["time not within 1995 to 2100: 1066-10-14"]
    assert parsed(["1e300", "nan"], unit="s")[0] == [None, None]


def test_origin():
    assert parsed([60], unit="s", origin="2024-01-01")[0] == [datetime(2024, 1, 1, 0, 1, tzinfo=UTC)]
    with pytest.raises(ValidationError, match="goes with unit: text"):
        TimeFormat(unit="s", format="%Y")


def test_times_of_parquet_files():
    """Columns that are times already: with a zone of their own, or in the mapping's."""
    naive = pl.Series([MOMENT.replace(tzinfo=None)])
    assert parsed_series(naive, zone="Europe/Berlin") == [MOMENT - timedelta(hours=2)]
    assert parsed_series(naive.dt.replace_time_zone("Asia/Tokyo"), zone="Europe/Berlin") == [
        MOMENT - timedelta(hours=9)
    ]
    assert parsed_series(pl.Series([MOMENT.date()])) == [datetime(2011, 8, 11, tzinfo=UTC)]


def parsed_series(series, **wanted):
    return parse_times(series, TimeFormat(**wanted))[0].to_list()


def test_years_are_from_the_earliest_up_to_the_latest():
    times = ["2010-12-31", "2011-01-01", "2012-12-31", "2013-01-01"]
    found, problems = parsed(times, earliest=2011, latest=2013)
    assert [time is not None for time in found] == [False, True, True, False]
    assert problems[3] == "time not within 2011 to 2013: 2013-01-01"


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2023-11-05T10:00", 10),
        ("2023-11-05T10:00Z", 10),
        ("2023-11-05t10:00:00z", 10),
        ("2023-11-05 10:00:00 UTC", 10),
        ("2023-11-05 10:00:00 GMT", 10),
        ("2023-11-05T10:00:00+03", 7),
        ("2023-11-05T10:00:00+0300", 7),
        ("2023-11-05T10:00:00 +03:00", 7),
        ("2023-11-05T10:00:00-01:00", 11),
        ("2023-11-05 10:00-01", 11),
        ("2023-11-05T10", 10),
        ("20231105T100000", 10),
        ("20231105100000", 10),
        ("20231105T1000Z", 10),
        ("2023/11/05 10:00", 10),
        ("  2023-11-05T10:00:00.000000000Z ", 10),
        ("20231105", 0),
        ("2023-11-5", 0),
    ],
)
def test_iso_8601_in_its_usual_forms(text, hour):
    time, problem = parse_times(pl.Series([text]), TimeFormat())
    assert (time[0], problem[0]) == (datetime(2023, 11, 5, hour, tzinfo=UTC), None)


def test_dates_cut_off_begin_their_year_or_month():
    time, _ = parse_times(pl.Series(["2023-11", "2023"]), TimeFormat())
    assert [(t.year, t.month, t.day) for t in time] == [(2023, 11, 1), (2023, 1, 1)]


def test_zones_hold_for_texts_without_one_alone():
    wanted = TimeFormat(zone="Europe/Berlin")
    time, _ = parse_times(pl.Series(["2023-11-05T10:00", "2023-11-05T10:00Z", "2023-11-05T10:00+03"]), wanted)
    assert [t.hour for t in time] == [9, 10, 7]
    with pytest.raises(ValueError, match="unknown time zone 'Europe/Berlim'"):
        TimeFormat(zone="Europe/Berlim")


@pytest.mark.parametrize(
    "text", ["2023-13-01", "2023-02-30", "2023-11-05T25:00", "2023-11-05T10:00+99", "05.11.2023", "2023-11-05 10 pm"]
)
def test_what_is_no_moment_is_said(text):
    time, problem = parse_times(pl.Series([text]), TimeFormat())
    assert time[0] is None and problem[0] == f"time not readable: {text}"


def test_numbers_with_blanks_around_and_blanks_alone():
    time, problem = parse_times(pl.Series([" 1699178400 ", "", "  ", None]), TimeFormat(unit="s"))
    assert time.to_list() == [datetime(2023, 11, 5, 10, tzinfo=UTC), None, None, None]
    assert problem.to_list() == [None] * 4


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%d.%m.%Y %H:%M:%S %:z", "11.08.2011 09:29:04 +05:30"),
        ("%Y-%m-%dT%H:%M:%S%#z", "2011-08-11T09:29:04+0530"),
        ("%+", "2011-08-11T09:29:04+05:30"),
        ("%s", "1313035144"),
    ],
)
def test_a_format_with_a_zone_of_its_own_needs_none(pattern, text):
    assert parsed([text], format=pattern, zone="Asia/Tokyo") == ([MOMENT.replace(microsecond=0)], [None])


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"format": "%d/%m/%Y %H:%M %Z"}, "%Z, a zone's letters, says nothing"),
        ({"format": "%Y-%m-%dT%H:%M:%SZ", "zone": "Asia/Tokyo"}, "ends in Z, which is UTC, but zone is 'Asia/Tokyo'"),
        ({"format": "%H:%M %d.%m.%Y UTC", "zone": "Europe/Paris"}, "ends in UTC, which is UTC"),
        ({"format": "%d.%m.%Y %H:%M MEZ"}, "ends in MEZ; set zone"),
    ],
)
def test_a_format_whose_zone_would_be_read_over_is_refused(wanted, complaint):
    with pytest.raises(ValidationError) as error:
        TimeFormat(**wanted)
    assert complaint in str(error.value)


def test_letters_of_a_zone_in_the_format_are_read_as_the_zone_says():
    assert parsed(["11.08.2011 05:59 CEST"], format="%d.%m.%Y %H:%M CEST", zone="Europe/Berlin")[0] == [
        MOMENT.replace(second=0, microsecond=0)
    ]
    assert parsed(["2011-08-11T03:59:04Z"], format="%Y-%m-%dT%H:%M:%SZ")[0] == [MOMENT.replace(microsecond=0)]
    assert parsed(["100%Z 2011"], format="100%%Z %Y")[1][0].startswith("time not")
