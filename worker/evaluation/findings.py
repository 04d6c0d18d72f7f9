"""What measures return: numbers in the words of the catalogue, or why there is none."""

from collections.abc import Callable, Iterable

from shared.schemas.measure_catalogue import CATALOGUE, LACKS, Need
from shared.schemas.measures import Curve, Measure, NotMeasured, Value
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case

Finding = Measure | Curve | NotMeasured
Findings = Iterable[Finding]


def found(
    name: str,
    where: str,
    unlearned: Value,
    original: Value | None = None,
    reference: Value | None = None,
    detail: str | None = None,
    *,
    counts: bool = True,
) -> Measure:
    """Return a measure as the report shows it; the catalogue has its words."""
    entry = CATALOGUE[name]
    return Measure(
        name=name,
        title=entry.title,
        group=entry.group,
        where=where,
        unit=entry.unit,
        better=entry.better,
        original=original,
        unlearned=unlearned,
        reference=reference,
        definition=entry.definition,
        source=entry.source,
        detail=detail,
        counts=counts,
    )


def of_each(
    case: Case,
    name: str,
    where: str,
    measure: Callable[[Subject], Value],
    detail: str | None = None,
) -> Measure:
    """Take a measure of every model of the case that was shown a place."""
    original, unlearned, *reference = map(measure, case.subjects(where))
    return found(name, where, unlearned, original, reference[0] if reference else None, detail)


def missing(need: Need, *names: str) -> list[NotMeasured]:
    """Say which measures a request gave nothing to measure on, and what would help."""
    return [NotMeasured(name=name, reason=LACKS[need]) for name in names]
