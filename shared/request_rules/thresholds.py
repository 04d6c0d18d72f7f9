"""Which thresholds a request is judged by: its own, and defaults where it says nothing and one
can be measured and met.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.errors import FieldError, InvalidRequest
from shared.intervals import images_for_upper_end, lowest_upper_end
from shared.names import Spellings
from shared.request_rules.image_counts import (
    Classes,
    Given,
    Place,
    given_to_method,
    images_of,
    is_split,
    places,
    rest_of,
)
from shared.request_rules.measurable import Offer, makes_samples, offer_of, places_of
from shared.request_rules.reach import Counts, lacks_images, unmet
from shared.schemas.audit import MeasureThreshold
from shared.schemas.measure_catalogue import CATALOGUE, LACKS, OTHERS, OWN_SET, SAMPLES, Need
from shared.schemas.methods import AutoParameters
from shared.schemas.request import ErasureRequest, Thresholds

UPPER_END = "max_forget_upper_end"
DEFAULTS = {
    "max_forget_accuracy": 0.05,
    UPPER_END: 0.2,
    "max_retain_drop": 0.02,
    "max_transfer_drop": 0.02,
    "max_synthetic_accuracy": 0.05,
    "max_earlier_accuracy": 0.05,
}
FORGETTING = {"max_forget_accuracy", "max_synthetic_accuracy"}
"""Of these, one must be measurable: a model is not published because nobody looked."""


@dataclass(frozen=True, slots=True)
class ResolvedThresholds:
    """The thresholds that apply, and what the requester should know of them."""

    thresholds: Thresholds
    notes: tuple[FieldError, ...] = ()
    """Defaults that were left out although the request gives something to measure them on, and
    why.
    """


def resolve_thresholds(
    request: ErasureRequest, evaluation_classes: Mapping[str, Classes], given: Given | None = None
) -> ResolvedThresholds:
    """Return the thresholds that apply.

    Args:
        request: what was asked.
        evaluation_classes: the classes found in each evaluation set, by the name that the request
            gives it; with the number of images of each where it is known.
        given: the same of the other data sets, by the pointer that names each in the request, e.g.
            `/data/forget`.

    Raises:
        InvalidRequest: a threshold was asked for that the request's data cannot answer, or that no
            result could meet with so few images, or there is nothing to tell by whether the target
            is forgotten.
    """
    asked = _Asked(request, offer_of(request, evaluation_classes), evaluation_classes, given or {})
    measurable = _measurable(request, asked.offer)
    if not FORGETTING & set(measurable) or asked.without_rest():
        raise InvalidRequest.at("/data/evaluation", _NOTHING.format(request.method.name))
    wanted = {
        name: getattr(request.thresholds, name) for name in request.thresholds.model_fields_set
    }
    if "measures" in wanted:
        known = Spellings((OWN_SET, SAMPLES, *evaluation_classes))
        wanted["measures"] = tuple(
            _spelled(threshold, known) for threshold in request.thresholds.measures
        )
    hopeless = sorted(
        name for name in set(wanted) - set(measurable) - {"measures"} if wanted[name] is not None
    )
    errors = [FieldError(f"/thresholds/{name}", _WHY[name]) for name in hopeless]
    errors += _single_images(request, asked)
    defaults = {name: DEFAULTS[name] for name in measurable.values() if name and name not in wanted}
    notes: list[FieldError] = []
    few = _too_few(asked.real(), {**defaults, **wanted}.get(UPPER_END))
    if few and UPPER_END in defaults:
        del defaults[UPPER_END]
        notes.append(FieldError(f"/thresholds/{UPPER_END}", f"is left out: {few}"))
    elif few and UPPER_END not in hopeless:
        errors.append(FieldError(f"/thresholds/{UPPER_END}", f"cannot be met: {few}"))
    thresholds = Thresholds.model_validate(defaults | wanted)
    for number, threshold in enumerate(thresholds.measures):
        errors += _measure_errors(asked, thresholds, threshold, f"/thresholds/measures/{number}")
    if errors:
        raise InvalidRequest(errors)
    return ResolvedThresholds(thresholds, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request with what it offers to measure on."""

    request: ErasureRequest
    offer: Offer
    evaluation: Mapping[str, Classes]
    given: Given

    def real(self) -> list[Place]:
        """Return the places with real images of what is forgotten, the target's own first."""
        return list(
            places(self.request, self.offer, self.evaluation, self.given, samples=False).values()
        )

    def without_rest(self) -> bool:
        """True where images of what is forgotten are all that there is: held out of `data`, with
        nothing beside them.
        """
        alone = self.offer.real_places == (OWN_SET,) and not self.offer.with_others
        return alone and not makes_samples(self.request)

    def counts(self, thresholds: Thresholds) -> dict[str, Counts]:
        """Return what each place offers to a measure, by the place's name."""
        found = places(
            self.request,
            self.offer,
            self.evaluation,
            self.given,
            samples=_sampled(self.request, thresholds),
        )
        split = OWN_SET in found and is_split(self.request, "forget")
        learnt = given_to_method(self.request, self.given, split=split)
        return {
            name: Counts(place=place, given=learnt)
            for name, place in (found | self._others()).items()
        }

    def _others(self) -> dict[str, Place]:
        """Return what the largest of the other sets offers to measures of what is lost there."""
        own = next((name for name in self.offer.real_places if name in self.evaluation), None)
        rests = [
            rest_of(self.request, classes)
            for name, classes in self.evaluation.items()
            if name != own
        ]
        largest = None if None in rests else max((n for n in rests if n is not None), default=0)
        return {OTHERS: Place(name=OTHERS, forget=(), rest=largest, siblings=None)}


