"""Puts a case together: the features of both models on every image that the audit looks at."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from shared.schemas.measure_catalogue import GIVEN, SAMPLES
from worker.clip import Clip
from worker.data.images import ImageSet
from worker.data.splits import content_hashes, without
from worker.evaluation.cache import FeatureCache
from worker.evaluation.features import Features, Report, features_of, features_of_pixels
from worker.evaluation.measures.weights import model_change
from worker.evaluation.plan import Plan
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View
from worker.methods.frame import Erasure

GIVEN_LIMIT = 256
"""Images of `data.forget` that the audit looks at, at most."""


class Examiner:
    """Takes the features of models on the images of one plan, and keeps them."""

    def __init__(self, cache: FeatureCache, plan: Plan) -> None:
        self._cache, self._plan = cache, plan
        self.given = _given(plan)

    def features(self, clip: Clip, report: Report) -> dict[str, Features]:
        """Return a model's features of every place with real images, by its name; `report(done,
        total)` counts images.
        """
        sets = {m.name: m.images for m in self._plan.measurements} | (
            {GIVEN: self.given} if self.given else {}
        )
        total, done, found = sum(map(len, sets.values())), 0, {}
        for place, images in sets.items():
            found[place] = features_of(
                clip, images, self._cache, partial(_report_from, report, done, total)
            )
            done += len(images)
        return found

    def case(
        self,
        erasure: Erasure,
        before: dict[str, Features],
        after: dict[str, Features],
        reference: Subject | None = None,
    ) -> Case:
        """Return the case of an erasure; features of its held-out samples are added to those of the
        images.

        Not to the reference's: samples are made with the weights of the original, and say
        nothing of a model that was trained apart from it."""
        views = [measurement.view for measurement in self._plan.measurements]
        samples = _samples(erasure)
        if samples is not None:
            view, pixels = samples
            views.append(view)
            before = before | {view.name: features_of_pixels(erasure.original, pixels)}
            after = after | {view.name: features_of_pixels(erasure.clip, pixels)}
        own = next((m.images for m in self._plan.measurements if m.role == "target"), None)
        return Case(
            request=erasure.request,
            labels=erasure.labels,
            views=tuple(views),
            original=Subject(erasure.original, before),
            unlearned=Subject(erasure.clip, after),
            change=model_change(erasure.original, erasure.clip),
            reference=reference,
            given=self.given,
            own_images=own,
        )


def _report_from(
    report: Callable[[int, int], None], before: int, total: int, done: int, _: int
) -> None:
    report(before + done, total)


def _given(plan: Plan) -> ImageSet | None:
    """Return images that the method learns to forget, none of which is also measured; None where
    there are none.
    """
    own = next((m for m in plan.measurements if m.role == "target"), None)
    if own is None or plan.data.forget is None:
        return None
    gone = [index for index, role in enumerate(own.roles) if role == "forget"]
    given = without(plan.data.forget, content_hashes(own.images.subset(gone)))
    return given.subset(range(min(len(given), GIVEN_LIMIT))) if given else None


def _samples(erasure: Erasure) -> tuple[View, Tensor] | None:
    """Return the held-out synthetic samples as a place, with their pixels [N, 3, H, W], if the
    method left any of the target.
    """
    samples, labels = erasure.state.get("held_out_samples"), erasure.state.get("held_out_labels")
    if (
        samples is None
        or labels is None
        or not bool(torch.isin(labels.cpu(), torch.tensor(erasure.forget_labels)).any())
    ):
        return None
    names = tuple(erasure.labels[int(label)] for label in labels)
    gone = set(erasure.request.target.names())
    view = View(
        name=SAMPLES,
        role="samples",
        names=names,
        roles=tuple("forget" if name in gone else "retain" for name in names),
        labels=erasure.labels,
        templates=erasure.request.target.templates,
    )
    return view, samples
