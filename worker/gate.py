"""The gate: measured values against the thresholds of the request."""

from collections.abc import Sequence

from shared.schemas.audit import MeasureThreshold
from shared.schemas.measures import Measure
from shared.schemas.report import Bound, Change, EvaluationResult, TargetResult, ThresholdResult
from shared.schemas.request import Thresholds

NOTHING = "nothing was measured"


def judge(
    thresholds: Thresholds,
    target: TargetResult,
    evaluations: tuple[EvaluationResult, ...],
    measures: Sequence[Measure] = (),
) -> tuple[ThresholdResult, ...]:
    """Return every threshold that applies with what was measured. One that nothing was measured for has failed.

    - `max_forget_accuracy`: the worst accuracy after, of all sets that show what is forgotten.
    - `max_retain_drop`: accuracy lost on the rest of the target's own set (before - after).
    - `max_transfer_drop`: accuracy lost on what stays in any other set, the worst of them.
    - `max_synthetic_accuracy`: accuracy after on held-out synthetic samples.
    - `max_earlier_accuracy`: the worst accuracy after, of all sets that show what an earlier erasure took away.
    - `measures`: any measure of the audit, by the worse end of its 95 % interval where it has one.
    """
    forget = [(e.forget.after.value, e.name) for e in evaluations if e.forget and e.role != "earlier"]
    earlier = [(e.forget.after.value, e.name) for e in evaluations if e.forget and e.role == "earlier"]
    retain = [(_drop(e.retain), e.name) for e in evaluations if e.retain and e.role == "target"]
    transfer = [(_drop(e.retain), e.name) for e in evaluations if e.retain and e.role == "transfer"]
    synthetic = [(target.synthetic_accuracy.after.value, "synthetic samples")] if target.synthetic_accuracy else []
    measured = {
        "max_forget_accuracy": forget,
        "max_retain_drop": retain,
        "max_transfer_drop": transfer,
        "max_synthetic_accuracy": synthetic,
        "max_earlier_accuracy": earlier,
    }
    results = []
    for measure, values in measured.items():
        limit = getattr(thresholds, measure)
        if limit is not None:
            value, where = max(values, default=(1.0, NOTHING))
            passed = bool(values) and value <= limit
            results.append(ThresholdResult(measure=measure, limit=limit, value=value, passed=passed, where=where))
    results += [result for threshold in thresholds.measures for result in judge_measure(threshold, measures)]
    return tuple(results)


def judge_measure(threshold: MeasureThreshold, measures: Sequence[Measure]) -> list[ThresholdResult]:
    """Return the verdict on each bound of a threshold, at the place that is worst for it."""
    taken = [m for m in measures if m.name == threshold.measure and threshold.where in (None, m.where)]
    results = []
    if threshold.max is not None:
        ends = [(m.unlearned.value if m.unlearned.high is None else m.unlearned.high, m.where) for m in taken]
        results.append(_judged(threshold.measure, "max", threshold.max, max(ends, default=None)))
    if threshold.min is not None:
        ends = [(m.unlearned.value if m.unlearned.low is None else m.unlearned.low, m.where) for m in taken]
        results.append(_judged(threshold.measure, "min", threshold.min, min(ends, default=None)))
    return results


def _judged(measure: str, bound: Bound, limit: float, end: tuple[float, str] | None) -> ThresholdResult:
    value, where = end or (1.0 if bound == "max" else 0.0, NOTHING)
    passed = end is not None and (value <= limit if bound == "max" else value >= limit)
    return ThresholdResult(measure=measure, bound=bound, limit=limit, value=value, passed=passed, where=where)


def _drop(change: Change) -> float:
    return change.before.value - change.after.value
