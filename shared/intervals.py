"""95 % intervals in closed form, and the best end of one that N images can reach. Needs neither
torch nor scipy.

The worker measures with these (`worker/evaluation/intervals.py`); the gateway refuses bounds
that no result could meet. `python -m shared.intervals` writes the table of docs/audit.md: how
many images a bound needs."""

import math
import sys
from collections.abc import Callable

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution: a two-sided 95 % interval."""
MOST_IMAGES = 10**9
"""More than any data set holds: what needs more is out of reach."""


def wilson_interval(hits: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of hits / n, which stays in [0, 1] and is sound for small n
    and for 0 hits.

    centre = (p + z^2 / 2n) / (1 + z^2 / n); half = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 /
    4n^2) (Wilson, Journal of the American Statistical Association 22, 1927)

    Raises:
        ValueError: n is not positive.
    """
    if n <= 0:
        raise ValueError("a share of no images is not defined")
    share = hits / n
    scale = 1 + Z * Z / n
    centre = (share + Z * Z / (2 * n)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low = 0.0 if hits == 0 else centre - half  # exactly, where rounding would leave a trace
    high = 1.0 if hits == n else centre + half
    return low, high


def paired_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of (lost - won) / n, the share of hits that fell on the same n
    images.

    The interval is Wald's after half an image is added to each of the four cells of the table
    (Agresti and Min, Statistics in Medicine 24, 2005): centre (b - c) / m, variance ((b + c + 1)
    - (b - c)^2 / m) / m^2, m = n + 2."""
    m = n + 2
    centre = (lost - won) / m
    half = Z * math.sqrt((lost + won + 1 - (lost - won) ** 2 / m) / m**2)
    return max(-1.0, centre - half), min(1.0, centre + half)


def lowest_upper_end(n: int) -> float:
    """Return the upper end of a share of n images where none is a hit, the lowest that there is:
    z^2 / (n + z^2).
    """
    return wilson_interval(0, n)[1]


def highest_lower_end(n: int) -> float:
    """Return the lower end of a share of n images where all are hits, the highest that there is:
    n / (n + z^2).
    """
    return wilson_interval(n, n)[0]


def images_for_upper_end(bound: float) -> int | None:
    """Return how many images the upper end of a share needs to reach `bound`; None where no
    number is enough.
    """
    if bound >= 1:
        return 1
    wanted = Z * Z * (1 - bound) / bound if bound > 0 else math.inf
    return _least(wanted, lambda n: lowest_upper_end(n) <= bound)


def images_for_lower_end(bound: float) -> int | None:
    """Return how many images the lower end of a share needs to reach `bound`; None where no
    number is enough.
    """
    if bound <= 0:
        return 1
    wanted = Z * Z * bound / (1 - bound) if bound < 1 else math.inf
    return _least(wanted, lambda n: highest_lower_end(n) >= bound)


def lowest_upper_end_of_drop(n: int) -> float:
    """Return the lowest upper end of a paired drop on n images: the interval is concave in the
    images won, so it is at the end of none or all."""
    return min(paired_interval(0, 0, n)[1], paired_interval(0, n, n)[1])


def _least(wanted: float, is_met: Callable[[int], bool]) -> int | None:
    """Return the least n that meets a bound: by the closed form, then by the interval as it is
    computed, since the two may differ in the last bit."""
    if wanted > MOST_IMAGES:
        return None
    n = max(1, math.floor(wanted))
    while not is_met(n):
        n += 1
    return n


BOUNDS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Those of the table."""


def table() -> str:
    """Return how many images a bound on a share needs where none, one or two of them may be
    recognised (Markdown).
    """
    lines = ["| `max` | `min` | none recognised | one | two |", "|---|---|---|---|---|"]
    for bound in BOUNDS:
        least = [
            next(n for n in range(hits + 1, MOST_IMAGES) if within(hits, n, bound))
            for hits in range(3)
        ]
        lines.append(f"| {bound:g} | {1 - bound:g} | {' | '.join(f'{n:,}' for n in least)} |")
    return "\n".join(lines)


def within(hits: int, n: int, bound: float) -> bool:
    """True where the upper end of hits / n is within a bound."""
    return wilson_interval(hits, n)[1] <= bound


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
