"""Image-text retrieval needs captions, and the data formats give class names alone: this says so."""

from shared.measures import Need
from worker.audit.findings import Findings, missing
from worker.audit.views import Case


def measure(case: Case) -> Findings:  # noqa: ARG001 - no case has captions
    """Yield why there is none."""
    yield from missing(Need.CAPTIONS, "retrieval_recall")
