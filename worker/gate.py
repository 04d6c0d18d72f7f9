"""The gate: measured values against the thresholds of the request."""

from shared.schemas.report import Change, EvaluationResult, TargetResult, ThresholdResult
from shared.schemas.request import Thresholds


def judge(
    thresholds: Thresholds, target: TargetResult, evaluations: tuple[EvaluationResult, ...]
) -> tuple[ThresholdResult, ...]:
    """Return every threshold that applies with what was measured. One that nothing was measured for has failed.

    - `max_forget_accuracy`: the worst accuracy after, of all sets that show what is forgotten.
    - `max_retain_drop`: accuracy lost on the rest of the target's own set (before - after).
    - `max_transfer_drop`: accuracy lost on what stays in any other set, the worst of them.
    - `max_synthetic_accuracy`: accuracy after on held-out synthetic samples.
    """
    forget = [(e.forget.after.value, e.name) for e in evaluations if e.forget]
    retain = [(_drop(e.retain), e.name) for e in evaluations if e.retain and e.role == "target"]
    transfer = [(_drop(e.retain), e.name) for e in evaluations if e.retain and e.role == "transfer"]
    synthetic = [(target.synthetic_accuracy.after.value, "synthetic samples")] if target.synthetic_accuracy else []
    measured = {
        "max_forget_accuracy": forget,
        "max_retain_drop": retain,
        "max_transfer_drop": transfer,
        "max_synthetic_accuracy": synthetic,
    }
    results = []
    for measure, values in measured.items():
        limit = getattr(thresholds, measure)
        if limit is not None:
            value, where = max(values, default=(1.0, "nothing was measured"))
            passed = bool(values) and value <= limit
            results.append(ThresholdResult(measure=measure, limit=limit, value=value, passed=passed, where=where))
    return tuple(results)


def _drop(change: Change) -> float:
    return change.before.value - change.after.value
