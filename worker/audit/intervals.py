"""How sure a number is: 95 % intervals of shares, of differences on the same images, of areas under ROC curves, of ratios."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.schemas.measures import Value
from shared.schemas.report import Estimate

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution: a two-sided 95 % interval."""
DRAWS = 1000

Numbers = NDArray[np.float64]


def wilson(hits: float, n: int) -> Estimate:
    """Return hits / n with its 95 % Wilson interval, which stays in [0, 1] and is sound for small n and for 0 hits.

    centre = (p + z^2 / 2n) / (1 + z^2 / n); half = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2) (Wilson, Journal of
    the American Statistical Association 22, 1927)

    `hits` may be a sum of rates in [0, 1] of n images: their variance is at most that of hits and misses, so the interval
    is wide enough.
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


def share(hits: Tensor) -> Value:
    """Return the share of hits, or the mean of rates [N] in [0, 1], with its Wilson interval."""
    return Value(**wilson(float(hits.sum()), len(hits)).model_dump())


def mean(values: Tensor) -> Value:
    """Return the mean of values [N] with the interval of the normal distribution; none for a single one."""
    n, centre = len(values), float(values.mean())
    if n < 2:
        return Value(value=centre, n=n)
    half = Z * float(values.std()) / math.sqrt(n)
    return Value(value=centre, low=centre - half, high=centre + half, n=n)


def paired_drop(before: Tensor, after: Tensor) -> Value:
    """Return by how much the share of hits fell on the same N images, in [-1, 1].

    With b images lost and c won: d = (b - c) / n. The interval is Wald's after half an image is added to each of the four
    cells of the table (Agresti and Min, Statistics in Medicine 24, 2005): centre (b - c) / m, variance ((b + c + 1) - (b -
    c)^2 / m) / m^2, m = n + 2.
    """
    n, lost, won = len(before), int((before & ~after).sum()), int((~before & after).sum())
    centre = (lost - won) / (n + 2)
    half = Z * math.sqrt((lost + won + 1 - (lost - won) ** 2 / (n + 2)) / (n + 2) ** 2)
    return Value(value=(lost - won) / n, low=max(-1.0, centre - half), high=min(1.0, centre + half), n=n)


def two_sided_auc(positive: Tensor, negative: Tensor) -> Value:
    """Return max(A, 1 - A), A = P(score of a positive > that of a negative) + P(equal) / 2, in [0.5, 1].

    The standard error is Hanley and McNeil's (Radiology 143, 1982), equation 1 with Q1 = A / (2 - A), Q2 = 2 A^2 / (1 + A).
    """
    area = auc(positive, negative)
    area = max(area, 1 - area)
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    n, m = len(positive), len(negative)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    half = Z * math.sqrt(max(variance, 0.0))
    return Value(value=area, low=max(0.5, area - half), high=min(1.0, area + half), n=n)


def auc(positive: Tensor, negative: Tensor) -> float:
    """Return the area under the ROC curve, by ranks; ties count half."""
    scores = torch.cat([positive, negative]).double()
    _, place, count = scores.unique(return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0) - (count - 1) / 2)[place]
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def kept(pairs: Sequence[tuple[Tensor, Tensor]], combine: Callable[[Numbers], Numbers], seed: int = 0) -> Value:
    """Return what remains of the accuracy on several sets, accuracy after / before of each, brought together by `combine`.

    Args:
        pairs: hits before and after [N_i] on each set; before there is at least one.
        combine: maps ratios [sets, draws] to [draws]: their mean or the smallest.
        seed: of the bootstrap (Efron, Annals of Statistics 7, 1979): images are drawn with replacement within each set, 1,000
            times; the interval is that of the percentiles.
    """
    generator = np.random.default_rng(seed)
    measured, drawn = [], []
    for before, after in pairs:
        cells = [int((before & after).sum()), int((before & ~after).sum()), int((~before & after).sum())]
        cells.append(len(before) - sum(cells))
        draws = generator.multinomial(len(before), np.array(cells) / len(before), size=DRAWS)
        table = np.vstack([[cells], draws]).astype(float)
        ratios = (table[:, 0] + table[:, 2]) / np.maximum(table[:, 0] + table[:, 1], 1)
        measured.append(ratios[:1])
        drawn.append(ratios[1:])
    low, high = np.quantile(combine(np.stack(drawn)), [0.025, 0.975])
    value = float(combine(np.stack(measured))[0])
    return Value(value=value, low=float(low), high=float(high), n=sum(len(before) for before, _ in pairs))
