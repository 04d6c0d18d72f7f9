"""Which thresholds a request is judged by: its own, and defaults where it says nothing and one can be measured."""

from collections.abc import Collection, Mapping

from shared.errors import FieldError, InvalidRequest
from shared.schemas.request import Data, ErasureRequest, Thresholds

DEFAULTS = {
    "max_forget_accuracy": 0.05,
    "max_retain_drop": 0.02,
    "max_transfer_drop": 0.02,
    "max_synthetic_accuracy": 0.05,
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
    measurable = _measurable(request, evaluation_classes)
    if not FORGETTING & set(measurable):
        raise InvalidRequest.at("/data/evaluation", _NOTHING.format(request.method.name))
    asked = {name for name in request.thresholds.model_fields_set if getattr(request.thresholds, name) is not None}
    hopeless = sorted(asked - set(measurable))
    if hopeless:
        raise InvalidRequest([FieldError(f"/thresholds/{name}", _WHY[name]) for name in hopeless])
    values = {name: getattr(request.thresholds, name) for name in request.thresholds.model_fields_set}
    return Thresholds.model_validate({name: DEFAULTS[name] for name in measurable.values() if name} | values)


def _measurable(request: ErasureRequest, evaluation_classes: Mapping[str, Collection[str]]) -> dict[str, str | None]:
    """Return the thresholds that can be answered; the value is the name again where a default belongs to it."""
    names = set(request.target.names())
    holding = [name for name, classes in evaluation_classes.items() if names & set(classes)]
    real = request.target.type == "subgroup" or bool(holding) or _own_images(request.data)
    transfer = len(evaluation_classes) - (1 if request.target.type == "class" and holding else 0) > 0
    measurable: dict[str, str | None] = {}
    if real:
        measurable |= {"max_forget_accuracy": "max_forget_accuracy", "max_retain_drop": "max_retain_drop"}
    if transfer:
        measurable |= {"max_transfer_drop": "max_transfer_drop"}
    if request.method.name == "synthetic" or (request.method.name == "auto" and request.target.type == "class"):
        measurable |= {"max_synthetic_accuracy": None if real else "max_synthetic_accuracy"}
    return measurable


def _own_images(data: Data) -> bool:
    """True where what is forgotten and what stays are shown apart, so that some images of both can be measured on."""
    return bool((data.forget or data.forget_test) and (data.retain or data.retain_test))


_NOTHING = (
    "gives nothing to tell by whether the target is forgotten; add a set that holds the class, or data.forget_test and "
    "data.retain_test ({} makes no synthetic samples, which would do for names alone)"
)
_WHY = {
    "max_forget_accuracy": "needs real images of what is forgotten: add an evaluation set that holds the class",
    "max_retain_drop": "needs real images of the rest of the target's set: add an evaluation set that holds the class",
    "max_transfer_drop": "needs an evaluation set besides the target's own",
    "max_synthetic_accuracy": "needs synthetic samples, which only the method synthetic (or auto, for a class) makes",
}
