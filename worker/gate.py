"""The gate: measured values against the thresholds of the request."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared.schemas.audit import MeasureThreshold
from shared.schemas.measures import Measure, Value
from shared.schemas.report import (
    Bound,
    Change,
    Estimate,
    EvaluationResult,
    TargetResult,
    ThresholdResult,
)
from shared.schemas.request import Thresholds

NOTHING = "nothing was measured"


class Judged(NamedTuple):
    """What one place offers to a threshold: the value to compare, and what it rests on."""

    value: float
    where: str
    n: int | None = None
    low: float | None = None
    high: float | None = None


def judge(
    thresholds: Thresholds,
    target: TargetResult,
    evaluations: tuple[EvaluationResult, ...],
    measures: Sequence[Measure] = (),
) -> tuple[ThresholdResult, ...]:
    """Return every threshold that applies with what was measured. One that nothing was measured for
    has failed.

    - `max_forget_accuracy`: the worst accuracy after, of all sets that show what is forgotten.
    - `max_forget_upper_end`: the upper end of the 95 % interval of that accuracy, the worst of
      them.
    - `max_retain_drop`: accuracy lost on the rest of the target's own set (before - after).
    - `max_transfer_drop`: accuracy lost on what stays in any other set, the worst of them.
    - `max_synthetic_accuracy`: accuracy after on held-out synthetic samples.
    - `max_earlier_accuracy`: the worst accuracy after, of all sets that show what an earlier
      erasure took away.
    - `measures`: any measure of the audit, by the worse end of its 95 % interval where it has one.
    """
    forget = [(e.forget.after, e.name) for e in evaluations if e.forget and e.role != "earlier"]
    earlier = [(e.forget.after, e.name) for e in evaluations if e.forget and e.role == "earlier"]
    retain = [(e.retain, e.name) for e in evaluations if e.retain and e.role == "target"]
    transfer = [(e.retain, e.name) for e in evaluations if e.retain and e.role == "transfer"]
    synthetic = (
        [(target.synthetic_accuracy.after, "synthetic samples")]
        if target.synthetic_accuracy
        else []
    )
    measured = {
        "max_forget_accuracy": [_share(*found) for found in forget],
        "max_forget_upper_end": [_share(*found, value=found[0].high) for found in forget],
        "max_retain_drop": [_drop(*found, measures) for found in retain],
        "max_transfer_drop": [_drop(*found, measures) for found in transfer],
        "max_synthetic_accuracy": [_share(*found) for found in synthetic],
        "max_earlier_accuracy": [_share(*found) for found in earlier],
    }
    results = []
    for measure, values in measured.items():
        limit = getattr(thresholds, measure)
        if limit is not None:
            results.append(_judged(measure, "max", limit, max(values, key=_badness, default=None)))
    results += [
        result for threshold in thresholds.measures for result in judge_measure(threshold, measures)
    ]
    return tuple(results)


def judge_measure(
    threshold: MeasureThreshold, measures: Sequence[Measure]
) -> list[ThresholdResult]:
    """Return the verdict on each bound of a threshold, at the place that is worst for it."""
    taken = [
        m for m in measures if m.name == threshold.measure and threshold.where in (None, m.where)
    ]
    results = []
    if threshold.max is not None:
        ends = [_end(m, lambda v: v.high) for m in taken]
        results.append(
            _judged(threshold.measure, "max", threshold.max, max(ends, key=_badness, default=None))
        )
    if threshold.min is not None:
        ends = [_end(m, lambda v: v.low) for m in taken]
        results.append(
            _judged(
                threshold.measure,
                "min",
                threshold.min,
                min(ends, key=lambda e: e.value, default=None),
            )
        )
    return results


def _badness(found: Judged) -> tuple[float, float]:
    """What is worst comes last: of equal values the one that is least sure."""
    return found.value, found.value if found.high is None else found.high


def _judged(measure: str, bound: Bound, limit: float, found: Judged | None) -> ThresholdResult:
    value, where, n, low, high = found or Judged(1.0 if bound == "max" else 0.0, NOTHING)
    passed = found is not None and (value <= limit if bound == "max" else value >= limit)
    return ThresholdResult(
        measure=measure,
        bound=bound,
        limit=limit,
        value=value,
        passed=passed,
        where=where,
        n=n,
        low=low,
        high=high,
    )


def _share(found: Estimate, where: str, *, value: float | None = None) -> Judged:
    return Judged(found.value if value is None else value, where, found.n, found.low, found.high)


def _drop(change: Change, where: str, measures: Sequence[Measure]) -> Judged:
    """What was lost in a set. The audit has the interval for matched pairs where it took the
    same drop.
    """
    paired = [m.unlearned for m in measures if (m.name, m.where) == ("retain_drop", where)]
    paired += [
        m.unlearned for m in measures if (m.name, m.detail) == ("worst_transfer_drop", where)
    ]
    low, high = (paired[0].low, paired[0].high) if paired else (None, None)
    return Judged(change.before.value - change.after.value, where, change.after.n, low, high)


def _end(measure: Measure, end: Callable[[Value], float | None]) -> Judged:
    found = measure.unlearned
    judged = end(found)
    return Judged(
        found.value if judged is None else judged, measure.where, found.n, found.low, found.high
    )
