"""When an answer is due: Art. 12(3) GDPR, counted by Regulation (EEC, Euratom) No 1182/71.

The day of receipt does not count (Art. 3(1)); a period of months ends with the last hour of the day
that bears the same number, or of the month's last day where there is none (Art. 3(2)(c)).
Saturdays, Sundays and holidays count (Art. 3(3)). That a period which ends on one of them goes on
to the next working day (Art. 3(4)) is left unused: holidays differ from place to place, and who
ends a day early is never late.

While the data subject's identity is in doubt the clock stands still (Art. 12(6); EDPB Guidelines
01/2022, section 5.3). Whole days on hold move the due date, the rest of a day does not: again
the earlier date is taken."""

import calendar
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

MONTHS = 1
EXTENDED_MONTHS = 3
"""One month, and two further months."""


def due(
    received_at: datetime,
    zone: ZoneInfo,
    *,
    extended: bool = False,
    held_for: timedelta = timedelta(),
) -> datetime:
    """Return the last second of the period, in UTC.

    Args:
        received_at: when the request came, with a time zone.
        zone: where the controller's days begin and end.
        extended: the period was extended by two further months.
        held_for: how long the clock stood still.

    Raises:
        OverflowError, ValueError: the calendar ends before the period does.
    """
    last_day = _months_later(
        received_at.astimezone(zone).date(), EXTENDED_MONTHS if extended else MONTHS
    )
    last_second = datetime.combine(last_day + timedelta(days=held_for.days), time(23, 59, 59), zone)
    return last_second.astimezone(UTC)


def _months_later(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    year, month = day.year + years, month + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
