"""Is it still in the image features? A linear probe, and the mean of five examples.

Most methods leave features from which the class can be read off (arXiv 2604.08271, 2503.06991): a
service that trains a classifier on them has the class back. `probe_recall`: recall of the forgotten
class by logistic regression on frozen, standardised embeddings, two-fold cross-fitted.
`penultimate_probe_recall`: the same before the last linear map. `prototype_recall`: nearest class
mean of five embeddings each (Snell et al. 2017), over 20 draws, no image among its own examples.

A class that was never trained on is read off, too, only less well: compare with the original, or
with a reference."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Measure, NotMeasured, Value
from shared.schemas.report import Role
from worker.evaluation.findings import Findings, found, missing, of_each
from worker.evaluation.intervals import share
from worker.evaluation.measures.closeness import leakage
from worker.evaluation.measures.retention import nearest_labels
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View

CLASSES, IMAGES = 20, 2000
"""A probe is fitted on the forgotten classes and the nearest others, and on this many images at
most.
"""
SHOTS, DRAWS = 5, 20


def measure(case: Case) -> Findings:
    """Yield all three on the target's own set."""
    view, names = (
        case.own,
        ("probe_recall", "penultimate_probe_recall", "prototype_recall", "probe_leakage"),
    )
    if view is None or not bool(view.forget.any()) or bool(view.forget.all()):
        yield from missing(Need.REAL if view is None else Need.REST, *names)
        return
    chosen = _chosen(case, view)
    gone = torch.isin(view.truth, torch.tensor(case.gone(view)))
    if (
        min(
            int(torch.bincount(view.truth[chosen]).max()),
            int(gone[chosen].sum()),
            int((~gone)[chosen].sum()),
        )
        < 2
    ):
        yield from (
            NotMeasured(name=name, reason="needs two images of a class at the least")
            for name in names
        )
        return
    forget = view.forget[chosen]
    truth = view.truth[chosen]

    def probe(subject: Subject) -> Value:
        return share(probe_hits(subject.embeddings(view.name)[chosen], truth)[forget])

    def inner_probe(subject: Subject) -> Value:
        inner = subject.features[view.name].penultimate
        if inner is None:
            raise ValueError("there are no penultimate features")
        return share(probe_hits(inner[chosen], truth)[forget])

    def prototypes(subject: Subject) -> Value:
        return share(_prototype_rates(subject.embeddings(view.name)[chosen], truth)[forget])

    found_by_probe = of_each(case, "probe_recall", view.name, probe)
    yield found_by_probe
    yield from _leakage(found_by_probe)
    if all(
        subject.features[view.name].penultimate is not None for subject in case.subjects(view.name)
    ):
        yield of_each(case, "penultimate_probe_recall", view.name, inner_probe)
    else:
        reason = "this image tower does not show what enters its last linear map"
        yield NotMeasured(name="penultimate_probe_recall", reason=reason)
    yield of_each(case, "prototype_recall", view.name, prototypes)


def _leakage(probe: Measure) -> Findings:
    """Yield how much more a probe finds than in the reference."""
    if probe.reference is None or probe.original is None:
        yield from missing(Need.REFERENCE, "probe_leakage")
        return
    value = leakage(probe.unlearned.value, probe.reference.value, probe.original.value)
    if value is None:
        yield NotMeasured(
            name="probe_leakage", reason="a probe finds as much in the reference as in the original"
        )
    else:
        yield found("probe_leakage", probe.where, Value(value=value))


def _chosen(case: Case, view: View) -> Tensor:
    """Return indices of images of the forgotten classes and the nearest others, of each class
    the same number at the most.
    """
    names = (*case.request.target.names(), *nearest_labels(case, view, CLASSES - 1))
    groups: dict[tuple[str, Role], list[int]] = {}
    for index, (name, role) in enumerate(zip(view.names, view.roles, strict=True)):
        if name in names:
            groups.setdefault((name, role), []).append(index)
    most = max(2, IMAGES // len(groups))
    return torch.tensor(sorted(index for group in groups.values() for index in group[:most]))


def probe_hits(features: Tensor, truth: Tensor) -> Tensor:
    """Return which images [N] a probe gets right that was fitted on the other half."""
    inputs, labels = features.numpy(), truth.numpy()
    half = _halves(truth).numpy()
    hits = np.zeros(len(labels), dtype=bool)
    for fold in (0, 1):
        train = half != fold
        if len(set(labels[train])) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, tol=1e-3))
        model.fit(inputs[train], labels[train])
        hits[~train] = model.predict(inputs[~train]) == labels[~train]
    return torch.from_numpy(hits)


def _halves(truth: Tensor) -> Tensor:
    """Return 0 or 1 for each image: within a class they take turns."""
    half = torch.zeros_like(truth)
    for label in truth.unique():
        of_class = (truth == label).nonzero().flatten()
        half[of_class] = torch.arange(len(of_class)) % 2
    return half


def _prototype_rates(embeddings: Tensor, truth: Tensor) -> Tensor:
    """Return for each image [N] the share of draws in which the nearest class mean is that of
    its class.
    """
    generator = torch.Generator().manual_seed(0)
    right, tried = torch.zeros(len(truth)), torch.zeros(len(truth))
    classes = truth.unique()
    for _ in range(DRAWS):
        examples = [_some(truth == label, generator) for label in classes]
        means = F.normalize(
            torch.stack([embeddings[chosen].mean(dim=0) for chosen in examples]), dim=-1
        )
        others = torch.ones(len(truth), dtype=torch.bool)
        others[torch.cat(examples)] = False
        right += others * (classes[(embeddings @ means.T).argmax(dim=1)] == truth)
        tried += others
    return right / tried.clamp(min=1)


def _some(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the indices of five images, or of half of them where there are fewer than ten."""
    indices = mask.nonzero().flatten()
    return indices[
        torch.randperm(len(indices), generator=generator)[: max(1, min(SHOTS, len(indices) // 2))]
    ]