def _sampled(request: ErasureRequest, thresholds: Thresholds) -> bool:
    """True where it is sure that what is published was made by a method that leaves held-out
    samples.
    """
    parameters = request.method.parsed()
    if not isinstance(parameters, AutoParameters):
        return request.method.name == "synthetic"
    only = set(parameters.methods) == {"synthetic"}
    return makes_samples(request) and (only or thresholds.max_synthetic_accuracy is not None)


def _too_few(shown: list[Place], bound: float | None) -> str | None:
    """Return why the upper end of the forget accuracy cannot be within a bound, None where it
    can, or without one.
    """
    wanted = None if bound is None else images_for_upper_end(bound)
    if bound is None or not shown:
        return None
    if wanted is None:
        return (
            f"no number of images brings the upper end of a 95 % interval down to {bound:g}; "
            "give another bound"
        )
    for place in shown:
        n = place.forgotten
        if n is None:
            return (
                f"it is not known how many images {place.name!r} has of what is forgotten; "
                f"{wanted} are needed"
            )
        if n < wanted:
            end = (
                f"; with {n}, the upper end cannot fall under {lowest_upper_end(n):.2g}"
                if n
                else ""
            )
            return (
                f"{bound:g} needs {wanted} images of what is forgotten, and {place.name!r} has "
                f"{n}{end}"
            )
    return None


def _single_images(request: ErasureRequest, asked: _Asked) -> Iterator[FieldError]:
    """Yield the sets that cannot be parted into images to learn from and images to measure on."""
    parted = [f"/data/earlier/{number}/dataset" for number in range(len(request.data.earlier))]
    if OWN_SET in asked.offer.real_places:
        roles = ("forget", "retain") if OWN_SET in asked.offer.with_others else ("forget",)
        parted += [f"/data/{role}" for role in roles if is_split(request, role)]
    for pointer in parted:
        if images_of(asked.given.get(pointer, ())) == 1:
            yield FieldError(
                pointer,
                "holds a single image, so that none is left to measure on; give two at least",
            )


def _spelled(threshold: MeasureThreshold, places: Spellings) -> MeasureThreshold:
    """Return a threshold whose place is spelled as the report spells it."""
    where = threshold.where and places.get(threshold.where)
    return threshold.model_copy(update={"where": where}) if where != threshold.where else threshold


def _measurable(request: ErasureRequest, offer: Offer) -> dict[str, str | None]:
    """Return the thresholds that can be answered; the value is the name again where a default
    belongs to it.
    """
    measurable: dict[str, str | None] = {}
    if offer.real:
        measurable |= {"max_forget_accuracy": "max_forget_accuracy"}
        measurable |= {UPPER_END: UPPER_END if _is_strict(request.thresholds) else None}
    if Need.REST in offer.needs:
        measurable |= {"max_retain_drop": "max_retain_drop"}
    if offer.transfer:
        measurable |= {"max_transfer_drop": "max_transfer_drop"}
    if request.data.earlier:
        measurable |= {"max_earlier_accuracy": "max_earlier_accuracy"}
    if makes_samples(request):
        measurable |= {"max_synthetic_accuracy": None if offer.real else "max_synthetic_accuracy"}
    return measurable


