"""How sure a share is (Wilson, Journal of the American Statistical Association 22, 1927)."""

import math

from shared.schemas.report import Estimate

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution: a two-sided 95 % interval."""


def wilson(hits: int, n: int) -> Estimate:
    """Return hits / n with its 95 % Wilson interval, which stays in [0, 1] and is sound for small n and for 0 hits.

    centre = (p + z^2 / 2n) / (1 + z^2 / n);  half = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)
    """
    if n <= 0:
        raise ValueError("a share of no images is not defined")
    share = hits / n
    scale = 1 + Z * Z / n
    centre = (share + Z * Z / (2 * n)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low = 0.0 if hits == 0 else centre - half  # exactly, where rounding would leave a trace
    high = 1.0 if hits == n else centre + half
    return Estimate(value=share, n=n, low=low, high=high)
