"""The audit: every measure of a level on one case, and the evidence level that comes of them."""

from collections.abc import Callable
from typing import NamedTuple

from shared.schemas.measure_catalogue import CATALOGUE, Level
from shared.schemas.measures import Curve, Measure, NotMeasured
from worker.evaluation.evidence import Evidence, evidence
from worker.evaluation.findings import Findings
from worker.evaluation.measures import (
    closeness,
    forgetting,
    hierarchy,
    membership,
    prompts,
    relearning,
    representation,
    retention,
    retrieval,
    texts,
    towers,
    transfer,
    weights,
)
from worker.evaluation.views import Case

MeasureOf = Callable[[Case], Findings]

STANDARD: tuple[MeasureOf, ...] = (
    forgetting.measure,
    prompts.measure,
    texts.measure,
    retention.measure,
    hierarchy.measure,
    retrieval.measure,
    transfer.measure,
    representation.measure,
    towers.measure,
    membership.measure,
    closeness.measure,
    weights.measure,
)
MEASURES: dict[Level, tuple[MeasureOf, ...]] = {
    "standard": STANDARD,
    "thorough": (*STANDARD, relearning.measure),
}
NOT_ASKED = "is taken in a thorough audit alone: set audit.level to thorough"


class AuditResult(NamedTuple):
    """What the audit found, and what it could not measure and why."""

    measures: tuple[Measure, ...]
    curves: tuple[Curve, ...]
    not_measured: tuple[NotMeasured, ...]
    evidence: Evidence | None


def run_audit(case: Case, report: Callable[[int, int], None] | None = None) -> AuditResult:
    """Take every measure of the request's level; `report(done, total)` is called before each."""
    level, found = case.request.audit.level, []
    for number, measure in enumerate(MEASURES[level]):
        if report:
            report(number, len(MEASURES[level]))
        found += list(measure(case))
    measures = tuple(finding for finding in found if isinstance(finding, Measure))
    missed = [finding for finding in found if isinstance(finding, NotMeasured)]
    if level == "standard":
        missed += [
            NotMeasured(name=name, reason=NOT_ASKED)
            for name, e in CATALOGUE.items()
            if e.level == "thorough"
        ]
    curves = tuple(finding for finding in found if isinstance(finding, Curve))
    return AuditResult(measures, curves, tuple(missed), evidence(measures))
