"""How soon does it come back? Fine-tuning on k images of what is forgotten, and on images that stay
alone.

Each model sees the images as its own transform brings them. Both towers are trained with AdamW
at one learning rate for every model, by cross-entropy over the forgotten class and its nearest
labels, in batches of up to 16 images of what is forgotten and 32 that stay. Recall of images
that are not trained on is taken every four steps. A model that never saw the class learns it
slowly (relearn time: Golatkar et al. 2020; AIN: Chundawat et al. 2023); one that only hides it
has it back in a few steps. Benign fine-tuning, on images that stay alone, needs no image of it
at all (Hu et al. 2024)."""

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Curve, CurvePoint, NotMeasured, Value
from worker.clip import Clip, encode_images, encode_texts
from worker.clip.classifier import prompts
from worker.data.images import ImageSet
from worker.evaluation.findings import Findings, found, missing
from worker.evaluation.intervals import share
from worker.evaluation.measures.retention import nearest_labels
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View

SHOTS = (1, 5, 16, 64)
STEPS, EVERY = 20, 4
RATE = 1e-4
FORGET_BATCH, RETAIN_BATCH = 16, 32
LABELS, HELD_OUT, RETAINED = 32, 64, 128
"""At most: labels to tell apart, images to measure on, images that stay."""
ALPHA, STEPS_OF = 0.1, 16
"""Learnt again is (1 - ALPHA) of the original's recall, with STEPS_OF images."""


class Pictures(NamedTuple):
    """Pixels [N, 3, H, W] and the index of their label [N]."""

    pixels: Tensor
    truth: Tensor

    def first(self, count: int) -> "Pictures":
        """Return the first few."""
        return Pictures(self.pixels[:count], self.truth[:count])


class Lesson(NamedTuple):
    """What a model is trained on, and measured on: the same images for every model, as its own
    transform brings them.
    """

    labels: list[str]
    template: str
    tuning: Pictures
    held_out: Pictures
    retained: Pictures


class Chosen(NamedTuple):
    """The images of a lesson."""

    labels: list[str]
    template: str
    tuning: ImageSet
    held_out: ImageSet
    retained: ImageSet

    def seen_by(self, clip: Clip) -> Lesson:
        """Return the lesson for a model."""
        tuning, held_out, retained = (
            Pictures(
                images.pixels(clip.transform),
                torch.tensor([self._label(name) for name in images.names()]),
            )
            for images in (self.tuning, self.held_out, self.retained)
        )
        return Lesson(self.labels, self.template, tuning, held_out, retained)

    def _label(self, name: str) -> int:
        return self.labels.index(name) if name in self.labels else 0


class Lessons(NamedTuple):
    """One lesson, for each of the models. The unlearned one has the original's transform."""

    original: Lesson
    reference: Lesson | None


class Trace(NamedTuple):
    """What a model recognised as it was trained: at each of `steps`, bool [n]."""

    steps: list[int]
    hits: list[Tensor]

    def highest(self) -> Value:
        """Return the highest recall."""
        return share(max(self.hits, key=lambda hits: int(hits.sum())))

    def points(self) -> tuple[CurvePoint, ...]:
        """Return recall over steps."""
        rows = zip(self.steps, self.hits, strict=True)
        return tuple(CurvePoint(x=step, y=float(hits.float().mean())) for step, hits in rows)

    def steps_to(self, recall: float) -> Value:
        """Return the first step at which a recall is reached, one more than were taken if it
        never is.
        """
        reached = (
            step
            for step, hits in zip(self.steps, self.hits, strict=True)
            if float(hits.float().mean()) >= recall
        )
        return Value(value=next(reached, STEPS + 1), n=len(self.hits[0]))


def measure(case: Case) -> Findings:
    """Yield the highest recall for each k and for benign fine-tuning, the steps until it is
    learnt again, and the curves.
    """
    view = case.own
    if (
        view is None
        or case.own_images is None
        or int(view.forget.sum()) < 2
        or not bool(view.having("retain").any())
    ):
        names = (
            *(f"relearn_recall_{k}" for k in SHOTS),
            "relearn_steps",
            "benign_recall",
            "relearn_ratio",
        )
        yield from missing(Need.REAL if view is None else Need.REST, *names)
        return
    chosen = _chosen(case, view, case.own_images)
    lessons = Lessons(
        chosen.seen_by(case.original.clip),
        chosen.seen_by(case.reference.clip) if case.reference else None,
    )
    for k in SHOTS:
        if k <= len(chosen.tuning):
            yield from _taught(case, view, lessons, k, f"relearn_recall_{k}")
        else:
            names = (
                f"relearn_recall_{k}",
                *(("relearn_steps", "relearn_ratio") if k == STEPS_OF else ()),
            )
            reason = (
                f"needs {k} images to learn from besides those it is measured on; there are "
                f"{len(chosen.tuning)}"
            )
            yield from (NotMeasured(name=name, reason=reason) for name in names)
    yield from _taught(case, view, lessons, 0, "benign_recall")


