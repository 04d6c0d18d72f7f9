"""Whether one data set has two roles in a request that cannot both be: known before any image is
opened, by id or digest.

Sets that share some of their images are told by the worker (`worker.evaluation.separation`),
which has them at hand."""

from collections.abc import Iterator

from shared.errors import FieldError
from shared.schemas.methods import METHOD_IMAGES
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import LISTS, DataSource, DataSources

LEARNT = ("forget", "retain", "calibration", "proxy")
"""The fields of `data` that a method may learn from or be steered by."""

_CONTRADICTION = "an image cannot be forgotten and kept; give a set without these images"
_SET_ASIDE = "give others, or leave it out: a part of data.forget and data.retain is set aside"
_DISTILLED = "what is to go would be distilled again; give others, or leave it out"
_HELD_OUT = (
    "nothing of it would be left to measure on; leave it out, and a fifth of what is "
    "learnt from is held out"
)
_OTHER = "nothing of it would be left to measure on; give a set that the method does not see"
_ALWAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "retain": (("forget", "forget_test"), _CONTRADICTION),
    "retain_test": (("forget", "forget_test"), _CONTRADICTION),
    "earlier": (("retain", "calibration", "retain_test"), _CONTRADICTION),
}
"""Role -> the roles that it cannot share a data set with, and why, whatever the method does."""
_LEARNING: dict[str, tuple[tuple[str, ...], str]] = {
    "calibration": (("forget", "retain"), _SET_ASIDE),
    "proxy": (("forget", "forget_test", "earlier"), _DISTILLED),
    "forget_test": ((*LEARNT, "earlier"), _HELD_OUT),
    "retain_test": (LEARNT, _HELD_OUT),
    "evaluation": ((*LEARNT, "earlier"), _OTHER),
    "earlier": (("forget",), _OTHER),
}
"""The same where the method looks at images."""


def learns_from_images(request: ErasureRequest) -> bool:
    """Return whether the method may look at images; others work from names alone, whatever a
    request gives.
    """
    return request.method.name == "auto" or bool(METHOD_IMAGES[request.method.name])


def role_errors(request: ErasureRequest, data: DataSources) -> list[FieldError]:
    """Return which data sets stand in two roles that exclude each other; each set is named once."""
    errors: dict[str, FieldError] = {}
    for rules in (_ALWAYS, _LEARNING) if learns_from_images(request) else (_ALWAYS,):
        for role, (others, why) in rules.items():
            for pointer, source in _of(data, role):
                other = next(
                    (o for o in others if any(_same(source, found) for _, found in _of(data, o))),
                    None,
                )
                if other is not None:
                    errors.setdefault(
                        pointer, FieldError(pointer, f"is the data set of data.{other}, too: {why}")
                    )
    return list(errors.values())


def _of(data: DataSources, role: str) -> Iterator[tuple[str, DataSource]]:
    """Yield the data sets of a role, each with where the request names it."""
    if role in LISTS:
        yield from (
            (f"/data/{role}/{number}/dataset", source)
            for number, source in enumerate(getattr(data, role))
        )
    elif (source := getattr(data, role)) is not None:
        yield f"/data/{role}", source


def _same(one: DataSource, other: DataSource) -> bool:
    return one.uri == other.uri or (one.digest is not None and one.digest == other.digest)
