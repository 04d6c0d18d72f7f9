"""How sure a number is: 95 % intervals of shares, of differences on the same images, of areas
under ROC curves, of ratios.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.intervals import Z, paired_interval, wilson_interval
from shared.schemas.measures import Value
from shared.schemas.report import Estimate

DRAWS = 1000

Numbers = NDArray[np.float64]


def wilson(hits: float, n: int) -> Estimate:
    """Return hits / n with its 95 % Wilson interval.

    `hits` may be a sum of rates in [0, 1] of n images: their variance is at most that of hits
    and misses, so the interval is wide enough."""
    low, high = wilson_interval(hits, n)
    return Estimate(value=hits / n, n=n, low=low, high=high)


def share(hits: Tensor) -> Value:
    """Return the share of hits, or the mean of rates [N] in [0, 1], with its Wilson interval."""
    return Value(**wilson(float(hits.sum()), len(hits)).model_dump())


def mean(values: Tensor) -> Value:
    """Return the mean of values [N] with the interval of the normal distribution; none for a
    single one.
    """
    n, centre = len(values), float(values.mean())
    if n < 2:
        return Value(value=centre, n=n)
    half = Z * float(values.std()) / math.sqrt(n)
    return Value(value=centre, low=centre - half, high=centre + half, n=n)


def paired_drop(before: Tensor, after: Tensor) -> Value:
    """Return by how much the share of hits fell on the same N images, in [-1, 1], with the
    interval for matched pairs.
    """
    n, lost, won = len(before), int((before & ~after).sum()), int((~before & after).sum())
    low, high = paired_interval(lost, won, n)
    return Value(value=(lost - won) / n, low=low, high=high, n=n)


def two_sided_auc(positive: Tensor, negative: Tensor) -> Value:
    """Return max(A, 1 - A), A = P(score of a positive > that of a negative) + P(equal) / 2, in
    [0.5, 1].

    The standard error is Hanley and McNeil's (Radiology 143, 1982), equation 1 with Q1 = A / (2
    - A), Q2 = 2 A^2 / (1 + A)."""
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


def kept(
    pairs: Sequence[tuple[Tensor, Tensor]], combine: Callable[[Numbers], Numbers], seed: int = 0
) -> Value:
    """Return what remains of the accuracy on several sets, accuracy after / before of each, brought
    together by `combine`.

    Args:
        pairs: hits before and after [N_i] on each set; before there is at least one.
        combine: maps ratios [sets, draws] to [draws]: their mean or the smallest.
        seed: of the bootstrap (Efron, Annals of Statistics 7, 1979): images are drawn with
            replacement within each set, 1,000 times; the interval is that of the percentiles.
    """
    generator = np.random.default_rng(seed)
    measured, drawn = [], []
    for before, after in pairs:
        cells = [
            int((before & after).sum()),
            int((before & ~after).sum()),
            int((~before & after).sum()),
        ]
        cells.append(len(before) - sum(cells))
        draws = generator.multinomial(len(before), np.array(cells) / len(before), size=DRAWS)
        table = np.vstack([[cells], draws]).astype(float)
        ratios = (table[:, 0] + table[:, 2]) / np.maximum(table[:, 0] + table[:, 1], 1)
        measured.append(ratios[:1])
        drawn.append(ratios[1:])
    low, high = np.quantile(combine(np.stack(drawn)), [0.025, 0.975])
    value = float(combine(np.stack(measured))[0])
    return Value(
        value=value, low=float(low), high=float(high), n=sum(len(before) for before, _ in pairs)
    )
