"""Was only what was asked for forgotten? Siblings must stay; what is forgotten may still be called
by its kind.

`sibling_accuracy`: of a subgroup the rest of its class, of a class the labels of the same kind.
`hypernym_recall`: of images of what is forgotten, those nearest to their kind (a cat: animal)
among the kinds of all labels, by the request's templates. Kinds are those of
`shared/request_rules/words.json` and of `audit.kinds`."""

import torch

from shared.request_rules.measurable import kind_of, siblings
from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Value
from worker.evaluation.findings import Findings, missing, of_each
from worker.evaluation.intervals import share
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View


def measure(case: Case) -> Findings:
    """Yield both on the target's own set."""
    view = case.own
    if view is None:
        yield from missing(Need.REAL, "sibling_accuracy", "hypernym_recall")
        return
    yield from _siblings(case, view)
    yield from _kinds(case, view)


def _siblings(case: Case, view: View) -> Findings:
    chosen, names = view.having("sibling"), case.request.target.names()
    if case.request.target.type == "class":
        names = tuple(siblings(case.request))
        near = set(names)
        chosen = torch.tensor([name in near for name in view.names], dtype=torch.bool)
    if not bool(chosen.any()):
        yield from missing(Need.SIBLINGS, "sibling_accuracy")
        return
    yield of_each(
        case, "sibling_accuracy", view.name, lambda s: share(view.hits(s)[chosen]), ", ".join(names)
    )


def _kinds(case: Case, view: View) -> Findings:
    kinds = sorted({kind for label in view.labels if (kind := kind_of(case.request, label))})
    own = [kind_of(case.request, name) for name in view.names]
    if len(kinds) < 2 or not all(kind for kind, gone in zip(own, view.forget, strict=True) if gone):
        yield from missing(Need.KIND, "hypernym_recall")
        return
    truth = torch.tensor([kinds.index(kind) if kind else -1 for kind in own])[view.forget]

    def recall(subject: Subject) -> Value:
        weights = subject.classifier(kinds, view.templates)
        return share(
            (subject.embeddings(view.name)[view.forget] @ weights.T).argmax(dim=1) == truth
        )

    yield of_each(case, "hypernym_recall", view.name, recall, " | ".join(kinds))
