"""What a request offers to measure on: the needs of the audit's measures that it meets, and the
places where it meets them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from shared.names import Spellings, key_set, name_key, spoken
from shared.request_rules.thesaurus import look_up
from shared.schemas.measure_catalogue import OWN_SET, SAMPLES, Need
from shared.schemas.request import ErasureRequest


@dataclass(frozen=True, slots=True)
class Offer:
    """What can be measured."""

    needs: frozenset[Need]
    real_places: tuple[str, ...]
    """The sets that show real images of what is forgotten; the first is the target's own."""
    transfer: bool
    """True where there is a set besides the target's own, with images of what stays."""
    with_others: tuple[str, ...] = ()
    """Of the places, those that show something else beside what is forgotten."""

    @property
    def real(self) -> bool:
        """True where there is a real image of what is forgotten."""
        return bool(self.real_places)


def offer_of(request: ErasureRequest, evaluation_classes: Mapping[str, Collection[str]]) -> Offer:
    """Return what a request offers.

    Args:
        request: what was asked.
        evaluation_classes: the classes found in each evaluation set, by the name that the request
            gives it.
    """
    names, subgroup = request.target.names(), request.target.type == "subgroup"
    gone, stays = key_set(names), key_set(request.target.labels) - key_set(names)
    shown = {name: key_set(classes) for name, classes in evaluation_classes.items()}
    holding = () if subgroup else tuple(name for name, keys in shown.items() if gone & keys)
    own_gone, own_rest = _own_images(request, needed=not holding)
    own = (OWN_SET,) if own_gone else ()
    places = own + holding if own_rest else holding + own
    left = {name: keys if subgroup else keys - gone for name, keys in shown.items()}
    left |= {
        name: shown[name] & stays for name in holding[:1]
    }  # the target's own set is measured with the labels
    with_others = tuple(name for name in places if (own_rest if name == OWN_SET else left[name]))
    transfer = any(left[name] for name in shown if name not in holding[:1]) or (
        own_rest and not own_gone
    )
    met = {
        Need.TARGET: bool(places) or makes_samples(request),
        Need.REAL: bool(places),
        Need.REST: places[:1] == with_others[:1] != (),
        Need.SIBLINGS: subgroup or bool(siblings(request)),
        Need.KIND: has_kinds(request),
        Need.SYNONYMS: any(other_names(request, name) for name in names),
        Need.TRANSLATIONS: any(look_up(name).translations for name in names),
        Need.TRANSFER: transfer,
        Need.GIVEN: request.data.forget is not None and bool(places),
        Need.REFERENCE: request.audit.reference is not None,
    }
    return Offer(
        frozenset(need for need, is_met in met.items() if is_met), places, transfer, with_others
    )


def makes_samples(request: ErasureRequest) -> bool:
    """True where the method makes synthetic samples of what is forgotten, or may choose one that
    does.
    """
    name = request.method.name
    return name == "synthetic" or (name == "auto" and request.target.type == "class")


def places_of(offer: Offer, needs: Collection[Need], method: str) -> tuple[str, ...]:
    """Return where a measure of what is forgotten can be taken; nowhere for measures of anything
    else.
    """
    if Need.TARGET in needs:
        return (*offer.real_places, SAMPLES) if method == "synthetic" else offer.real_places
    return offer.real_places[:1] if Need.REAL in needs else ()


def kind_of(request: ErasureRequest, label: str) -> str | None:
    """Return what a label is one of, as the request or the audit's words say."""
    kind = request.audit.kind_of(label) or look_up(label).kind
    return spoken(kind) if kind else None


def siblings(request: ErasureRequest) -> list[str]:
    """Return the labels of a class target that are of the same kind and stay."""
    gone = key_set(request.target.names())
    kinds = {kind_of(request, name) for name in request.target.names()} - {None}
    others = (label for label in request.target.labels if name_key(label) not in gone)
    return [label for label in others if kind_of(request, label) in kinds]


def has_kinds(request: ErasureRequest) -> bool:
    """True where the class has a kind, and some label another."""
    kinds = {
        kind_of(request, label) for label in (*request.target.names(), *request.target.labels)
    } - {None}
    return len(kinds) > 1 and all(kind_of(request, name) for name in request.target.names())


def other_names(request: ErasureRequest, name: str) -> list[str]:
    """Return other English names of a forgotten class: the request's, and those of the audit's
    words. No label is among them.
    """
    known = Spellings((*request.target.labels, *request.target.names()))
    names = (
        *request.target.synonyms_of(name),
        *request.audit.names_of(name),
        *look_up(name).synonyms,
    )
    return [spoken(other) for other in Spellings(names) if other not in known]


def _own_images(request: ErasureRequest, *, needed: bool) -> tuple[bool, bool]:
    """Return which held-out images of `data` are measured: of what is forgotten, and of what stays.

    Test images are, whatever else there is. Where they are `needed`, since no other set shows
    the target, a part of what a method learns from is held out, too: of what stays only beside
    what is forgotten."""
    data = request.data
    gone = bool(data.forget_test or (needed and data.forget))
    return gone, bool(data.retain_test or (needed and gone and data.retain))
