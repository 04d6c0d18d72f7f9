"""When a data subject asked: a time of receipt that no request may have."""

from datetime import UTC, datetime, timedelta

from shared.errors import FieldError, InvalidRequest

CLOCK_SKEW = timedelta(minutes=5)
"""So far may a client's clock be ahead of ours."""


def check_received(moment: datetime, pointer: str, *, parameter: str | None = None) -> None:
    """Refuse a time of receipt that is still to come: nobody has asked yet, and the deadline would
    move with it.

    Args:
        moment: when the data subject asked.
        pointer: the field that says so.
        parameter: the query parameter that does, where it is no field.

    Raises:
        InvalidRequest: the time is more than `CLOCK_SKEW` ahead, or has no time zone.
    """
    if moment.tzinfo is None:
        detail = "has no time zone; write it as 2026-11-02T09:00:00Z"
    elif moment > datetime.now(UTC) + CLOCK_SKEW:
        detail = (
            "lies in the future; give the time when the data subject asked, and check the "
            "year and the time zone"
        )
    else:
        return
    raise InvalidRequest(
        [
            FieldError(
                pointer, f"query parameter {parameter} {detail}" if parameter else detail, parameter
            )
        ]
    )
