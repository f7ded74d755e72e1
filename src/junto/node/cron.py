# SPDX-License-Identifier: Apache-2.0
"""The times of cron expressions, on the clocks of a time zone.

Where a clock is set forward, a time in the hour that is left out comes at its end, once for all that fall into it;
where it is set back, a time in the hour that comes twice comes twice.
"""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from croniter import croniter
from croniter.croniter import CroniterBadDateError, CroniterError

from junto.errors import InvalidInput
from junto.tasks.triggers import Cron

_FIELD = re.compile(r"[0-9a-z*/,#-]{1,200}")
_NAMES = frozenset(
    (
        *("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
        *("mon", "tue", "wed", "thu", "fri", "sat", "sun", "l"),
    )
)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")
_NEVER = float("inf")


def next_time(cron: Cron, after: float) -> float:
    """The first time after a moment, unix seconds; infinity if none comes within fifty years."""
    try:
        found = croniter(cron.expression.lower(), datetime.fromtimestamp(after, ZoneInfo(cron.zone))).get_next(float)
    except CroniterBadDateError:
        return _NEVER
    return float(found)


def check_cron(cron: Cron, now: float) -> None:
    """Raises InvalidInput unless it is five fields that give times, in a zone that is known."""
    fields = cron.expression.lower().split()
    if len(fields) != 5:
        raise InvalidInput(
            f"the cron expression {cron.expression[:80]!r} has {len(fields)} fields; five are meant: minute, hour, day"
            " of month, month, day of week, as in '0 3 * * *'"
        )
    for field in fields:
        words = set(re.findall("[a-z]+", field))
        if _FIELD.fullmatch(field) is None or not words <= _NAMES:
            raise InvalidInput(
                f"the cron expression {cron.expression[:80]!r} has a field {field[:40]!r}, which is none"
            )
    try:
        if _ZONE.fullmatch(cron.zone) is None:
            raise ValueError("no name of a zone")
        ZoneInfo(cron.zone)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput(f"no time zone {cron.zone[:64]!r} is known here; write Europe/Berlin or UTC") from error
    try:
        found = next_time(cron, now)
    except (CroniterError, ValueError, KeyError) as error:
        raise InvalidInput(f"the cron expression {cron.expression[:80]!r} is none: see `man 5 crontab`") from error
    if found == _NEVER:
        raise InvalidInput(f"the cron expression {cron.expression[:80]!r} gives no time in fifty years")
