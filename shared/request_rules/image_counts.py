"""How many images a request is measured on, place by place, as far as that is known before its job
exists. Needs no torch.

A count is the most that there can be, of images that are different files: the worker leaves out
those that a method sees, and keeps copies of one file on one side of a split."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from shared.request_rules.measurable import Offer, siblings
from shared.schemas.measure_catalogue import OWN_SET, SAMPLES
from shared.schemas.methods.synthetic import SyntheticParameters, held_out_samples
from shared.schemas.request import ErasureRequest
from shared.splits import CALIBRATION_SHARE, TEST_SHARE, part_of

Classes = Collection[str]
"""The classes of a data set, spelled as the labels are and without images that are not measured:
a mapping of each to its number of images, or where that is unknown the names alone."""
Given = Mapping[str, Classes]
"""Classes by the pointer that names their data set in the request, e.g. `/data/forget`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The images of one place that shows what is forgotten. None is an unknown number."""

    name: str
    forget: tuple[int | None, ...]
    """Images of each forgotten class that it shows; of all together where they are not told
    apart.
    """
    rest: int | None
    """Images of what stays."""
    siblings: int | None
    """Of these, images of what is of the same kind."""

    @property
    def forgotten(self) -> int | None:
        """How many images show what is forgotten."""
        return total(self.forget)


def total(counts: Iterable[int | None]) -> int | None:
    """Return a sum, None where a part is unknown."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def images_of(classes: Classes, names: Iterable[str] | None = None) -> int | None:
    """Return how many images a set has, of some classes or of all; None where it is unknown."""
    chosen = set(classes) if names is None else set(classes) & set(names)
    if not isinstance(classes, Mapping):
        return None if chosen else 0
    return total(classes[name] for name in chosen)


def places(
    request: ErasureRequest,
    offer: Offer,
    evaluation: Mapping[str, Classes],
    given: Given,
    *,
    samples: bool,
) -> dict[str, Place]:
    """Return every place with images of what is forgotten, by its name: those of the offer, then
    held-out samples where it is sure that the method makes some."""
    found = [
        _own_set(request, given, alone=OWN_SET not in offer.with_others)
        if name == OWN_SET
        else _evaluation_set(request, name, evaluation[name])
        for name in offer.real_places
    ]
    found += [_samples(request)] if samples else []
    return {place.name: place for place in found}


def rest_of(request: ErasureRequest, classes: Classes) -> int | None:
    """Return how many images of an evaluation set show what stays."""
    gone = () if request.target.type == "subgroup" else request.target.names()
    return images_of(classes, set(classes) - set(gone))


def given_to_method(request: ErasureRequest, given: Given, *, split: bool) -> int | None:
    """Return how many images of `data.forget` a method learns from; `split` where some of them
    are held out to test.
    """
    count = 0 if request.data.forget is None else _given(given, "/data/forget")
    if count is None:
        return None
    learnt = count - part_of(count, TEST_SHARE) if split and count > 1 else count
    return learnt - part_of(learnt, CALIBRATION_SHARE) if learnt > 1 else learnt


def is_split(request: ErasureRequest, role: str) -> bool:
    """True where the images of `data.<role>` are parted into those to learn from and those to
    measure on, if at all.
    """
    return getattr(request.data, f"{role}_test") is None


def _own_set(request: ErasureRequest, given: Given, *, alone: bool) -> Place:
    forget, names = _held_out(request, given, "forget"), request.target.names()
    tested = given.get("/data/forget_test", ())
    told_apart = tested and set(tested) <= set(names) and not is_split(request, "forget")
    each = (
        tuple(images_of(tested, [name]) for name in names if name in tested)
        if told_apart
        else (forget,)
    )
    near = names if request.target.type == "subgroup" else siblings(request)
    return Place(
        name=OWN_SET,
        forget=each,
        rest=0 if alone else _held_out(request, given, "retain"),
        siblings=0 if alone else _held_out(request, given, "retain", near),
    )


def _held_out(
    request: ErasureRequest, given: Given, role: str, names: Iterable[str] | None = None
) -> int | None:
    """Return how many images of a role are measured on. How a split falls on single classes is
    unknown before it.
    """
    if not is_split(request, role):
        return _given(given, f"/data/{role}_test", names)
    count, chosen = (_given(given, f"/data/{role}", of) for of in (None, names))
    if count is None or chosen is None:
        return None
    return min(chosen, part_of(count, TEST_SHARE)) if count > 1 else 0


def _given(given: Given, pointer: str, names: Iterable[str] | None = None) -> int | None:
    """Return how many images a data set of the request has, of some classes or of all."""
    return images_of(given[pointer], names) if pointer in given else None


def _evaluation_set(request: ErasureRequest, name: str, classes: Classes) -> Place:
    return Place(
        name=name,
        forget=tuple(
            images_of(classes, [label]) for label in request.target.names() if label in classes
        ),
        rest=rest_of(request, classes),
        siblings=images_of(classes, siblings(request)),
    )


def _samples(request: ErasureRequest) -> Place:
    parameters = request.method.parsed()
    if not isinstance(parameters, SyntheticParameters):  # what auto tries has the defaults
        parameters = SyntheticParameters()
    each = held_out_samples(parameters.samples_per_class)
    return Place(name=SAMPLES, forget=(each,) * len(request.target.names()), rest=0, siblings=0)
