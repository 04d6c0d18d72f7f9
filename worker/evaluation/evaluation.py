"""Accuracy before and after an erasure, set by set and class by class, as the report shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shared.errors import JobFailure
from shared.names import Spellings
from shared.schemas.report import Change, ClassResult, Estimate, EvaluationResult, Role
from shared.schemas.resolution import SetRole
from worker.data.images import ImageSet
from worker.evaluation.intervals import wilson
from worker.evaluation.views import Hits, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One set of images, the labels that it is measured with, and what each image is to the
    request.
    """

    name: str
    role: SetRole
    images: ImageSet
    roles: tuple[Role, ...]
    """Of each image."""
    labels: tuple[str, ...]
    templates: tuple[str, ...]

    @property
    def view(self) -> View:
        """The same without the images, as the measures see it."""
        return View(
            name=self.name,
            role=self.role,
            names=tuple(self.images.names()),
            roles=self.roles,
            labels=self.labels,
            templates=self.templates,
            captions=self.images.captions,
        )


def evaluation_result(measurement: Measurement, before: Hits, after: Hits) -> EvaluationResult:
    """Return a measurement as the report shows it."""
    forget = [role == "forget" for role in measurement.roles]
    return EvaluationResult(
        name=measurement.name,
        role=measurement.role,
        dataset_digest=measurement.images.digest,
        labels=measurement.labels,
        templates=measurement.templates,
        forget=change(before, after, forget),
        retain=change(before, after, [not gone for gone in forget]),
        classes=tuple(_classes(measurement, before, after)),
    )


def change(before: Hits, after: Hits, chosen: Sequence[bool]) -> Change | None:
    """Return the accuracy on the chosen images before and after; None where there is none."""
    mask = torch.tensor(list(chosen), dtype=torch.bool)
    if not bool(mask.any()):
        return None
    return Change(before=_estimate(before[mask]), after=_estimate(after[mask]))


def _estimate(hits: Hits) -> Estimate:
    return wilson(int(hits.sum()), len(hits))


def _classes(measurement: Measurement, before: Hits, after: Hits) -> list[ClassResult]:
    """Return each class under each of its roles, in the order in which they come: the images are
    gone through once.
    """
    numbers: dict[tuple[str, Role], int] = {}
    pairs = zip(measurement.images.names(), measurement.roles, strict=True)
    group = torch.tensor(
        [numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=torch.long
    )
    counts, old, new = (
        torch.bincount(group[mask], minlength=len(numbers)).tolist()
        for mask in (torch.ones_like(before), before, after)
    )
    return [
        ClassResult(
            name=name, role=role, accuracy=Change(before=wilson(old[i], n), after=wilson(new[i], n))
        )
        for (name, role), i, n in zip(numbers, range(len(numbers)), counts, strict=True)
    ]


def check_labels(name: str, images: ImageSet, labels: Sequence[str]) -> None:
    """Raise JobFailure (`invalid_dataset`) if images show a class that is not among the labels."""
    known = Spellings(labels)
    unknown = [folder for folder in sorted(set(images.names())) if folder not in known]
    if unknown:
        detail = (
            f"The data set {name!r} holds the class {unknown[0]!r}, which is not among the "
            "labels; add it or leave it out."
        )
        raise JobFailure("invalid_dataset", detail)