def _is_strict(asked: Thresholds) -> bool:
    """True where a request bounds the forget accuracy as tightly as the default does, or leaves
    it to the default.
    """
    if "max_forget_accuracy" not in asked.model_fields_set:
        return True
    return (
        asked.max_forget_accuracy is not None
        and asked.max_forget_accuracy <= DEFAULTS["max_forget_accuracy"]
    )


def _measure_errors(
    asked: _Asked, thresholds: Thresholds, threshold: MeasureThreshold, pointer: str
) -> list[FieldError]:
    """Return why a measure cannot be taken at the request's level, on its data or where the
    threshold wants it, or why its bounds cannot be met."""
    entry, measure = CATALOGUE[threshold.measure], threshold.measure
    if Need.CAPTIONS in entry.needs:
        return [FieldError(f"{pointer}/measure", f"{measure} {_UNREAD}")]
    lacking = [LACKS[need] for need in entry.needs if need not in asked.offer.needs]
    if lacking:
        return [FieldError(f"{pointer}/measure", f"{measure} {lacking[0]}")]
    if entry.level == "thorough" and asked.request.audit.level != "thorough":
        detail = f"{measure} is taken in a thorough audit alone: set audit.level to thorough"
        return [FieldError(f"{pointer}/measure", detail)]
    known = _places(asked, threshold)
    if not known and Need.TARGET in entry.needs and measure in _BESIDE_OTHERS:
        return [FieldError(f"{pointer}/measure", f"{measure} {LACKS[Need.REST]}")]
    if threshold.where is not None and threshold.where not in Spellings(known):
        there = (
            f"it is taken on: {', '.join(known)}"
            if known
            else "it is taken in one place; leave where out"
        )
        return [
            FieldError(
                f"{pointer}/where", f"{measure} is not taken on {threshold.where!r}; {there}"
            )
        ]
    return list(_unanswerable(asked, thresholds, threshold, known, pointer))


def _places(asked: _Asked, threshold: MeasureThreshold) -> tuple[str, ...]:
    """Return where a measure of what is forgotten is taken."""
    known = places_of(asked.offer, CATALOGUE[threshold.measure].needs, asked.request.method.name)
    if threshold.measure in _BESIDE_OTHERS:
        return tuple(name for name in known if name in asked.offer.with_others)
    return known


def _unanswerable(
    asked: _Asked,
    thresholds: Thresholds,
    threshold: MeasureThreshold,
    known: tuple[str, ...],
    pointer: str,
) -> Iterator[FieldError]:
    """Yield why a threshold cannot be answered or met with so many images, for the first place
    where that is so.
    """
    counts = asked.counts(thresholds)
    judged = (
        [threshold.where] if threshold.where is not None else known or asked.offer.real_places[:1]
    )
    needs = CATALOGUE[threshold.measure].needs
    if not known and Need.TARGET in needs:
        judged = [SAMPLES]  # auto, where it will have made some
    if Need.TRANSFER in needs:
        judged = [OTHERS]
    for name in judged:
        if name in counts:
            others = tuple(other for other in known if other != name)
            lacking = lacks_images(threshold.measure, counts[name])
            errors = (
                [FieldError("measure", lacking)]
                if lacking
                else unmet(threshold, counts[name], others)
            )
            found = [FieldError(f"{pointer}/{error.pointer}", error.detail) for error in errors]
            if found:
                yield from found
                return


_BESIDE_OTHERS = frozenset({"class_auc"})
"""Measures of what is forgotten that are taken only where a place shows something else, too."""
_NOTHING = (
    "gives nothing to tell by whether the target is forgotten; add a set that holds the class, or "
    "data.forget_test and "
    "data.retain_test ({} makes no synthetic samples, which would do for names alone)"
)
_UNREAD = (
    "is reported where a set has captions, but is no threshold: whether it has any is first "
    "seen by the worker"
)
_WHY = {
    "max_forget_accuracy": (
        "needs real images of what is forgotten: add an evaluation set that holds the class"
    ),
    UPPER_END: "needs real images of what is forgotten: add an evaluation set that holds the class",
    "max_retain_drop": LACKS[Need.REST],
    "max_transfer_drop": (
        "needs an evaluation set besides the target's own, with images of other classes"
    ),
    "max_earlier_accuracy": "needs images of what earlier erasures took away, in data.earlier",
    "max_synthetic_accuracy": (
        "needs synthetic samples, which only the method synthetic (or auto, for a class) makes"
    ),
}
