"""Numbers as the page writes them."""

from shared.schemas.measures import Value
from shared.schemas.report import Change, Estimate

MINUS, NARROW_SPACE = "\u2212", "\u202f"


def percent(share: float) -> str:
    """Return a share in [0, 1] as `98.8 %`."""
    return f"{_signless(100 * share):.1f}{NARROW_SPACE}%".replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """Return an interval of shares as `93.3 to 99.8 %`."""
    return f"{_signless(100 * low):.1f} to {_signless(100 * high):.1f}{NARROW_SPACE}%".replace("-", MINUS)


def hits(estimate: Estimate) -> int:
    """Return how many images were recognised."""
    return round(estimate.value * estimate.n)


def points(change: Change) -> str:
    """Return what a change gained or lost, in percentage points with its sign."""
    return signed(100 * (change.after.value - change.before.value))


def signed(number: float) -> str:
    """Return a number with its sign and one decimal; nothing to speak of is `0.0`."""
    text = f"{_signless(number):+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def measured(value: Value, unit: str) -> str:
    """Return the value of a measure in its unit."""
    return _in_unit(value.value, unit)


def measured_interval(value: Value, unit: str) -> str:
    """Return the interval of a measure in its unit; empty where it has none."""
    if value.low is None or value.high is None:
        return ""
    if unit == "share":
        return interval(value.low, value.high)
    return f"{_in_unit(value.low, unit)} to {_in_unit(value.high, unit)}"


def size(count: int | None) -> str:
    """Return bytes in MiB or GiB; a dash where there are none to speak of."""
    if count is None:
        return "\u2013"
    mebibytes = count / 2**20
    return f"{mebibytes / 1024:.2f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def duration(seconds: float) -> str:
    """Return seconds as `14.1 s` or `3 min 20 s`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _in_unit(number: float, unit: str) -> str:
    match unit:
        case "share":
            return percent(number)
        case "points":
            return signed(100 * number)
        case "count":
            return f"{number:,.0f}"
        case "similarity":
            text = f"{_signless(number):.3f}"
        case _:
            text = f"{_signless(number):.2f}"
    return text.replace("-", MINUS)


def _signless(number: float) -> float:
    """Return 0 for what would be written as -0."""
    return 0.0 if abs(number) < 5e-4 else number
