"""Which images a request gives to learn from and which to measure on. No image is in both."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

from shared.errors import JobFailure
from shared.request_rules.classes import labels_of, measured_sets, spelled
from shared.schemas.report import Role, Separation
from shared.schemas.request import ErasureRequest
from shared.schemas.resolution import MeasuredSet
from worker.data.images import ImageSet
from worker.data.splits import CALIBRATION_SHARE, TEST_SHARE, can_split, split
from worker.evaluation.evaluation import Measurement, check_labels
from worker.evaluation.separation import (
    Opened,
    check_contradictions,
    check_target_left,
    separated,
    with_lookalikes,
)
from worker.methods.frame import MethodData


@dataclass(frozen=True, slots=True)
class Plan:
    """What the method learns from, what is measured, and every label of the target's set."""

    data: MethodData
    measurements: tuple[Measurement, ...]
    labels: tuple[str, ...]
    screening: Measurement | None = None
    """Calibration images, measured like the target's own set: what `auto` may look at before the
    test images.
    """
    sets: tuple[MeasuredSet, ...] = ()
    """What each evaluation set is to the request, and which of its images are left out."""
    separation: tuple[Separation, ...] = ()
    """What the sets of the request had in common."""


def make_plan(request: ErasureRequest, opened: Opened) -> Plan:
    """Return the plan of a request.

    Raises:
        JobFailure: `invalid_dataset`: the images do not fit the request.
    """
    check_contradictions(opened)
    labels = _labels(request, opened)
    given = _spelled(request, opened, labels)
    opened, pairs = separated(request, given)
    check_target_left(request, labels, given, opened)
    sets = measured_sets(
        request,
        labels,
        [
            (e.name, Counter(i.names()))
            for e, i in zip(request.data.evaluation, opened.evaluation, strict=True)
        ],
    )
    measurements = [
        _measured(request, entry, images)
        for entry, images in zip(sets, opened.evaluation, strict=True)
    ]
    needs_target = not any(m.role == "target" for m in measurements)
    forget, forget_test = _held_out(opened.forget, opened.forget_test, needed=needs_target)
    beside = needs_target and forget_test is not None
    retain, retain_test = _held_out(opened.retain, opened.retain_test, needed=beside)
    if forget_test and retain_test:
        check_labels("retain", retain_test, labels)
        measurements.insert(0, _own_set("target", request, forget_test, retain_test, labels))
    elif forget_test or retain_test:
        measurements.append(_lone_set(request, forget_test, retain_test, labels, own=needs_target))
    earlier = [_divided(images) for images in opened.earlier]
    measurements += _earlier_sets(request, [test for _, test in earlier], labels)
    data = replace(
        _method_data(opened, forget, retain), earlier=_all([known for known, _ in earlier])
    )
    screening = _screening(request, data, labels) if request.method.name == "auto" else None
    pairs = with_lookalikes(pairs, request, opened, data, measurements)
    return Plan(data, tuple(measurements), labels, screening, sets, pairs)


def _labels(request: ErasureRequest, opened: Opened) -> tuple[str, ...]:
    shown = (images for images in (opened.retain, opened.retain_test) if images)
    labels = labels_of(request, {name for images in shown for name in images.names()})
    if len(labels) < 2:
        raise JobFailure(
            "invalid_dataset",
            "data.retain holds the target's class alone; add other classes, or give labels.",
        )
    return labels


def _spelled(request: ErasureRequest, opened: Opened, labels: tuple[str, ...]) -> Opened:
    """Return the sets with every folder called as the label that it is: from here on equal names
    are equal texts.
    """

    def called(images: ImageSet | None, known: tuple[str, ...] = labels) -> ImageSet | None:
        return images and images.renamed(spelled(images.classes, known))

    of_earlier = zip(request.data.earlier, opened.earlier, strict=True)
    return Opened(
        forget=called(opened.forget),
        retain=called(opened.retain),
        calibration=called(opened.calibration),
        proxy=opened.proxy,
        forget_test=called(opened.forget_test),
        retain_test=called(opened.retain_test),
        evaluation=tuple(
            own for images in opened.evaluation if (own := called(images)) is not None
        ),
        earlier=tuple(
            own
            for e, images in of_earlier
            if (own := called(images, e.labels or labels)) is not None
        ),
    )


def _measured(request: ErasureRequest, entry: MeasuredSet, images: ImageSet) -> Measurement:
    """Return how an evaluation set is measured; images of a target's set that no label stands
    for are left out.
    """
    gone = set(request.target.names()) if request.target.type == "class" else set()
    if entry.left_out:
        kept = [number for number, name in enumerate(images.names()) if name not in entry.left_out]
        images = images.subset(kept)
    return Measurement(
        name=entry.name,
        role=entry.role,
        images=images,
        roles=tuple("forget" if name in gone else "retain" for name in images.names()),
        labels=entry.labels,
        templates=request.target.templates,
    )