def _taught(case: Case, view: View, lessons: Lessons, k: int, name: str) -> Findings:
    seed = case.request.seed
    old, new = (
        relearn(subject, lessons.original, k, seed) for subject in (case.original, case.unlearned)
    )
    aim = (
        relearn(case.reference, lessons.reference, k, seed)
        if case.reference and lessons.reference
        else None
    )
    yield found(name, view.name, new.highest(), old.highest(), aim.highest() if aim else None)
    yield Curve(
        name=name,
        title=f"Recall while fine-tuned on {k} of its images"
        if k
        else "Recall while fine-tuned on other images alone",
        x_label="step",
        y_label="recall of what is forgotten",
        original=old.points(),
        unlearned=new.points(),
        reference=aim.points() if aim else (),
    )
    if k == STEPS_OF:
        level = (1 - ALPHA) * float(old.hits[0].float().mean())
        taken, goal = new.steps_to(level), aim.steps_to(level) if aim else None
        yield found("relearn_steps", view.name, taken, old.steps_to(level), goal)
        if goal:
            ratio = Value(value=taken.value / max(1.0, goal.value))
            yield found("relearn_ratio", view.name, ratio, detail=_bounds(taken, goal))
        else:
            yield from missing(Need.REFERENCE, "relearn_ratio")


def _bounds(taken: Value, goal: Value) -> str | None:
    """Return why a ratio of steps is a bound or says little, where it does."""
    if goal.value == 0:
        return "the reference recognises it from the start"
    late = [name for name, steps in (("model", taken), ("reference", goal)) if steps.value > STEPS]
    return f"not learnt again within {STEPS} steps: {' and '.join(late)}" if late else None


def relearn(subject: Subject, lesson: Lesson, k: int, seed: int = 0) -> Trace:
    """Return what a copy of a model recognises of the held-out images while it is trained; k = 0
    trains on what stays alone.
    """
    model = copy.deepcopy(subject.clip.model).requires_grad_(True)
    clip = replace(subject.clip, model=model)
    texts = [text for label in lesson.labels for text in prompts(label, (lesson.template,))]
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    trace = Trace([0], [_recognised(clip, texts, lesson.held_out)])
    for step in range(1, STEPS + 1):
        batch = _drawn(lesson.retained, RETAIN_BATCH, generator)
        if k:
            batch = Pictures(
                *map(
                    torch.cat,
                    zip(
                        batch, _drawn(lesson.tuning.first(k), FORGET_BATCH, generator), strict=True
                    ),
                )
            )
        logits = (
            clip.logit_scale
            * encode_images(clip, batch.pixels.to(clip.device))
            @ encode_texts(clip, texts).T
        )
        optimiser.zero_grad()
        F.cross_entropy(logits, batch.truth.to(clip.device)).backward()
        optimiser.step()
        if step % EVERY == 0:
            trace.steps.append(step)
            trace.hits.append(_recognised(clip, texts, lesson.held_out))
    return trace


@torch.no_grad()
def _recognised(clip: Clip, texts: list[str], pictures: Pictures) -> Tensor:
    images = encode_images(clip, pictures.pixels.to(clip.device))
    hits: Tensor = (images @ encode_texts(clip, texts).T).argmax(dim=1).cpu() == pictures.truth
    return hits


def _drawn(pictures: Pictures, count: int, generator: torch.Generator) -> Pictures:
    chosen = torch.randperm(len(pictures.truth), generator=generator)[:count]
    return Pictures(pictures.pixels[chosen], pictures.truth[chosen])


def _chosen(case: Case, view: View, images: ImageSet) -> Chosen:
    """Divide the images: those given to be forgotten are learnt from where there are any, else
    every other one of the own set's."""
    gone = [view.labels[index] for index in case.gone(view)]
    labels = [*gone, *nearest_labels(case, view, LABELS - len(gone))]
    forget = view.forget.nonzero().flatten().tolist()
    tuned = images.subset(forget[::2]) if case.given is None else case.given
    held_out = images.subset((forget[1::2] if case.given is None else forget)[:HELD_OUT])
    near = [
        i
        for i, (n, r) in enumerate(zip(view.names, view.roles, strict=True))
        if r == "retain" and n in labels
    ]
    retained = images.subset(near[:: max(1, len(near) // RETAINED)][:RETAINED])
    first_tuned = tuned.subset(range(min(len(tuned), max(SHOTS))))
    return Chosen(labels, view.templates[0], first_tuned, held_out, retained)
