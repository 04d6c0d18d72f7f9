"""Due dates, counted by hand."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.jobs.deadlines import due

BERLIN, AZORES = ZoneInfo("Europe/Berlin"), ZoneInfo("Atlantic/Azores")


def due_on(received, **options):
    return due(datetime.fromisoformat(received), options.pop("zone", UTC), **options).isoformat()


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-11-02T09:00:00Z", "2026-12-02T23:59:59+00:00"),
        ("2026-11-02T00:00:00Z", "2026-12-02T23:59:59+00:00"),
        ("2026-12-15T12:00:00Z", "2027-01-15T23:59:59+00:00"),
        ("2026-01-31T12:00:00Z", "2026-02-28T23:59:59+00:00"),  # no such day: the month's last
        ("2028-01-31T12:00:00Z", "2028-02-29T23:59:59+00:00"),
        ("2026-02-28T12:00:00Z", "2026-03-28T23:59:59+00:00"),
        ("2026-03-31T12:00:00Z", "2026-04-30T23:59:59+00:00"),
        ("2026-07-15T12:00:00Z", "2026-08-15T23:59:59+00:00"),  # a Saturday, and a holiday: it stays
    ],
)
def test_one_month(received, expected):
    assert due_on(received) == expected


@pytest.mark.parametrize(
    ("received", "expected"),
    [("2026-11-30T12:00:00Z", "2027-02-28T23:59:59+00:00"), ("2026-01-31T12:00:00Z", "2026-04-30T23:59:59+00:00")],
)
def test_an_extension_counts_from_the_day_of_receipt(received, expected):
    """Not from the end of the first month, which may have been cut short."""
    assert due_on(received, extended=True) == expected


@pytest.mark.parametrize(
    ("received", "zone", "expected"),
    [
        ("2026-01-30T23:30:00Z", BERLIN, "2026-02-28T22:59:59+00:00"),  # the 31st there
        ("2026-02-01T00:30:00Z", AZORES, "2026-03-01T00:59:59+00:00"),  # still January there
        ("2026-03-10T12:00:00Z", BERLIN, "2026-04-10T21:59:59+00:00"),  # summer time has begun
        ("2026-11-02T01:00:00+05:00", UTC, "2026-12-01T23:59:59+00:00"),
    ],
)
def test_days_are_those_of_the_controller(received, zone, expected):
    assert due_on(received, zone=zone) == expected


@pytest.mark.parametrize(
    ("held_for", "day"),
    [(timedelta(hours=23, minutes=59), 2), (timedelta(days=1), 3), (timedelta(days=5, hours=20), 7)],
)
def test_whole_days_on_hold_move_the_due_date(held_for, day):
    assert due_on("2026-11-02T09:00:00Z", held_for=held_for) == f"2026-12-{day:02}T23:59:59+00:00"


@pytest.mark.parametrize("received", ["9999-12-15T00:00:00+00:00", "0001-01-01T00:00:00+14:00"])
def test_the_calendar_has_an_end(received):
    with pytest.raises((OverflowError, ValueError)):
        due_on(received)
