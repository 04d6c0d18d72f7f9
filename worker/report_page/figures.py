"""Numbers as the page writes them."""

from shared.schemas.measures import Value
from shared.schemas.report import Change, Estimate, ThresholdResult

MINUS, NARROW_SPACE, SOLID_SPACE = "\u2212", "\u202f", "\u00a0"


def percent(share: float) -> str:
    """Return a share in [0, 1] as `98.8 %`."""
    return f"{100 * share:z.1f}{NARROW_SPACE}%".replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """Return an interval of shares as `93.3 to 99.8 %`, on one line."""
    text = f"{100 * low:z.1f} to {100 * high:z.1f}{NARROW_SPACE}%"
    return text.replace("-", MINUS).replace(" ", SOLID_SPACE)


def hits(estimate: Estimate) -> int:
    """Return how many images were recognised."""
    return round(estimate.value * estimate.n)


def points(change: Change) -> str:
    """Return what a change gained or lost, in percentage points with its sign."""
    return signed(100 * (change.after.value - change.before.value))


def signed(number: float) -> str:
    """Return a number with its sign and one decimal; nothing to speak of is `0.0`."""
    text = f"{number:+z.1f}"
    return "0.0" if text == "+0.0" else text.replace("-", MINUS)


def number(value: float, unit: str) -> str:
    """Return the value of a measure in its unit."""
    match unit:
        case "share":
            return percent(value)
        case "points":
            return signed(100 * value)
        case "count":
            return f"{value:,.0f}"
        case "similarity":
            text = f"{value:z.3f}"
        case _:
            text = f"{value:z.2f}"
    return text.replace("-", MINUS)


def value_interval(value: Value | ThresholdResult, unit: str) -> str:
    """Return the interval of a measure in its unit; empty where it has none."""
    if value.low is None or value.high is None:
        return ""
    if unit == "share":
        return interval(value.low, value.high)
    return f"{number(value.low, unit)} to {number(value.high, unit)}"


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
