"""Windows of local time, against a minute-by-minute walk, in a zone that changes to summer time and back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jan_download.schedule import Schedule, instant
from jan_download.settings import DownloadSettings

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
SPRING = datetime(2026, 3, 29, 1, 0, tzinfo=UTC).timestamp()
"""2:00 becomes 3:00 in Berlin."""
AUTUMN = datetime(2026, 10, 25, 1, 0, tzinfo=UTC).timestamp()
"""3:00 becomes 2:00."""


@pytest.fixture(autouse=True, scope="module")
def berlin() -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of a process cannot be changed here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", BERLIN)
        time.tzset()
        yield
    time.tzset()


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    nights = Schedule.parse("mon-fri 22:00-06:00, sat-sun")
    assert not nights.open(at("2026-11-20T21:59"))  # a Friday
    assert nights.open(at("2026-11-20T22:00"))
    assert nights.open(at("2026-11-21T05:59"))
    assert nights.open(at("2026-11-22T23:59"))  # Sunday
    assert not nights.open(at("2026-11-23T05:00"))  # Sunday's day ends at midnight, Monday's night has not come
    assert nights.opens(at("2026-11-23T05:00")) == at("2026-11-23T22:00")


def test_days_go_round_the_week_and_times_stand_side_by_side() -> None:
    both = Schedule.parse("Fri-Mon 12:00-13:00 20:00-24:00")
    assert both.open(at("2026-11-23T12:30"))
    assert both.open(at("2026-11-22T23:59"))
    assert not both.open(at("2026-11-24T12:30"))
    assert not both.open(at("2026-11-21T00:00"))


def test_without_a_schedule_it_is_always_open() -> None:
    for text in ("", "  "):
        assert Schedule.parse(text).open(0.0)
        assert Schedule.parse(text).opens(5.0) == 5.0


times = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
ranges = st.builds("{}-{}".format, times, times).filter(lambda r: r[:5] != r[6:])
days = st.sampled_from(["", "mon", "sat-sun", "sun-tue", "wed fri"])
clauses = st.builds(lambda d, r: f"{d} {' '.join(r)}".strip(), days, st.lists(ranges, min_size=1, max_size=2))


@given(
    text=st.lists(clauses, min_size=1, max_size=3).map(", ".join),
    moment=st.one_of(st.floats(SPRING - 9e4, SPRING + 9e4), st.floats(AUTUMN - 9e4, AUTUMN + 9e4)),
)
@example("02:30-02:45", SPRING - 3600)
@example("02:30-03:15", SPRING - 3600)
@example("sun 02:30-02:45", SPRING - 3600)
@example("sun 02:30-02:45", AUTUMN + 1)
@settings(max_examples=60, deadline=None)
def test_the_next_opening_is_the_first_minute_that_is_open(text: str, moment: float) -> None:
    schedule = Schedule.parse(text)
    found = schedule.opens(moment)
    assert schedule.open(found)
    if found > moment:
        minute = moment - moment % 60 + 60
        while minute < min(found, moment + 2 * 86400):
            assert not schedule.open(minute)
            minute += 60
        assert found % 60 == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("22:00", "22:00"),
        ("25:00-26:00", "25:00-26:00"),
        ("10:60-11:00", "10:60-11:00"),
        ("10:00-10:00", "10:00-10:00"),
        ("00:00-24:01", "00:00-24:01"),
        ("monday", "monday"),
        ("mon-someday", "mon-someday"),
        ("22:00-06:00 mon", "mon"),
        ("mon,,tue", "empty part"),
        (",", "empty part"),
        ("22:00 - 06:00", "22:00"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_part_that_is_wrong(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Schedule.parse(text)
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.convert({"schedule": text}, DownloadSettings)


@given(st.text(max_size=40))
def test_any_text_is_a_schedule_or_a_value_error(text: str) -> None:
    said = ""
    try:
        Schedule.parse(text).opens(SPRING)
    except ValueError as error:
        said = str(error)
    assert not said or "it is written like" in said


def test_instants_are_rfc_3339() -> None:
    assert instant("") == 0.0
    assert instant("2030-01-31T22:00:00Z") == datetime(2030, 1, 31, 22, tzinfo=UTC).timestamp()
    assert instant("2030-01-31T22:00:00+01:00") == datetime(2030, 1, 31, 21, tzinfo=UTC).timestamp()
    for text in ("tomorrow", "2030-01-31", "1969-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2030-13-01T00:00:00Z"):
        with pytest.raises(ValueError, match="no time such as"):
            instant(text)