def _held_out(
    images: ImageSet | None, test: ImageSet | None, *, needed: bool
) -> tuple[ImageSet | None, ImageSet | None]:
    """Return (to learn from, to measure on)."""
    if images is None or test is not None or not needed:
        return images, test
    return _divided(images)


def _divided(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return (to learn from, to measure on)."""
    if not can_split(images):
        raise JobFailure(
            "invalid_dataset",
            f"The data set {images.name!r} holds a single image: none is left to measure on.",
        )
    return split(images, TEST_SHARE)


def _own_set(
    name: str, request: ErasureRequest, forget: ImageSet, retain: ImageSet, labels: tuple[str, ...]
) -> Measurement:
    """Return a measurement of the target's own set, of forget and retain images that nothing was
    learnt from.
    """
    target = request.target.names()
    if not set(forget.names()) <= set(target):
        if len(set(forget.names())) > 1:
            raise JobFailure(
                "invalid_dataset",
                "data.forget holds several classes; it must show the target's class alone.",
            )
        forget = _renamed(
            forget, target[0]
        )  # one folder, whatever its name: the images are what counts
    sibling: Role = "sibling" if request.target.type == "subgroup" else "forget"
    images = _joined(name, forget, retain)
    gone: list[Role] = ["forget"] * len(forget)
    kept: list[Role] = [sibling if label in target else "retain" for label in retain.names()]
    return Measurement(
        name=name,
        role="target",
        images=images,
        roles=(*gone, *kept),
        labels=labels,
        templates=request.target.templates,
    )


def _lone_set(
    request: ErasureRequest,
    forget: ImageSet | None,
    retain: ImageSet | None,
    labels: tuple[str, ...],
    *,
    own: bool,
) -> Measurement:
    """Return a measurement of test images of one side alone: the target's own where no other set
    shows the target.
    """
    given = forget or retain
    if given is None:
        raise ValueError("there is neither side")
    if retain:
        check_labels("retain", retain, labels)
    measured = _own_set(
        "target", request, forget or given.subset([]), retain or given.subset([]), labels
    )
    return measured if own and forget else replace(measured, role="transfer")


def _earlier_sets(
    request: ErasureRequest, tests: Sequence[ImageSet], labels: tuple[str, ...]
) -> list[Measurement]:
    """What earlier erasures took away is measured with the labels that they knew, where the
    request says so.
    """
    measurements = []
    for entry, images in zip(request.data.earlier, tests, strict=True):
        check_labels(entry.name, images, entry.labels or labels)
        gone: list[Role] = ["forget"] * len(images)
        measurements.append(
            Measurement(
                name=entry.name,
                role="earlier",
                images=images,
                roles=tuple(gone),
                labels=entry.labels or labels,
                templates=request.target.templates,
            )
        )
    return measurements


def _screening(
    request: ErasureRequest, data: MethodData, labels: tuple[str, ...]
) -> Measurement | None:
    """Return how calibration images are measured: those of what is forgotten, and those that
    show another label.
    """
    if data.calibration_forget is None:
        return None
    retain = data.calibration_retain or data.calibration_forget.subset([])
    known = [number for number, name in enumerate(retain.names()) if name in labels]
    return _own_set(
        "calibration images", request, data.calibration_forget, retain.subset(known), labels
    )


def _renamed(images: ImageSet, name: str) -> ImageSet:
    return replace(images, labels=(0,) * len(images), classes=(name,))


def _all(sets: Sequence[ImageSet]) -> ImageSet | None:
    return reduce(partial(_joined, "earlier"), sets) if sets else None


def _joined(name: str, first: ImageSet, second: ImageSet) -> ImageSet:
    classes = tuple(dict.fromkeys((*first.classes, *second.classes)))
    index = {name: number for number, name in enumerate(classes)}
    names = first.names() + second.names()
    captions = [images.captions or (None,) * len(images) for images in (first, second)]
    return ImageSet(
        name=name,
        digest=f"{first.digest}+{second.digest}",
        paths=first.paths + second.paths,
        labels=tuple(index[name] for name in names),
        classes=classes,
        captions=captions[0] + captions[1],
        known=first.known | second.known,
        members=first.members | second.members,
    )


def _method_data(opened: Opened, forget: ImageSet | None, retain: ImageSet | None) -> MethodData:
    """Set calibration images aside. Given ones count for what stays: nobody can tell whether
    they show the subgroup.
    """
    forget, calibration_forget = _set_aside(forget)
    if opened.calibration is not None:
        calibration_retain: ImageSet | None = opened.calibration
    else:
        retain, calibration_retain = _set_aside(retain)
    return MethodData(forget, retain, calibration_forget, calibration_retain, opened.proxy)


def _set_aside(images: ImageSet | None) -> tuple[ImageSet | None, ImageSet | None]:
    """Return (to learn from, to choose with): the same where there is but one image."""
    return (
        (images, images)
        if images is None or not can_split(images)
        else split(images, CALIBRATION_SHARE)
    )
