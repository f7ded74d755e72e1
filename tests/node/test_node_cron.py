# SPDX-License-Identifier: Apache-2.0
"""Cron expressions give times on the clocks of their zone, also on the days when those are changed."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from junto.errors import InvalidInput
from junto.node.cron import check_cron, next_time
from junto.tasks.triggers import Cron

BERLIN = ZoneInfo("Europe/Berlin")


def _times(expression: str, begin: str, count: int, zone: str = "Europe/Berlin") -> list[str]:
    at = datetime.fromisoformat(begin).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = []
    for _ in range(count):
        at = next_time(Cron(expression, zone), at)
        found.append(datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%d %H:%M %Z"))
    return found


def test_a_time_is_on_the_clock_of_its_zone() -> None:
    assert _times("0 3 * * *", "2026-07-01T12:00", 2) == ["02 03:00 CEST", "03 03:00 CEST"]
    assert _times("0 3 * * MON", "2026-11-21T12:00", 1, "UTC") == ["23 03:00 UTC"]


def test_a_time_in_the_hour_that_is_left_out_comes_at_its_end() -> None:
    assert _times("30 2 * * *", "2026-03-28T03:00", 2) == ["29 03:00 CEST", "30 02:30 CEST"]
    assert _times("*/30 * * * *", "2026-03-29T01:00", 3) == ["29 01:30 CET", "29 03:00 CEST", "29 03:30 CEST"]


def test_a_time_in_the_hour_that_comes_twice_comes_twice() -> None:
    assert _times("30 2 * * *", "2026-10-24T03:00", 3) == ["25 02:30 CEST", "25 02:30 CET", "26 02:30 CET"]
    assert _times("0 * * * *", "2026-10-25T01:00", 3) == ["25 02:00 CEST", "25 02:00 CET", "25 03:00 CET"]


def test_times_outside_those_hours_come_once_a_day_all_year() -> None:
    begin = datetime(2026, 1, 1, tzinfo=BERLIN).timestamp()
    at, days = begin, []
    for _ in range(365):
        at = next_time(Cron("0 4 * * *", "Europe/Berlin"), at)
        days.append(datetime.fromtimestamp(at, BERLIN))
    assert len({day.date() for day in days}) == 365
    assert {(day.hour, day.minute) for day in days} == {(4, 0)}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize("expression", ["*/20 * * * *", "30 2 * * *", "0 */2 * * *"])
def test_times_go_on_through_every_change(zone: str, expression: str) -> None:
    for month, day in ((3, 7), (3, 28), (4, 4), (10, 3), (10, 24), (10, 31)):
        at = datetime(2026, month, day, 23, tzinfo=ZoneInfo(zone)).timestamp()
        for _ in range(20):
            following = next_time(Cron(expression, zone), at)
            assert following > at
            assert following % 60 == 0
            at = following


@pytest.mark.parametrize("expression", ["0 3 * * *", "*/5 8-18 * * mon-fri", "0 0 1 JAN *", "0 0 L * *", "0 0 * * 5#2"])
def test_expressions_of_five_fields_are_taken(expression: str) -> None:
    check_cron(Cron(expression), 0.0)


@pytest.mark.parametrize(
    ("expression", "zone", "says"),
    [
        ("0 3 * *", "UTC", "has 4 fields"),
        ("0 0 3 * * *", "UTC", "has 6 fields"),
        ("@reboot", "UTC", "has 1 fields"),
        ("61 * * * *", "UTC", "is none"),
        ("*/0 * * * *", "UTC", "is none"),
        ("R * * * *", "UTC", "has a field 'r'"),
        ("H(0-5) * * * *", "UTC", "has a field"),
        ("0 0 30 2 *", "UTC", "no time in fifty years"),
        ("0 3 * * *", "Europe/Atlantis", "no time zone .Europe/Atlantis"),
        ("0 3 * * *", "../../etc/passwd", "no time zone"),
        ("0 3 * * *", "Europe", "no time zone"),
        ("0 3 * * *", "", "no time zone"),
    ],
)
def test_what_gives_no_times_is_refused_in_a_line(expression: str, zone: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says.replace("(", r"\(")) as refusal:
        check_cron(Cron(expression, zone), 1_800_000_000.0)
    assert "\n" not in str(refusal.value)
