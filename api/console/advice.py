"""What measured values allow to say: each limit beside its value, and what to try where one was
missed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from api.console.words import METHODS, THRESHOLDS
from shared.request_rules.resolution import given_sets as _given_sets
from shared.schemas.measures import Value
from shared.schemas.methods import METHOD_IMAGES
from shared.schemas.report import Estimate, Report, ThresholdResult
from shared.schemas.request import ErasureRequest

Z = 1.959963984540054
"""The normal quantile of a 95 % interval."""
MOST_IMAGES = 20_000
POINTS = 0.005
"""A bound that is proposed is rounded up to half a point."""


class Judged(NamedTuple):
    """A limit of the request, and what was measured."""

    title: str
    measure: str
    where: str
    bound: str
    limit: float
    value: float
    """What was judged."""
    unit: str
    passed: bool
    measured: Value | None
    """The value with its interval and number of images, where the report has them."""
    before: float | None


class Step(NamedTuple):
    """Something to try, and what a new request is prefilled with."""

    text: str
    changes: Mapping[str, str]
    button: str


def given_sets(request: ErasureRequest) -> Iterator[tuple[str, str, str]]:
    """Yield (pointer, name, reference) of every data set of a request."""
    yield from _given_sets(request)


def judged(report: Report) -> list[Judged]:
    """Return every limit of a report with what was measured."""
    return [_judged(result, report) for result in report.thresholds]


def upper_end(hits: float, n: int) -> float:
    """Return the upper end of the 95 % Wilson interval of `hits` of `n`, in [0, 1]."""
    if n <= 0:
        return 1.0
    share, square = hits / n, Z * Z
    middle = share + square / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return min(1.0, (middle + spread) / (1 + square / n))


def images_to_decide(share: float, limit: float) -> int | None:
    """Return how many images would bring the upper end under `limit` at the same share; None
    where none would.
    """
    if share >= limit:
        return None
    low, high = 1, MOST_IMAGES
    if upper_end(share * high, high) > limit:
        return None
    while low < high:
        n = (low + high) // 2
        if upper_end(share * n, n) <= limit:
            high = n
        else:
            low = n + 1
    return low


def next_steps(request: ErasureRequest, found: Sequence[Judged]) -> Iterator[Step]:
    """Yield what to try after a limit was missed, from what was measured."""
    missed = [one for one in found if not one.passed]
    for one in missed:
        yield from _more_images(one)
    name = request.method.name
    if name != "auto":
        yield Step(
            (
                "Try the methods that fit your images, one after the other: "
                f"{METHODS['auto'][1].lower()}"
            ),
            {"method": "auto"},
            "Again with the method that passes",
        )
    images = {role for role in ("forget", "retain") if getattr(request.data, role)}
    if name in ("synthetic", "null_space") and not images:
        yield Step(
            "Give images of what is to be forgotten and of what is close and stays: methods that "
            "learn from images reach"
            " further than names do.",
            {"method": "three_stage"},
            "Again, with images",
        )
    elif name != "three_stage" and images >= set(METHOD_IMAGES["three_stage"]):
        yield Step(
            "Your images also do for the three stages.",
            {"method": "three_stage"},
            "Again in three stages",
        )
    for one in missed:
        if one.measure in THRESHOLDS:
            bound = min(1.0, math.ceil(one.value / POINTS) * POINTS)
            yield Step(
                f"Loosen the limit “{one.title.lower()}” from {100 * one.limit:.1f} % to "
                f"{100 * bound:.1f} %, if the purpose"
                " allows that. The certificate states the limit that was set.",
                {one.measure: f"{100 * bound:g}"},
                "Again with this limit",
            )


def _more_images(one: Judged) -> Iterator[Step]:
    """Where the interval decided, and not the value: more images would."""
    measured = one.measured
    if measured is None or measured.n is None or one.bound != "max" or one.unit != "share":
        return
    if measured.value <= one.limit < one.value and (
        n := images_to_decide(measured.value, one.limit)
    ):
        yield Step(
            f"The value of “{one.title.lower()}” ({100 * measured.value:.1f} %) is under its "
            "limit; what missed is the end of"
            f" its interval, which {measured.n} images leave wide. About {n} images would decide "
            "it.",
            {},
            "Again with more images",
        )


def _judged(result: ThresholdResult, report: Report) -> Judged:
    measured, before, title, unit = _measured(result, report)
    return Judged(
        title=title,
        measure=result.measure,
        where=result.where,
        bound=result.bound,
        limit=result.limit,
        value=result.value,
        unit=unit,
        passed=result.passed,
        measured=measured,
        before=before,
    )


def _measured(
    result: ThresholdResult, report: Report
) -> tuple[Value | None, float | None, str, str]:
    title = THRESHOLDS.get(result.measure)
    if title is None:
        for measure in report.measures:
            if measure.name == result.measure and measure.where == result.where:
                before = measure.original.value if measure.original else None
                return measure.unlearned, before, measure.title, measure.unit
        return None, None, result.measure.replace("_", " ").capitalize(), "share"
    evaluation = next((e for e in report.evaluations if e.name == result.where), None)
    change = {
        "max_forget_accuracy": report.target.accuracy,
        "max_synthetic_accuracy": report.target.synthetic_accuracy,
        "max_earlier_accuracy": evaluation.forget if evaluation else None,
    }.get(result.measure)
    if change is not None:
        return _value(change.after), change.before.value, title, "share"
    retain = evaluation.retain if evaluation else None
    if retain is None and result.measure == "max_retain_drop":
        retain = report.target.siblings
    measured = Value(value=result.value, n=retain.after.n) if retain else None
    return measured, None, title, "points"


def _value(estimate: Estimate) -> Value:
    return Value(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)
