"""What did it cost on the target's own set? Accuracy on all that stays, on the nearest classes and
on the others.

Near are the k labels whose text embeddings are nearest to a forgotten name in the original
model, k = 10 but at most half of the labels. Over-forgetting shows there first. A drop is that
of the same images, with the interval for matched pairs."""

from functools import partial

import torch
from torch import Tensor

from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Value
from worker.evaluation.findings import Findings, found, missing, of_each
from worker.evaluation.intervals import paired_drop, share
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View

NEAR = 10
NAMES = ("retain", "near", "far")


def measure(case: Case) -> Findings:
    """Yield accuracy and drop of each group of images that stay."""
    view = case.own
    if view is None or bool(view.forget.all()):
        names = (f"{group}_{what}" for group in NAMES for what in ("accuracy", "drop"))
        yield from missing(Need.REAL if view is None else Need.REST, *names)
        return
    near = nearest_labels(case, view, min(NEAR, (len(view.labels) - len(case.gone(view))) // 2))
    others = view.having("retain")
    is_near = others & _shows(view, near)
    groups = dict(zip(NAMES, (~view.forget, is_near, others & ~is_near), strict=True))
    details = {"near": ", ".join(near)}
    old, new = view.hits(case.original), view.hits(case.unlearned)
    for name, chosen in groups.items():
        if bool(chosen.any()):
            detail = details.get(name)
            yield of_each(
                case, f"{name}_accuracy", view.name, partial(_accuracy, view, chosen), detail
            )
            yield found(
                f"{name}_drop", view.name, paired_drop(old[chosen], new[chosen]), detail=detail
            )


def _accuracy(view: View, chosen: Tensor, subject: Subject) -> Value:
    return share(view.hits(subject)[chosen])


def nearest_labels(case: Case, view: View, count: int) -> list[str]:
    """Return the labels that stay whose texts are nearest to a forgotten name in the original
    model, at least one.
    """
    gone = case.gone(view)
    weights = case.original.classifier(view.labels, view.templates)
    nearness = (weights @ weights[gone].T).amax(dim=1)
    nearness[gone] = -2.0  # below any cosine
    order = nearness.argsort(descending=True, stable=True)[
        : max(1, min(count, len(view.labels) - len(gone)))
    ]
    return [view.labels[int(index)] for index in order]


def _shows(view: View, labels: list[str]) -> Tensor:
    shown = set(labels)
    return torch.tensor([name in shown for name in view.names], dtype=torch.bool)
