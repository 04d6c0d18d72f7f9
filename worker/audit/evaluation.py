"""What is measured before and after an erasure, and what comes of it in the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shared.errors import JobFailure
from shared.schemas.report import Change, ClassResult, Estimate, EvaluationResult, Role
from worker.audit.accuracy import Report, embed, predict
from worker.audit.cache import EvaluationCache
from worker.audit.intervals import wilson
from worker.clip import Clip
from worker.data.images import ImageSet

Hits = Tensor
"""Bool [N]: which images were recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One set of images, the labels that it is measured with, and what each image is to the request."""

    name: str
    role: Literal["target", "transfer"]
    images: ImageSet
    roles: tuple[Role, ...]
    """Of each image."""
    labels: tuple[str, ...]
    templates: tuple[str, ...]


def hits_of(clip: Clip, measurement: Measurement, cache: EvaluationCache, report: Report | None = None) -> Hits:
    """Return which images `clip` recognises, from the cache where they were classified before."""
    key = (clip.digest, measurement.images.digest, measurement.labels, measurement.templates)
    predictions = cache.load(*key)
    if predictions is None:
        embeddings = embed(clip, measurement.images, report)
        predictions = predict(embeddings, clip, measurement.labels, measurement.templates).tolist()
        cache.save(*key, predictions)
    truth = [measurement.labels.index(name) for name in measurement.images.names()]
    return torch.tensor(predictions) == torch.tensor(truth)


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
    names, results = measurement.images.names(), []
    for name, role in dict.fromkeys(zip(names, measurement.roles, strict=True)):
        chosen = [pair == (name, role) for pair in zip(names, measurement.roles, strict=True)]
        accuracy = change(before, after, chosen)
        if accuracy is not None:
            results.append(ClassResult(name=name, role=role, accuracy=accuracy))
    return results


def check_labels(name: str, images: ImageSet, labels: Sequence[str]) -> None:
    """Raise JobFailure (`invalid_dataset`) if images show a class that is not among the labels."""
    unknown = sorted(set(images.names()) - set(labels))
    if unknown:
        detail = f"The data set {name!r} holds the class {unknown[0]!r}, which is not among the labels; add it or leave it out."
        raise JobFailure("invalid_dataset", detail)
