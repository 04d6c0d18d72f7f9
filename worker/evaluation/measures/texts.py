"""How far did the text tower move? Mean cosine of unlearned against original text embeddings; it
needs no image.

cos(t_u(c), t_o(c)) over templates that no method is given: of the forgotten names, and of the
labels that stay."""

from collections.abc import Sequence

from shared.schemas.measure_catalogue import TEXTS
from shared.schemas.measures import Value
from worker.evaluation.findings import Findings, found
from worker.evaluation.views import Case
from worker.evaluation.wordings import templates_for


def measure(case: Case) -> Findings:
    """Yield the similarity of the forgotten names and of all other labels."""
    gone = case.request.target.names()
    yield found("forgotten_text_similarity", TEXTS, _similarity(case, gone))
    yield found(
        "retained_text_similarity",
        TEXTS,
        _similarity(case, [n for n in case.labels if n not in gone]),
    )


def _similarity(case: Case, names: Sequence[str]) -> Value:
    templates = templates_for(case.labels)
    cosines = (case.original.texts(names, templates) * case.unlearned.texts(names, templates)).sum(
        dim=-1
    )
    return Value(value=float(cosines.mean()), n=cosines.numel())
