"""Which thresholds a request is judged by: its own, and defaults where it says nothing and one can be measured."""

from collections.abc import Collection, Mapping

from shared.errors import FieldError, InvalidRequest
from shared.measures import CATALOGUE, LACKS, OWN_SET, SAMPLES, Need
from shared.names import Spellings
from shared.schemas.audit import MeasureThreshold
from shared.schemas.offers import Offer, makes_samples, offer_of, places_of
from shared.schemas.request import ErasureRequest, Thresholds

DEFAULTS = {
    "max_forget_accuracy": 0.05,
    "max_retain_drop": 0.02,
    "max_transfer_drop": 0.02,
    "max_synthetic_accuracy": 0.05,
    "max_earlier_accuracy": 0.05,
}
FORGETTING = {"max_forget_accuracy", "max_synthetic_accuracy"}
"""Of these, one must be measurable: a model is not published because nobody looked."""


def resolve_thresholds(request: ErasureRequest, evaluation_classes: Mapping[str, Collection[str]]) -> Thresholds:
    """Return the thresholds that apply.

    Args:
        request: what was asked.
        evaluation_classes: the classes found in each evaluation set, by the name that the request gives it.

    Raises:
        InvalidRequest: a threshold was asked for that the request's data cannot answer, or there is nothing to tell by whether
            the target is forgotten.
    """
    offer = offer_of(request, evaluation_classes)
    measurable = _measurable(request, offer)
    if not FORGETTING & set(measurable):
        raise InvalidRequest.at("/data/evaluation", _NOTHING.format(request.method.name))
    given = request.thresholds.model_fields_set - {"measures"}
    hopeless = sorted(name for name in given - set(measurable) if getattr(request.thresholds, name) is not None)
    errors = [FieldError(f"/thresholds/{name}", _WHY[name]) for name in hopeless]
    for number, threshold in enumerate(request.thresholds.measures):
        errors += _measure_errors(request, offer, threshold, f"/thresholds/measures/{number}")
    if errors:
        raise InvalidRequest(errors)
    values = {name: getattr(request.thresholds, name) for name in request.thresholds.model_fields_set}
    if "measures" in values:
        places = Spellings((OWN_SET, SAMPLES, *evaluation_classes))
        values["measures"] = tuple(_spelled(threshold, places) for threshold in request.thresholds.measures)
    return Thresholds.model_validate({name: DEFAULTS[name] for name in measurable.values() if name} | values)


def _spelled(threshold: MeasureThreshold, places: Spellings) -> MeasureThreshold:
    """Return a threshold whose place is spelled as the report spells it."""
    where = threshold.where and places.get(threshold.where)
    return threshold.model_copy(update={"where": where}) if where != threshold.where else threshold


def _measurable(request: ErasureRequest, offer: Offer) -> dict[str, str | None]:
    """Return the thresholds that can be answered; the value is the name again where a default belongs to it."""
    measurable: dict[str, str | None] = {}
    if offer.real:
        measurable |= {"max_forget_accuracy": "max_forget_accuracy", "max_retain_drop": "max_retain_drop"}
    if offer.transfer:
        measurable |= {"max_transfer_drop": "max_transfer_drop"}
    if request.data.earlier:
        measurable |= {"max_earlier_accuracy": "max_earlier_accuracy"}
    if makes_samples(request):
        measurable |= {"max_synthetic_accuracy": None if offer.real else "max_synthetic_accuracy"}
    return measurable


def _measure_errors(
    request: ErasureRequest, offer: Offer, threshold: MeasureThreshold, pointer: str
) -> list[FieldError]:
    """Return why a measure cannot be taken at the request's level, on its data, or where the threshold wants it."""
    entry = CATALOGUE[threshold.measure]
    if Need.CAPTIONS in entry.needs:
        return [FieldError(f"{pointer}/measure", f"{threshold.measure} {_UNREAD}")]
    lacking = [LACKS[need] for need in entry.needs if need not in offer.needs]
    if lacking:
        return [FieldError(f"{pointer}/measure", f"{threshold.measure} {lacking[0]}")]
    if entry.level == "thorough" and request.audit.level != "thorough":
        detail = f"{threshold.measure} is taken in a thorough audit alone: set audit.level to thorough"
        return [FieldError(f"{pointer}/measure", detail)]
    places = places_of(offer, entry.needs, request.method.name)
    if threshold.where is not None and threshold.where not in Spellings(places):
        known = f"it is taken on: {', '.join(places)}" if places else "it is taken in one place; leave where out"
        return [FieldError(f"{pointer}/where", f"{threshold.measure} is not taken on {threshold.where!r}; {known}")]
    return []


_NOTHING = (
    "gives nothing to tell by whether the target is forgotten; add a set that holds the class, or data.forget_test and "
    "data.retain_test ({} makes no synthetic samples, which would do for names alone)"
)
_UNREAD = "is reported where a set has captions, but is no threshold: whether it has any is first seen by the worker"
_WHY = {
    "max_forget_accuracy": "needs real images of what is forgotten: add an evaluation set that holds the class",
    "max_retain_drop": "needs real images of the rest of the target's set: add an evaluation set that holds the class",
    "max_transfer_drop": "needs an evaluation set besides the target's own",
    "max_earlier_accuracy": "needs images of what earlier erasures took away, in data.earlier",
    "max_synthetic_accuracy": "needs synthetic samples, which only the method synthetic (or auto, for a class) makes",
}
